"""``cupy.cuda``: the device, streams and events as this session has them.

A session runs everything in one order, so that every stream waits for every other.
"""

from __future__ import annotations

import time
from typing import Any

from xpool.cupy.device import device


class Device:
    """A CUDA device: the session's slice."""

    def __init__(self, device: Any = None) -> None:
        self.id: int = device.id if isinstance(device, Device) else int(device or 0)
        if self.id:
            raise ValueError(f"xpool: there is no device {self.id}: arrays have one")

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(("Device", self.id))

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        """There is no other device to go back to."""

    def use(self) -> None:
        """Make this the current device."""

    def synchronize(self) -> None:
        """Wait until everything has run."""
        device().synchronize()

    @property
    def compute_capability(self) -> str:
        """Major and minor version in one text."""
        properties = device().session.welcome.properties
        return f"{properties.get('major', 0)}{properties.get('minor', 0)}"

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and total bytes of the slice."""
        where = device()
        total = where.session.welcome.memory_nbytes
        used = where.allocated_nbytes + where.log.allocated_nbytes()
        return max(total - used, 0), total


class Event:
    """A mark in the session's order."""

    def __init__(
        self,
        block: bool = False,
        disable_timing: bool = False,
        interprocess: bool = False,
    ) -> None:
        self._recorded_at_s: float | None = None

    def record(self, stream: Any = None) -> None:
        """Put the mark here."""
        self._recorded_at_s = time.monotonic()

    def synchronize(self) -> None:
        """Wait until what was before the mark has run."""
        device().synchronize()

    @property
    def done(self) -> bool:
        """Whether it has; this waits until it is so."""
        device().synchronize()
        return True


class Stream:
    """A stream of the session's one order."""

    null: Stream
    ptds: Stream

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int = 0,
    ) -> None:
        self.is_non_blocking = non_blocking
        self.ptr = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        """All streams are one order."""

    def use(self) -> Stream:
        """Make this the current stream."""
        return self

    @property
    def done(self) -> bool:
        """Whether all has run; this waits until it is so."""
        device().synchronize()
        return True

    def synchronize(self) -> None:
        """Wait until all has run."""
        device().synchronize()

    def record(self, event: Event | None = None) -> Event:
        """Record an event."""
        made = event or Event()
        made.record(self)
        return made

    def wait_event(self, event: Event) -> None:
        """One order: the event's work comes first anyway."""


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)
for _one in (Device, Event, Stream):
    _one.__module__ = "cupy.cuda"
