"""What programs use besides training loops; every result is compared with the CPU's."""

from __future__ import annotations

import gc
import time
import warnings

import torch
import torch.nn.functional as F
from cases import is_real_gpu
from torch import nn


def both(device: str, function, *tensors: torch.Tensor) -> None:
    """The function gives the same on the device and on the CPU, strides included."""
    expected = function(*(t.clone() for t in tensors))
    got = function(*(t.to(device) for t in tensors))
    expected = expected if isinstance(expected, tuple) else (expected,)
    got = got if isinstance(got, tuple) else (got,)
    assert len(expected) == len(got)
    for want, have in zip(expected, got, strict=True):
        if not isinstance(want, torch.Tensor):
            assert want == have
            continue
        assert have.device.type == device
        assert have.stride() == want.stride(), (have.stride(), want.stride())
        torch.testing.assert_close(have.cpu(), want)


def ramp(*sizes: int) -> torch.Tensor:
    count = 1
    for size in sizes:
        count *= size
    return torch.linspace(-1, 2, count).view(*sizes)


def case_arithmetic_and_promotion(device: str) -> None:
    x, i = ramp(3, 4), torch.arange(12).view(3, 4)
    both(device, lambda a: a + 1, x)
    both(device, lambda a: 1.5 - a, i)
    both(device, lambda a: a / 3, i)
    both(device, lambda a: a**2 + 2**a, x)
    both(device, lambda a, b: a + b, x, i)
    both(device, lambda a: torch.where(a > 0, a, 0.0), x)
    both(device, lambda a: a + torch.tensor(2.5, dtype=torch.float64), x)
    both(device, lambda a: torch.copysign(a, -3.0), x)
    both(device, lambda a: a.to(torch.float16) + 1, x)
    both(device, lambda a: (a * 1j + 2).abs(), x)
    both(device, lambda a: a.clamp(-0.5, 0.5), x)


def case_views_share_storage(device: str) -> None:
    x = torch.zeros(4, 6, device=device)
    x[1].fill_(1)
    x[:, 2] += 5
    x.t()[0, 0] = 9
    x.view(2, 12)[1, -1] = 7
    x.narrow(1, 3, 2).mul_(0).add_(2)
    torch.as_strided(x, (2,), (6,), 5).fill_(-1)
    y = torch.zeros(4, 6)
    y[1].fill_(1)
    y[:, 2] += 5
    y.t()[0, 0] = 9
    y.view(2, 12)[1, -1] = 7
    y.narrow(1, 3, 2).mul_(0).add_(2)
    torch.as_strided(y, (2,), (6,), 5).fill_(-1)
    assert torch.equal(x.cpu(), y)
    assert x.data_ptr() == x.view(-1).data_ptr()
    assert x[1:].data_ptr() == x.data_ptr() + 6 * 4
    assert x.data_ptr() != torch.zeros(4, 6, device=device).data_ptr()


def case_complex_views(device: str) -> None:
    c = torch.complex(ramp(3, 3), ramp(3, 3).flip(0))
    both(device, lambda a: torch.view_as_real(a), c)
    both(device, lambda a: a.conj() @ a, c)
    both(device, lambda a: a.conj().resolve_conj(), c)
    both(device, lambda a: a.imag.neg() + a.real, c)
    d = c.to(device).conj()
    assert d.is_conj()
    assert torch.equal(d.cpu(), c.conj().resolve_conj())
    assert d[0, 1].item() == c.conj()[0, 1].item()


def case_indexing(device: str) -> None:
    x = ramp(5, 4)
    mask, rows = x > 0, torch.tensor([4, 0, 2])
    both(device, lambda a: a[rows.to(a.device)], x)
    both(device, lambda a: a[rows], x)
    both(device, lambda a, m: a[m], x, mask)
    both(device, lambda a: a[a > 0.5].sum(), x)
    both(device, lambda a: a[[0, 1], [1, 2]], x)
    both(device, lambda a: a.index_select(0, rows.to(a.device)), x)
    both(device, lambda a: torch.gather(a, 1, torch.zeros(5, 1).long().to(a.device)), x)
    both(device, lambda a: a.index_put((rows.to(a.device),), a[0]), x)
    both(device, lambda a: a.masked_fill(a > 0, 7.0), x)
    y, z = x.clone(), x.to(device)
    y[rows], z[rows] = 3.0, 3.0
    y[y < 0], z[z < 0] = 0.25, 0.25
    y[:, ::2] = torch.tensor(1.0)
    z[:, ::2] = torch.tensor(1.0)
    assert torch.equal(z.cpu(), y)


