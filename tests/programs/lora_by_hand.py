"""LoRA by hand: frozen base weights, low-rank adapters, merged and saved apart."""

import io
import json
import math

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, r=4, alpha=8):
        super().__init__()
        self.base = base
        self.base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.empty(r, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = alpha / r

    def forward(self, x):
        return self.base(x) + (x @ self.lora_A.T @ self.lora_B.T) * self.scaling

    @torch.no_grad()
    def merge(self):
        self.base.weight += (self.lora_B @ self.lora_A) * self.scaling
        return self.base


def add_lora(module):
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, LoRALinear(child))
        else:
            add_lora(child)
    return module


def merge_lora(module):
    for name, child in module.named_children():
        if isinstance(child, LoRALinear):
            setattr(module, name, child.merge())
        else:
            merge_lora(child)
    return module


net = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Sequential(nn.Linear(32, 4)))
net = add_lora(net).to(device)
x = torch.randn(64, 16).to(device)
target = torch.randn(64, 4).to(device)
trained = [p for p in net.parameters() if p.requires_grad]
frozen = [p.clone() for p in net.parameters() if not p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=2e-2)
losses = []
for _ in range(15):
    loss = nn.functional.mse_loss(net(x), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
state = {k: v for k, v in net.state_dict().items() if "lora_" in k}
buffer = io.BytesIO()
torch.save(state, buffer)
buffer.seek(0)
missing, unexpected = net.load_state_dict(torch.load(buffer), strict=False)
before = net(x)
now = [p for p in net.parameters() if not p.requires_grad]
same = all(torch.equal(a, b) for a, b in zip(frozen, now, strict=True))
merged = merge_lora(net)
print(
    json.dumps(
        {
            "losses": losses[::5],
            "trained": sum(p.numel() for p in trained),
            "frozen": same,
            "missing": len(missing),
            "merged": (merged(x) - before).abs().max().item() < 1e-4,
        }
    )
)
