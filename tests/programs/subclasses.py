"""Tensor subclasses, __torch_function__, dispatch and function modes, a Python operator."""

import json

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


class Metres(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


class Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name
        self.names[name] = self.names.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


class NoDropout(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.dropout:
            return args[0]
        return func(*args, **(kwargs or {}))


@torch.library.custom_op("shop::blend", mutates_args=())
def blend(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    return a * share + b * (1 - share)


@blend.register_fake
def _(a, b, share):
    return torch.empty_like(a)


blend.register_autograd(
    lambda ctx, grad: (grad * ctx.share, grad * (1 - ctx.share), None),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "share", inputs[2]),
)

library = torch.library.Library("shop2", "DEF")
library.define("scale_(Tensor(a!) x, float by) -> ()")
library.impl("scale_", lambda x, by: (x.mul_(by), None)[1], "CompositeExplicitAutograd")

length = torch.tensor([1.0, 2.0, 3.0], device=device).as_subclass(Metres)
doubled = (length * 2 + 1).sum()
model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2)).to(device)
x = torch.randn(4, 8).to(device)
with Counter() as counter:
    model[0](x).relu().sum().backward()
with NoDropout():
    out = model(x)
with FlopCounterMode(display=False) as flops:
    model(x).sum().backward()
torch.manual_seed(1)  # dropout draws from the device's generator
a = torch.randn(3, 3).to(device).requires_grad_()
b = torch.randn(3, 3).to(device).requires_grad_()
blended = blend(a, b, 0.25)
blended.square().sum().backward()
compiled = torch.compile(lambda a, b: blend(a, b, 0.5).sum(), fullgraph=True)(a, b)
torch.ops.shop2.scale_(x, 2.0)
print(
    json.dumps(
        {
            "type": type(length + 1).__name__,
            "doubled": doubled.item(),
            "kinds": sorted(name for name in counter.names if "mm" in name),
            "out": out.sum().item(),
            "flops": flops.get_total_flops(),
            "blended": [blended.sum().item(), a.grad.sum().item(), b.grad.sum().item()],
            "compiled": compiled.item(),
            "scaled": x.sum().item(),
        }
    )
)
