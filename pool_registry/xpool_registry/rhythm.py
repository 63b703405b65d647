"""When each node is to send its next heartbeat: spread, so that they come evenly.

A node waits from an answer to its next heartbeat. Whatever makes many wait, such as a
registry that was away, a fleet that starts or a slow disk, lets them come together from
then on, second after second, and calls of clients stand in line behind them. So the
answer names the moment next to the usual one at which no more are expected than would
be if all came evenly.
"""

from __future__ import annotations

import math
from typing import Final

BIN_MS: Final = 10
"""As exactly as moments are kept."""

ROOM: Final = 1.2
"""So many times as many may be expected at a moment: nodes are not so exact."""

FREEDOM: Final = 0.15
"""By so much of the interval the next heartbeat may come earlier or later."""


class Rhythm:
    """How many heartbeats are expected when; ``interval_ms`` is the usual distance."""

    def __init__(self, interval_ms: int) -> None:
        """Nobody is expected yet."""
        self._interval_ms = interval_ms
        self._usual = max(1, interval_ms // BIN_MS)
        self._reach = round(FREEDOM * self._usual)
        size = self._usual + self._reach + 2
        self._expected = [0] * size
        self._passed = 0
        """The bin that was looked at last, counted from the clock's beginning."""

        # The nearest first.
        steps = sorted(range(-self._reach, self._reach + 1), key=abs)
        self._steps = [self._usual + one for one in steps]

    def next_ms(self, now_ms: int, node_count: int) -> int:
        """From now on; a heartbeat is expected then.

        Args:
            now_ms: of a clock that does not go back.
            node_count: how many send heartbeats.
        """
        even = math.ceil(ROOM * node_count * BIN_MS / self._interval_ms)
        now, size, expected = now_ms // BIN_MS, len(self._expected), self._expected
        for passed in range(max(self._passed, now - size), now):
            expected[passed % size] = 0
        self._passed = now
        step = next(
            (one for one in self._steps if expected[(now + one) % size] < even),
            self._usual,
        )
        expected[(now + step) % size] += 1
        return step * BIN_MS
