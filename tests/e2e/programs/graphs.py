"""CUDA graphs: what is captured, what a replay sends, what can't be captured."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import torch
import torch.nn.functional as F
import xpool
from torch import nn

REFUSED = "operation not permitted when stream is capturing"


def counters() -> dict[str, int]:
    return xpool.current_remote().statistics()


def spent(run: Callable[[], object]) -> dict[str, int]:
    """By how much the server's counters grow, less what reading them costs."""
    start = counters()
    before = counters()
    run()
    after = counters()
    own = before["received_nbytes"] - start["received_nbytes"]
    grown = {name: after[name] - before[name] for name in after}
    grown["received_nbytes"] -= own
    return grown


def captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def refusal(run: Callable[[], object], kind: type[Exception] = RuntimeError) -> str:
    try:
        run()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was refused")


def case_replay_is_one_record(device: str) -> None:
    x = torch.zeros(4, 4, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x
        for _ in range(100):
            y = y + 1
        z = (y @ y).relu()
    address = z.data_ptr()
    for value in (0.0, 3.0, -200.0):
        x.fill_(value)
        graph.replay()
        want = torch.full((4, 4), value) + 100
        assert torch.equal(z.cpu(), (want @ want).relu())
        assert z.data_ptr() == address
    grown = spent(lambda: [graph.replay() for _ in range(10)])
    assert grown["graph_runs"] == 10
    assert grown["executed_ops"] == 1020
    assert grown["received_nbytes"] < 10 * 60, grown


def case_capture_does_not_execute(device: str) -> None:
    x = torch.ones(3, device=device)

    def double() -> None:
        x.mul_(2)

    grown = spent(lambda: captured(double))
    assert grown["executed_ops"] == 0
    assert x.tolist() == [1, 1, 1]
    graph = captured(double)
    graph.replay()
    graph.replay()
    assert x.tolist() == [4, 4, 4]


def case_documentation_whole_training_step(device: str) -> None:
    """The example of torch's documentation, against the same in a plain loop."""
    batch, width, hidden, out = 16, 12, 8, 4
    torch.manual_seed(0)

    def parts(where: str) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out)
        ).to(where)
        return model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1)

    data = [(torch.randn(batch, width), torch.randn(batch, out)) for _ in range(6)]
    model, loss_fn, optimizer = parts("cpu")
    wanted = []
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        loss_fn(model(data[0][0]), data[0][1]).backward()
        optimizer.step()
    for x, y in data:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        wanted.append(loss.item())

    model, loss_fn, optimizer = parts(device)
    static_input, static_target = data[0][0].to(device), data[0][1].to(device)
    s = torch.cuda.Stream()
    s.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(s):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            loss_fn(model(static_input), static_target).backward()
            optimizer.step()
    torch.cuda.current_stream().wait_stream(s)
    g = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(g):
        static_loss = loss_fn(model(static_input), static_target)
        static_loss.backward()
        optimizer.step()
    got = []
    for x, y in data:
        static_input.copy_(x)
        static_target.copy_(y)
        g.replay()
        got.append(static_loss.item())
    torch.testing.assert_close(got, wanted)
    assert all(p.grad is not None for p in model.parameters())
    grown = spent(g.replay)
    assert grown["graph_runs"] == 1
    assert grown["received_nbytes"] < 200


def case_adam_capturable(device: str) -> None:
    def losses(where: str, steps: int) -> list[float]:
        torch.manual_seed(3)
        model = nn.Linear(5, 3).to(where)
        x = torch.linspace(-1, 1, 20).view(4, 5).to(where)
        is_remote = where != "cpu"
        optimizer = torch.optim.Adam(
            model.parameters(), lr=0.05, capturable=is_remote, foreach=True
        )
        if not is_remote:
            found = []
            for _ in range(steps):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
            return found
        s = torch.cuda.Stream()
        with torch.cuda.stream(s):
            optimizer.zero_grad()
            first = model(x).square().mean()
            first.backward()
            optimizer.step()
        found = [first.item()]
        optimizer.zero_grad()
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g):
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
        for _ in range(steps - 1):
            g.replay()
            found.append(loss.item())
        return found

    torch.testing.assert_close(
        losses(device, 5), losses("cpu", 5), rtol=1e-5, atol=1e-6
    )  # capturable Adam rounds otherwise