def case_data_dependent_sizes(device: str) -> None:
    x = torch.tensor([3, 1, 3, 0, 1, 0, 0])
    both(device, lambda a: torch.nonzero(a), x)
    both(device, lambda a: torch.unique(a, return_counts=True), x)
    both(device, lambda a: torch.unique_consecutive(a), x)
    both(device, lambda a: torch.masked_select(a, a > 0), x)
    both(device, lambda a: torch.bincount(a), x)
    both(device, lambda a: torch.repeat_interleave(a, 2), x)
    both(device, lambda a: torch.repeat_interleave(a, a), x)
    both(device, lambda a: torch.argwhere(a > 1), x)
    both(device, lambda a: F.one_hot(a), x)
    both(device, lambda a: torch.equal(a, a + 0), x)
    both(device, lambda a: bool((a > 2).any()), x)


def case_out_arguments(device: str) -> None:
    x = ramp(3, 4)
    for shape in ((3, 4), (0,)):
        out = torch.empty(shape, device=device)
        result = torch.add(x.to(device), 1, out=out)
        assert result is out
        assert torch.equal(out.cpu(), x + 1)
    for _ in range(2):  # the second time must resize again
        out = torch.empty(0, device=device)
        torch.cumsum(x.to(device), 0, out=out)
        assert torch.equal(out.cpu(), x.cumsum(0))
        values, indices = torch.empty(0, device=device), torch.empty(0, device=device)
        indices = indices.long()
        torch.max(x.to(device), 1, out=(values, indices))
        assert torch.equal(values.cpu(), x.max(1).values)
    found = torch.empty(0, dtype=torch.long, device=device)
    torch.nonzero(x.to(device) > 0, out=found)
    local = torch.empty(0, dtype=torch.long)
    torch.nonzero(x > 0, out=local)
    assert torch.equal(found.cpu(), local)
    # The server has made it larger: its bytes are kept when it grows again.
    count = local.numel()
    found.resize_(100)
    local.resize_(100)
    assert torch.equal(found[:count].cpu(), local[:count])


def case_resize_and_set(device: str) -> None:
    x = torch.arange(6.0, device=device)
    alias = x.view(2, 3)
    x.resize_(10)
    assert torch.equal(x[:6].cpu(), torch.arange(6.0))
    alias += 1
    assert torch.equal(x[:6].cpu(), torch.arange(6.0) + 1)
    y = torch.empty(0, device=device)
    y.set_(x)
    assert y.is_set_to(x)
    y.data = torch.ones(2, 2, device=device)
    assert y.sum().item() == 4


def case_layouts_are_kept(device: str) -> None:
    x = ramp(2, 3, 4, 5)
    both(device, lambda a: a.contiguous(memory_format=torch.channels_last), x)
    both(device, lambda a: F.relu(a.to(memory_format=torch.channels_last)), x)
    both(device, lambda a: a.permute(3, 0, 2, 1) + 1, x)
    both(device, lambda a: a.transpose(1, 2).clone(), x)
    both(device, lambda a: torch.empty_like(a.permute(1, 0, 2, 3)).zero_(), x)
    both(device, lambda a: a.expand(3, 2, 3, 4, 5).sum(0), x)
    both(device, lambda a: F.conv2d(a, torch.ones(4, 3, 3, 3, device=a.device)), x)
    both(
        device,
        lambda a: F.conv2d(
            a.to(memory_format=torch.channels_last),
            torch.ones(4, 3, 3, 3, device=a.device),
        ),
        x,
    )


