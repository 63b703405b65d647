"""When a log's records leave: the twin of ``native/pace.h``, which explains it."""

from __future__ import annotations

from typing import Final

PACE_NS: Final = 100_000
MOST_NS: Final = 400_000
AGE_SHARE: Final = 8
BURST: Final = 3
PAUSE_NS: Final = 5_000_000
PACE_NBYTES: Final = 16 << 10
"""Worth a message at any time."""

_AHEAD_NS: Final = (BURST - 1) * PACE_NS


class Pace:
    """Spaces messages out while a program streams."""

    def __init__(self, most_ns: int = MOST_NS) -> None:
        """A device at rest; messages are spaced out by ``most_ns`` at most."""
        self._most_ns = most_ns
        self._began_ns = 0
        """The stream."""
        self._due_ns = 0
        """When messages that were sent evenly would leave from now on."""

    def delay_ns(self, now_ns: int, queued_nbytes: int, *, is_awaited: bool) -> int:
        """Nanoseconds until what is queued may leave; 0 is now.

        Args:
            now_ns: on the monotonic clock.
            queued_nbytes: what would leave.
            is_awaited: somebody waits for an answer.
        """
        if is_awaited or queued_nbytes >= PACE_NBYTES:
            return 0
        return max(0, self._due_ns - _AHEAD_NS - now_ns)

    def note_sent(self, now_ns: int, *, is_awaited: bool) -> None:
        """One message has left; ``is_awaited``: because somebody waits."""
        if is_awaited or now_ns >= self._due_ns + PAUSE_NS:
            self._began_ns = now_ns
        age_ns = now_ns - self._began_ns
        space_ns = min(max(age_ns // AGE_SHARE, PACE_NS), self._most_ns)
        # What had to leave at once is no debt beyond the burst.
        self._due_ns = min(max(self._due_ns, now_ns), now_ns + _AHEAD_NS) + space_ns
