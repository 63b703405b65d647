"""The local side of a comparison: in this process, or in one of its own.

On a CPU both sides share a process, so that nothing but the device differs. With a
CUDA device they can't: whatever the client's process asks of CUDA is answered by a
stand-in (ADR 0019). There the local side is the same program once more, started without
a pool. It runs a block when it is told to, one at a time, and reads its own clocks, so
that the pipe between the two is on none of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import torch
import xpool

Work: TypeAlias = Callable[[], object]
"""Ends with its result on the host; what it returns can be JSON."""

SIDE: Final = "PERF_SIDE"
VISIBLE: Final = "PERF_VISIBLE_DEVICES"
"""CUDA_VISIBLE_DEVICES of the local side; the client's own is empty."""


class Taken(NamedTuple):
    """What a block took."""

    seconds: float
    cpu_seconds: float
    """Of the thread that issued it."""
    device_seconds: float | None
    """From its first operation to its last as the device's clock saw it."""
    result: Any = None


Side: TypeAlias = Callable[[], Taken]


class Local(Protocol):
    """Where local blocks run."""

    def side(self, name: str) -> Side:
        """The block of that name, to be run again and again."""


def take(work: Work, device: str) -> Taken:
    """Run a block on a local device."""
    is_cuda = device == "cuda"
    events: list[Any] = []
    if is_cuda:
        make: Any = torch.cuda.Event
        events = [make(enable_timing=True), make(enable_timing=True)]
        torch.cuda.synchronize()
        events[0].record()
    began, cpu_began_ns = time.perf_counter(), time.thread_time_ns()
    result = work()
    cpu_seconds = (time.thread_time_ns() - cpu_began_ns) / 1e9
    seconds = time.perf_counter() - began
    if not is_cuda:
        return Taken(seconds, cpu_seconds, None, result)
    events[1].record()
    torch.cuda.synchronize()
    on_device = events[0].elapsed_time(events[1]) / 1e3
    return Taken(seconds, cpu_seconds, on_device, result)


def remote_side(work: Work, device: str) -> Side:
    """A block on the remote device, whose clock is read where it is a CUDA device."""

    def busy_ns() -> int:
        return xpool.current_remote().statistics()["busy_ns"]

    def run() -> Taken:
        before_ns = busy_ns() if device == "cuda" else 0
        taken = take(work, "remote")
        if device != "cuda":
            return taken
        return taken._replace(device_seconds=(busy_ns() - before_ns) / 1e9)

    return run


def is_local_side() -> bool:
    """Whether this process is the local side, and is to ``serve``."""
    return os.environ.get(SIDE) == "local"


def serve(blocks: Mapping[str, Work], device: str) -> None:
    """Run the blocks that stdin names; one line of JSON for each, until it ends."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        if name.startswith("xpool"):
            raise ValueError(f"the local side's device is {name}, a remote one")
    for line in sys.stdin:
        print(json.dumps(take(blocks[line.strip()], device)), flush=True)


@contextmanager
def local_side(
    device: str,
    make: Callable[[], Mapping[str, Work]],
    *,
    is_apart: bool | None = None,
) -> Iterator[Local]:
    """Blocks on the local device.

    Args:
        device: "cpu" or "cuda".
        make: the blocks by name; called only if they run here.
        is_apart: in a process that runs this program once more; a CUDA device's are.

    Raises:
        ValueError: at the end: something of the remote side has run on this host.
    """
    if not (device == "cuda" if is_apart is None else is_apart):
        yield _Here(make())
        return
    with _process() as process:
        yield _There(process)
    escapes = xpool.current_remote().library.escaped_launches()
    if escapes:
        raise ValueError(f"{escapes} calls of the remote side reached this host's CUDA")


class _Here:
    def __init__(self, blocks: Mapping[str, Work]) -> None:
        self._blocks = blocks

    def side(self, name: str) -> Side:
        block = self._blocks[name]
        return lambda: take(block, "cpu")


class _There:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def side(self, name: str) -> Side:
        def run() -> Taken:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(name + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if not line:
                raise EOFError(f"the local side ended with {self._process.wait()}")
            return Taken(*json.loads(line))

        return run


def local_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Of a process that sees this host's devices and no pool.

    >>> local_environment({"XPOOL_X": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": "/"})
    {'HOME': '/', 'PERF_SIDE': 'local'}
    """
    env = {
        name: value
        for name, value in environment.items()
        if not name.startswith("XPOOL_") and name != "CUDA_VISIBLE_DEVICES"
    }
    if VISIBLE in env:
        env["CUDA_VISIBLE_DEVICES"] = env.pop(VISIBLE)
    return {**env, SIDE: "local"}


@contextmanager
def _process() -> Iterator[subprocess.Popen[str]]:
    """This program as the local side; it ends when nobody asks any more."""
    with subprocess.Popen(
        [sys.executable, *sys.argv],
        env=local_environment(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
