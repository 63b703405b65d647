"""k-means, nearest neighbours, PCA and a mixture by expectation and maximisation."""

import json
import math

import torch
from sklearn.datasets import load_digits

device = "cuda" if torch.cuda.is_available() else "cpu"
digits = load_digits()
x = torch.from_numpy(digits.data).float().to(device)[:600]
y = torch.from_numpy(digits.target).to(device)[:600]


def kmeans(x, k, rounds=6):
    centers = x[:k].clone()
    for i in range(rounds):
        distance = torch.cdist(x, centers)
        nearest = distance.argmin(1)
        moved = torch.zeros_like(centers).index_add_(0, nearest, x)
        counts = torch.bincount(nearest, minlength=k).clamp(min=1)
        moved /= counts[:, None]
        shift = (moved - centers).norm().item()
        centers = moved
        if shift < 1e-3:
            break
    return centers, nearest, i


centers, nearest, rounds = kmeans(x, 10)
inertia = (x - centers[nearest]).pow(2).sum()
purity = sum(
    torch.bincount(y[nearest == c], minlength=10).max().item() for c in range(10)
)
distances = torch.cdist(x[500:], x[:500])
values, index = distances.topk(5, largest=False)
votes = torch.nn.functional.one_hot(y[index], 10).sum(1)
accuracy = (votes.argmax(1) == y[500:]).float().mean()
mode = torch.mode(y[index], dim=1).values
confusion = torch.zeros(10, 10, dtype=torch.long, device=device)
confusion.index_put_(
    (y[500:], votes.argmax(1)),
    torch.ones(100, dtype=torch.long, device=device),
    accumulate=True,
)
centered = x - x.mean(0)
u, s, vh = torch.linalg.svd(centered, full_matrices=False)
low = centered @ vh[:2].T
explained = (s**2 / (s**2).sum())[:3]
covariance = torch.cov(low.T)
correlation = torch.corrcoef(low.T)
means = torch.tensor([[-10.0, 0], [10, 0], [0, 10]], device=device)
weights = torch.full((3,), 1 / 3, device=device)
spread = torch.full((3,), 100.0, device=device)
data = low.abs() * torch.sign(low)
for _ in range(5):
    square = torch.cdist(data, means) ** 2
    score = weights.log() - square / (2 * spread) - (2 * math.pi * spread).log()
    total = torch.logsumexp(score, 1, keepdim=True)
    share = (score - total).exp()
    size = share.sum(0)
    means = share.T @ data / size[:, None]
    spread = (share * torch.cdist(data, means) ** 2).sum(0) / (2 * size)
    weights = size / len(data)
print(
    json.dumps(
        {
            "inertia": inertia.item(),
            "purity": purity,
            "rounds": rounds,
            "accuracy": round(accuracy.item(), 2),
            "mode": (mode == y[500:]).sum().item(),
            "confusion": confusion.diagonal().sum().item(),
            "explained": explained.tolist(),
            "covariance": covariance.diagonal().tolist(),
            "correlation": abs(correlation[0, 1].item()) < 1e-2,
            "likelihood": total.mean().item(),
        }
    )
)