def case_layers_in_evaluation(device: str) -> None:
    torch.manual_seed(0)
    layers = [
        (nn.BatchNorm2d(3), ramp(2, 3, 4, 4)),
        (nn.LayerNorm(4), ramp(2, 3, 4, 4)),
        (nn.GroupNorm(3, 3), ramp(2, 3, 4, 4)),
        (nn.InstanceNorm2d(3), ramp(2, 3, 4, 4)),
        (nn.RMSNorm(4), ramp(2, 3, 4, 4)),
        (nn.EmbeddingBag(10, 3), torch.arange(8).view(2, 4)),
        (nn.Conv1d(3, 4, 2), ramp(2, 3, 9)),
        (nn.ConvTranspose2d(3, 2, 2), ramp(2, 3, 4, 4)),
        (nn.AdaptiveAvgPool2d(2), ramp(2, 3, 4, 4)),
        (nn.MultiheadAttention(4, 2, batch_first=True), None),
        (nn.Upsample(scale_factor=2, mode="bilinear"), ramp(2, 3, 4, 4)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), ramp(3, 4)),
    ]
    for layer, x in layers:
        for training in (False, True):
            layer.train(training)
            if x is None:
                q = ramp(2, 5, 4)
                want = layer(q, q, q)[0]
                have = layer.to(device)(*(q.to(device),) * 3)[0]
            else:
                want = layer(x)
                have = layer.to(device)(x.to(device))
            torch.testing.assert_close(
                have.cpu(), want, msg=lambda m, n=layer: f"{n}: {m}"
            )
            layer.to("cpu")


def case_losses_and_their_gradients(device: str) -> None:
    x, target = ramp(4, 5), torch.tensor([1, 0, 4, 2])
    functions = [
        lambda a, t: F.cross_entropy(a, t, label_smoothing=0.1),
        lambda a, t: F.nll_loss(F.log_softmax(a, 1), t),
        lambda a, t: F.mse_loss(a, F.one_hot(t, 5).float()),
        lambda a, t: F.smooth_l1_loss(a, F.one_hot(t, 5).float()),
        lambda a, t: F.binary_cross_entropy_with_logits(a, F.one_hot(t, 5).float()),
        lambda a, t: F.kl_div(F.log_softmax(a, 1), F.softmax(-a, 1)),
        lambda a, t: F.softmax(a.half(), 1, dtype=torch.float32).square().sum(),
    ]
    for function in functions:
        gradients = []
        for where in ("cpu", device):
            leaf = x.to(where, copy=True).requires_grad_()
            function(leaf, target.to(where)).backward()
            assert leaf.grad is not None
            gradients.append(leaf.grad.cpu())
        torch.testing.assert_close(*gradients)


def case_algebra(device: str) -> None:
    a = ramp(4, 4) @ ramp(4, 4).T + 4 * torch.eye(4)
    both(device, lambda m: torch.linalg.solve(m, torch.ones(4, 1, device=m.device)), a)
    both(device, lambda m: torch.linalg.cholesky(m), a)
    both(device, lambda m: torch.linalg.eigvalsh(m), a)
    both(device, lambda m: torch.linalg.svdvals(m), a)
    both(device, lambda m: torch.einsum("ij,kj->ik", m, m), a)
    both(device, lambda m: torch.baddbmm(m[None], m[None], m[None]), a)
    both(device, lambda m: torch.fft.rfft(m).abs(), a)
    both(device, lambda m: m.topk(2), a)
    both(device, lambda m: m.sort(0, descending=True), a)
    both(device, lambda m: torch.cummax(m, 0), a)
    both(device, lambda m: torch.cat([m, m[:1]], 0), a)
    both(device, lambda m: torch.stack(m.unbind(0), 1), a)
    both(device, lambda m: m.std(0), a)
    both(device, lambda m: torch.arange(0, 5, 2, device=m.device), a)
    both(device, lambda m: torch.linspace(0, 1, 5, device=m.device), a)
    both(
        device, lambda m: F.scaled_dot_product_attention(*(m.view(1, 1, 4, 4),) * 3), a
    )
    both(device, lambda m: F.interpolate(m.view(1, 1, 4, 4), 7), a)


