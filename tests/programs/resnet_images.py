"""A residual network and image code: channels last, grids, crops, colours, EMA of BN."""

# programs: tolerance=5e-3
import json
import math

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)


class Squeeze(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1), nn.Hardsigmoid()
        )

    def forward(self, x):
        return x * self.fc(x.mean((2, 3), keepdim=True))


class Bottleneck(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(cin, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.SiLU(inplace=True),
            nn.Conv2d(cout, cout, 3, stride, 1, groups=cout, bias=False),
            nn.BatchNorm2d(cout, momentum=0.2),
            nn.Hardswish(),
            Squeeze(cout),
            nn.Conv2d(cout, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )
        self.skip = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(cin, cout, 1)
        )

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


def augment(images, seed):
    generator = torch.Generator().manual_seed(seed)
    angle = (torch.rand(len(images), generator=generator) - 0.5) * 0.6
    cos, sin = angle.cos(), angle.sin()
    zero = torch.zeros_like(cos)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3).to(device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = F.pad(images, (2, 2, 2, 2), mode="reflect")
    top, left = torch.randint(0, 4, (2,), generator=generator).tolist()
    images = images[..., top : top + 16, left : left + 16]
    gray = (
        images * torch.tensor([0.3, 0.59, 0.11], device=device).view(1, 3, 1, 1)
    ).sum(1, True)
    images = torch.lerp(gray.expand_as(images), images, 0.8).clamp(0, 1)
    hidden = torch.zeros_like(images)
    hidden[..., 4:8, 4:8] = 1
    return torch.where(hidden.bool(), images.mean((1, 2, 3), keepdim=True), images)


net = nn.Sequential(
    nn.Conv2d(3, 8, 3, 2, 1),
    Bottleneck(8, 16, 1),
    Bottleneck(16, 24, 2),
    nn.AdaptiveAvgPool2d(1),
)
net = nn.Sequential(net, nn.Flatten(), nn.Linear(24, 4)).to(
    device, memory_format=torch.channels_last
)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
losses = []
for step in range(5):
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(
        0, 256, (8, 16, 16, 3), generator=generator, dtype=torch.uint8
    )
    labels = (images.float().mean((1, 2, 3)) * 10 % 4).long().to(device)
    x = images.to(device).permute(0, 3, 1, 2).float().div(255)
    x = augment(x, step).contiguous(memory_format=torch.channels_last)
    loss = F.cross_entropy(net(x), labels, label_smoothing=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
net.eval()
with torch.no_grad():
    probabilities = net(x).softmax(1)
patches = F.unfold(x, 4, stride=4)
whole = F.fold(patches, (16, 16), 4, stride=4)
shuffled = F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2)
blur = torch.exp(-(torch.arange(-2, 3, device=device).float() ** 2) / 2)
blur = (blur / blur.sum()).view(1, 1, 1, 5).expand(3, 1, 1, 5)
blurred = F.conv2d(
    F.conv2d(x, blur, padding=(0, 2), groups=3), blur.mT, padding=(2, 0), groups=3
)
mse = F.mse_loss(blurred, x)
resized = [
    F.interpolate(x, size=(9, 11), mode=m).mean().item()
    for m in ("nearest", "bilinear", "bicubic", "area")
]
pooled, index = F.max_pool2d(x, 2, return_indices=True)
print(
    json.dumps(
        {
            "losses": losses,
            "probabilities": probabilities.sum().item(),
            "folded": (whole - x).abs().max().item() < 1e-6,
            "shuffled": torch.equal(shuffled, x),
            "psnr": 10 * math.log10(1 / mse.item()),
            "resized": resized,
            "unpooled": F.max_unpool2d(pooled, index, 2).sum().item(),
            "saved": [list(x[0].mul(255).byte().permute(1, 2, 0).cpu().numpy().shape)],
        }
    )
)
