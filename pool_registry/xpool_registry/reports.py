"""What nodes say of their sessions, read as far as somebody needs it.

Ten thousand sessions are told each second, with nineteen figures each. A heartbeat is
judged by six of them (``SessionHead``); the others are for people, who seldom look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

import msgspec

from xpool_registry.observations import SessionReport

Said = TypeVar("Said")


class SessionHead(msgspec.Struct, frozen=True, gc=False):
    """What each heartbeat is judged by; see ``SessionReport``."""

    lease_id: str
    epoch: int
    state: str
    allocated_nbytes: int
    refusal: str
    slice_number: int


class LateReports(Sequence[SessionReport], Generic[Said]):
    """Reports of sessions that are made of what was said when they are asked for."""

    __slots__ = ("_read", "_said", "heads")

    def __init__(
        self,
        said: Sequence[Said],
        heads: tuple[SessionHead, ...],
        read: Callable[[Said], SessionReport],
    ) -> None:
        """Read nothing yet.

        Args:
            said: by the node; nobody changes it any more.
            heads: of the same sessions, in the same order.
            read: makes a report.
        """
        self._said, self._read = said, read
        self.heads = heads

    def __len__(self) -> int:
        """How many sessions."""
        return len(self.heads)

    @overload
    def __getitem__(self, index: int) -> SessionReport: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[SessionReport, ...]: ...

    def __getitem__(
        self, index: int | slice
    ) -> SessionReport | tuple[SessionReport, ...]:
        """One of them, or some."""
        if isinstance(index, slice):
            return tuple(map(self._read, self._said[index]))
        return self._read(self._said[index])


def heads_of(
    sessions: Sequence[SessionReport],
) -> Sequence[SessionHead | SessionReport]:
    """What is needed at once of each session, in the same order."""
    return sessions.heads if isinstance(sessions, LateReports) else sessions
