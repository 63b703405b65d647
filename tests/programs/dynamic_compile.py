"""torch.compile with shapes that vary: marked dynamic, padded batches, a compiled step."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.mix = nn.Conv1d(16, 16, 3, padding=1)
        self.out = nn.Linear(16, 5)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x + F.gelu(self.mix(x.transpose(1, 2)).transpose(1, 2))
        if tokens.shape[1] > 6:
            x = x - x.mean(1, keepdim=True)
        return self.out(x)


model = Tagger().to(device)
compiled = torch.compile(model, dynamic=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)


@torch.compile
def step():
    optimizer.step()


losses = []
for length in (4, 5, 6, 7, 9, 12, 5, 8):
    tokens = torch.randint(0, 30, (3, length)).to(device)
    torch._dynamo.maybe_mark_dynamic(tokens, 1)
    loss = F.cross_entropy(compiled(tokens).flatten(0, 1), (tokens % 5).flatten())
    optimizer.zero_grad()
    loss.backward()
    step()
    losses.append(loss.item())


@torch.compile(fullgraph=True, dynamic=True)
def pairwise(a, b):
    return (a[:, None] - b[None]).square().sum(-1).min(1)


values, nearest = [], []
for n in (3, 5, 8):
    got = pairwise(torch.randn(n, 4).to(device), torch.randn(n + 1, 4).to(device))
    values.append(got.values.sum().item())
    nearest.append(got.indices.tolist())

torch._dynamo.reset()


@torch.compile
def branches(x, flag):
    x = x * 2
    if flag and x.sum() > 0:
        print("positive")
        return x.relu()
    return x.sin()


signs = [
    branches(torch.full((4,), s, device=device), True).sum().item() for s in (1.0, -1.0)
]
print(
    json.dumps({"losses": losses, "values": values, "nearest": nearest, "signs": signs})
)
