"""The part of a registry's state that is about the queue: who waits, and for what."""

from __future__ import annotations

import heapq
from collections import deque

from xpool_registry.demand import Spot
from xpool_registry.events import (
    LeaseGranted,
    LeaseNoticed,
    RequestQueued,
    StartPromised,
    TenantSet,
)
from xpool_registry.fairshare import Amount, Book, Past, Shares
from xpool_registry.fleet import Fleet
from xpool_registry.known import NS_PER_MS, Notice, Promise
from xpool_registry.settings import MAX_ENDED_LEASES, MAX_TENANTS, Settings

# Preemptions that are remembered for a tenant's budget: its largest value that counts.
MAX_PAID = 100_000

# Tenants whose past use is remembered although they hold nothing: without tokens
# anybody may ask under any name.
MAX_BOOKS = MAX_TENANTS


class WaitingState:
    """See the head of this file; ``State`` applies its facts."""

    fleet: Fleet
    waiting: dict[str, RequestQueued]
    promises: dict[str, Promise]
    gone: dict[str, str]
    tenants: dict[str, TenantSet]
    books: dict[str, Book]
    began_s: float
    silent_ns: dict[str, int]
    out_ns: dict[str, int]
    limits_ns: dict[str, int]
    notices: dict[str, Notice]
    preempted_s: dict[str, deque[float]]
    _settings: Settings
    _wall_s: float | None
    _due: list[tuple[int, str]]

    def _elapsed_ms(self, since_s: float) -> int:
        """Since an event that is replayed; of one that happens now, nothing."""
        if self._wall_s is None:
            return 0
        return max(0, int((self._wall_s - since_s) * 1000))

    def _notice(self, event: LeaseNoticed, now_ns: int) -> None:
        left_ms = max(0, event.grace_ms - self._elapsed_ms(event.at_s))
        until_ns = now_ns + left_ms * NS_PER_MS
        self.notices[event.lease_id] = Notice(event, until_ns)
        heapq.heappush(self._due, (until_ns, event.lease_id))
        if event.request_id:
            paid = self.preempted_s.setdefault(event.tenant, deque(maxlen=MAX_PAID))
            paid.append(event.at_s)
            if len(self.preempted_s) > MAX_BOOKS:
                del self.preempted_s[next(iter(self.preempted_s))]

    def _request_deadline(self, now_ns: int) -> int:
        return now_ns + self._settings.request_ttl_ms * NS_PER_MS

    def _queue(self, request: RequestQueued, now_ns: int) -> None:
        self.waiting[request.request_id] = request
        self.silent_ns[request.request_id] = self._request_deadline(now_ns)
        left_ms = max(0, request.wait_ms - self._elapsed_ms(request.at_s))
        self.out_ns[request.request_id] = now_ns + left_ms * NS_PER_MS

    def _leave(self, request_id: str) -> None:
        self.waiting.pop(request_id, None)
        self.silent_ns.pop(request_id, None)
        self.out_ns.pop(request_id, None)
        self.promises.pop(request_id, None)

    def _forget(self, request_id: str, reason: str) -> None:
        self.gone[request_id] = reason
        if len(self.gone) > MAX_ENDED_LEASES:
            del self.gone[next(iter(self.gone))]

    def _promise(self, event: StartPromised, now_ns: int) -> None:
        wait_ms = int((event.starts_at_s - event.at_s) * 1000)
        left_ms = wait_ms - self._elapsed_ms(event.at_s)
        self.promises[event.request_id] = Promise(
            spots=tuple(Spot.of(self.fleet, *device) for device in event.devices),
            starts_ns=now_ns + left_ms * NS_PER_MS if event.is_firm else None,
            starts_at_s=event.starts_at_s if event.is_firm else 0.0,
        )

    def _book_of(self, tenant: str) -> Book:
        """What it holds and has held; of too many that hold nothing the oldest goes."""
        book = self.books.pop(tenant, None)
        if book is None:
            book = Book()
            if len(self.books) >= MAX_BOOKS:
                idle = (name for name, one in self.books.items() if not one.is_held)
                strangers = (name for name in idle if name not in self.tenants)
                self.books.pop(next(strangers, ""), None)
        self.books[tenant] = book
        return book

    def shares(self, wall_s: float) -> Shares:
        """Who has how much of the pool now, and had lately."""

        def refresh() -> None:
            for book in self.books.values():
                book.advance(wall_s, self._settings.half_life_s)

        capacity = Amount(
            1000.0 * self.fleet.device_count, float(self.fleet.memory_nbytes)
        )
        seen_s = max(0.0, wall_s - self.began_s) if self.books else 0.0
        past = Past(self._settings.half_life_s, seen_s)
        return Shares(self.tenants, self.books, capacity, past, refresh)

    def ends_ns(self, lease: LeaseGranted) -> int | None:
        """When a lease ends at the latest; None: nobody knows."""
        limit_ns = self.limits_ns.get(lease.lease_id)
        notice = self.notices.get(lease.lease_id)
        if notice is None:
            return limit_ns
        return notice.until_ns if limit_ns is None else min(limit_ns, notice.until_ns)
