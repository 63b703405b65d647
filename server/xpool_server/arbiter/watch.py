"""Notices a tenant that keeps the device without using it, or for far too long.

It then gives its place up: who waits goes on, beside it if it still computes. What it
uses is charged to it all the same, so that it waits the longer afterwards. Pure: what
is seen, and when, are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from xpool_server.arbiter.tenant import NS_PER_MS

STALL_NS: Final = 150 * NS_PER_MS
"""A holder that used no processor time for so long, while others wait, stands still."""

STALL_USED_NS: Final = 5 * NS_PER_MS
"""Less than this within ``STALL_NS`` is none."""

OVERRUN_NS: Final = 500 * NS_PER_MS
"""An operation that has used so much processor time keeps the others away no longer."""


class Verdict(Enum):
    """What is to be done about a device's holder."""

    LEAVE = "leave"
    STALLED = "stalled"
    """Its worker stands still: pass its turn on."""
    OVERRUN = "overrun"
    """It computes and does not come to an end: let others run beside it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A device with somebody waiting."""

    holder: int
    grants: int
    """Of the device so far: another number is another turn."""
    cpu_ns: int | None
    """Processor time of the holder's process; None if it is not to be had."""
    is_runnable: bool
    """It would run if the system let it: a busy machine is not its fault."""
    now_ns: int


class Watch:
    """Watches over one device."""

    def __init__(self) -> None:
        self._first: Seen | None = None
        self._moved: Seen | None = None

    def look(self, seen: Seen | None) -> Verdict:
        """Judge.

        Args:
            seen: None if nobody waits, or nobody has the device.
        """
        first = self._first
        if (
            seen is None
            or first is None
            or (seen.holder, seen.grants) != (first.holder, first.grants)
        ):
            self._first = self._moved = seen
            return Verdict.LEAVE
        moved = self._moved
        assert moved is not None
        used_ns = (seen.cpu_ns or 0) - (moved.cpu_ns or 0)
        if used_ns >= STALL_USED_NS or seen.is_runnable:
            self._moved = seen
        elif seen.now_ns - moved.now_ns >= STALL_NS:
            self._first = self._moved = None
            return Verdict.STALLED
        if (seen.cpu_ns or 0) - (first.cpu_ns or 0) >= OVERRUN_NS:
            self._first = self._moved = None
            return Verdict.OVERRUN
        return Verdict.LEAVE
