"""Batches that a DataLoader pins begin their way to the device at once.

``DataLoader(pin_memory=True, num_workers=n)`` has a thread that pins each batch some
steps before the program asks for it. The bytes go ahead from there, so that a step
waits for the network only as long as its predecessors left of the way. The program
still gets the pinned batch: its copy to the device then finds the bytes there, and is
the ordinary copy if they have changed since (``native/ahead.cpp``).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from xpool.torch.remote import Remote


def patch_pinning(remotes: Sequence[Remote]) -> None:
    """Teach the pinning threads of DataLoaders to send batches ahead.

    Args:
        remotes: the devices, by index.
    """
    from torch.utils.data._utils import pin_memory as module

    pinning = threading.local()
    host_loop: Any = module._pin_memory_loop
    host_pin: Any = module.pin_memory

    def pin_memory_loop(*arguments: Any, **named: Any) -> None:
        pinning.is_here = True
        host_loop(*arguments, **named)

    def pin_memory(data: Any, *arguments: Any, **named: Any) -> Any:
        pinned = host_pin(data, *arguments, **named)
        if isinstance(data, torch.Tensor) and getattr(pinning, "is_here", False):
            device = torch.cuda.current_device()
            remotes[device].library.send_ahead(pinned._cdata)
        return pinned

    patched: Any = module
    patched._pin_memory_loop = pin_memory_loop
    patched.pin_memory = pin_memory
