"""Copies much from one device to the other, whose worker is killed meanwhile."""

from __future__ import annotations

import torch

names = [torch.cuda.get_device_name(i).rpartition(" on ")[2] for i in range(2)]
x = torch.ones(64 << 18, device="cuda:0")
y = torch.zeros(64 << 18, device="cuda:1")
kept = torch.arange(3.0, device="cuda:1")
torch.cuda.synchronize(0)
torch.cuda.synchronize(1)
for _ in range(40):
    y.copy_(x)
print("copying from", names[0], flush=True)
try:
    print("SUM", y.sum().item(), flush=True)
except RuntimeError as error:
    print("COPY", str(error).splitlines()[0], flush=True)
try:
    print("SUM", x.sum().item(), flush=True)
except RuntimeError as error:
    print("GONE", str(error).splitlines()[0], flush=True)
try:
    torch.zeros(3, device="cuda:1").copy_(x[:3])
except RuntimeError as error:
    print("LATER", str(error).splitlines()[0], flush=True)
print("KEPT", (kept * 2).tolist(), flush=True)
del y
print("FRESH", torch.ones(2, device="cuda:1").sum().item(), flush=True)
