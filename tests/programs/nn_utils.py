"""torch.nn.utils: clipping, parametrisations, weight norm, pruning, vectors, fusing."""

import json

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
figures = {}
x = torch.randn(4, 6).to(device)

net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)
net(x).pow(2).sum().backward()
figures["clip"] = nn.utils.clip_grad_norm_(net.parameters(), 0.5, foreach=True).item()
figures["total"] = nn.utils.get_total_norm([p.grad for p in net.parameters()]).item()
nn.utils.clip_grad_value_(net.parameters(), 0.01)
figures["largest"] = max(p.grad.abs().max().item() for p in net.parameters())
vector = nn.utils.parameters_to_vector(net.parameters())
nn.utils.vector_to_parameters(vector * 0.5, net.parameters())
figures["vector"] = [len(vector), net(x).sum().item()]


class Symmetric(nn.Module):
    def forward(self, w):
        return w.triu() + w.triu(1).transpose(-1, -2)

    def right_inverse(self, w):
        return w.triu()


square = nn.Linear(6, 6).to(device)
parametrize.register_parametrization(square, "weight", Symmetric())
figures["symmetric"] = torch.equal(square.weight, square.weight.T)
square.weight = torch.eye(6, device=device)
with parametrize.cached():
    figures["assigned"] = square(x).sum().item()
parametrize.remove_parametrizations(square, "weight")

normed = parametrizations.weight_norm(nn.Linear(6, 3)).to(device)
optimizer = torch.optim.SGD(normed.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    normed(x).pow(2).sum().backward()
    optimizer.step()
figures["weight_norm"] = normed.weight.norm(dim=1).tolist()
old = nn.utils.weight_norm(nn.Conv1d(2, 3, 3), name="weight").to(device)
figures["old_weight_norm"] = old(torch.ones(1, 2, 5, device=device)).sum().item()
orthogonal = parametrizations.orthogonal(nn.Linear(6, 6)).to(device)
q = orthogonal.weight
figures["orthogonal"] = (
    q @ q.T - torch.eye(6, device=device)
).abs().max().item() < 1e-5
spectral = nn.utils.spectral_norm(nn.Linear(6, 6), n_power_iterations=20).to(device)
spectral(x).sum().backward()
spectral.eval()
spectral(x)
figures["spectral"] = abs(torch.linalg.matrix_norm(spectral.weight, 2).item() - 1) < 0.1

pruned = nn.Linear(6, 8).to(device)
prune.l1_unstructured(pruned, "weight", amount=0.5)
figures["pruned"] = int((pruned.weight == 0).sum())
prune.ln_structured(pruned, "weight", amount=2, n=2, dim=0)
figures["rows"] = int((pruned.weight.abs().sum(1) == 0).sum())
prune.remove(pruned, "weight")
prune.global_unstructured(
    [(net[0], "weight"), (net[2], "weight")], prune.L1Unstructured, amount=0.25
)
figures["global"] = sum(int((m.weight == 0).sum()) for m in (net[0], net[2]))
random_one = prune.random_unstructured(nn.Linear(4, 4).to(device), "weight", 0.25)
figures["random"] = int((random_one.weight == 0).sum())

conv, norm = nn.Conv2d(2, 3, 3).to(device), nn.BatchNorm2d(3).to(device)
image = torch.randn(2, 2, 6, 6).to(device)
norm(conv(image))
conv.eval(), norm.eval()
fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
figures["fused"] = (fused(image) - norm(conv(image))).abs().max().item() < 1e-5
moved = nn.utils.convert_conv2d_weight_memory_format(conv, torch.channels_last)
figures["channels_last"] = moved(image).is_contiguous(memory_format=torch.channels_last)
empty = nn.utils.skip_init(nn.Linear, 3, 2, device=device)
figures["skip_init"] = [empty.weight.device.type == device, list(empty.weight.shape)]
lazy = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d()).to(device)
figures["lazy"] = list(lazy(x).shape)
print(json.dumps(figures))
