"""Profilers and markers: what a program may ask for, told of what is here.

The profiler sees the operations of this process. A device's own times are not here to
be seen: CUDA's tools read them beside the device.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

import torch
import torch.autograd.profiler as autograd_profiler


class Markers:
    """NVTX: ranges are counted, so that depths and ids are as they would be."""

    def __init__(self) -> None:
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._next_id = 0

    def rangePushA(self, message: str) -> int:  # noqa: N802  NVTX's own name
        """The zero-based depth of the range that begins."""
        depth: int = getattr(self._thread, "depth", 0)
        self._thread.depth = depth + 1
        return depth

    def rangePop(self) -> int:  # noqa: N802  NVTX's own name
        """The depth of the range that ends; -2, as NVTX says, if there is none."""
        depth: int = getattr(self._thread, "depth", 0)
        if depth == 0:
            return -2
        self._thread.depth = depth - 1
        return depth - 1

    def rangeStartA(self, message: str) -> int:  # noqa: N802  NVTX's own name
        """A number for a range that any thread may end."""
        with self._lock:
            self._next_id += 1
            return self._next_id

    def rangeEnd(self, number: int) -> None:  # noqa: N802  NVTX's own name
        """Nothing is kept of a range."""

    def markA(self, message: str) -> None:  # noqa: N802  NVTX's own name
        """Nothing is kept of a mark."""

    def deviceRangeStart(self, message: str, stream: int) -> object:  # noqa: N802
        """As ``rangeStartA``."""
        return self.rangeStartA(message)

    def deviceRangeEnd(self, number: object, stream: int) -> None:  # noqa: N802
        """Nothing is kept of a range."""


def patch_profiling() -> None:
    """Markers that do nothing, and profilers of this process alone."""
    nvtx: Any = torch.cuda.nvtx
    nvtx._nvtx = Markers()
    _patch_profile()
    emit: Any = autograd_profiler.emit_nvtx
    emit.__enter__ = _enter_emit
    emit.__exit__ = lambda self, *_: False


def _enter_emit(self: Any) -> Any:
    if self.enabled and self.entered:
        raise RuntimeError("NVTX annotation context manager is not reentrant")
    self.entered = True
    return self


def _patch_profile() -> None:
    profile: Any = autograd_profiler.profile
    initialize = profile.__init__

    def __init__(self: Any, enabled: bool = True, **named: Any) -> None:  # noqa: N807
        wants = named.pop("use_cuda", False) or named.get("use_device") == "cuda"
        if enabled and wants:
            warnings.warn(
                "xpool: the profiler sees this process; times of the remote device"
                " are not recorded",
                stacklevel=3,
            )
            named.update(use_device=None, use_cpu=True)
        initialize(self, enabled, **named)

    profile.__init__ = __init__