def case_make_graphed_callables(device: str) -> None:
    torch.manual_seed(5)
    first = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    second = nn.Linear(8, 2)
    x, y = torch.randn(4, 6), torch.randn(4, 2)
    want = [
        p.clone()
        for p in torch.autograd.grad(
            F.mse_loss(second(first(x)), y),
            [*first.parameters(), *second.parameters()],
        )
    ]
    first, second = first.to(device), second.to(device)
    sample, hidden = (
        torch.randn(4, 6, device=device),
        torch.randn(4, 8, device=device, requires_grad=True),
    )
    first, second = torch.cuda.make_graphed_callables(
        (first, second), ((sample,), (hidden,))
    )
    for _ in range(2):
        loss = F.mse_loss(second(first(x.to(device))), y.to(device))
        loss.backward()
        got = [p.grad.cpu() for p in [*first.parameters(), *second.parameters()]]
        torch.testing.assert_close(got, want)
        first.zero_grad()
        second.zero_grad()
    grown = spent(lambda: F.mse_loss(second(first(sample)), y.to(device)).backward())
    assert grown["graph_runs"] == 4


def case_random_numbers_advance(device: str) -> None:
    x = torch.zeros(8, device=device)
    graph = captured(lambda: x.copy_(torch.rand(8, device=device)))
    torch.cuda.manual_seed(11)
    graph.replay()
    first = x.cpu()
    graph.replay()
    second = x.cpu()
    torch.cuda.manual_seed(11)
    eager = [torch.rand(8, device=device).cpu() for _ in range(2)]
    assert torch.equal(first, eager[0])
    assert torch.equal(second, eager[1])
    graph = torch.cuda.CUDAGraph()
    generator = torch.Generator(device).manual_seed(2)
    with torch.cuda.graph(graph):
        x.normal_(generator=generator)
    del generator
    graph.replay()
    once = x.cpu()
    graph.replay()
    assert not torch.equal(once, x.cpu())


def case_graphs_share_a_pool(device: str) -> None:
    x = torch.arange(4.0, device=device)
    pool = torch.cuda.graph_pool_handle()
    first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(first, pool=pool):
        y = x * 2
    with torch.cuda.graph(second, pool=first.pool()):
        z = y + 1
    assert first.pool() == pool == second.pool()
    x.fill_(5)
    del y
    gc.collect()
    first.replay()
    second.replay()
    assert z.tolist() == [11.0] * 4


