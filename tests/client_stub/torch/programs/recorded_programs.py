"""Straight-line torch programs, to compare what two devices record of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn, optim


def ramp(*sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = 1
    for size in sizes:
        count *= size
    return torch.linspace(-1, 2, count).view(*sizes).to(dtype)


def program_arithmetic(device: str) -> None:
    x = ramp(3, 4).to(device)
    i = torch.arange(12).view(3, 4).to(device)
    x + 1
    x + 1.5
    x + True
    x * (1 + 2j)
    2.0 * x
    1 - x
    1 / x
    x - 2
    x / 3
    x // 2
    x % 2
    x**2
    2**x
    x**0.5
    i + 2.5
    i // 2
    i & 3
    i.eq(4)
    x + i
    x + torch.tensor(2.5)
    x + torch.tensor(3)
    torch.add(x, x, alpha=2)
    torch.add(x, x, alpha=2.5)
    torch.add(x, x, alpha=1)
    torch.sub(x, i, alpha=3)
    x.neg()
    x.gt(0)
    x.logical_and(i)
    torch.clamp(x, -0.5, 0.5)
    torch.clamp(x, min=0)
    torch.lerp(x, x, 0.5)
    torch.addcmul(x, x, x, value=0.1)
    x.sin().exp().tanh()
    torch.where(x > 0, x, x)
    torch.atan2(x, x)
    torch.nan_to_num(x, nan=float("nan"), posinf=1.0)


def program_views(device: str) -> None:
    x = torch.zeros(4, 6, device=device)
    x[1].fill_(1)
    x[:, 2] += 5
    x.narrow(1, 3, 2).mul_(0).add_(2)
    torch.as_strided(x, (2,), (6,), 5).fill_(-1)
    x.unfold(1, 2, 2).sum()
    x.view(2, 2, 6).permute(2, 0, 1).contiguous()
    x.expand(3, 4, 6) + 1
    x.reshape(6, 4).transpose(0, 1).reshape(24)
    a, b = x.chunk(2, 1)
    a + b
    x.diagonal().zero_()
    x.unsqueeze(0).squeeze() + 1
    x.view(torch.int32) + 1
    x.flatten().split([4, 20])[1].neg()
    x.select(0, 3).unbind()[2].exp()
    x.transpose_(0, 1)
    x.t_().unsqueeze_(0)
    x + 1


def program_in_place(device: str) -> None:
    x = ramp(3, 4).to(device)
    x.add_(1).mul_(2.5).sub_(x).div_(3)
    x.relu_()
    x.clamp_(0, 1)
    x.zero_()
    x.fill_(2)
    x.fill_(torch.tensor(3.0))
    x.copy_(x.flip(0))
    x.copy_(torch.tensor(4))
    x += 1
    x[x.new_zeros((), dtype=torch.long)].exp_()
    x.index_fill_(0, torch.tensor([1], device=device), 3.0)
    x.masked_fill_(x > 1, 0.5)
    x.scatter_(1, torch.zeros(3, 1, dtype=torch.long, device=device), 1.0)
    x.lerp_(x, 0.25)
    x.addcdiv_(x, x, value=-0.1)
    x.tril_()
    x.t()[1:].neg_()


def program_out(device: str) -> None:
    x = ramp(3, 4).to(device)
    out = torch.empty(3, 4, device=device)
    torch.add(x, 1, out=out)
    torch.add(x, 1, out=out)
    for _ in range(2):
        small = torch.empty(0, device=device)
        torch.cumsum(x, 0, out=small)
    values = torch.empty(0, device=device)
    indices = torch.empty(0, dtype=torch.long, device=device)
    torch.max(x, 1, out=(values, indices))
    torch.mm(x, x.t(), out=torch.empty(3, 3, device=device))


def program_reductions(device: str) -> None:
    x = ramp(2, 3, 4).to(device)
    x.sum()
    x.sum(1)
    x.sum((0, 2), keepdim=True)
    x.sum(-1, dtype=torch.float64)
    x.mean()
    x.mean((1,), True)
    x.std(0)
    x.var(dim=(0, 1), correction=0)
    x.max()
    x.max(1)
    x.min(2, keepdim=True)
    x.argmax(1)
    x.prod(0)
    x.norm()
    torch.linalg.vector_norm(x, 1, (0, 2))
    x.cumsum(1)
    x.cumprod(1)
    x.logsumexp(2)
    x.all()
    (x > 0).any(1)
    x.sort(1)
    x.topk(2)
    x.median(1)
    x.amax((0, 1))
    x.nansum()


def program_indexing(device: str) -> None:
    x = ramp(5, 4).to(device)
    rows = torch.tensor([4, 0, 2])
    here = rows.to(device)
    x[here]
    x[:, here % 4]
    x.index_select(0, here)
    torch.gather(x, 1, torch.zeros(5, 1, dtype=torch.long, device=device))
    x.index_put((here,), x[0])
    x.index_put_((here,), x[0] + 1, accumulate=True)
    x.index_add(0, here, x[:3])
    x.take(here)
    torch.where(x > 0, x, 0.0)
    x.masked_fill(x > 0, 7.0)
    F.embedding(here, x)
    x.repeat(2, 1)
    x.repeat_interleave(2)
    x.roll(1, 0)
    x.flip(0, 1)
    x.tril()
    x.index_copy(0, here, x[:3])


def program_scalars_into_items(device: str) -> None:
    """torch itself makes a host or a device scalar, by the device's type."""
    x = ramp(5, 4).to(device)
    x[1, 2] = 9
    x.view(10, 2)[3, -1] = 7
    x[torch.tensor([4, 0, 2], device=device)] = 3.0


