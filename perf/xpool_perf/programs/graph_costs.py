"""What a training step sends and costs the client, plain and as graphs.

    xpool run perf/xpool_perf/programs/graph_costs.py

An MLP of five layers with SGD and momentum, four ways: operation by operation; forward
and backward compiled; the optimizer compiled too; the whole step as a CUDA graph. Per
step: what the server executed and received, and microseconds of the program's own
thread, which waits for nothing but the loss at the end of each block of steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import xpool
from torch import nn
from torch.nn import functional

BLOCKS = 15
STEPS = 20
WARM_UP = 5


def mlp() -> nn.Module:
    """Five layers, three of them with parameters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10)
    )


Step = Callable[[], torch.Tensor]


def trainer(*, compile_loss: bool = False, compile_optimizer: bool = False) -> Step:
    """A step of the plain loop, with parts of it compiled."""
    model, x = mlp().cuda(), torch.randn(16, 32).cuda()
    y = (torch.arange(16) % 10).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def plain_loss() -> torch.Tensor:
        return functional.cross_entropy(model(x), y)

    loss_of = torch.compile(plain_loss) if compile_loss else plain_loss
    update = torch.compile(optimizer.step) if compile_optimizer else optimizer.step

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        update()
        return loss.detach()

    return step


def captured_trainer() -> Step:
    """The whole step as one CUDA graph."""
    step = trainer()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return loss

    return replay


class Costs(NamedTuple):
    """Of one step."""

    operations: float
    graph_runs: float
    sent_nbytes: float
    client_us_least: float
    client_us_median: float


def measured(step: Step) -> Costs:
    """Run blocks of steps; within a block nothing is waited for."""
    for _ in range(WARM_UP):
        step().item()
    remote = xpool.current_remote()
    times = []
    before = remote.statistics()
    for _ in range(BLOCKS):
        start = time.perf_counter_ns()
        for _ in range(STEPS):
            loss = step()
        times.append((time.perf_counter_ns() - start) / 1e3 / STEPS)
        loss.item()
    after = remote.statistics()
    grown = {name: after[name] - before[name] for name in after}
    steps = BLOCKS * STEPS
    return Costs(
        grown["executed_ops"] / steps,
        grown["graph_runs"] / steps,
        grown["received_nbytes"] / steps,
        min(times),
        statistics.median(times),
    )


def main() -> None:
    """Print a line for each way."""
    ways: list[tuple[str, Step]] = [
        ("operation by operation", trainer()),
        ("forward, backward compiled", trainer(compile_loss=True)),
        ("optimizer compiled too", trainer(compile_loss=True, compile_optimizer=True)),
        ("one CUDA graph", captured_trainer()),
    ]
    for name, step in ways:
        costs = measured(step)
        print(
            f"{name}: {costs.operations:.1f} operations executed,"
            f" {costs.graph_runs:.1f} graph runs, {costs.sent_nbytes:.0f} bytes sent,"
            f" {costs.client_us_least:.0f} us at least,"
            f" {costs.client_us_median:.0f} us median"
        )


if __name__ == "__main__":
    main()
