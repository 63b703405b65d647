"""The driver of accounting: takes what heartbeats bring, keeps it, sums it up."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import structlog
from xpool_protocol.errors import BrokenError, UsageError

from xpool_registry.accounting import (
    GROUPS,
    HOUR_S,
    MAX_LEASES,
    Holder,
    Ledger,
    Row,
    RunningSum,
    Second,
    Sum,
    summed,
)
from xpool_registry.settings import MAX_TENANTS
from xpool_registry.usage_store import UsageStore

ROWS_AT_ONCE: Final = 500
"""Nobody is charged while so many are taken to be written: two milliseconds. With a
look five times a second, ten thousand busy leases have their use kept each four
seconds, and their nodes tell it again until then."""

DAY_S: Final = 24 * HOUR_S
MAX_PERIOD_S = 5 * 366 * 24 * HOUR_S
_log = structlog.get_logger(__name__)


class Used(NamedTuple):
    """What a tenant has used, in seconds and bytes times seconds."""

    device_s: float = 0.0
    booked_s: float = 0.0
    waiting_s: float = 0.0
    byte_s: float = 0.0


class Accounts:
    """One pool's usage. Every method may be called from any thread."""

    def __init__(self, store: UsageStore, now_s: float, kept_days: int = 0) -> None:
        """Go on where the store stands.

        Args:
            store: read once, for the hour before and this one.
            now_s: wall clock.
            kept_days: rows are dropped when they are so much older than the newest,
                by whose time a clock that jumps ahead drops nothing; 0: never.
        """
        self._store = store
        self._kept_s = kept_days * DAY_S
        self._newest_s = self._pruned_s = 0
        self._lock = threading.Lock()
        #: Held while rows are written, which nobody who charges waits for.
        self._writing = threading.Lock()
        hour_s = int(now_s) // HOUR_S * HOUR_S
        self._ledger = Ledger(store.rows(hour_s - HOUR_S, hour_s + 2 * HOUR_S))
        #: The last second of each lease that the store has.
        self._stored_s: dict[str, int] = {}
        self._note(self._ledger.rows())
        self._flushed_s = now_s
        self._hour_s = hour_s
        self._is_failing = False
        #: Of each tenant what is in memory no more, less what it began with.
        self._gone: dict[str, Used] = {}
        _add(self._gone, self._ledger.running(), -1)
        #: The last write took as much as it may: the rest follows with the next look.
        self._is_behind = False

    def charge(
        self, used: Iterable[tuple[Holder, Sequence[Second]]], now_s: float
    ) -> None:
        """Charge leases for what their nodes report."""
        with self._lock:
            for holder, seconds in used:
                self._ledger.charge(holder, seconds, now_s)

    def stored_s(self, used: Iterable[tuple[str, Sequence[Second]]]) -> dict[str, int]:
        """Of leases with seconds that the store lacks: up to which one it has them."""
        with self._lock:
            return {
                lease_id: self._stored_s.get(lease_id, 0)
                for lease_id, seconds in used
                if seconds and self._stored_s.get(lease_id, 0) < seconds[-1].at_s
            }

    def last_s(self, lease_id: str) -> int:
        """The last second that a lease was charged for; -1: none is remembered."""
        return self._ledger.last_s(lease_id)

    def flush(self, now_s: float, *, is_last: bool = False) -> None:
        """Keep what is new, if it is time; a failure is logged and made good later."""
        with self._writing:
            with self._lock:
                elapsed_s = now_s - self._flushed_s
                is_due = is_last or self._is_behind or elapsed_s < 0
                if not is_due and elapsed_s < self._store.flush_s:
                    return
                self._flushed_s = now_s
                rows = self._ledger.take_changed(None if is_last else ROWS_AT_ONCE)
                self._is_behind = len(rows) == ROWS_AT_ONCE
            if rows and not self._put(rows):
                return
            self._prune(now_s)
            with self._lock:
                hour_s = int(now_s) // HOUR_S * HOUR_S
                if hour_s != self._hour_s:
                    self._hour_s = hour_s
                    _add(self._gone, self._ledger.forget_before(hour_s - HOUR_S))
                    while len(self._gone) > MAX_TENANTS:
                        del self._gone[next(iter(self._gone))]

    def _prune(self, now_s: float) -> None:
        """Drop what is too old, some rows with each look."""
        if not self._kept_s or self._is_behind:
            return
        newest_s = min(int(now_s), self._newest_s)
        first_s = (newest_s - self._kept_s) // HOUR_S * HOUR_S
        if first_s <= self._pruned_s:
            return
        try:
            is_more = self._store.forget_before(first_s, ROWS_AT_ONCE)
        except BrokenError as error:
            _log.error("old usage is kept for another hour", error=str(error))
            is_more = False
        if not is_more:
            self._pruned_s = first_s

    def since_start(self) -> dict[str, Used]:
        """What each tenant has used since this process began; only ever more."""
        with self._lock:
            sums, running = dict(self._gone), self._ledger.running()
        _add(sums, running)  # nobody who charges waits for it
        return sums

    def usage(self, since_s: int, until_s: int, by: str, now_s: float) -> list[Sum]:
        """Sums of the hours that begin in a period; the current hour is in it.

        Raises:
            UsageError: no such group, or a period that makes no sense.
            BrokenError: the store can't be read.
        """
        if by not in GROUPS:
            raise UsageError(f"usage by {by[:40]!r}: write one of {', '.join(GROUPS)}")
        if not 0 <= since_s < until_s <= since_s + MAX_PERIOD_S:
            raise UsageError(
                "a period begins before it ends and is at most five years long"
            )
        self.flush(now_s, is_last=True)
        with self._writing:
            found = self._store.rows(since_s, until_s)
        return summed(found, by)

    def close(self, now_s: float) -> None:
        """Keep what is new, and let go of the store."""
        self.flush(now_s, is_last=True)
        self._store.close()

    def _put(self, rows: list[Row]) -> bool:
        try:
            self._store.put(rows)
        except BrokenError as error:
            with self._lock:
                self._ledger.give_back(rows)
                self._is_behind = False  # a full disk is not asked five times a second
            if not self._is_failing:
                _log.error("usage is not kept", error=str(error))
            self._is_failing = True
            return False
        self._is_failing = False
        with self._lock:
            self._note(rows)
        return True

    def _note(self, rows: Iterable[Row]) -> None:
        for row in rows:
            lease_id = row.key.lease_id
            self._newest_s = max(self._newest_s, row.key.hour_s)
            before_s = self._stored_s.pop(lease_id, 0)
            self._stored_s[lease_id] = max(before_s, row.last_s)
        while len(self._stored_s) > MAX_LEASES:
            del self._stored_s[next(iter(self._stored_s))]


def _add(sums: dict[str, Used], more: Iterable[RunningSum], sign: int = 1) -> None:
    for one in more:
        tenant = one.key.tenant
        device_s, booked_s, waiting_s, byte_s = sums.get(tenant, Used())
        sums[tenant] = Used(
            device_s + sign * one.device_s,
            booked_s + sign * one.booked_s,
            waiting_s + sign * one.waiting_s,
            byte_s + sign * one.byte_s,
        )