def program_batched_product_and_sum(device: str) -> None:
    a = ramp(2, 4, 4).to(device)
    torch.baddbmm(a, a, a)


def program_layout_of_a_flat_column(device: str) -> None:
    torch.nonzero(torch.tensor([3, 1, 0]).to(device)) + 1


def program_host_indices(device: str) -> None:
    x = ramp(5, 4).to(device)
    rows = torch.tensor([4, 0, 2])
    x[rows]
    x[[0, 1], [1, 2]]
    x[rows, :2] = 1.0
    x.index_put_((rows, torch.tensor([1, 1, 0])), torch.tensor(2.0))


def program_large_host_indices(device: str) -> None:
    x = ramp(5, 4).to(device)
    x[torch.zeros(20_000, dtype=torch.long)]


def program_algebra(device: str) -> None:
    a = (ramp(4, 4) + 4 * torch.eye(4)).to(device)
    a @ a
    torch.addmm(a, a, a, beta=0.5, alpha=2)
    torch.bmm(a[None], a[None])
    a @ a[0]
    a[0].dot(a[1])
    torch.einsum("ij,kj->ik", a, a)
    torch.linalg.cholesky(a @ a.t())
    torch.linalg.solve(a, a)
    torch.linalg.inv(a)
    torch.linalg.qr(a)
    torch.fft.rfft(a)
    torch.outer(a[0], a[1])
    torch.kron(a, a)
    torch.cdist(a, a)
    torch.trace(a)


def program_lists(device: str) -> None:
    x, y = ramp(2, 3).to(device), ramp(2, 3).to(device)
    torch.cat([x, y])
    torch.cat([x, y, x], 1)
    torch.stack([x, y], 1)
    torch.hstack([x, y])
    torch._foreach_add([x, y], 1)
    torch._foreach_add([x, y], [1.0, 2.5])
    torch._foreach_mul_([x, y], 2)
    torch._foreach_mul([x, y], [x, x])
    torch._foreach_sqrt([x, y])
    torch._foreach_norm([x, y])
    torch._foreach_addcdiv_([x, y], [x, y], [y, x], [0.5, 2.0])
    torch.meshgrid(x[0], y[0], indexing="ij")
    torch.block_diag(x, y)
    torch.cartesian_prod(x[0], y[1])
    torch.broadcast_tensors(x, y[0])[1] + 1


