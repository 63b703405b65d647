"""torch.export and TorchScript: a model saved, loaded elsewhere, run with other sizes."""

import io
import json
import warnings

import torch
from torch import nn
from torch.export import Dim, export

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.inner(x).mean(1))


model = Encoder().to(device).eval()
x = torch.randn(4, 6, 16).to(device)
with torch.no_grad():
    want = model(x)
    program = export(
        model, (x,), dynamic_shapes={"x": {0: Dim("batch", min=2, max=64)}}
    )
    exported = program.module()(x)
    more = program.module()(x.repeat(3, 1, 1))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()(x)
    decomposed = program.run_decompositions()
    traced = torch.jit.trace(model, x)
    saved = io.BytesIO()
    torch.jit.save(traced, saved)
    saved.seek(0)
    back = torch.jit.load(saved, map_location=device)(x)
    frozen = torch.jit.freeze(traced)(x)


@torch.jit.script
def clipped_sum(x: torch.Tensor, limit: float = 0.5) -> torch.Tensor:
    total = torch.zeros_like(x[0])
    for row in x:
        if bool(row.abs().max() > limit):
            total = total + row.clamp(-limit, limit)
        else:
            total += row
    return total


def close(a):
    return torch.allclose(a, want, atol=1e-5)


print(
    json.dumps(
        {
            "want": want.sum(0).tolist(),
            "close": [close(exported), close(loaded), close(back), close(frozen)],
            "more": list(more.shape),
            "ops": len(decomposed.graph.nodes) > 20,
            "script": clipped_sum(x[0]).sum().item(),
        }
    )
)
