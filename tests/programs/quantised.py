"""Quantisation: int8 weights by hand, fake quantisation learnt, a dynamic model on the CPU."""

import copy
import json
import warnings

import torch
import torch.nn.functional as F
from torch import nn

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).to(device)
x = torch.randn(24, 16).to(device)


class Int8Linear(nn.Module):
    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer(
            "weight", (linear.weight.detach() / scale).round().to(torch.int8)
        )
        self.register_buffer("scale", scale)
        self.register_buffer("bias", linear.bias.detach().clone())

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


int8 = nn.Sequential(Int8Linear(model[0]), nn.ReLU(), Int8Linear(model[2]))
error = (int8(x) - model(x)).abs().max().item()
a = (x * 20).round().clamp(-127, 127).to(torch.int8)
b = int8[0].weight.t().contiguous()
counted = torch._int_mm(a, b)


class FakeQuantised(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.tensor([0.05]))
        self.register_buffer("zero", torch.tensor([0.0]))

    def forward(self, x):
        weight = torch.fake_quantize_per_channel_affine(
            self.inner.weight,
            self.inner.weight.detach().abs().amax(1) / 127,
            torch.zeros(self.inner.weight.size(0), dtype=torch.int32, device=x.device),
            0,
            -127,
            127,
        )
        x = torch._fake_quantize_learnable_per_tensor_affine(
            x, self.scale, self.zero, -128, 127, 1.0
        )
        return F.linear(x, weight, self.inner.bias)


learnt = nn.Sequential(
    FakeQuantised(copy.deepcopy(model[0])), nn.ReLU(), copy.deepcopy(model[2])
).to(device)
optimizer = torch.optim.SGD(learnt.parameters(), lr=0.05)
labels = torch.arange(24, device=device) % 4
losses = []
for _ in range(8):
    optimizer.zero_grad()
    loss = F.cross_entropy(learnt(x), labels)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
qat = torch.ao.quantization.FakeQuantize(
    observer=torch.ao.quantization.MovingAverageMinMaxObserver,
    quant_min=0,
    quant_max=255,
).to(device)
observed = [qat(x * (i + 1)).sum().item() for i in range(3)]
dynamic = torch.ao.quantization.quantize_dynamic(
    copy.deepcopy(model).cpu(), {nn.Linear}, dtype=torch.qint8
)
print(
    json.dumps(
        {
            "error": error,
            "counted": counted.sum().item(),
            "losses": losses,
            "observed": observed,
            "dynamic": dynamic(x.cpu()).abs().mean().item(),
            "fp8": x.to(torch.float8_e4m3fn).float().sum().item(),
        }
    )
)