def case_a_graph_keeps_its_inputs(device: str) -> None:
    x = torch.full((4,), 3.0, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * 2
    del x
    gc.collect()
    graph.replay()
    assert y.tolist() == [6.0] * 4


def case_memory_of_a_capture_is_the_programs(device: str) -> None:
    """What is allocated but not written keeps what the program puts there."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x = torch.empty(3, device=device)
        y = x + 1
    x.copy_(torch.tensor([1.0, 2.0, 3.0]))
    graph.replay()
    assert y.tolist() == [2.0, 3.0, 4.0]
    graph.replay()
    assert x.tolist() == [1.0, 2.0, 3.0]
    y.zero_()  # before a replay, and after
    graph.replay()
    assert y.tolist() == [2.0, 3.0, 4.0]


def case_memory_comes_back(device: str) -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    on_server = counters()
    x = torch.zeros(1 << 18, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x + 1) * 2 - 3
    for _ in range(3):
        graph.replay()
    assert torch.cuda.memory_allocated() - before == 2 << 20
    assert counters()["allocated_nbytes"] - on_server["allocated_nbytes"] == 2 << 20
    del x, y, graph
    gc.collect()
    assert torch.cuda.memory_allocated() == before
    assert counters()["allocated_nbytes"] == on_server["allocated_nbytes"]


def case_an_unwanted_result_is_not_made(device: str) -> None:
    x = torch.zeros(4, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x + 1
    storages = counters()["storage_count"]
    del y
    gc.collect()
    graph.replay()
    assert counters()["storage_count"] == storages - 1


def case_a_convolution_without_a_warm_up(device: str) -> None:
    """Its layout is the server's to tell; it is asked while the graph is captured."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    x = torch.randn(2, 2, 9, 7)
    want = model(x)
    remote = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    torch.manual_seed(0)
    remote = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).to(device)
    static = x.to(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        got = remote(static)
    graph.replay()
    torch.testing.assert_close(got.cpu(), want.detach())
    torch.testing.assert_close(remote[1].running_mean.cpu(), model[1].running_mean)


def case_streams_that_join_a_capture(device: str) -> None:
    x = torch.zeros(4, device=device)
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph):
        y = x + 1
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            assert torch.cuda.is_current_stream_capturing()
            z = y * 2
            done = torch.cuda.Event()
            done.record()
        torch.cuda.current_stream().wait_event(done)
        w = z + 1
    with torch.cuda.stream(side):
        assert not torch.cuda.is_current_stream_capturing()
    x.fill_(4)
    graph.replay()
    assert w.tolist() == [11.0] * 4


def case_other_threads_go_on(device: str) -> None:
    x = torch.zeros(4, device=device)
    seen: list[list[float]] = []

    def work() -> None:
        seen.append((torch.ones(3, device=device) * 7).tolist())

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x + 1
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [[7.0] * 3]
    graph.replay()
    assert y.tolist() == [1.0] * 4


def case_what_a_capture_refuses(device: str) -> None:
    x = torch.ones(4, device=device)

    def tried(run: Callable[[], object], kind: type[Exception] = RuntimeError) -> str:
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            graph.capture_begin()
            assert torch.cuda.is_current_stream_capturing()
            text = refusal(run, kind)
            assert "previous error during capture" in refusal(graph.capture_end)
            assert not torch.cuda.is_current_stream_capturing()
        assert "without a preceding successful capture" in refusal(graph.replay)
        return text

    for run in (
        lambda: x.sum().item(),
        lambda: x.cpu(),
        lambda: bool(x[0] > 0),
        torch.cuda.synchronize,
        lambda: torch.cuda.current_stream().synchronize(),
        lambda: x.nonzero(),
        lambda: x[x > 0],
        lambda: torch.cuda.manual_seed(1),
        torch.cuda.get_rng_state,
    ):
        assert REFUSED in tried(run), run
    assert "Cannot copy between CPU and CUDA" in tried(lambda: x.copy_(torch.zeros(4)))
    assert "Cannot copy between CPU and CUDA" in tried(
        lambda: torch.tensor([1.0, 2.0], device=device)
    )
    pinned = torch.zeros(4).pin_memory()
    assert "has brought to the host itself" in tried(
        lambda: x.copy_(pinned.copy_(x, non_blocking=True), non_blocking=True)
    )
    assert x.tolist() == [1.0] * 4
    assert (x + 1).tolist() == [2.0] * 4


def case_captured_copies_from_and_to_pinned_memory(device: str) -> None:
    host, answer = torch.zeros(2, 3).pin_memory(), torch.zeros(3, 2).pin_memory()
    halves = torch.zeros(2, 3, dtype=torch.float64, device=device)
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=side):
        halves.copy_(host, non_blocking=True)
        answer.copy_(halves.t() * 2, non_blocking=True)
    assert answer.tolist() == [[0.0, 0.0]] * 3, "nothing runs while it is captured"
    for step in (1.0, 2.0, 3.0):
        host.copy_(torch.arange(6.0).view(2, 3) * step)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(answer, host.t() * 2)
        assert torch.equal(halves.cpu(), host.double())


