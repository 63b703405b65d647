"""``cupyx.profiler``: times by this host's clock, and marks that nobody looks at."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from xpool.cupy import cuda
from xpool.cupy.finder import module
from xpool.cupy.functions import own


class PerfCaseResult:
    """Times of a function's calls, in seconds."""

    def __init__(self, name: str, ts: Any) -> None:
        """Two rows: this host's part, and until the device was done."""
        self.name, self._ts = name, ts

    @property
    def cpu_times(self) -> Any:
        """Of the calls, shape ``(n_repeat,)``."""
        return self._ts[0]

    @property
    def gpu_times(self) -> Any:
        """Until the device was done, shape ``(1, n_repeat)``."""
        return self._ts[1:]

    def to_str(self, show_gpu: bool = False) -> str:
        """For people."""
        rows = [("CPU", self._ts[0])] + ([("GPU-0", self._ts[1])] if show_gpu else [])
        parts = [
            f"    {kind}: {row.mean() * 1e6:9.3f} us   +/-{row.std() * 1e6:6.3f}"
            f" (min: {row.min() * 1e6:9.3f} / max: {row.max() * 1e6:9.3f}) us"
            for kind, row in rows
        ]
        return f"{self.name:<20s}:{' '.join(parts)}"

    def __str__(self) -> str:
        return self.to_str(show_gpu=True)

    __repr__ = __str__


@own("cupyx.profiler.benchmark")
def benchmark(
    func: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    n_repeat: int = 10000,
    *,
    name: str | None = None,
    n_warmup: int = 10,
    max_duration: float = float("inf"),
    devices: Any = None,
) -> PerfCaseResult:
    """Call a function again and again, and take the time.

    Raises:
        ValueError: arguments that are none.
    """
    if not callable(func):
        raise ValueError("`func` should be a callable object.")
    if not isinstance(args, tuple):
        raise ValueError("`args` should be of tuple type.")
    named, where = kwargs or {}, cuda.Device(0)
    for _ in range(n_warmup):
        func(*args, **named)
    where.synchronize()
    times: list[tuple[float, float]] = []
    total = 0.0
    while len(times) < n_repeat and total < max_duration:
        began = time.perf_counter()
        func(*args, **named)
        returned = time.perf_counter()
        where.synchronize()
        ended = time.perf_counter()
        times.append((returned - began, ended - began))
        total += ended - began
    return PerfCaseResult(name or func.__name__, np.array(times).T)


@own("cupyx.profiler.profile", "cupy.cuda.profile")
@contextlib.contextmanager
def profile() -> Iterator[None]:
    """A profiler that looks at a local device: nothing happens."""
    yield


class time_range(contextlib.ContextDecorator):  # noqa: N801  CuPy's name
    """A range on a profiler's time line: nothing happens."""

    def __init__(self, message: Any = None, *args: Any, **kwargs: Any) -> None:
        """As CuPy's."""
        self.message = message

    def __enter__(self) -> time_range:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was begun."""


@module("cupyx.profiler")
def fill(m: ModuleType) -> None:
    """The range."""
    m.time_range = time_range  # type: ignore[attr-defined]
