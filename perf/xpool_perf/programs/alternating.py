"""Remote and local in turn: ``xpool run PROGRAM …`` uses it.

Both sides have the same Python, the same torch, the same thread count and the same
neighbours; each is the first of a pair in turn, so that drift cancels out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import torch

from xpool_perf.programs.local_side import Taken

T = TypeVar("T")
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
    sides = partial(seconds_of, remote), partial(seconds_of, local)
    return alternate_sides(*sides, pairs, warm_up)


def alternate_sides(
    remote: Callable[[], T], local: Callable[[], T], pairs: int, warm_up: int = 2
) -> tuple[list[T], list[T]]:
    """What each side returns, taken in pairs after some that do not count."""
    for _ in range(warm_up):
        remote()
        local()
    sides: tuple[list[T], list[T]] = [], []
    for number in range(pairs):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for side in order:
            sides[side].append((remote, local)[side]())
    return sides


def samples_of(
    remote: Sequence[Taken], local: Sequence[Taken], count: int
) -> dict[str, list[float]]:
    """Seconds of one of ``count`` equal parts, of both sides.

    By the devices' clocks, too, where they were read.
    """
    found = {
        "remote_s": per(count, [one.seconds for one in remote]),
        "local_s": per(count, [one.seconds for one in local]),
    }
    for name, side in (("remote_device_s", remote), ("local_device_s", local)):
        seconds = [one.device_seconds for one in side]
        known = [one for one in seconds if one is not None]
        if known:
            found[name] = per(count, known)
    return found


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
