"""Where a job waits for the network: notes while it runs, a report at its end.

Nothing here does I/O. Times are nanoseconds of a monotonic clock, given by the caller.

**The model.** A program that only issues operations never waits; it waits when it must
see something: a number, a shape that depends on data, a synchronization. Each such
wait is one message there and one back, whatever else the server does meanwhile, and
after it the program goes on later by as much as the round trip is longer. So a run of
``t`` seconds with ``n`` waits, measured at a round trip of ``r``, takes
``t + n (q - r)`` at a round trip of ``q``; no wait becomes shorter than nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

EXPLAIN_VARIABLE: Final = "XPOOL_EXPLAIN"
"""Names the file for the report; read and removed by the program's process."""

PROJECTED_ROUND_TRIPS_MS: Final = (0.1, 1.0, 10.0, 30.0)
"""A switch, a campus, a region, a continent."""

MAX_PLACES: Final = 10_000
"""Distinct (line, reason) pairs that are kept; what comes after is summed up as one."""

NS_PER_S: Final = 1_000_000_000


class Place(msgspec.Struct, frozen=True):
    """A line of source that issued an operation."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


ELSEWHERE: Final = Place("(elsewhere)", 0)
"""Stands for places beyond ``MAX_PLACES``, and for threads without Python code."""


class PlaceWaits(msgspec.Struct, frozen=True, kw_only=True):
    """All waits of one place for one reason."""

    place: Place
    what: str
    """The operation, or ``read``, ``synchronize``, ``room``."""

    count: int
    seconds: float
    nbytes: int
    """Payload that came back."""

    shortest_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has shown."""

    server: str
    device: str
    total_s: float
    """From the program's first line to its end."""

    round_trip_s: float
    """Of a message that finds an idle server, measured before the program began."""

    sent_nbytes: int
    waits: tuple[PlaceWaits, ...]

    @property
    def count(self) -> int:
        """All waits that are a round trip: everything but waiting for room."""
        return sum(wait.count for wait in self.waits if wait.what != ROOM)

    @property
    def waited_s(self) -> float:
        """Seconds of all waits."""
        return sum(wait.seconds for wait in self.waits)

    def projected_s(self, round_trip_s: float) -> float:
        """How long the same run would take at another round trip."""
        change = round_trip_s - self.round_trip_s
        if change >= 0:
            return self.total_s + self.count * change
        saved = sum(
            min(-change * wait.count, wait.seconds)
            for wait in self.waits
            if wait.what != ROOM
        )
        return self.total_s - saved


ROOM: Final = "room"
"""Waiting until the network has taken what is queued: a matter of bandwidth."""


class WaitBook:
    """Takes notes of waits from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[Place, str], list[int]] = {}

    def note(self, place: Place, what: str, waited_ns: int, nbytes: int) -> None:
        """One wait is over."""
        with self._lock:
            key = (place, what)
            if key not in self._sums and len(self._sums) >= MAX_PLACES:
                key = (ELSEWHERE, what)
            sums = self._sums.setdefault(key, [0, 0, 0, waited_ns])
            sums[0] += 1
            sums[1] += waited_ns
            sums[2] += nbytes
            sums[3] = min(sums[3], waited_ns)

    def waits(self) -> tuple[PlaceWaits, ...]:
        """All that was noted, the longest first."""
        with self._lock:
            found = [
                PlaceWaits(
                    place=place,
                    what=what,
                    count=count,
                    seconds=total_ns / NS_PER_S,
                    nbytes=nbytes,
                    shortest_s=shortest_ns / NS_PER_S,
                )
                for (place, what), (
                    count,
                    total_ns,
                    nbytes,
                    shortest_ns,
                ) in self._sums.items()
            ]
        return tuple(sorted(found, key=lambda wait: (-wait.seconds, str(wait.place))))


def place_of(frames: Iterable[tuple[str, int]], inner: Sequence[str]) -> Place:
    """The program's line behind a wait.

    Args:
        frames: file and line of every frame, the innermost first.
        inner: folders whose code is the framework's or ours.

    >>> place_of([("/torch/_tensor.py", 9), ("/job/train.py", 3)], ["/torch/"])
    Place(file='/job/train.py', line=3)
    """
    for file, line in frames:
        if not file.startswith((*inner, "<frozen ")):
            return Place(file, line)
    return ELSEWHERE