def program_factories(device: str) -> None:
    torch.zeros(3, device=device)
    torch.ones(2, 3, dtype=torch.int32, device=device)
    torch.full((2,), 3.5, device=device)
    torch.arange(5, device=device)
    torch.arange(1, 6, 2, device=device)
    torch.arange(0.0, 1.0, 0.25, device=device)
    torch.linspace(0, 1, 5, device=device)
    torch.logspace(0, 1, 3, device=device)
    torch.eye(3, device=device)
    torch.eye(2, 3, device=device)
    torch.empty(0, device=device)
    torch.empty(2, 0, 3, device=device).zero_()
    torch.tensor([1.0, 2.0], device=device)
    torch.tensor(7, device=device)
    x = torch.empty(2, 3, device=device)
    torch.zeros_like(x)
    torch.ones_like(x, dtype=torch.int64)
    torch.full_like(x, 2)
    x.new_zeros(2)
    x.new_tensor([1.0])
    torch.tril_indices(3, 3, device=device)
    torch.scalar_tensor(3.0, device=device)


def program_dtypes(device: str) -> None:
    x = ramp(2, 3).to(device)
    for dtype in (
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.float64,
        torch.complex64,
        torch.complex128,
        torch.bool,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
    ):
        x.to(dtype)
        torch.zeros(2, dtype=dtype, device=device)
    x.half() + 1
    x.double().to(torch.int32).float()
    x.bfloat16().sum(dtype=torch.float32)
    x.to(torch.uint16)


def program_memory_formats(device: str) -> None:
    x = ramp(2, 3, 4, 5).to(device)
    last = x.to(memory_format=torch.channels_last)
    last + 1
    last.relu().contiguous()
    last.clone(memory_format=torch.contiguous_format)
    torch.empty_like(last)
    torch.empty_like(last, memory_format=torch.contiguous_format).zero_()
    torch.empty(2, 3, 4, 5, device=device, memory_format=torch.channels_last)
    x.permute(3, 0, 2, 1) + 1
    x.transpose(1, 2).clone()
    x.permute(1, 0, 2, 3).exp().sum(0)
    torch.empty_strided((2, 3), (1, 2), device=device).zero_()
    last.mean((2, 3))
    last.half()


def program_complex(device: str) -> None:
    c = torch.complex(ramp(3, 3), ramp(3, 3).flip(0)).to(device)
    c.conj() + 1
    c.conj() @ c
    c.conj().resolve_conj()
    c.imag.neg() + c.real
    torch.view_as_real(c) * 2
    torch.view_as_complex(ramp(3, 2).to(device)) * 1j
    c.abs()
    c.angle()
    c.mH @ c
    torch._neg_view(c.real) + 1
    c.conj().imag.exp()
    torch.polar(c.real, c.imag)


def program_copies_from_host(device: str) -> None:
    x = torch.zeros(4, 6, device=device)
    x.copy_(ramp(4, 6))
    x.copy_(torch.arange(24).view(4, 6))
    x.copy_(torch.tensor(3.0))
    x.copy_(ramp(6))
    x[:, 1:3].copy_(ramp(4, 2))
    x[2:].copy_(ramp(2, 6))
    x.t().copy_(ramp(6, 4))
    x.copy_(ramp(6, 4).t())
    for dtype in (torch.bool, torch.float16, torch.int64, torch.complex64):
        ramp(2, 3).to(dtype).to(device)
    torch.complex(ramp(3), ramp(3)).conj().to(device)
    torch.zeros(0, 3).to(device)
    torch.zeros(()).to(device)
    ramp(3, 4).t().to(device)


def program_large_copies(device: str) -> None:
    torch.arange(16_384, dtype=torch.int32).to(device)  # 64 KiB: inside the record
    torch.arange(16_385, dtype=torch.int32).to(device)
    torch.arange(300_000, dtype=torch.float64).to(device)
    torch.arange(5_000_001, dtype=torch.int32).to(device)  # over one transfer
    for _ in range(3):  # more than one batch's payloads
        torch.arange(3_000_000, dtype=torch.int16).to(device)
    torch.arange(70_000, dtype=torch.uint8).to(device)


def program_many_small_calls(device: str) -> None:
    """More records than one batch holds."""
    x = torch.zeros(3, device=device)
    for _ in range(3000):
        x = x + 1
        x.mul_(0.5)


