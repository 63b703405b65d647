"""Autograd functions and custom operators written in Python; gradients checked."""

import json

import torch
from torch.autograd import Function, gradcheck, gradgradcheck

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
figures = {}


class Swish(Function):
    @staticmethod
    def forward(ctx, x, beta=1.0):
        ctx.save_for_backward(x)
        ctx.beta = beta
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return grad * (s + ctx.beta * x * s * (1 - s)), None


class StraightThrough(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable()

    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-1, 1)


class SortBoth(Function):
    @staticmethod
    def forward(ctx, x):
        values, index = x.sort(-1)
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index)
        return values, index

    @staticmethod
    def backward(ctx, grad, _):
        (index,) = ctx.saved_tensors
        return torch.zeros_like(grad).scatter(-1, index, grad)


x = torch.randn(3, 4, dtype=torch.float64).to(device).requires_grad_()
figures["gradcheck"] = gradcheck(Swish.apply, (x,))
figures["gradgradcheck"] = gradgradcheck(lambda t: Swish.apply(t), (x,))
Swish.apply(x, 0.5).sum().backward()
figures["swish"] = x.grad.norm().item()
figures["vmap"] = torch.func.vmap(StraightThrough.apply)(x).sum().item()
values, index = SortBoth.apply(x)
figures["sorted"] = [
    torch.autograd.grad((values**2).sum(), x)[0].norm().item(),
    index[0].tolist(),
]


@torch.library.custom_op("demo_programs::scaled_add", mutates_args=())
def scaled_add(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    return a + b * scale


@scaled_add.register_fake
def _(a, b, scale):
    return torch.empty_like(a)


def setup(ctx, inputs, output):
    ctx.scale = inputs[2]


scaled_add.register_autograd(
    lambda ctx, g: (g, g * ctx.scale, None), setup_context=setup
)


@torch.library.custom_op("demo_programs::bump", mutates_args={"a"})
def bump(a: torch.Tensor) -> None:
    a.add_(1)


a = torch.ones(3, device=device, requires_grad=True)
b = torch.arange(3.0, device=device).requires_grad_()
scaled_add(a, b, 2.0).pow(2).sum().backward()
figures["custom"] = [a.grad.tolist(), b.grad.tolist()]
c = torch.zeros(2, device=device)
bump(c)
torch.ops.demo_programs.bump(c)
figures["bumped"] = c.tolist()
figures["opcheck"] = len(
    torch.library.opcheck(scaled_add, (a.detach(), b.detach(), 1.5))
)
print(json.dumps(figures))
