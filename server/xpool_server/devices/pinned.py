"""A pool of host buffers that a device fetches from, and fills, by itself.

While the network fills one buffer the device fetches the one before. What a buffer is
depends on the device (``Slot``); who gets which, and when it may be used again, does
not.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from xpool_protocol.messages import Payload

KEPT: Final = 8
"""Buffers that stay in a pool; beyond them they are made and given back as needed."""

PER_TRANSFER: Final = 3
"""One that the network uses, one that the device uses, one that is free again."""


class Slot(Protocol):
    """One buffer, with at most one copy of the device's under way."""

    view: memoryview

    def wait(self) -> None:
        """Until the device is done with it; raises what failed meanwhile."""


S = TypeVar("S", bound=Slot)


class SlotPool(Generic[S]):
    """Buffers that are lent to transfers; any thread may take and give."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._free: list[S] = []
        self._lock = threading.Lock()

    def take(self) -> S:
        """A buffer that nobody uses."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._make()

    def give(self, slots: list[S]) -> None:
        """Take buffers back, once the device is done with them."""
        with self._lock:
            room = KEPT - len(self._free)
            self._free += slots[:room]


class Intake(Generic[S]):
    """A destination: receives into buffers in turn, from where the device fetches."""

    def __init__(self, pool: SlotPool[S], fetch: Callable[[S, int, int], None]) -> None:
        """Nothing is taken from the pool yet.

        Args:
            pool: where buffers come from.
            fetch: lets the device begin to copy: buffer, where to, how many bytes.
        """
        self._pool = pool
        self._fetch = fetch
        self._slots: deque[S] = deque()

    def room(self, at: int, nbytes: int) -> memoryview:
        """A buffer for the next bytes, free again by now."""
        if len(self._slots) < PER_TRANSFER:
            self._slots.append(self._pool.take())
        else:
            self._slots.rotate(-1)
        self._slots[-1].wait()
        return self._slots[-1].view[:nbytes]

    def filled(self, at: int, nbytes: int) -> None:
        """Let the device fetch them."""
        self._fetch(self._slots[-1], at, nbytes)

    def close(self) -> None:
        """Wait for the device, and give the buffers back."""
        slots = list(self._slots)
        self._slots.clear()
        for slot in slots:  # one that failed is not given back
            slot.wait()
        self._pool.give(slots)


def outflow(
    pool: SlotPool[S],
    fill: Callable[[S, int, int], None],
    nbytes: int,
    part_nbytes: int,
) -> Iterator[Payload]:
    """What a device holds, part by part: the next is filled while one is sent.

    Args:
        pool: where buffers come from.
        fill: lets the device begin to copy: buffer, where from, how many bytes.
        nbytes: of all parts.
        part_nbytes: of one; what a buffer holds.

    Yields:
        Views that are good until the next one is asked for.
    """
    slots: list[S] = []
    ahead: deque[tuple[S, int]] = deque()
    spare: deque[S] = deque()
    try:
        for at in range(0, nbytes, part_nbytes):
            if spare:
                slot = spare.popleft()
            else:
                slot = pool.take()
                slots.append(slot)
            count = min(part_nbytes, nbytes - at)
            fill(slot, at, count)
            ahead.append((slot, count))
            if len(ahead) == PER_TRANSFER - 1:
                slot, count = ahead.popleft()
                slot.wait()
                yield slot.view[:count]
                spare.append(slot)
        while ahead:
            slot, count = ahead.popleft()
            slot.wait()
            yield slot.view[:count]
    finally:
        for slot in slots:
            slot.wait()
        pool.give(slots)
