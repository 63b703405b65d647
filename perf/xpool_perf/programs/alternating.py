"""Remote and local in turn, within one process: ``xpool run PROGRAM …`` uses it.

Both sides then have the same Python, the same torch, the same thread count and the same
neighbours; each is the first of a pair in turn, so that drift cancels out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

Block: TypeAlias = Callable[[], None]
"""Work that ends with its result on the host."""


def seconds_of(block: Block) -> float:
    """How long a block takes."""
    began = time.perf_counter()
    block()
    return time.perf_counter() - began


def alternate(
    remote: Block, local: Block, pairs: int, warm_up: int = 2
) -> tuple[list[float], list[float]]:
    """Seconds of each side, taken in pairs after some that do not count."""
    for _ in range(warm_up):
        remote()
        local()
    sides: tuple[list[float], list[float]] = [], []
    for number in range(pairs):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for side in order:
            sides[side].append(seconds_of((remote, local)[side]))
    return sides


def per(count: int, seconds: Sequence[float]) -> list[float]:
    """Seconds of one of ``count`` equal parts."""
    return [one / count for one in seconds]


def train_block(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[], torch.Tensor],
    steps: int,
    read_every: int,
) -> Block:
    """Some training steps; the loss is read every so many of them, and at the end."""

    def block() -> None:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % read_every == 0 or step == steps:
                loss.item()

    model.train()
    return block
