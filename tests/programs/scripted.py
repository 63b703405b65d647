"""torch.jit: scripted and traced, control flow, saved, loaded onto the device, frozen."""

import io
import json
import warnings
from typing import Dict, List, Optional, Tuple  # noqa: UP035  TorchScript's own

import torch
from torch import nn

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(
        self, x: torch.Tensor, times: int = 2
    ) -> Tuple[torch.Tensor, List[int]]:
        sizes: List[int] = []
        for _ in range(times):
            if x.mean() > 0:
                x = torch.tanh(self.linear(x))
            else:
                x = -x
            sizes.append(x.size(0))
        return x, sizes


@torch.jit.script
def pick(
    table: Dict[str, torch.Tensor], key: str, other: Optional[torch.Tensor] = None
):
    if key in table:
        return table[key] * 2
    assert other is not None
    return other


x = torch.randn(3, 4).to(device)
net = Gate().to(device)
scripted = torch.jit.script(net)
out, sizes = scripted(x, 3)
figures = {
    "scripted": [out.sum().item(), sizes],
    "same": torch.equal(out, net(x, 3)[0]),
    "pick": pick({"a": x}, "a").sum().item(),
}
cnn = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
cnn = cnn.to(device).eval()
image = torch.randn(2, 1, 6, 6).to(device)
traced = torch.jit.trace(cnn, image)
figures["traced"] = traced(image).sum().item()
frozen = torch.jit.freeze(traced)
figures["frozen"] = (frozen(image) - cnn(image)).abs().max().item() < 1e-5
buffer = io.BytesIO()
torch.jit.save(traced, buffer)
buffer.seek(0)
loaded = torch.jit.load(buffer, map_location=device)
figures["loaded"] = [
    loaded(image).sum().item(),
    next(loaded.parameters()).device.type == device,
]
for _ in range(4):
    value = scripted(x.detach().requires_grad_(), 2)[0].sum()
    value.backward()
figures["gradient"] = net.linear.weight.grad.norm().item()
print(json.dumps(figures))