def program_random(device: str) -> None:
    torch.manual_seed(5)
    torch.rand(4, device=device)
    torch.randn(2, 3, device=device)
    torch.randint(0, 3, (5,), device=device)
    torch.randperm(10, device=device)
    x = torch.empty(3, 4, device=device)
    x.uniform_(-1, 1)
    x.normal_(0.5, 2.0)
    x.bernoulli_(0.3)
    x.random_(0, 10)
    x.exponential_()
    torch.bernoulli(x.sigmoid())
    torch.multinomial(x.sigmoid(), 2)
    F.dropout(x, 0.2)
    torch.rand_like(x)
    generator = torch.Generator(device=device)
    generator.manual_seed(3)
    x.normal_(generator=generator)
    torch.rand(3, device=device, generator=generator)
    torch.randint(4, (2,), device=device, generator=generator)
    getattr(torch, device).manual_seed(9)
    del generator
    nn.init.xavier_uniform_(x)


def program_functions(device: str) -> None:
    x = ramp(2, 3, 8).to(device)
    F.relu(x)
    F.gelu(x)
    F.gelu(x, approximate="tanh")
    F.softmax(x, -1)
    F.log_softmax(x, 1)
    F.silu(x)
    F.leaky_relu(x, 0.2)
    F.elu(x)
    F.hardswish(x)
    F.softplus(x, 2, 10)
    F.layer_norm(x, (8,))
    F.layer_norm(x, (8,), eps=1e-4)
    F.glu(x)
    F.pad(x, (1, 2))
    F.pad(x, (1, 2), value=3.0)
    F.pad(x, (1, 1), mode="reflect")
    F.max_pool1d(x, 2)
    F.avg_pool1d(x, 2)
    F.adaptive_avg_pool2d(x, (2, 2))
    F.max_pool2d(x, 2, return_indices=True)
    F.interpolate(x, scale_factor=2.0)
    F.interpolate(x[None], (5, 6), mode="bilinear", align_corners=False)
    F.mse_loss(x, x * 2)
    F.smooth_l1_loss(x, x * 2, beta=0.5)
    F.binary_cross_entropy_with_logits(x, x.sigmoid())
    F.kl_div(x, x, reduction="batchmean")
    F.normalize(x)
    F.cosine_similarity(x, x)
    F.pixel_shuffle(x.view(1, 4, 3, 4), 2)
    F.linear(x, x[0])
    F.scaled_dot_product_attention(x[None], x[None], x[None])
    q, k, v = (x[None].clone().requires_grad_() for _ in range(3))
    F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
    F.scaled_dot_product_attention(q, k, v, attn_mask=(x @ x.mT) > 0)


def program_mlp_sgd(device: str) -> None:
    train(device, lambda p: optim.SGD(p, 0.1, momentum=0.9, foreach=True))


def program_mlp_sgd_one_by_one(device: str) -> None:
    train(device, lambda p: optim.SGD(p, 0.1, weight_decay=0.1, foreach=False))


def program_mlp_adam(device: str) -> None:
    train(device, lambda p: optim.Adam(p, 1e-2, foreach=True))


def program_mlp_adamw_fused(device: str) -> None:
    train(device, lambda p: optim.AdamW(p, 1e-2, fused=True))


