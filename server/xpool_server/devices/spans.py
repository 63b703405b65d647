"""Device time by the device's own events, while work goes on behind its submission.

A span lies between two events that the device passes when it comes to them. Nobody
waits for it: what is over is added up when somebody asks. Pure but for the events,
which are made by whoever knows the device.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

MAX_OPEN_SPANS: Final = 256
"""Pairs of device events that wait to be read; the oldest is then waited for."""


class Event(Protocol):
    """A mark in a device's queue, as torch's device modules have them."""

    def record(self) -> None:
        """Put the mark behind what has been submitted."""

    def query(self) -> bool:
        """Whether the device has passed it."""

    def synchronize(self) -> None:
        """Wait until the device has passed it."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from this one to a later one, by the device's clock."""


class HostEvent:
    """For a device without events that tell times: it waits, and reads our clock."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        """A mark that is not set.

        Args:
            synchronize: returns when the device has done all that it was given.
        """
        self._synchronize = synchronize
        self._at_ns = 0

    def record(self) -> None:
        """Wait for the device, and set the mark."""
        self._synchronize()
        self._at_ns = time.monotonic_ns()

    def query(self) -> bool:
        """It was waited for."""
        return True

    def synchronize(self) -> None:
        """It was waited for."""

    def elapsed_time(self, end_event: HostEvent) -> float:
        """Milliseconds."""
        return (end_event._at_ns - self._at_ns) / 1e6


class Spans:
    """Of one device, and one thread.

    A device that has failed says so to the next operation or fence, which can tell the
    client; its clock must not be what ends the session.
    """

    def __init__(self, new_event: Callable[[], Event]) -> None:
        """Nothing has been measured.

        Args:
            new_event: an event that tells times.
        """
        self._new_event = new_event
        self._open: deque[tuple[Event, Event]] = deque()
        self._begun: Event | None = None
        self._busy_ns = 0
        self._over: deque[int] = deque(maxlen=MAX_OPEN_SPANS)

    def begin(self) -> None:
        """Work follows."""
        with suppress(RuntimeError):
            self._begun = self._timestamp()

    def end(self) -> None:
        """No work follows for now."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        with suppress(RuntimeError):
            self._open.append((begun, self._timestamp()))
            if len(self._open) > MAX_OPEN_SPANS:
                self._open[0][1].synchronize()
                self._read()

    def wait_for(self, in_flight: int) -> None:
        """Wait until at most so many spans are not over."""
        with suppress(RuntimeError):
            while len(self._open) > in_flight:
                self._open[-1 - in_flight][1].synchronize()
                self._read()

    def take(self) -> list[int]:
        """What each span has taken that is over since the last call, in order."""
        with suppress(RuntimeError):
            self._read()
        over = list(self._over)
        self._over.clear()
        return over

    @property
    def busy_ns(self) -> int:
        """Of all spans that are over."""
        with suppress(RuntimeError):
            self._read()
        return self._busy_ns

    def _timestamp(self) -> Event:
        event = self._new_event()
        event.record()
        return event

    def _read(self) -> None:
        """Add up the spans that are over."""
        while self._open and self._open[0][1].query():
            begun, ended = self._open.popleft()
            took_ns = int(begun.elapsed_time(ended) * 1e6)
            self._busy_ns += took_ns
            self._over.append(took_ns)
