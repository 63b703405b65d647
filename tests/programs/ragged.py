"""Nested tensors: sentences of different lengths through embedding, attention and loss."""

import json
import warnings

import torch
import torch.nn.functional as F
from torch import nn

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
lengths = [3, 7, 5, 1]
sentences = [torch.randn(n, 16) for n in lengths]
nested = torch.nested.nested_tensor(
    sentences, layout=torch.jagged, device=device, requires_grad=True
)
project = nn.Linear(16, 3 * 16).to(device)
q, k, v = project(nested).chunk(3, -1)
gate = (q * k).sigmoid()
attended = gate * v
normed = F.layer_norm(attended + nested, (16,))
padded = torch.nested.to_padded_tensor(normed, 0.0)
loss = padded.square().mean()
loss.backward()
alone = [F.layer_norm(one, (16,)) for one in attended.unbind()]
offsets = torch.tensor([0, 3, 10, 15, 16], device=device)
jagged = torch.nested.nested_tensor_from_jagged(
    torch.arange(16.0, device=device)[:, None], offsets
)
print(
    json.dumps(
        {
            "shape": list(padded.shape),
            "loss": loss.item(),
            "weight": project.weight.grad.abs().sum().item(),
            "means": [one.mean().item() for one in alone],
            "sums": [one.sum().item() for one in jagged.unbind()],
            "doubled": (jagged * 2).values().sum().item(),
            "sigmoid": jagged.sigmoid().values().sum().item(),
            "total": nested.values().sum().item(),
        }
    )
)