def train(device, make_optimizer):
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        nn.Embedding(20, 8), nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU()
    )
    head = nn.Linear(16, 20)
    for parameter in (*model.parameters(), *head.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator)
    model, head = model.to(device), head.to(device)
    optimizer = make_optimizer([*model.parameters(), *head.parameters()])
    tokens = torch.randint(0, 20, (4, 6), generator=generator)
    for _ in range(2):
        optimizer.zero_grad()
        x = tokens.to(device)
        out = head(F.dropout(model(x), 0.1))
        loss = F.cross_entropy(out.flatten(0, 1), x.flatten(), label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def program_transformer_layer(device: str) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    layer = layer.to(device)
    x = ramp(2, 5, 16).to(device).requires_grad_()
    layer(x).square().mean().backward()


def program_recurrent(device: str) -> None:
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        layer = kind(6, 8, batch_first=True).to(device)
        x = ramp(2, 3, 6).to(device).requires_grad_()
        layer(x)[0].sum().backward()


def program_resize_and_set(device: str) -> None:
    x = torch.arange(6.0, device=device)
    alias = x.view(2, 3)
    x.resize_(10)
    alias += 1
    x.resize_(2, 2)
    x.resize_(40)
    y = torch.empty(0, device=device)
    y.set_(x)
    y.set_(x.untyped_storage(), 2, (2, 2), (2, 1))
    y.data = torch.ones(2, 2, device=device)
    y.set_()
    y.resize_(3).zero_()


def program_convolutions(device: str) -> None:
    x = ramp(2, 3, 6, 6).to(device).requires_grad_()
    weight = ramp(4, 3, 3, 3).to(device).requires_grad_()
    bias = ramp(4).to(device).requires_grad_()
    F.conv2d(x, weight, bias, padding=1).sum().backward()
    F.conv2d(x, weight, stride=2, dilation=2).sum().backward()
    F.conv_transpose2d(x[:, :, :2], weight.transpose(0, 1)[:3]).relu()
    F.conv1d(x[:, :, 0], weight[:, :, 0]) * 2


def program_batch_norm(device: str) -> None:
    x = ramp(4, 3, 2, 2).to(device).requires_grad_()
    layer = nn.BatchNorm2d(3).to(device)
    layer(x).sum().backward()
    layer(x).sum().backward()
    layer.eval()
    layer(x) + 1
    F.instance_norm(x) + 1
    F.group_norm(x, 3) + 1
    layer.running_mean.cpu()


def program_reads(device: str) -> None:
    x = ramp(3, 4).to(device)
    x.sum().item()
    x.tolist()
    x.t().cpu()
    x[1:, ::2].cpu()
    torch.zeros(3, 4).copy_(x)
    torch.zeros(3, 4, dtype=torch.float64).copy_(x)
    torch.equal(x, x + 0)
    bool((x > 0).all())
    torch.arange(5_000_000, dtype=torch.int32).to(device).cpu()
    x.is_set_to(x)


def program_data_dependent_sizes(device: str) -> None:
    x = torch.tensor([3, 1, 3, 0, 1, 0, 0]).to(device)
    torch.unique(x, return_counts=True)[1] + 1
    torch.masked_select(x, x > 0) + 1
    torch.bincount(x)
    x.repeat_interleave(x)
    found = torch.empty(0, dtype=torch.long, device=device)
    torch.nonzero(x, out=found)
    found.flatten() + 1
    F.embedding_bag(x.view(1, 7), ramp(4, 2).to(device)) + 1


def program_masks_as_indices(device: str) -> None:
    x = torch.tensor([3, 1, 3, 0, 1, 0, 0]).to(device)
    x[x > 1] + 1
    x[torch.tensor([True, False] * 3 + [True])] + 1


def program_generators(device: str) -> None:
    generator = torch.Generator(device=device)
    state = generator.get_state()
    torch.rand(3, device=device, generator=generator).cpu()
    generator.set_state(state)
    torch.rand(3, device=device, generator=generator).cpu()
    module = getattr(torch, device)
    module.set_rng_state(module.get_rng_state())


DIFFERENT = {
    "scalars_into_items": "torch puts the number on the device first where that is not"
    " CUDA",
    "batched_product_and_sum": "one call; the native device runs torch's composite",
    "layout_of_a_flat_column": "strides of extent 1: Python meta kernels choose others",
    "host_indices": "sent by value; torch uploads them before the native device sees",
    "large_host_indices": "uploaded once; by torch on the native device",
    "masks_as_indices": "one call that waits; two on the native device",
    "transformer_layer": "autograd adds in place only what no Python object holds",
    "recurrent": "C++ evaluates the operands of one expression in another order",
}
"""What records other calls on the pure-Python device than on the native, and why."""

_ALL = {
    name.removeprefix("program_"): program
    for name, program in list(globals().items())
    if name.startswith("program_")
}

PROGRAMS = {
    **{name: program for name, program in _ALL.items() if name not in DIFFERENT},
    **{name: _ALL[name] for name in DIFFERENT},
}
"""The equal ones first: what they record is equal to the last number."""

BATCHED = ("large_copies", "many_small_calls", "copies_from_host")
"""These wait for no answer; how they are cut into batches is compared too."""
