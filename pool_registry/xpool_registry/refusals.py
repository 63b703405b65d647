"""Which refused calls are worth a line in the log. Pure: time is an argument.

Whoever is refused tries again, a server once a second for as long as it lives.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

QUIET_NS: Final = 60_000_000_000
"""Between two lines about the same refusal."""

MAX_KNOWN: Final = 1_000
"""Kinds of refusals that are remembered; past that, all are new again."""


class Refusals:
    """Counts refusals of each kind, and says when to speak of them."""

    def __init__(self) -> None:
        self._told: dict[Hashable, tuple[int, int]] = {}

    def note(self, kind: Hashable, now_ns: int) -> int:
        """One more; how many to speak of now, 0: none.

        Args:
            kind: what is told of once.
            now_ns: of a monotonic clock.
        """
        told_ns, silent = self._told.get(kind, (None, 0))
        if told_ns is not None and now_ns - told_ns < QUIET_NS:
            self._told[kind] = (told_ns, silent + 1)
            return 0
        if kind not in self._told and len(self._told) >= MAX_KNOWN:
            self._told.clear()
        self._told[kind] = (now_ns, 0)
        return silent + 1
