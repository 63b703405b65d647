"""Results whose size depends on the data, masks, in-place views, indexing of all kinds."""

import json

import numpy as np
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
x = torch.randn(6, 8).to(device)
n = torch.randint(0, 9, (40,)).to(device)
figures = {}
figures["nonzero"] = [len(x.nonzero()), [len(i) for i in torch.where(x > 0)]]
figures["masked_select"] = x[x > 0.5].sum().item()
values, inverse, counts = n.unique(return_inverse=True, return_counts=True)
figures["unique"] = [values.tolist(), counts.tolist(), inverse.sum().item()]
figures["consecutive"] = (
    n.sort().values.unique_consecutive(return_counts=True)[1].tolist()
)
figures["bincount"] = torch.bincount(n, minlength=12).tolist()
figures["weighted"] = torch.bincount(
    n, weights=torch.ones(40, device=device) * 0.5
).tolist()
figures["histc"] = torch.histc(x, bins=5, min=-2, max=2).tolist()
figures["quantile"] = torch.quantile(
    x, torch.tensor([0.1, 0.5, 0.9], device=device)
).tolist()
figures["nanquantile"] = torch.nanquantile(
    x.where(x > -1, float("nan")), 0.25, dim=1
).tolist()
figures["median"] = [
    x.median().item(),
    x.median(1).indices.tolist(),
    x.nanmedian().item(),
]
figures["kthvalue"] = x.kthvalue(3, 1).values.tolist()
figures["searchsorted"] = torch.searchsorted(values, n[:5]).tolist()
figures["bucketize"] = (
    torch.bucketize(x, torch.tensor([-1.0, 0, 1], device=device)).sum().item()
)
figures["repeat"] = torch.repeat_interleave(values, counts).tolist()[:6]
figures["isin"] = torch.isin(n, torch.tensor([1, 2], device=device)).sum().item()
figures["combinations"] = list(torch.combinations(values).shape)
figures["cartesian"] = list(torch.cartesian_prod(values[:3], values[:2]).shape)
figures["argwhere"] = torch.argwhere(n == n.max()).flatten().tolist()
figures["topk"] = x.flatten().topk(4, largest=False).indices.tolist()
figures["tensor_split"] = [list(p.shape) for p in x.tensor_split([1, 4])]
figures["nms"] = []
boxes = torch.rand(12, 4).to(device)
boxes[:, 2:] += boxes[:, :2]
scores = torch.rand(12).to(device)
order = scores.argsort(descending=True)
while order.numel() > 0:
    best = order[0]
    figures["nms"].append(best.item())
    corner = torch.maximum(boxes[best, :2], boxes[order[1:], :2])
    other = torch.minimum(boxes[best, 2:], boxes[order[1:], 2:])
    overlap = (other - corner).clamp(min=0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    iou = overlap / (area[best] + area[order[1:]] - overlap)
    order = order[1:][iou <= 0.3]

y = x.clone()
y[y < 0] = 0
y[1:3, ::2] += 10
y[:, -1].mul_(2)
y[torch.tensor([0, 5])] = y[torch.tensor([5, 0])]
y[..., None, 2] = -1
y[[1, 2], [3, 4]] = 7
y.T[0].fill_(3)
y.view(-1)[::7].neg_()
y.diagonal()[:3] = torch.arange(3.0, device=device)
y.index_fill_(1, torch.tensor([6], device=device), 4)
y.masked_fill_(y > 9, 9)
y.masked_scatter_(y == 9, torch.ones(48, device=device))
y.narrow(0, 2, 2).clamp_(max=2)
figures["in_place"] = y.sum(0).tolist()
figures["strided"] = x.as_strided((3, 3), (9, 2), 1).sum().item()
figures["unfold"] = x.unfold(1, 3, 2).pow(2).sum().item()
figures["numpy_index"] = x[np.array([0, 2]), np.array([1, 1])].tolist()
figures["bool_row"] = (
    x[torch.tensor([True, False, True, False, False, True])].sum().item()
)
figures["ellipsis"] = x.reshape(2, 3, 8)[..., ::3].sum().item()
figures["take"] = [
    x.take(n[:4]).tolist(),
    x.take_along_dim(x.argsort(1), 1)[:, 0].tolist(),
]
figures["put"] = x.clone().put_(n[:4], torch.zeros(4, device=device)).sum().item()
mask = torch.rand(6, 8).to(device) > 0.3
row = x.masked_fill(~mask, float("-inf")).softmax(1)
figures["masked_softmax"] = row.sum().item()
figures["masked_mean"] = ((x * mask).sum(1) / mask.sum(1)).tolist()
figures["contains"] = [3 in n, x.allclose(x + 1e-9), torch.equal(x, x.clone())]
figures["formatted"] = f"{x[0, 0]:.3f} {n[:3].cpu()}"
figures["loop"] = sum(float(v) for v in x[0])
figures["lists"] = [len(x.tolist()), int(n[0]), bool(n[0] >= 0), x.shape.numel()]
x = torch.arange(24.0, device=device).view(2, 3, 4)
figures["einops"] = [
    x.permute(0, 2, 1).reshape(8, 3).sum(0).tolist(),
    torch.einsum("bij,bkj->bik", x, x).sum().item(),
    x.unflatten(2, (2, 2)).movedim(3, 1).flatten(2).sum(2).tolist(),
    torch.block_diag(x[0], x[1]).shape[0],
    x.roll((1, 2), (1, 2)).rot90(1, (1, 2)).flip(0)[0, 0].tolist(),
]
print(json.dumps(figures))
