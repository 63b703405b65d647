"""Waiting for room in the quota, instead of failing: ``--on-oom wait``.

An allocation that the quota does not hold waits for frees of this program's other
threads, for cycles that a collection finds, and for an administrator's resize; then it
is tried again. It waits for a bounded time: a program with one thread frees nothing
while it waits, and must hear of that.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from xpool_protocol.errors import UsageError

VARIABLE: Final = "XPOOL_ON_OOM"
DEFAULT_WAIT_S: Final = 60.0
MAX_WAIT_S: Final = 86_400.0
LOOK_S: Final = 0.02
"""Frees come without notice: they are looked for so often."""


def wait_from_text(text: str) -> float:
    """Seconds that ``fail``, ``wait`` or ``wait:SECONDS`` stands for; 0 fails at once.

    Raises:
        UsageError: none of these.

    >>> wait_from_text("fail"), wait_from_text("wait"), wait_from_text("wait:5")
    (0.0, 60.0, 5.0)
    """
    what, colon, bound = text.strip().partition(":")
    if what == "fail" and not colon:
        return 0.0
    if what == "wait" and not colon:
        return DEFAULT_WAIT_S
    try:
        seconds = float(bound) if what == "wait" else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise UsageError(
            f"on-oom is {text[:40]!r}: write fail, wait, or wait:SECONDS with at most"
            f" {MAX_WAIT_S:.0f}"
        )
    return seconds


def wait_from_environment() -> float:
    """Seconds that ``XPOOL_ON_OOM`` allows."""
    return wait_from_text(os.environ.get(VARIABLE) or "fail")


class Room:
    """Who waits for room in a quota; any thread may."""

    def __init__(
        self, bound_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Let each allocation wait for at most so long; 0: not at all."""
        self.bound_s = bound_s
        self._clock = clock
        self._changed = threading.Condition()
        self._began = threading.local()

    def changed(self) -> None:
        """The quota is another one."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, attempt: int) -> bool:
        """Wait for a moment; whether the allocation is to be tried again.

        Args:
            attempt: how often this allocation has waited by now.
        """
        if self.bound_s <= 0:
            return False
        if attempt == 0:
            self._began.at = self._clock()
            gc.collect()
            return True
        if self._clock() - self._began.at >= self.bound_s:
            return False
        with self._changed:
            self._changed.wait(LOOK_S)
        return True
