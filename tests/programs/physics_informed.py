"""A physics-informed network: derivatives of derivatives, a neural ODE, a simulation."""

# programs: tolerance=5e-3
import json
import math

import torch
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(3 * x)


net = nn.Sequential(
    nn.Linear(2, 16), Sine(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
).to(device)


def derivative(y, x, create=True):
    return torch.autograd.grad(
        y, x, torch.ones_like(y), create_graph=create, retain_graph=True
    )[0]


optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
points = torch.rand(64, 2).to(device)
border = torch.stack([torch.rand(32), torch.zeros(32)], 1).to(device)
losses = []
for step in range(6):
    x = points.clone().requires_grad_()
    u = net(x)
    first = derivative(u, x)
    second = derivative(first[:, :1], x)[:, :1]
    residual = first[:, 1:] - 0.1 * second
    start = net(border) - torch.sin(math.pi * border[:, :1])
    loss = residual.pow(2).mean() + start.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 12), nn.Softplus(), nn.Linear(12, 2))

    def forward(self, t, y):
        return self.net(y**3)


def odeint(field, y, times):
    path = [y]
    for t0, t1 in zip(times[:-1], times[1:], strict=True):
        h = t1 - t0
        k1 = field(t0, y)
        k2 = field(t0 + h / 2, y + h * k1 / 2)
        k3 = field(t0 + h / 2, y + h * k2 / 2)
        k4 = field(t1, y + h * k3)
        y = y + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6
        path.append(y)
    return torch.stack(path)


times = torch.linspace(0, 1, 8, device=device)
truth = torch.stack([torch.cos(2 * times), torch.sin(2 * times)], 1)
field = Field().to(device)
optimizer = torch.optim.RMSprop(field.parameters(), lr=1e-2)
fits = []
for _ in range(4):
    optimizer.zero_grad()
    loss = (odeint(field, truth[:1], times)[:, 0] - truth).abs().mean()
    loss.backward()
    optimizer.step()
    fits.append(loss.item())

position = torch.rand(10, 2, dtype=torch.float64).to(device).requires_grad_()
velocity = torch.zeros_like(position)
eye = torch.eye(10, device=device, dtype=torch.bool)
energies = []
for _ in range(5):
    distance = torch.cdist(position, position).masked_fill(eye, float("inf"))
    energy = (1 / (distance + 0.1)).sum() / 2
    (force,) = torch.autograd.grad(-energy, position)
    with torch.no_grad():
        velocity += 1e-3 * force
        position += 1e-3 * velocity
    energies.append(energy.item())
hessian = torch.autograd.functional.hessian(
    lambda p: (p**4).sum(), position[:2].detach()
)
grid = torch.zeros(16, 16, device=device)
grid[8, 8] = 100
kernel = torch.tensor([[0, 1.0, 0], [1, -4, 1], [0, 1, 0]], device=device).view(
    1, 1, 3, 3
)
for _ in range(10):
    grid = grid + 0.1 * nn.functional.conv2d(grid[None, None], kernel, padding=1)[0, 0]
print(
    json.dumps(
        {
            "losses": losses,
            "fits": fits,
            "energies": energies,
            "hessian": hessian.sum().item(),
            "heat": [grid.sum().item(), grid.max().item()],
        }
    )
)
