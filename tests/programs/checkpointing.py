"""Gradient checkpointing in both modes, offloading hooks, and states saved and resumed."""

import io
import json
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)
figures = {}


def make():
    torch.manual_seed(3)
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(6)]
    return nn.Sequential(*blocks).to(device)


x = torch.randn(8, 16).to(device)
ways = {
    "plain": lambda net, t: net(t),
    "reentrant": lambda net, t: checkpoint(net, t, use_reentrant=True),
    "not_reentrant": lambda net, t: checkpoint(net, t, use_reentrant=False),
    "sequential": lambda net, t: checkpoint_sequential(net, 3, t, use_reentrant=False),
    "no_rng": lambda net, t: checkpoint(
        net, t, use_reentrant=False, preserve_rng_state=False
    ),
}
for name, way in ways.items():
    net, t = make(), x.clone().requires_grad_()
    loss = way(net, t).pow(2).mean()
    loss.backward()
    total = sum(p.grad.norm().item() for p in net.parameters())
    figures[name] = [loss.item(), t.grad.norm().item(), total]

dropping = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.5), nn.Linear(64, 1)).to(
    device
)
for reentrant in (True, False):
    t = x.clone().requires_grad_()
    seen = []
    dropping[1].register_forward_hook(lambda m, i, o: seen.append(o.detach().clone()))
    checkpoint(dropping, t, use_reentrant=reentrant).sum().backward()
    figures[f"dropout_repeats_{reentrant}"] = torch.equal(seen[0], seen[-1])

net, t = make(), x.clone().requires_grad_()
with torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda"):
    loss = net(t).pow(2).mean()
loss.backward()
figures["save_on_cpu"] = t.grad.norm().item()

net = make()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)


def steps(net, optimizer, scheduler, count):
    for _ in range(count):
        optimizer.zero_grad()
        loss = net(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return loss.item()


steps(net, optimizer, scheduler, 3)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "checkpoint.pt"
    torch.save(
        {
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "rng": torch.get_rng_state(),
        },
        path,
    )
    straight = steps(net, optimizer, scheduler, 3)
    for location in ("cpu", device, None):
        saved = torch.load(path, map_location=location, weights_only=True)
        other = make()
        resumed = torch.optim.AdamW(other.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(resumed, T_max=10)
        other.load_state_dict(saved["model"])
        resumed.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["scheduler"])
        where = next(iter(saved["model"].values())).device.type
        assert where == ("cpu" if location == "cpu" else device.type)
        again = steps(other, resumed, schedule, 3)
        assert abs(again - straight) < 1e-6 * abs(straight) + 1e-9, (again, straight)
buffer = io.BytesIO()
torch.save(net, buffer)
buffer.seek(0)
whole = torch.load(buffer, weights_only=False)
figures["whole"] = whole(x).sum().item()
figures["straight"] = straight
print(json.dumps(figures))
