"""``torch.compile`` with torch's default backend: regions are graphs on the server."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable

import torch
import torch.nn.functional as F
import xpool
from graphs import counters, spent
from torch import nn


def losses(
    device: str,
    make: Callable[[], nn.Module],
    batches: list[torch.Tensor],
    *,
    compiled: bool,
    **options: object,
) -> list[float]:
    """A short training; the model's seed is fixed, so runs can be compared."""
    torch.manual_seed(0)
    model = make().to(device)
    run = torch.compile(model, **options) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    found = []
    for batch in batches:
        optimizer.zero_grad()
        loss = run(batch.to(device)).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def trains_alike(
    device: str, make: Callable[[], nn.Module], batches: list[torch.Tensor], **options
) -> None:
    wanted = losses("cpu", make, batches, compiled=False)
    got = losses(device, make, batches, compiled=True, **options)
    torch.testing.assert_close(got, wanted, rtol=2e-5, atol=1e-6)


def case_a_region_is_one_record(device: str) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(50):
            x = x * 1.01 + 0.5
        return x.relu() @ x

    x = torch.randn(4, 4)
    run = torch.compile(function)
    remote = x.to(device)
    torch.testing.assert_close(run(remote).cpu(), function(x))
    torch.testing.assert_close(run(remote).cpu(), function(x))
    grown = spent(lambda: [run(remote) for _ in range(10)])
    assert grown["graph_runs"] == 10
    assert grown["received_nbytes"] < 10 * 60, grown


def case_inductor_is_not_imported(device: str) -> None:
    run = torch.compile(lambda x: x + 1)
    assert run(torch.zeros(2, device=device)).tolist() == [1.0, 1.0]
    assert "torch._inductor.compile_fx" not in sys.modules


def case_cnn(device: str) -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )

    torch.manual_seed(7)
    trains_alike(device, make, [torch.randn(4, 1, 10, 10) for _ in range(4)])


def case_layouts_that_the_server_chooses(device: str) -> None:
    """A CPU server lays gradients out otherwise than what was traced for CUDA."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.GroupNorm(2, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    x = torch.randn(2, 3, 12, 12)
    remote = copy.deepcopy(model).to(device).to(memory_format=torch.channels_last)
    run = torch.compile(remote)
    model(x).square().sum().backward()
    for _ in range(3):
        remote.zero_grad()
        batch = x.to(device).to(memory_format=torch.channels_last)
        run(batch).square().sum().backward()
        for have, want in zip(remote.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(
                have.grad.cpu(), want.grad, rtol=1e-4, atol=1e-5, check_stride=False
            )


class Block(nn.Module):
    """A transformer's encoder layer, written out."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (
            one.view(batch, length, self.heads, -1).transpose(1, 2)
            for one in self.mix(self.first(x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.second(x))))


def case_transformer_block(device: str) -> None:
    torch.manual_seed(8)
    batches = [torch.randn(2, 5, 16) for _ in range(4)]
    trains_alike(device, Block, batches, fullgraph=True)


def case_modes(device: str) -> None:
    torch.manual_seed(8)
    x = torch.randn(2, 5, 16)
    torch.manual_seed(0)
    model = Block()
    want = model(x)
    local = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(local(x), want)
    model = model.to(device)
    for options in (
        {"mode": "reduce-overhead"},
        {"mode": "max-autotune"},
        {"backend": "xpool"},
        {"backend": "cudagraphs"},
        {"backend": "aot_eager"},
        {"options": {"triton.cudagraphs": True}},
    ):
        torch._dynamo.reset()
        run = torch.compile(model, **options)
        run(x.to(device))
        before = xpool.current_remote().statistics()["graph_runs"]
        torch.testing.assert_close(run(x.to(device)).cpu(), want)
        after = xpool.current_remote().statistics()["graph_runs"]
        assert after > before, options


