"""Sequence to sequence with attention: encoder, decoder step by step, teacher forcing."""

import json
import random

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)
random.seed(0)
SOS, EOS, SIZE, HIDDEN = 0, 1, 12, 24


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(SIZE, HIDDEN)
        self.gru = nn.GRU(HIDDEN, HIDDEN, batch_first=True)

    def forward(self, x):
        return self.gru(self.embedding(x))


class Bahdanau(nn.Module):
    def __init__(self):
        super().__init__()
        self.Wa, self.Ua = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.Va = nn.Linear(HIDDEN, 1)

    def forward(self, query, keys):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
        weights = F.softmax(scores.squeeze(2).unsqueeze(1), dim=-1)
        return torch.bmm(weights, keys), weights


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(SIZE, HIDDEN)
        self.attention = Bahdanau()
        self.gru = nn.GRU(2 * HIDDEN, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, SIZE)

    def forward(self, encoded, hidden, target=None, length=6):
        token = torch.empty(len(encoded), 1, dtype=torch.long, device=device).fill_(SOS)
        outputs, attentions = [], []
        for i in range(length):
            query = hidden.permute(1, 0, 2)
            context, weights = self.attention(query, encoded)
            step = torch.cat((self.embedding(token), context), dim=2)
            out, hidden = self.gru(step, hidden)
            out = self.out(out)
            outputs.append(out)
            attentions.append(weights)
            if target is not None and random.random() < 0.7:
                token = target[:, i].unsqueeze(1)
            else:
                token = out.topk(1).indices.squeeze(-1).detach()
        return F.log_softmax(torch.cat(outputs, 1), -1), torch.cat(attentions, 1)


encoder, decoder = Encoder().to(device), Decoder().to(device)
optimizers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (encoder, decoder)]
criterion = nn.NLLLoss()
losses = []
for _ in range(10):
    x = torch.randint(2, SIZE, (16, 6)).to(device)
    y = x.flip(1)
    for optimizer in optimizers:
        optimizer.zero_grad()
    outputs, _ = decoder(*encoder(x), target=y)
    loss = criterion(outputs.view(-1, SIZE), y.reshape(-1))
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    losses.append(loss.item())
with torch.no_grad():
    outputs, attention = decoder(*encoder(x[:1]))
    words = []
    for index in outputs.argmax(-1).squeeze():
        if index.item() == EOS:
            break
        words.append(index.item())
print(
    json.dumps(
        {
            "losses": losses[::3],
            "words": len(words) <= 6,
            "attention": attention.sum().item(),
        }
    )
)
