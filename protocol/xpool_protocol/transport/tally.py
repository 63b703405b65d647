"""What an endpoint counts while it works, and the waiting time it has left."""

from __future__ import annotations

import math
import time

from xpool_protocol.transport.base import LinkStatistics, ListenerStatistics

# A day, in milliseconds: poll takes a C int, and whoever waits longer asks again.
_MAX_PATIENCE_MS = 86_400_000


class Tally:
    """Counters of one endpoint; written by its own thread only."""

    __slots__ = (
        "messages_received",
        "messages_refused",
        "messages_sent",
        "messages_undeliverable",
        "nbytes_received",
        "nbytes_sent",
    )

    def __init__(self) -> None:
        self.messages_sent = 0
        self.nbytes_sent = 0
        self.messages_received = 0
        self.nbytes_received = 0
        self.messages_undeliverable = 0
        self.messages_refused = 0

    def count_sent(self, nbytes: int) -> None:
        """One more message has left, or is queued to leave."""
        self.messages_sent += 1
        self.nbytes_sent += nbytes

    def count_received(self, nbytes: int) -> None:
        """One more message was handed to the caller."""
        self.messages_received += 1
        self.nbytes_received += nbytes

    def of_link(self) -> LinkStatistics:
        """The counters of a link, frozen."""
        return LinkStatistics(
            messages_sent=self.messages_sent,
            nbytes_sent=self.nbytes_sent,
            messages_received=self.messages_received,
            nbytes_received=self.nbytes_received,
        )

    def of_listener(self) -> ListenerStatistics:
        """The counters of a listener, frozen."""
        return ListenerStatistics(
            messages_sent=self.messages_sent,
            nbytes_sent=self.nbytes_sent,
            messages_received=self.messages_received,
            nbytes_received=self.nbytes_received,
            messages_undeliverable=self.messages_undeliverable,
            messages_refused=self.messages_refused,
        )


def deadline_after(timeout_s: float | None) -> float:
    """The moment ``timeout_s`` from now, by ``time.monotonic``; None is never."""
    return math.inf if timeout_s is None else time.monotonic() + timeout_s


def patience_ms(deadline: float) -> int:
    """Milliseconds until then, for poll: at least 0, at most a day.

    Rounded up, or the last fraction of a millisecond would be spent spinning.
    """
    if deadline == math.inf:
        return _MAX_PATIENCE_MS
    left_ms = (deadline - time.monotonic()) * 1000
    return min(max(0, math.ceil(left_ms)), _MAX_PATIENCE_MS)
