"""A program that sets the default device once and never names it again."""

# programs: alone
import json

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_default_device(device)
torch.set_default_dtype(torch.float64)
torch.set_float32_matmul_precision("high")
torch.backends.cudnn.benchmark = True
torch.backends.cuda.matmul.allow_tf32 = True
torch.use_deterministic_algorithms(True, warn_only=True)
model = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 1))
with torch.no_grad():
    for i, p in enumerate(model.parameters()):
        p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p) * (i + 1) / 4)
x = torch.linspace(-1, 1, 30).view(10, 3)
y = x.sum(1, keepdim=True).sin()
assert x.device.type == device
assert torch.zeros(2).device.type == device
assert torch.tensor([1.0, 2.0]).device.type == device
assert torch.get_default_device().type == device
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
losses = []
for _ in range(10):
    optimizer.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
with torch.device("cpu"):
    assert torch.zeros(1).device.type == "cpu"
numbers = torch.from_numpy(x.cpu().numpy())
assert numbers.device.type == "cpu"
figures = {
    "losses": losses[::3],
    "eye": torch.eye(3).sum().item(),
    "arange": torch.arange(5).sum().item(),
    "randperm": sorted(torch.randperm(5).tolist()),
    "dtype": str(x.dtype),
    "complex": torch.full((2,), 1j).abs().sum().item(),
}
torch.set_default_device("cpu")
print(json.dumps(figures))
