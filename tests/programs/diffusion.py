"""A small diffusion model: a UNet with time embeddings, EMA weights, DDIM sampling."""

import copy
import json
import math

import torch
import torch.nn.functional as F
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
T = 20


class SinusoidalPositionEmbeddings(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, time):
        half = self.dim // 2
        scale = math.log(10000) / (half - 1)
        frequencies = torch.exp(torch.arange(half, device=time.device) * -scale)
        angles = time[:, None] * frequencies[None, :]
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class Block(nn.Module):
    def __init__(self, cin, cout, time_dim):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(4, cout), nn.GroupNorm(4, cout)
        self.time = nn.Linear(time_dim, cout * 2)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, t):
        scale, shift = self.time(F.silu(t))[..., None, None].chunk(2, dim=1)
        h = self.norm1(self.conv1(F.silu(x))) * (scale + 1) + shift
        return self.norm2(self.conv2(F.silu(h))) + self.skip(x)


class UNet(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.time = nn.Sequential(
            SinusoidalPositionEmbeddings(16), nn.Linear(16, 16), nn.GELU()
        )
        self.start = nn.Conv2d(1, width, 3, padding=1)
        self.down1, self.down2 = Block(width, width, 16), Block(width, 2 * width, 16)
        self.pool = nn.Conv2d(width, width, 4, 2, 1)
        self.middle = Block(2 * width, 2 * width, 16)
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(2 * width, width, 3, padding=1),
        )
        self.up1, self.end = Block(2 * width, width, 16), nn.Conv2d(width, 1, 1)

    def forward(self, x, t):
        t = self.time(t)
        h1 = self.down1(self.start(x), t)
        h2 = self.middle(self.down2(self.pool(h1), t), t)
        return self.end(self.up1(torch.cat([self.up(h2), h1], dim=1), t))


betas = torch.linspace(1e-4, 0.2, T, device=device)
alphas_bar = torch.cumprod(1 - betas, dim=0)


def extract(values, t, shape):
    return values.gather(-1, t).reshape(len(t), *((1,) * (len(shape) - 1)))


def q_sample(x0, t, noise):
    a = extract(alphas_bar, t, x0.shape)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


model = UNet().to(device)
ema = copy.deepcopy(model).eval().requires_grad_(False)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
losses = []
for step in range(12):
    x0 = torch.rand(8, 1, 8, 8).round().to(device) * 2 - 1
    t = torch.randint(0, T, (8,)).to(device)
    noise = torch.randn(8, 1, 8, 8).to(device)
    loss = F.smooth_l1_loss(model(q_sample(x0, t, noise), t), noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 0.1)
    losses.append(loss.item())


@torch.no_grad()
def ddim(x, steps):
    times = torch.linspace(T - 1, 0, steps).long().tolist()
    for now, after in zip(times, [*times[1:], -1], strict=True):
        t = torch.full((len(x),), now, device=device, dtype=torch.long)
        eps = ema(x, t)
        a = alphas_bar[now]
        a_after = alphas_bar[after] if after >= 0 else torch.ones((), device=device)
        x0 = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
        x = a_after.sqrt() * x0 + (1 - a_after).sqrt() * eps
    return x


sample = ddim(torch.randn(4, 1, 8, 8).to(device), 6)
print(
    json.dumps(
        {"losses": losses[::3], "sample": [sample.mean().item(), sample.std().item()]}
    )
)
