"""When what a registry has decided is kept, and what it does if that fails.

The third part of ``registry.Registry``, which has the lock, the clock and the state.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import structlog
from xpool_protocol.control.serving import AT_ONCE, Answering

from xpool_registry.commands import Moment
from xpool_registry.compaction import count_of, in_short
from xpool_registry.events import RegistryEvent
from xpool_registry.grouped_store import GroupedStore
from xpool_registry.recovery import recovered
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.store import Store

RECENT_EVENTS = 10_000
"""Remembered for ``events --follow``; the log has more of them."""

_log = structlog.get_logger(__name__)


class Durability:
    """See the head of this file."""

    settings: Settings
    _lock: threading.Lock
    _clock: Callable[[], Moment]
    _state: State
    _store: Store
    _grouped: GroupedStore | None
    _is_dirty: bool
    _sequence: int
    _recent: deque[tuple[int, RegistryEvent]]

    def group_commits(self, *, may_reload: bool) -> None:
        """From now on a decision is kept a little later than it is made.

        Whoever answers must ``begin`` each call and wait until it is settled.

        Args:
            may_reload: nobody else writes the log, so that it says what is true after
                a write that failed; else this registry refuses all calls from then on.
        """
        with self._lock:
            self._grouped = self._store = GroupedStore(
                self._store,
                self._lock,
                announce=self._announce,
                reload=self._reload if may_reload else None,
            )

    def begin(self) -> Answering:
        """A call comes in; see ``GroupedStore.begin``."""
        return self._grouped.begin() if self._grouped is not None else AT_ONCE

    def _reload(self) -> None:
        past = self._store.load()
        self._state = recovered(past, self._clock(), self.settings, self._state)
        self._recall(past)
        self._is_dirty = True
        _log.warning("state made anew from the log", events=len(past))

    def _recall(self, past: Sequence[RegistryEvent]) -> None:
        self._sequence = count_of(past)
        told = past[in_short(past) :][-RECENT_EVENTS:]
        first = self._sequence - len(told) + 1
        self._recent.clear()
        self._recent.extend(enumerate(told, first))

    def _announce(self, events: Sequence[RegistryEvent]) -> None:
        for event in events:
            _log.info("registry event", **_fields(event))


def _fields(event: RegistryEvent) -> dict[str, object]:
    """What a log line says of an event: its kind, and what is short."""
    names = ("lease_id", "group_id", "epoch", "tenant", "client", "node_name")
    slices = ("device_index", "share_percent", "memory_nbytes", "mode")
    more = (*slices, "reason", "address", "version")
    fields = {name: getattr(event, name, None) for name in (*names, *more)}
    shown = {name: value for name, value in fields.items() if value not in (None, "")}
    return {"kind": type(event).__name__, **shown}
