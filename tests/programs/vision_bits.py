"""Vision by hand: patches, deformable sampling, non-maximum suppression, warps, pyramids."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
image = torch.rand(2, 3, 16, 16).to(device)
patches = F.unfold(image, 4, stride=4)
back = F.fold(patches, (16, 16), 4, stride=4)
theta = (
    torch.tensor([[[0.8, 0.2, 0.1], [-0.2, 0.9, 0.0]]] * 2).to(device).requires_grad_()
)
grid = F.affine_grid(theta, (2, 3, 12, 12), align_corners=False)
warped = F.grid_sample(
    image, grid, mode="bicubic", padding_mode="reflection", align_corners=False
)
warped.mean().backward()
boxes = torch.rand(20, 4).to(device) * 8
boxes[:, 2:] += boxes[:, :2] + 1
scores = torch.rand(20).to(device)


def area(b):
    return (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])


def nms(boxes, scores, threshold=0.4):
    order, keep = scores.argsort(descending=True), []
    while order.numel():
        i = order[0]
        keep.append(i.item())
        low = torch.maximum(boxes[i, :2], boxes[order[1:], :2])
        high = torch.minimum(boxes[i, 2:], boxes[order[1:], 2:])
        overlap = (high - low).clamp(min=0).prod(1)
        iou = overlap / (area(boxes[i]) + area(boxes[order[1:]]) - overlap)
        order = order[1:][iou <= threshold]
    return keep


kernel = torch.tensor([1.0, 4, 6, 4, 1], device=device)
kernel = (kernel[:, None] * kernel).div(256).expand(3, 1, 5, 5)
pyramid, level = [], image
for _ in range(3):
    level = F.conv2d(
        F.pad(level, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=3
    )
    pyramid.append(level.std().item())
pooled, where = F.max_pool2d(image, 2, return_indices=True)
restored = F.max_unpool2d(pooled, where, 2)
up = nn.Sequential(
    nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1),
    nn.PixelShuffle(2),
    nn.Upsample(scale_factor=2, mode="nearest"),
).to(device)
histogram = torch.histc(image, 8, 0, 1)
counts = torch.bincount((image[0].flatten() * 5).long(), minlength=6)
edges = torch.bucketize(image[0, 0], torch.linspace(0, 1, 5, device=device))
ranked = image.flatten(1).topk(3)
quantiles = torch.quantile(
    image.flatten(), torch.tensor([0.1, 0.5, 0.9], device=device)
)
print(
    json.dumps(
        {
            "back": torch.equal(back, image),
            "theta": theta.grad.flatten().tolist(),
            "warped": warped.sum().item(),
            "keep": nms(boxes, scores),
            "pyramid": pyramid,
            "restored": restored.sum().item(),
            "up": [list(up(image).shape), up(image).mean().item()],
            "histogram": histogram.tolist(),
            "counts": counts.tolist(),
            "edges": edges.sum().item(),
            "ranked": ranked.values.sum().item(),
            "quantiles": quantiles.tolist(),
            "flip": torch.rot90(image.flip(-1), 1, (2, 3))[0, 0, 0].tolist(),
        }
    )
)
