"""Which CUDA graphs are being captured, as Python asks: nearly always none.

The native library keeps the captures (``native/capture.h``). Its operations are asked
only while there is one, because optimizers and events look at every step.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import torch

_lock: Final = threading.Lock()
_under_way = 0


def operations() -> Any:
    """The native library's operations, ``torch.ops.xpool``."""
    return torch.ops.xpool


def began() -> None:
    """A capture has begun."""
    global _under_way
    with _lock:
        _under_way += 1


def ended() -> None:
    """A capture has ended, well or not."""
    global _under_way
    with _lock:
        _under_way -= 1


def is_capturing(device: int) -> bool:
    """Whether this thread's current stream of a device is being captured."""
    return _under_way > 0 and bool(operations().is_capturing(device))


def refuse(device: int) -> None:
    """Raise where a capture is under way, which then has failed.

    Raises:
        torch.AcceleratorError: what would happen now can't be part of a graph.
    """
    if _under_way > 0:
        operations().refuse_capture(device)


def follow(device: int, stream: int, leader: int) -> None:
    """``stream`` waits for ``leader``: if that is being captured, both are."""
    if _under_way > 0:
        operations().follow(device, stream, leader)
