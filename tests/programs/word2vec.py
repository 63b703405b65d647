"""word2vec by negative sampling: dense embeddings, a noise distribution, neighbours."""

import json
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
corpus = (
    "the king rules the land the queen rules the land "
    "the cat eats the fish the dog eats the meat " * 12
).split()
counts = Counter(corpus)
vocabulary = sorted(counts)
index = {word: i for i, word in enumerate(vocabulary)}
ids = torch.tensor([index[word] for word in corpus])
pairs = torch.stack(
    [torch.stack([ids, ids.roll(shift)], 1) for shift in (-2, -1, 1, 2)]
).view(-1, 2)
noise = torch.tensor([counts[word] for word in vocabulary], dtype=torch.float) ** 0.75


class SkipGram(nn.Module):
    def __init__(self, size, dim=12):
        super().__init__()
        self.center = nn.Embedding(size, dim, sparse=False)
        self.context = nn.Embedding(size, dim, padding_idx=None, max_norm=5.0)

    def forward(self, center, positive, negative):
        c = self.center(center)
        good = (c * self.context(positive)).sum(-1)
        bad = torch.bmm(self.context(negative), c.unsqueeze(2)).squeeze(2)
        return -(F.logsigmoid(good) + F.logsigmoid(-bad).sum(1)).mean()


model = SkipGram(len(vocabulary)).to(device)
optimizer = torch.optim.SparseAdam if False else torch.optim.Adagrad
optimizer = optimizer(model.parameters(), lr=0.3)
pairs = pairs.to(device)
losses = []
for batch in pairs.split(128)[:12]:
    negative = torch.multinomial(noise, len(batch) * 4, replacement=True)
    negative = negative.view(len(batch), 4).to(device)
    loss = model(batch[:, 0], batch[:, 1], negative)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
with torch.no_grad():
    vectors = F.normalize(model.center.weight, dim=1)
    nearest = (vectors @ vectors[index["king"]]).topk(3)
    on_device = torch.multinomial(noise.to(device), 1000, replacement=True)
    histogram = torch.bincount(on_device, minlength=len(vocabulary))
bag = nn.EmbeddingBag(len(vocabulary), 4, mode="mean").to(device)
offsets = torch.tensor([0, 3, 3, 7], device=device)
bagged = bag(ids[:10].to(device), offsets)
bagged.sum().backward()
print(
    json.dumps(
        {
            "losses": losses[::3],
            "nearest": vocabulary[nearest.indices[0].item()],
            "drawn": int(histogram.sum()),
            "bag": [bagged[1].abs().sum().item(), bag.weight.grad.sum().item()],
        }
    )
)