def case_autograd_beyond_backward(device: str) -> None:
    x = torch.ones(3, device=device, requires_grad=True)
    (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert second.cpu().tolist() == [6.0, 6.0, 6.0]
    per_row = torch.func.vmap(torch.func.grad(lambda r: (r**2).sum()))
    assert per_row(torch.ones(3, 2, device=device)).sum().item() == 12
    seen = []
    y = torch.ones(2, device=device, requires_grad=True)
    y.register_hook(lambda g: seen.append(g.sum().item()))
    (y * 2).sum().backward()
    assert seen == [4.0]
    with torch.inference_mode():
        assert (y.detach() * 3).sum().item() == 6


def case_host_reads(device: str) -> None:
    x = ramp(3, 4).to(device)
    assert x.tolist() == ramp(3, 4).tolist()
    assert x.t().cpu().numpy().shape == (4, 3)
    assert float(x[0, 0]) == -1.0
    assert int(torch.tensor(7, device=device)) == 7
    assert "device='" + device in repr(x)
    assert torch.equal(x.t().to("cpu", torch.float64), ramp(3, 4).t().double())
    big = torch.arange(5_000_000, dtype=torch.int32)
    assert torch.equal(big.to(device).cpu(), big)
    host = torch.zeros(4, 3).t()
    host.copy_(x)
    assert torch.equal(host, ramp(3, 4))
    empty = torch.empty(0, 3, device=device)
    assert empty.cpu().shape == (0, 3)
    assert torch.isfinite(x).all()


def case_random_numbers(device: str) -> None:
    torch.manual_seed(5)
    a = torch.rand(100, device=device)
    b = torch.randn(100, device=device)
    torch.manual_seed(5)
    assert torch.equal(a.cpu(), torch.rand(100, device=device).cpu())
    assert torch.equal(b.cpu(), torch.randn(100, device=device).cpu())
    assert 0.3 < a.mean().item() < 0.7
    assert torch.randperm(50, device=device).sort().values.cpu().tolist() == list(
        range(50)
    )
    assert torch.randint(0, 3, (50,), device=device).max().item() <= 2
    draws = torch.multinomial(torch.tensor([0.0, 1.0, 1.0], device=device), 2)
    assert sorted(draws.tolist()) == [1, 2]
    assert torch.bernoulli(torch.ones(5, device=device)).sum().item() == 5


def case_streams_come_to_rest(device: str) -> None:
    """Whoever asks again and again comes to a yes; new work makes it a no before."""
    module = torch.get_device_module(device)
    stream = module.Stream()
    module.synchronize()
    assert stream.query()
    x = torch.ones(64, 64, device=device)
    for _ in range(50):
        x = x @ x * 0.01
    deadline = time.monotonic() + 60
    while not stream.query():
        assert time.monotonic() < deadline, "the stream never comes to rest"
        time.sleep(0.001)
    event = module.Event()
    event.record()
    event.synchronize()
    assert event.query()
    assert module.current_stream().query()


def case_frees_reach_the_server(device: str) -> None:
    module = getattr(torch, device)
    gc.collect()
    before = module.memory_allocated()
    x = torch.ones(1 << 18, device=device)
    y = x.view(512, 512)
    assert module.memory_allocated() == before + (1 << 20)
    del x
    assert module.memory_allocated() == before + (1 << 20)
    del y
    assert module.memory_allocated() == before
    assert module.max_memory_allocated() >= before + (1 << 20)
    free, total = module.mem_get_info()
    assert 0 < free <= total


def case_out_of_memory_at_the_call(device: str) -> None:
    module = getattr(torch, device)
    _, total = module.mem_get_info()
    try:
        torch.empty(total + 1, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        assert str(total) in str(error)
    else:
        raise AssertionError("the quota was not kept")
    assert torch.ones(3, device=device).sum().item() == 3


def case_out_of_memory_of_results(device: str) -> None:
    """A call whose results do not fit leaves nothing behind, also at the next fence."""
    module = getattr(torch, device)
    gc.collect()
    before = module.memory_allocated()
    free = module.mem_get_info()[0]
    x = torch.zeros(free // 2, dtype=torch.uint8, device=device)
    for call in (torch.sort, torch.Tensor.float, lambda tensor: tensor + 1.0):
        try:
            call(x)
        except torch.OutOfMemoryError:
            continue
        raise AssertionError("the quota was not kept")
    module.synchronize()
    del x
    assert module.memory_allocated() == before
    module.synchronize()


def fails_late(
    bad: torch.Tensor, good: torch.Tensor, kind: type[Exception], *words: str
) -> None:
    """A failure is told where its result is read, each time, and harms no other."""
    try:
        (bad * 2).sum().item()
    except kind as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError("the failure was lost")
    assert good.sum().item() == 6, "an unrelated result was harmed"
    try:
        bad.cpu()
    except kind:
        pass
    else:
        raise AssertionError("a poisoned tensor was read")


def case_late_error_names_the_operation(device: str) -> None:
    table, wrong = torch.arange(3.0, device=device), torch.tensor([0, 9, 1])
    bad = torch.searchsorted(table, table, sorter=wrong.to(device))
    words = ("sorter index out of range", "aten::searchsorted", "operation")
    fails_late(bad, table + 1, RuntimeError, *words)


def case_late_error_is_the_programs_own_kind(device: str) -> None:
    if is_real_gpu(device):
        return  # there it is an assertion in the kernel, the end of the context
    table = torch.zeros(3, 2, device=device)
    bad = F.embedding(torch.tensor([5], device=device), table)
    fails_late(bad, table + 1, IndexError, "aten::", "operation")


def case_errors_at_the_call(device: str) -> None:
    x = torch.ones(2, 3, device=device)
    for wrong in (
        lambda: x @ x,
        lambda: x + torch.ones(4, device=device),
        lambda: x + torch.ones(2, 3),
        lambda: torch.cat([x, x.cpu()]),
        lambda: x.view(7),
        lambda: torch.linalg.inv(torch.zeros(2, 2, device=device)).sum().item(),
    ):
        try:
            wrong()
        except RuntimeError:
            continue
        raise AssertionError("no error")
    assert x.sum().item() == 6


def case_warnings_are_not_errors(device: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = torch.empty(2, device=device)
        torch.add(torch.ones(3, device=device), 1, out=out)
    assert out.cpu().tolist() == [2.0, 2.0, 2.0]


def case_torch_compile_by_default(device: str) -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh()), ramp(2, 4)
    want = model(x)
    want.sum().backward()
    remote = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    remote.load_state_dict(model.state_dict())
    remote.to(device)
    run = torch.compile(remote, fullgraph=True)
    for _ in range(2):
        remote.zero_grad()
        got = run(x.to(device))
        got.sum().backward()
        torch.testing.assert_close(got.cpu(), want)
        torch.testing.assert_close(remote[0].weight.grad.cpu(), model[0].weight.grad)


def case_what_the_servers_device_lacks_is_refused_by_name(device: str) -> None:
    if is_real_gpu(device):
        return  # which lacks nothing that a CPU has
    x = torch.ones(2, 3, 4, device=device)
    try:
        torch.ops.aten._scaled_dot_product_flash_attention(x, x, x)
    except NotImplementedError as error:
        assert "aten::_scaled_dot_product_flash_attention has no kernel" in str(error)
        assert "(cpu: " in str(error)
    else:
        raise AssertionError("a CPU server ran a kernel for CUDA")
    both(device, lambda a: a + 1, ramp(2, 3))


def case_out_tensors_get_the_layout_that_the_device_gives_them(device: str) -> None:
    a = ramp(4, 4) @ ramp(4, 4).t() + 4 * torch.eye(4)

    def solved(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inverse, q, r = (torch.empty(0, device=a.device) for _ in range(3))
        torch.cholesky_inverse(torch.linalg.cholesky(a), out=inverse)
        torch.linalg.qr(a, out=(q, r))
        return inverse, q, r

    both(device, solved, a)
    both(device, lambda b, x: b.addbmm_(x, x), ramp(1), ramp(2, 3, 3))
    both(device, lambda x: F.silu(x) + F.mish(x), ramp(3, 4))
    both(device, lambda x: torch.complex(x, x).conj_physical_(), ramp(3))


def case_a_wrong_prediction_names_the_operation_and_the_session_goes_on(
    device: str,
) -> None:
    x, at = torch.ones(2, 3, device=device), torch.ones(2, 1, device=device)
    library = torch.library.Library("aten", "IMPL")
    library.impl(
        "searchsorted.Tensor",
        lambda *_, **__: torch.empty(7, 7, dtype=torch.long, device="meta"),
        "Meta",
        allow_override=True,
    )
    try:
        found = torch.searchsorted(x, at)
        assert found.shape == (7, 7)
        kept = found + 1
        for broken in (found, kept):
            try:
                broken.cpu()
            except RuntimeError as error:
                assert "aten::searchsorted.Tensor" in str(error), error
                assert "predicted sizes [7, 7]" in str(error), error
            else:
                raise AssertionError("a result of another size was read")
    finally:
        library._destroy()
    assert x.sum().item() == 6
    both(device, lambda a, b: a @ b, ramp(3, 4), ramp(4, 2))
