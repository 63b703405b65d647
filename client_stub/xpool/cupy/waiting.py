"""Whether a thread may wait for the device: ``cupyx.allow_synchronize``."""

from __future__ import annotations

import threading


class DeviceSynchronized(RuntimeError):  # noqa: N818  CuPy's name
    """A call would wait for the device where ``cupyx.allow_synchronize`` forbids it."""


DeviceSynchronized.__module__ = "cupyx"
waiting = threading.local()
"""``is_forbidden`` says whether this thread may wait for the device."""


def check_synchronize() -> None:
    """Refuse to wait where the program has said so.

    Raises:
        DeviceSynchronized: it has.
    """
    if getattr(waiting, "is_forbidden", False):
        raise DeviceSynchronized("the program does not allow to wait for the device")
