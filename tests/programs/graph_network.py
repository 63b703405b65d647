"""A graph network without libraries: index_add, scatter, degrees, attention on edges."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
nodes, edges = 40, 160
src = torch.randint(0, nodes, (edges,)).to(device)
dst = torch.randint(0, nodes, (edges,)).to(device)
features = torch.randn(nodes, 8).to(device)
labels = torch.randint(0, 3, (nodes,)).to(device)


class GCNLayer(nn.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.linear = nn.Linear(fan_in, fan_out, bias=False)
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x, src, dst):
        loops = torch.arange(len(x), device=x.device)
        s, d = torch.cat([src, loops]), torch.cat([dst, loops])
        degree = torch.zeros(len(x), device=x.device).index_add_(
            0, d, torch.ones(len(d), device=x.device)
        )
        norm = degree.rsqrt()[s] * degree.rsqrt()[d]
        messages = self.linear(x)[s] * norm[:, None]
        out = torch.zeros(len(x), messages.size(1), device=x.device)
        return out.index_add(0, d, messages) + self.bias


class GATLayer(nn.Module):
    def __init__(self, fan_in, fan_out, heads=2):
        super().__init__()
        self.lin = nn.Linear(fan_in, heads * fan_out)
        self.att = nn.Parameter(torch.randn(heads, 2 * fan_out) * 0.1)
        self.heads = heads

    def forward(self, x, src, dst):
        h = self.lin(x).view(len(x), self.heads, -1)
        score = (torch.cat([h[src], h[dst]], -1) * self.att).sum(-1)
        score = F.leaky_relu(score, 0.2)
        index = dst[:, None].expand_as(score)
        top = torch.full((len(x), self.heads), float("-inf"), device=x.device)
        top = top.scatter_reduce(0, index, score, "amax", include_self=True)
        score = (score - top[dst].detach()).exp()
        total = torch.zeros(len(x), self.heads, device=x.device)
        total = total.scatter_add(0, index, score)
        weight = score / (total[dst] + 1e-9)
        out = torch.zeros_like(h)
        expanded = dst[:, None, None].expand(-1, *h.shape[1:])
        return out.scatter_add(0, expanded, h[src] * weight[..., None]).flatten(1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = GCNLayer(8, 16), GATLayer(16, 4)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        x = F.elu(self.one(x, src, dst))
        return self.out(F.elu(self.two(x, src, dst)))


model = Net().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
known = torch.zeros(nodes, dtype=torch.bool, device=device)
known[::2] = True
losses = []
for _ in range(10):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(features)[known], labels[known])
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
pooled = torch.zeros(4, 3, device=device)
batch = (torch.arange(nodes, device=device) // 10)[:, None].expand(-1, 3)
pooled = pooled.scatter_reduce(
    0, batch, model(features), reduce="mean", include_self=False
)
adjacency = torch.zeros(nodes, nodes, device=device)
adjacency.index_put_((dst, src), torch.ones(edges, device=device), accumulate=True)
unique, inverse, counts = torch.unique(
    torch.stack([src, dst]), dim=1, return_inverse=True, return_counts=True
)
order = torch.argsort(dst, stable=True)
print(
    json.dumps(
        {
            "losses": losses[::3],
            "pooled": pooled.sum().item(),
            "edges": adjacency.sum().item(),
            "unique": [list(unique.shape), int(counts.max()), int(inverse.sum())],
            "order": order[:5].tolist(),
            "hops": (adjacency @ adjacency).count_nonzero().item(),
        }
    )
)
