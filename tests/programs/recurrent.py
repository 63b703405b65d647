"""Recurrent networks: packed sequences, both directions, layers, dropout, cells."""

import json

import torch
from torch import nn
from torch.nn.utils.rnn import (
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
)

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)
lengths = [7, 3, 5, 1]
sequences = [torch.randn(n, 6) for n in lengths]
figures = {}


class Tagger(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(6, 8, batch_first=True, **options)
        width = 8 * (2 if options.get("bidirectional") else 1)
        if options.get("proj_size"):
            width = width * options["proj_size"] // 8
        self.head = nn.Linear(width, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        out, state = self.rnn(packed)
        out, _ = pad_packed_sequence(out, batch_first=True)
        return self.head(out), state


padded = pad_sequence(sequences, batch_first=True).to(device)
targets = torch.randint(0, 3, padded.shape[:2]).to(device)
mask = (torch.arange(7)[None] < torch.tensor(lengths)[:, None]).to(device)
models = {
    "lstm": (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    "lstm_projected": (nn.LSTM, {"proj_size": 4}),
    "gru": (nn.GRU, {"num_layers": 2, "bidirectional": True}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm_no_bias": (nn.LSTM, {"bias": False}),
}
for name, (kind, options) in models.items():
    torch.manual_seed(1)
    model = Tagger(kind, **options).to(device)
    model.rnn.flatten_parameters()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        logits, state = model(padded, lengths)
        loss = nn.functional.cross_entropy(logits[mask], targets[mask])
        loss.backward()
        optimizer.step()
    figures[name] = loss.item()
    state = state[0] if isinstance(state, tuple) else state
    figures[name + "_state"] = state.norm().item()

dropped = nn.LSTM(6, 8, 3, dropout=0.5).to(device)
x = torch.randn(5, 2, 6).to(device)
first, second = dropped(x)[0], dropped(x)[0]
dropped.eval()
figures["dropout_differs"] = bool((first != second).any())
figures["eval_repeats"] = bool(torch.equal(dropped(x)[0], dropped(x)[0]))

torch.manual_seed(2)
packed = pack_sequence([s.to(device) for s in sequences], enforce_sorted=False)
figures["packed"] = [packed.data.sum().item(), packed.batch_sizes.tolist()]
cell, gru_cell = nn.LSTMCell(6, 8).to(device), nn.GRUCell(6, 8).to(device)
h = c = g = torch.zeros(2, 8, device=device)
for step in x:
    h, c = cell(step, (h, c))
    g = gru_cell(step, g)
figures["cells"] = [h.sum().item(), c.sum().item(), g.sum().item()]
out, hidden = nn.GRU(6, 8).to(device)(x[:, 0])
figures["unbatched"] = [list(out.shape), list(hidden.shape)]
print(json.dumps(figures))
