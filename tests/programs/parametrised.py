"""Parametrisations, spectral and weight norm, SWA, custom gradients, hooks on modules."""

import json
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


class Symmetric(nn.Module):
    def forward(self, w):
        return w.triu() + w.triu(1).mT

    def right_inverse(self, w):
        return w.triu()


class Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, limit):
        ctx.save_for_backward(x)
        ctx.limit = limit
        return x.clamp(-limit, limit)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= ctx.limit) + 0.1 * grad, None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = parametrizations.orthogonal(nn.Linear(8, 8))
        self.b = parametrizations.weight_norm(nn.Linear(8, 16))
        self.c = parametrizations.spectral_norm(nn.Linear(16, 8))
        self.d = nn.Linear(8, 8)
        parametrize.register_parametrization(self.d, "weight", Symmetric())
        self.bn = nn.BatchNorm1d(8)
        self.e = nn.Linear(8, 3)

    def forward(self, x):
        x = F.silu(self.b(self.a(x)))
        return self.e(Clip.apply(self.bn(self.d(self.c(x))), 1.5))


net = Net()
with torch.no_grad():
    net.c.parametrizations.weight[0]._u.copy_(F.normalize(torch.ones(8), dim=0))
    net.c.parametrizations.weight[0]._v.copy_(F.normalize(torch.ones(16), dim=0))
net = net.to(device)
seen = []
handles = [
    net.bn.register_forward_hook(lambda m, i, o: seen.append(o.std().item())),
    net.e.register_full_backward_hook(
        lambda m, gi, go: seen.append(gi[0].norm().item())
    ),
    net.e.weight.register_post_accumulate_grad_hook(
        lambda p: seen.append(p.grad.norm().item())
    ),
]
x, y = torch.randn(30, 8).to(device), (torch.arange(30) % 3).to(device)
optimizer = torch.optim.NAdam(net.parameters(), lr=1e-2)
averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
schedule = SWALR(optimizer, swa_lr=5e-3, anneal_epochs=3)
losses = []
for _ in range(6):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    averaged.update_parameters(net)
    schedule.step()
    losses.append(loss.item())
for handle in handles:
    handle.remove()
update_bn([x], averaged)
w = net.a.weight
print(
    json.dumps(
        {
            "losses": losses,
            "seen": seen[-3:],
            "orthogonal": (w @ w.mT - torch.eye(8, device=device)).abs().max().item()
            < 1e-4,
            "symmetric": torch.equal(net.d.weight, net.d.weight.mT),
            "spectral": torch.linalg.matrix_norm(net.c.weight, 2).item() < 2,
            "averaged": averaged(x).mean().item(),
            "lr": optimizer.param_groups[0]["lr"],
            "finite": math.isfinite(sum(losses)),
        }
    )
)