def case_misuse(device: str) -> None:
    x = torch.ones(4, device=device)
    graph = torch.cuda.CUDAGraph()
    assert "non-default stream" in refusal(graph.capture_begin)
    assert "without a preceding" in refusal(graph.replay)
    with torch.cuda.graph(graph):
        y = x + 1
    with torch.cuda.stream(torch.cuda.Stream()):
        assert "already owns a captured graph" in refusal(graph.capture_begin)
        other = torch.cuda.CUDAGraph()
        other.capture_begin()
        assert REFUSED in refusal(graph.replay)
        refusal(other.capture_end)
        assert "Unknown capture error mode" in refusal(
            lambda: torch.cuda.CUDAGraph().capture_begin(capture_error_mode="x")
        )
    graph.replay()
    assert y.tolist() == [2.0] * 4
    graph.reset()
    assert "without a preceding" in refusal(graph.replay)
    with torch.cuda.graph(graph):
        z = x * 5
    graph.replay()
    assert z.tolist() == [5.0] * 4


def case_a_failure_in_a_replay_names_the_operation(device: str) -> None:
    x = torch.arange(3, device=device)
    table = torch.arange(3.0, device=device)
    other = torch.zeros(2, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = torch.searchsorted(table, table, sorter=x)
        z = y.sum()
        other.add_(1)
    graph.replay()
    assert z.item() == 3
    x.fill_(9)
    graph.replay()
    text = refusal(z.item, Exception)
    assert "searchsorted" in text
    assert "of graph" in text
    assert other.tolist() == [2.0, 2.0]
    x.copy_(torch.arange(3))
    graph.replay()
    assert z.item() == 3


def case_out_of_memory_is_raised_at_the_replay(device: str) -> None:
    x = torch.zeros(1 << 20, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x + 1).sum()
    graph.replay()
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - (1 << 20), dtype=torch.uint8, device=device)
    assert "out of memory" in refusal(graph.replay, torch.OutOfMemoryError)
    del hog
    x.fill_(1)
    graph.replay()
    assert y.item() == 2 << 20


def case_capture_of_a_whole_step(device: str) -> None:
    """``xpool.capture``: the same as a plain loop, and one record a call."""
    torch.manual_seed(0)
    data = [
        (torch.randn(size, 6, device=device), torch.randn(size, 2, device=device))
        for size in (8, 8, 8, 8, 5, 8, 5, 5, 8)
    ]

    def trained(*, is_captured: bool) -> tuple[list[float], list[torch.Tensor], object]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return {"loss": loss}

        run = xpool.capture(step) if is_captured else step
        losses = [run(x, y)["loss"] for x, y in data]
        return [loss.item() for loss in losses], list(model.parameters()), run

    wanted, wanted_parameters, _ = trained(is_captured=False)
    got, parameters, run = trained(is_captured=True)
    assert got == wanted
    for one, other in zip(parameters, wanted_parameters, strict=True):
        assert torch.equal(one, other)
    assert callable(run)
    grown = spent(lambda: run(*data[0]))
    assert grown["graph_runs"] == 1
    assert grown["received_nbytes"] < 250, grown


def case_capture_refuses_what_a_graph_cannot_hold(device: str) -> None:
    def reads(x: torch.Tensor) -> torch.Tensor:
        return x * x.sum().item()

    step = xpool.capture(reads)
    x = torch.ones(3, device=device)
    assert step(x).tolist() == [3, 3, 3]
    assert REFUSED in refusal(lambda: step(x), Exception)
    assert "copy this one, on cpu" in refusal(lambda: step(x.cpu()), TypeError)
    assert (x + 1).tolist() == [2, 2, 2]
