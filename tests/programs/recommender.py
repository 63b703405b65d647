"""A recommender: embedding bags, feature crosses, ranking losses, AUC, negative pairs."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)


class DLRM(nn.Module):
    def __init__(self, sizes, dim=8):
        super().__init__()
        self.bags = nn.ModuleList([nn.EmbeddingBag(n, dim, mode="sum") for n in sizes])
        self.bottom = nn.Sequential(
            nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, dim), nn.ReLU()
        )
        self.top = nn.Sequential(nn.Linear(dim + 6, 16), nn.ReLU(), nn.Linear(16, 1))
        row, column = torch.tril_indices(4, 4, -1)
        self.register_buffer("row", row)
        self.register_buffer("column", column)

    def forward(self, dense, sparse):
        x = self.bottom(dense)
        vectors = [x] + [
            bag(i, o) for bag, (i, o) in zip(self.bags, sparse, strict=True)
        ]
        stacked = torch.stack(vectors, 1)
        cross = torch.bmm(stacked, stacked.mT)[:, self.row, self.column]
        return self.top(torch.cat([x, cross], 1)).squeeze(1)


sizes = [30, 20, 10]
model = DLRM(sizes).to(device)
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
losses = []
for step in range(6):
    generator = torch.Generator().manual_seed(step)
    dense = torch.rand(32, 5, generator=generator).to(device)
    sparse = []
    for size in sizes:
        lengths = torch.randint(0, 4, (32,), generator=generator)
        ids = torch.randint(0, size, (int(lengths.sum()),), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
        sparse.append((ids.to(device), offsets.to(device)))
    clicked = (dense.sum(1) > 2.5).float()
    loss = F.binary_cross_entropy_with_logits(model(dense, sparse), clicked)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
with torch.no_grad():
    score = model(dense, sparse)
order = score.argsort()
ranks = torch.empty_like(score).scatter_(0, order, torch.arange(1.0, 33, device=device))
positive = clicked.bool()
count = positive.sum()
auc = (ranks[positive].sum() - count * (count + 1) / 2) / (count * (32 - count))

users, items = nn.Embedding(10, 6).to(device), nn.Embedding(15, 6).to(device)
optimizer = torch.optim.SGD([*users.parameters(), *items.parameters()], lr=0.5)
u = torch.arange(10, device=device).repeat(3)
good, bad = (u * 3) % 15, (u * 7 + 1) % 15
for _ in range(5):
    gap = (users(u) * (items(good) - items(bad))).sum(1)
    bpr = -F.logsigmoid(gap).mean()
    optimizer.zero_grad()
    bpr.backward()
    optimizer.step()
anchor = F.normalize(torch.randn(12, 6).to(device), dim=1).requires_grad_()
other = F.normalize(anchor.detach() + 0.1, dim=1)
logits = anchor @ other.T / 0.1
contrastive = F.cross_entropy(logits, torch.arange(12, device=device))
triplet = F.triplet_margin_loss(anchor, other, other.roll(1, 0))
cosine = F.cosine_embedding_loss(anchor, other, torch.ones(12, device=device))
margin = F.margin_ranking_loss(
    logits[0, :5], logits[1, :5], torch.ones(5, device=device)
)
(contrastive + triplet + cosine + margin).backward()
print(
    json.dumps(
        {
            "losses": losses,
            "auc": auc.item(),
            "bpr": bpr.item(),
            "pairs": [contrastive.item(), triplet.item(), cosine.item()],
            "gradient": anchor.grad.norm().item(),
        }
    )
)
