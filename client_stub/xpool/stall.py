"""A server that takes nothing: when to tell the user; the twin of ``native/stall.h``.

Once the window's credit is spent and the queue is full, the program waits, for as long
as it takes: memory is bounded, and the server may only be slow. After a while without a
single byte's progress the user is told, once for each stall.
"""

from __future__ import annotations

import sys
from typing import Final

STALL_NS: Final = 5_000_000_000


class Stall:
    """One wait for room."""

    def __init__(self, sent_nbytes: int, now_ns: int) -> None:
        """A wait that begins now.

        Args:
            sent_nbytes: all that has been sent so far.
            now_ns: on the monotonic clock.
        """
        self._sent_nbytes = sent_nbytes
        self._since_ns = now_ns
        self._is_told = False

    def notice(self, sent_nbytes: int, queued_nbytes: int, now_ns: int) -> str | None:
        """What to say now, if anything."""
        if sent_nbytes != self._sent_nbytes:
            self._sent_nbytes, self._since_ns = sent_nbytes, now_ns
            self._is_told = False
        if self._is_told or now_ns - self._since_ns < STALL_NS:
            return None
        self._is_told = True
        return (
            f"xpool: the server has taken nothing for {STALL_NS // 10**9} s;"
            f" {queued_nbytes >> 20} MiB are queued, and the program waits for it"
        )

    def tell(self, sent_nbytes: int, queued_nbytes: int, now_ns: int) -> None:
        """Say on stderr what is to be said."""
        notice = self.notice(sent_nbytes, queued_nbytes, now_ns)
        if notice is not None:
            print(notice, file=sys.stderr)  # noqa: T201  for the user
