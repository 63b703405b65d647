"""What each session uses of its device: by second for accounting, and its share lately.

Pure: readings and clocks are arguments. Counters only grow; a second is kept until the
registry has acknowledged it, and for ``KEPT_SECONDS`` at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from xpool_server.arbiter.desk import Usage

KEPT_SECONDS: Final = 120
"""A registry that is away for longer gets totals alone for what was before."""

WINDOW_NS: Final = 10_000_000_000
"""Over which ``got_percent`` is taken."""

_MAX: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Reading:
    """A session's counters at one moment."""

    device_ns: int = 0
    waiting_ns: int = 0
    executed_ops: int = 0
    received_nbytes: int = 0
    sent_nbytes: int = 0
    allocated_nbytes: int = 0
    longest_hold_ns: int = 0
    held_ns: int = 0

    @classmethod
    def of(cls, usage: Usage, counters: Mapping[str, int]) -> Reading:
        """From the arbiter's page and from what the worker has told last."""

        def counter(name: str) -> int:
            return min(max(0, counters.get(name, 0)), _MAX)

        return cls(
            device_ns=max(usage.device_ns, 0),
            waiting_ns=max(usage.waiting_ns, 0),
            executed_ops=counter("executed_ops"),
            received_nbytes=counter("received_nbytes"),
            sent_nbytes=counter("sent_nbytes"),
            allocated_nbytes=counter("allocated_nbytes"),
            longest_hold_ns=max(usage.longest_hold_ns, 0),
            held_ns=max(usage.held_ns, 0),
        )


@dataclass(frozen=True, slots=True)
class Second:
    """What was used within one second of the wall clock."""

    at_s: int
    used: Reading


class Meter:
    """Of one session."""

    def __init__(self, now_ns: int, at_s: int) -> None:
        self._at_s = at_s
        self._counted = Reading()
        self._seconds: deque[Second] = deque(maxlen=KEPT_SECONDS)
        self._window: deque[tuple[int, int]] = deque([(now_ns, 0)])
        self.last = Reading()
        """The newest reading."""

    @property
    def seconds(self) -> list[Second]:
        """Those that nobody has acknowledged, oldest first."""
        return list(self._seconds)

    @property
    def got_percent(self) -> float:
        """Of the device's time within the last ten seconds."""
        (first_ns, first), (last_ns, last) = self._window[0], self._window[-1]
        if last_ns <= first_ns:
            return 0.0
        return min(100.0, max(0.0, 100 * (last - first) / (last_ns - first_ns)))

    def read(self, reading: Reading, now_ns: int, at_s: int) -> None:
        """Take in a reading, a few times a second."""
        device_ns = max(self.last.device_ns, reading.device_ns)  # it is never less
        self.last = reading = replace(reading, device_ns=device_ns)
        self._window.append((now_ns, reading.device_ns))
        while len(self._window) > 2 and self._window[1][0] <= now_ns - WINDOW_NS:
            self._window.popleft()
        if at_s > self._at_s:
            self.close_second(at_s)

    def close_second(self, at_s: int) -> None:
        """What has been used since the last second belongs to it."""
        used = _difference(self.last, self._counted)
        if used != Reading(allocated_nbytes=used.allocated_nbytes):
            self._seconds.append(Second(self._at_s, used))
        self._counted, self._at_s = self.last, at_s

    def acknowledged(self, at_s: int) -> None:
        """The registry has everything up to and with this second."""
        while self._seconds and self._seconds[0].at_s <= at_s:
            self._seconds.popleft()


def _difference(after: Reading, before: Reading) -> Reading:
    return Reading(
        device_ns=max(0, after.device_ns - before.device_ns),
        waiting_ns=max(0, after.waiting_ns - before.waiting_ns),
        executed_ops=max(0, after.executed_ops - before.executed_ops),
        received_nbytes=max(0, after.received_nbytes - before.received_nbytes),
        sent_nbytes=max(0, after.sent_nbytes - before.sent_nbytes),
        allocated_nbytes=after.allocated_nbytes,
    )