def case_training_step_messages(device: str) -> None:
    """Forward, backward and optimizer compiled: three graphs a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = torch.randn(8, 8, device=device), torch.randn(8, 4, device=device)
    loss_of = torch.compile(lambda x, y: F.mse_loss(model(x), y))
    update = torch.compile(optimizer.step)

    def step() -> torch.Tensor:
        loss = loss_of(x, y)
        loss.backward()
        update()
        optimizer.zero_grad()
        return loss.detach()

    found = [step().item() for _ in range(4)]
    grown = spent(step)
    assert grown["graph_runs"] == 3, grown
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = x.cpu(), y.cpu()
    wanted = []
    for _ in range(4):
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wanted.append(loss.item())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def case_a_learning_rate_in_a_tensor(device: str) -> None:
    """A scalar on the host is sent with each run, and is no constant."""

    def trained(where: str, *, compiled: bool) -> tuple[list[float], int]:
        torch.manual_seed(0)
        model = nn.Linear(4, 2).to(where)
        rate = torch.tensor(0.1)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        update = torch.compile(optimizer.step) if compiled else optimizer.step
        x, found, runs = torch.ones(3, 4, device=where), [], 0
        for step in range(4):
            rate.fill_(0.1 / (step + 1))
            model(x).square().sum().backward()
            before = counters()["graph_runs"]
            update()
            runs = counters()["graph_runs"] - before
            optimizer.zero_grad()
            found.append(model.weight.sum().item())
        return found, runs

    wanted, _ = trained("cpu", compiled=False)
    got, runs = trained(device, compiled=True)
    torch.testing.assert_close(got, wanted)
    assert runs == 1


def case_an_optimizer_that_began_without(device: str) -> None:
    """Its steps are counted on the host and written there: by operation."""

    def trained(where: str, *, compiled: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Linear(4, 2).to(where)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        x, found = torch.ones(3, 4, device=where), []
        update = optimizer.step
        for step in range(5):
            if step == 2 and compiled:
                update = torch.compile(optimizer.step)
            model(x).square().sum().backward()
            update()
            optimizer.zero_grad()
            found.append(model.weight.sum().item())
        return found

    torch.testing.assert_close(
        trained(device, compiled=True),
        trained("cpu", compiled=False),
        rtol=1e-5,
        atol=1e-6,
    )


def case_graph_break(device: str) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x * 2 + 1
        if y.sum().item() > 0:
            return y.relu() + 3
        return y - 3

    run = torch.compile(function)
    for values in ([1.0, 2.0], [-5.0, 1.0], [1.0, 2.0]):
        x = torch.tensor(values)
        torch.testing.assert_close(run(x.to(device)).cpu(), function(x))


def case_dynamic_batch_sizes(device: str) -> None:
    torch.manual_seed(2)
    sizes = [4, 7, 5, 4, 9, 7, 5]

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))

    batches = [torch.randn(size, 6) for size in sizes]
    trains_alike(device, make, batches, dynamic=True)
    torch._dynamo.reset()
    trains_alike(device, make, batches)


def case_many_shapes_of_one_region(device: str) -> None:
    """More shapes than are captured at once: those that come again are, in the end."""
    run = torch.compile(lambda x: (x * 2 + x.shape[0]).cumsum(0), dynamic=True)
    for size in [*range(2, 40), *range(2, 6)]:
        x = torch.arange(float(size))
        torch.testing.assert_close(run(x.to(device)).cpu(), (x * 2 + size).cumsum(0))
    x = torch.arange(30.0, device=device)
    run(x)
    assert spent(lambda: run(x))["graph_runs"] == 1


def case_views_and_aliases(device: str) -> None:
    def function(x: torch.Tensor, y: torch.Tensor):
        z = x + y
        return x.t(), z, z[1:], x, y.view(-1)

    x, y = torch.randn(3, 4), torch.randn(3, 4)
    run = torch.compile(function)
    a, b = x.to(device), y.to(device)
    for _ in range(3):
        got = run(a, b)
        want = function(x, y)
        for have, wanted in zip(got, want, strict=True):
            torch.testing.assert_close(have.cpu(), wanted)
            assert have.stride() == wanted.stride()
        assert got[3] is a
        assert got[0].data_ptr() == a.data_ptr()
        assert got[4].data_ptr() == b.data_ptr()
        assert got[2].untyped_storage()._cdata == got[1].untyped_storage()._cdata
        got[0][0, 0] = 42.0
        assert a[0, 0].item() == 42.0
        a.copy_(x)


def case_mutated_inputs(device: str) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        y[0].mul_(x.sum())
        return x * y

    x, y = torch.randn(3), torch.randn(2, 3)
    a, b = x.to(device), y.to(device)
    run = torch.compile(function)
    for _ in range(3):
        version = a._version
        torch.testing.assert_close(run(a, b).cpu(), function(x, y))
        torch.testing.assert_close(a.cpu(), x)
        torch.testing.assert_close(b.cpu(), y)
        assert a._version > version
    torch._dynamo.reset()
    for _ in range(2):  # one storage behind both arguments
        torch.testing.assert_close(run(b[1], b).cpu(), function(y[1], y))
        torch.testing.assert_close(b.cpu(), y)


def case_inputs_at_other_offsets(device: str) -> None:
    run = torch.compile(lambda x: x * 2)
    rows = torch.arange(12.0).view(4, 3)
    remote = rows.to(device)
    for at in (0, 1, 2, 3, 1):
        assert run(remote[at]).tolist() == (rows[at] * 2).tolist()


def case_random_numbers_as_without(device: str) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5) + torch.rand_like(x)

    x = torch.ones(64, device=device)
    torch.manual_seed(3)
    want = [function(x).cpu() for _ in range(3)]
    run = torch.compile(function)
    torch.manual_seed(3)
    assert all(torch.equal(run(x).cpu(), one) for one in want)
    torch.manual_seed(3)
    assert all(torch.equal(run(x).cpu(), one) for one in want)


def case_what_cannot_be_captured_runs_all_the_same(device: str) -> None:
    def mixed(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale + torch.ones(2).to(x.device)

    run = torch.compile(mixed)
    x = torch.ones(2, device=device)
    for value in (2.0, 5.0, 7.0):
        assert run(x, torch.tensor(value)).tolist() == [value + 1] * 2

    def noise(x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(2).to(x.device)

    run = torch.compile(noise)
    assert len({tuple(run(x).tolist()) for _ in range(4)}) == 4

    config = torch._dynamo.config
    with config.patch(
        capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True
    ):
        run = torch.compile(lambda x: x[x > 0] * x.sum().item())
        for values in ([1.0, -1.0, 3.0], [2.0, 2.0, 2.0], [-1.0, -2.0, 4.0]):
            x = torch.tensor(values)
            want = x[x > 0] * x.sum().item()
            torch.testing.assert_close(run(x.to(device)).cpu(), want)


def case_constants_in_a_region(device: str) -> None:
    table = torch.arange(40_000, device=device)

    def function(x: torch.Tensor) -> torch.Tensor:
        small = torch.tensor([1.0, 2.0, 3.0], device=x.device)
        return x * small + table[7] + table.sum() * 0

    run = torch.compile(function)
    for _ in range(3):
        assert run(torch.ones(3, device=device)).tolist() == [8.0, 9.0, 10.0]


def case_errors_are_the_programs(device: str) -> None:
    run = torch.compile(lambda x, i: torch.searchsorted(x, x, sorter=i) + 1)
    x = torch.arange(3.0, device=device)
    good = torch.arange(3, device=device)
    bad = torch.tensor([0, 9, 1], device=device)
    for _ in range(2):
        assert run(x, good).tolist() == [1, 2, 3]
    try:
        run(x, bad).cpu()
    except (RuntimeError, IndexError) as error:
        assert "index" in str(error)
    else:
        raise AssertionError("nothing was refused")
    assert run(x, good).tolist() == [1, 2, 3]


def case_autocast(device: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 8).to(device)
    run = torch.compile(model)
    x = torch.randn(4, 8, device=device)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        want = model(x)
        for _ in range(2):
            got = run(x)
            assert got.dtype == torch.bfloat16
            torch.testing.assert_close(got.cpu(), want.cpu())


def case_several_threads(device: str) -> None:
    run = torch.compile(lambda x: (x @ x).relu() + 1)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            x = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))
            remote = x.to(device)
            for _ in range(20):
                torch.testing.assert_close(run(remote).cpu(), (x @ x).relu() + 1)
        except BaseException as error:
            errors.append(error)

    work(0)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def case_a_region_within_a_captured_graph(device: str) -> None:
    run = torch.compile(lambda x, scale: x * scale + 1)
    x, scale = torch.ones(4, device=device), torch.tensor(3.0)
    run(x, scale)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run(x, scale)
    scale.fill_(100)  # a graph keeps the number, as it would on a local device
    x.fill_(5)
    graph.replay()
    assert y.tolist() == [16.0] * 4
    assert run(x, scale).tolist() == [501.0] * 4


def case_nothing_is_left_behind(device: str) -> None:
    import gc

    torch._dynamo.reset()
    gc.collect()
    before = xpool.current_remote().statistics()
    run = torch.compile(lambda x: (x + 1) * (x - 1))
    x = torch.ones(1000, device=device)
    for _ in range(5):
        y = run(x)
    del run, x, y
    torch._dynamo.reset()
    gc.collect()
    after = xpool.current_remote().statistics()
    assert after["storage_count"] == before["storage_count"]
    assert after["failed_ops"] == before["failed_ops"]
