"""A small NeRF: rays, positional encoding, samples drawn again, volume rendering."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
H = W = 8
focal = 10.0


def get_rays(pose):
    j, i = torch.meshgrid(
        torch.arange(H, dtype=torch.float32, device=device),
        torch.arange(W, dtype=torch.float32, device=device),
        indexing="ij",
    )
    directions = torch.stack(
        [(i - W / 2) / focal, -(j - H / 2) / focal, -torch.ones_like(i)], -1
    )
    rays_d = (directions[..., None, :] * pose[:3, :3]).sum(-1)
    return pose[:3, -1].expand(rays_d.shape), rays_d


def encode(x, count=4):
    parts = [x]
    for i in range(count):
        parts += [torch.sin(2.0**i * x), torch.cos(2.0**i * x)]
    return torch.cat(parts, -1)


class NeRF(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(27, 32), nn.Linear(32 + 27, 32)
        self.out = nn.Linear(32, 4)

    def forward(self, x):
        x = encode(x)
        h = F.relu(self.one(x))
        return self.out(F.relu(self.two(torch.cat([h, x], -1))))


def render(model, rays_o, rays_d, z):
    points = rays_o[..., None, :] + rays_d[..., None, :] * z[..., :, None]
    raw = torch.cat([model(part) for part in points.reshape(-1, 3).split(256)])
    raw = raw.reshape(*points.shape[:-1], 4)
    sigma, rgb = F.relu(raw[..., 3]), torch.sigmoid(raw[..., :3])
    far = torch.full_like(z[..., :1], 1e10)
    gaps = torch.cat([z[..., 1:] - z[..., :-1], far], -1)
    alpha = 1 - torch.exp(-sigma * gaps)
    ones = torch.ones_like(alpha[..., :1])
    through = torch.cumprod(torch.cat([ones, 1 - alpha + 1e-10], -1), -1)[..., :-1]
    weights = alpha * through
    return (weights[..., None] * rgb).sum(-2), weights


def sample_pdf(bins, weights, count):
    pdf = (weights + 1e-5) / (weights + 1e-5).sum(-1, keepdim=True)
    cdf = torch.cumsum(pdf, -1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], -1)
    u = (
        torch.linspace(0.02, 0.98, count, device=device)
        .expand(*cdf.shape[:-1], count)
        .contiguous()
    )
    index = torch.searchsorted(cdf, u, right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=cdf.shape[-1] - 1)
    c0, c1 = cdf.gather(-1, below), cdf.gather(-1, above)
    b0, b1 = bins.gather(-1, below), bins.gather(-1, above)
    gap = torch.where(c1 - c0 < 1e-5, torch.ones_like(c0), c1 - c0)
    return b0 + (u - c0) / gap * (b1 - b0)


pose = torch.eye(4, device=device)
pose[2, 3] = 4.0
rays_o, rays_d = get_rays(pose)
target = torch.rand(H, W, 3).to(device)
model = NeRF().to(device)
optimizer = torch.optim.Adam(model.parameters(), 5e-3)
z = torch.linspace(2, 6, 8, device=device).expand(H, W, 8)
losses = []
for _ in range(4):
    coarse, weights = render(model, rays_o, rays_d, z)
    middle = 0.5 * (z[..., 1:] + z[..., :-1])
    fine_z = sample_pdf(middle, weights[..., 1:-1].detach(), 6)
    fine_z, _ = torch.sort(torch.cat([z, fine_z], -1), -1)
    fine, _ = render(model, rays_o, rays_d, fine_z)
    loss = F.mse_loss(coarse, target) + F.mse_loss(fine, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(json.dumps({"losses": losses, "depth": (weights * z).sum(-1).mean().item()}))
