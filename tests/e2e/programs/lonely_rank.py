"""Two ranks reduce for ever; the other one is lost, and this one says what it saw."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

dist.init_process_group("nccl")
print(f"rank {dist.get_rank()} pid {os.getpid()}", flush=True)
x = torch.ones(1000, device="cuda")
kept = torch.arange(3.0, device="cuda")
steps = 0
try:
    while True:
        dist.all_reduce(x)
        x.div_(2)
        x.sum().item()
        steps += 1
        if steps == 3:
            print("reducing", flush=True)
except RuntimeError as error:
    print("ERROR", str(error).splitlines()[0], flush=True)
print("KEPT", (kept * 2).tolist(), flush=True)
print("FRESH", torch.ones(2, device="cuda").sum().item(), flush=True)
os._exit(0)  # no part of torch waits for the lost rank
