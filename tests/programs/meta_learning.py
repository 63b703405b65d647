"""MAML with functional_call, evolution strategies with vmap, a hypernetwork."""

import json

import torch
from torch import nn
from torch.func import functional_call, vmap

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 20), nn.ReLU(), nn.Linear(20, 1)).to(device)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)


def task(seed):
    generator = torch.Generator().manual_seed(seed)
    amplitude, phase = torch.rand(2, generator=generator) * 3 + 0.5
    x = torch.rand(20, 1, generator=generator) * 10 - 5
    y = amplitude * torch.sin(x + phase)
    x, y = x.to(device), y.to(device)
    return x[:10], y[:10], x[10:], y[10:]


losses = []
for step in range(4):
    total = 0
    for k in range(3):
        x, y, xq, yq = task(3 * step + k)
        params = dict(net.named_parameters())
        for _ in range(2):
            loss = nn.functional.mse_loss(functional_call(net, params, (x,)), y)
            grads = torch.autograd.grad(loss, tuple(params.values()), create_graph=True)
            params = {
                n: p - 0.01 * g for (n, p), g in zip(params.items(), grads, strict=True)
            }
        total = total + nn.functional.mse_loss(functional_call(net, params, (xq,)), yq)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    losses.append(total.item())


def fitness(theta):
    return -((theta - torch.arange(5.0, device=device)) ** 2).sum()


theta = torch.zeros(5, device=device)
scores = []
for step in range(6):
    noise = torch.randn(16, 5, generator=torch.Generator().manual_seed(step)).to(device)
    noise = torch.cat([noise, -noise])
    rewards = vmap(fitness)(theta + 0.1 * noise)
    ranks = rewards.argsort().argsort().float() / 31 - 0.5
    theta = theta + 0.5 * (ranks[:, None] * noise).mean(0) / 0.1 * 0.2
    scores.append(fitness(theta).item())

hyper = nn.Linear(4, 3 * 2 + 2).to(device)
style = torch.randn(6, 4).to(device)
generated = hyper(style)
weight, bias = generated[:, :6].view(6, 2, 3), generated[:, 6:]
x = torch.randn(6, 5, 3).to(device)
out = torch.baddbmm(bias[:, None], x, weight.mT)
out.square().mean().backward()
print(
    json.dumps(
        {"losses": losses, "scores": scores, "hyper": hyper.weight.grad.norm().item()}
    )
)
