"""What the registry knows: a fold of events, and of what it saw since it started.

Rule 1: ``State.apply`` is the only place that changes anything; the values inside
are frozen. Rule 2: it never refuses: an event has happened, ``decide.py`` saw to it
that it may. Rule 3: time is an argument, in nanoseconds of a monotonic clock.

``nodes``, ``leases``, ``ended`` and ``last_epoch`` follow from the log alone and
survive a restart; ``deadlines_ns`` and ``beats`` belong to this process.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from xpool_registry.accounting import Holder
from xpool_registry.demand import Demand, Spot
from xpool_registry.events import (
    Device,
    DeviceLoad,
    LeaseEnded,
    LeaseGranted,
    LeaseNoticed,
    LeaseRenewed,
    LeaseResized,
    LogCompacted,
    NodeCordoned,
    NodeHeard,
    NodeJoined,
    NodeUncordoned,
    NoticeWithdrawn,
    Observation,
    RegistryCreated,
    RegistryEvent,
    RegistryRestored,
    RequestAsked,
    RequestLeft,
    RequestQueued,
    SessionReport,
    StartPromised,
    TenantRemoved,
    TenantSet,
    TokenCreated,
    TokenRevoked,
    UseCarried,
)
from xpool_registry.fairshare import Amount, Book, Past, Shares
from xpool_registry.fleet import Bools, DeviceFacts, Fleet, NodeFacts
from xpool_registry.mix import Learning
from xpool_registry.placer import Placer
from xpool_registry.policies import BestFit, Spread
from xpool_registry.settings import MAX_ENDED_LEASES, Settings

NS_PER_MS = 1_000_000
NEVER_NS = -(1 << 62)

# A device is *busy* when it works so much more than its leases explain, and *very*
# busy a second step further; it counts as calm again some points lower, so that a
# load that wavers about a step does not change the order with each heartbeat.
BUSY_STEPS = (40.0, 75.0)
HYSTERESIS = 15.0

# Memory in use that no session accounts for counts as gone from this part of a device
# on: a framework holds something beside every session's storages.
FOREIGN_SHARE = 0.05

# Preemptions that are remembered for a tenant's budget: its largest value that counts.
MAX_PAID = 100_000


def load_level(busy_percent: float, leased_percent: int, before: int) -> int:
    """How busy a device is beyond what is leased: 0, 1 or 2.

    >>> load_level(95.0, 95, 0), load_level(50.0, 0, 0), load_level(30.0, 0, 1)
    (0, 1, 1)
    """
    excess = busy_percent - leased_percent
    if not before and excess < BUSY_STEPS[0]:
        return 0  # as nearly always
    up = sum(excess >= step for step in BUSY_STEPS)
    down = sum(excess >= step - HYSTERESIS for step in BUSY_STEPS)
    return up if up >= before else max(up, min(before, down))


def holder_of(lease: LeaseGranted) -> Holder:
    """For whom its use is counted."""
    return Holder(
        lease_id=lease.lease_id,
        tenant=lease.tenant,
        node_name=lease.node_name,
        device_index=lease.device_index,
        share_percent=lease.share_percent,
    )


@dataclass(frozen=True, slots=True)
class Beat:
    """The last proof of life of one node."""

    at_ns: int
    is_heard: bool
    """False: only assumed, because the registry itself has just started."""

    loads: tuple[DeviceLoad, ...] = ()
    sessions: tuple[SessionReport, ...] = ()


class Held(NamedTuple):
    """What the live leases of one device take together."""

    share_percent: int = 0
    memory_nbytes: int = 0
    lease_count: int = 0


class Notice(NamedTuple):
    """A lease that is asked back."""

    event: LeaseNoticed
    until_ns: int


class Promise(NamedTuple):
    """What is kept for a waiting request."""

    spots: tuple[Spot, ...]
    starts_ns: int | None
    """When it starts at the latest; None: nobody knows."""

    starts_at_s: float


class State:
    """Mutated only through ``apply``; everybody else reads."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self.created: RegistryCreated | None = None
        self.nodes: dict[str, NodeJoined] = {}
        #: Live leases, oldest first.
        self.leases: dict[str, LeaseGranted] = {}
        #: Leases that are over, oldest end first; the last ``MAX_ENDED_LEASES``.
        self.ended: dict[str, LeaseEnded] = {}
        #: Fencing numbers count over all leases, so no two ever share one.
        self.last_epoch = 0
        #: When each live lease runs out unless it is renewed.
        self.deadlines_ns: dict[str, int] = {}
        self.beats: dict[str, Beat] = {}
        #: What is free: follows from nodes, leases and beats, kept for speed.
        self.fleet = Fleet()
        self.learning = Learning()
        self.placers = {
            "auto": Placer(self.fleet, self.learning),
            "pack": Placer(self.fleet, BestFit()),
            "spread": Placer(self.fleet, Spread()),
        }
        #: Requests in the queue, oldest first.
        self.waiting: dict[str, RequestQueued] = {}
        self.promises: dict[str, Promise] = {}
        #: Why requests are over, so that a ticket is never granted again.
        self.gone: dict[str, str] = {}
        self.tenants: dict[str, TenantSet] = {}
        self.cordoned: dict[str, NodeCordoned] = {}
        self.tokens: dict[str, TokenCreated] = {}
        #: From the first token on, every call needs one.
        self.has_had_tokens = False
        self.books: dict[str, Book] = {}
        #: When the first lease was granted.
        self.began_s = 0.0
        #: Live leases of each request.
        self.of_request: dict[str, dict[str, LeaseGranted]] = {}
        #: When each waiting request is dropped: its client is silent, or time is up.
        self.silent_ns: dict[str, int] = {}
        self.out_ns: dict[str, int] = {}
        #: When leases with a limit end, renewed or not.
        self.limits_ns: dict[str, int] = {}
        #: Leases that are asked back.
        self.notices: dict[str, Notice] = {}
        #: Live leases that may shrink, oldest first.
        self.elastic: dict[str, None] = {}
        #: Memory that leases have been told to give up and whose nodes have not
        #: confirmed it: nobody else gets it before.
        self.unsettled: dict[str, int] = {}
        #: When requests of each tenant made leases of others leave, for the budget.
        self.preempted_s: dict[str, deque[float]] = {}
        #: While events are replayed: what time it is by now.
        self._wall_s: float | None = None
        #: Whose the leases were that are over, oldest end first.
        self._over: dict[str, Holder] = {}
        self._by_node: dict[str, dict[str, LeaseGranted]] = {}
        self._due: list[tuple[int, str]] = []

    @classmethod
    def from_events(
        cls,
        events: Iterable[RegistryEvent],
        now_ns: int,
        wall_s: float | None = None,
        settings: Settings | None = None,
    ) -> State:
        """The state after a restart.

        Every live lease gets one fresh TTL, every waiting request a fresh time to
        ask again, and no node counts as heard yet: it may have died while the
        registry was away. Limits and promises go on by the wall clock ``wall_s``.
        """
        state = cls(settings)
        state._wall_s = wall_s
        for event in events:
            state.apply(event, now_ns)
        for name in state.nodes:
            state.beats[name] = Beat(now_ns, is_heard=False)
            state.fleet.hear(state.fleet.row_of[name], NEVER_NS)
        state._wall_s = None
        return state

    def apply(self, fact: RegistryEvent | Observation, now_ns: int) -> None:
        """Take in one fact."""
        match fact:
            case RegistryCreated():
                self.created = fact
            case NodeJoined():
                self._join(fact, now_ns)
            case NodeHeard():
                self._hear(fact, now_ns)
            case LeaseGranted():
                self._grant(fact, now_ns)
            case LeaseRenewed():
                self._extend(self.leases[fact.lease_id], now_ns)
            case LeaseResized():
                self._resize(fact)
            case LeaseEnded():
                self._end(fact)
            case _:
                self._apply_to_queue(fact, now_ns)

    def _apply_to_queue(self, fact: RegistryEvent | Observation, now_ns: int) -> None:
        match fact:
            case LeaseNoticed():
                self._notice(fact, now_ns)
            case NoticeWithdrawn():
                self.notices.pop(fact.lease_id, None)
            case RequestQueued():
                self._queue(fact, now_ns)
            case RequestAsked():
                self.silent_ns[fact.request_id] = self._request_deadline(now_ns)
            case RequestLeft():
                self._leave(fact.request_id)
                self._forget(fact.request_id, fact.reason)
            case StartPromised():
                self._promise(fact, now_ns)
            case TenantSet():
                self.tenants[fact.name] = fact
            case TenantRemoved():
                self.tenants.pop(fact.name, None)
            case _:
                self._apply_upkeep(fact)

    def _apply_upkeep(self, fact: RegistryEvent | Observation) -> None:
        match fact:
            case NodeCordoned():
                self.cordoned[fact.node_name] = fact
                self.fleet.set_open(self.fleet.row_of[fact.node_name], False)
            case NodeUncordoned():
                self.cordoned.pop(fact.node_name, None)
                self.fleet.set_open(self.fleet.row_of[fact.node_name], True)
            case TokenCreated():
                self.tokens[fact.token_id] = fact
                self.has_had_tokens = True
            case TokenRevoked():
                self.tokens.pop(fact.token_id, None)
            case RegistryRestored():
                self.last_epoch = max(self.last_epoch, fact.last_epoch)
            case UseCarried():
                self.books[fact.tenant] = Book(
                    held=Amount(fact.held_milli, fact.held_nbytes),
                    recent=Amount(fact.recent_milli, fact.recent_nbytes),
                    at_s=fact.until_s,
                )
            case LogCompacted():
                self._carry(fact)
            case _:
                raise TypeError(f"no rule to apply a {type(fact).__name__}")

    def _carry(self, fact: LogCompacted) -> None:
        """What the events before it, which are left out, had come to."""
        self.last_epoch = max(self.last_epoch, fact.last_epoch)
        self.began_s = fact.began_s
        self.has_had_tokens = fact.has_had_tokens
        self.learning.relearn(
            Demand(share_milli=share, device_count=count) for count, share in fact.forms
        )
        self.preempted_s = {
            tenant: deque(times, maxlen=MAX_PAID) for tenant, times in fact.preempted_s
        }
        for lease_id, nbytes in fact.unsettled:
            lease = self.leases[lease_id]
            self._book(lease, -1)
            self.unsettled[lease_id] = nbytes
            self._book(lease, 1)

    def _join(self, event: NodeJoined, now_ns: int) -> None:
        self.nodes[event.node_name] = event
        self.beats[event.node_name] = Beat(now_ns, is_heard=True)
        row = self.fleet.put(
            NodeFacts(
                name=event.node_name,
                devices=[
                    DeviceFacts(
                        index=device.index,
                        memory_nbytes=device.memory_nbytes,
                        kind=device.kind,
                        model=device.name,
                        architecture=device.architecture,
                    )
                    for device in event.devices
                ],
                labels=dict(event.labels),
            )
        )
        self.fleet.hear(row, now_ns)
        self.fleet.set_open(row, event.node_name not in self.cordoned)
        for request_id, promise in list(self.promises.items()):
            if any(spot.row == row for spot in promise.spots):
                del self.promises[request_id]  # those devices are others now
        for lease in self.leases_on(event.node_name):
            self._book(lease, 1)

    def _grant(self, lease: LeaseGranted, now_ns: int) -> None:
        self.leases[lease.lease_id] = lease
        self._by_node.setdefault(lease.node_name, {})[lease.lease_id] = lease
        if lease.min_share_percent:
            self.elastic[lease.lease_id] = None
        self.last_epoch = max(self.last_epoch, lease.epoch)
        self._extend(lease, now_ns)
        self._book(lease, 1)
        self._charge(lease, 1, lease.at_s)
        if lease.limit_ms:
            elapsed_ms = self._elapsed_ms(lease.at_s)
            left_ns = max(0, lease.limit_ms - elapsed_ms) * NS_PER_MS
            self.limits_ns[lease.lease_id] = now_ns + left_ns
            heapq.heappush(self._due, (now_ns + left_ns, lease.lease_id))
        if lease.request_id:
            leases = self.of_request.setdefault(lease.request_id, {})
            leases[lease.lease_id] = lease
            self._leave(lease.request_id)
        if lease.group_id in ("", lease.lease_id):
            self.learning.learn(
                Demand(
                    share_milli=lease.share_percent * 10,
                    device_count=lease.group_size,
                )
            )

    def _resize(self, event: LeaseResized) -> None:
        before = self.leases.get(event.lease_id)
        if before is None:
            return
        lease = replace(
            before,
            share_percent=event.share_percent,
            memory_nbytes=event.memory_nbytes,
            mode=event.mode,
            priority=event.priority,
            slice_number=event.number,
            wish_percent=event.wish_percent or before.wish_percent,
            is_memory_implied=before.is_memory_implied and not event.is_memory_named,
        )
        self._book(before, -1)
        booked = before.memory_nbytes + self.unsettled.pop(lease.lease_id, 0)
        if booked > lease.memory_nbytes:
            self.unsettled[lease.lease_id] = booked - lease.memory_nbytes
        self._book(lease, 1)
        for one, factor in ((before, -1), (lease, 1)):
            self._charge(one, factor, event.at_s)
        self.leases[lease.lease_id] = lease
        self._by_node[lease.node_name][lease.lease_id] = lease
        if lease.request_id:
            self.of_request[lease.request_id][lease.lease_id] = lease

    def _charge(self, lease: LeaseGranted, factor: int, at_s: float) -> None:
        if not self.began_s:
            self.began_s = at_s
        book = self.books.setdefault(lease.tenant, Book())
        book.advance(at_s, self._settings.half_life_s)
        milli = lease.share_percent * 10
        book.change(Amount(milli, lease.memory_nbytes), factor)

    def _elapsed_ms(self, since_s: float) -> int:
        """Since an event that is replayed; of one that happens now, nothing."""
        if self._wall_s is None:
            return 0
        return max(0, int((self._wall_s - since_s) * 1000))

    # ---- the queue ----

    def _notice(self, event: LeaseNoticed, now_ns: int) -> None:
        left_ms = max(0, event.grace_ms - self._elapsed_ms(event.at_s))
        until_ns = now_ns + left_ms * NS_PER_MS
        self.notices[event.lease_id] = Notice(event, until_ns)
        heapq.heappush(self._due, (until_ns, event.lease_id))
        if event.request_id:
            paid = self.preempted_s.setdefault(event.tenant, deque(maxlen=MAX_PAID))
            paid.append(event.at_s)

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

    def shares(self, wall_s: float) -> Shares:
        """Who has how much of the pool now, and had lately."""

        def refresh() -> None:
            for book in self.books.values():
                book.advance(wall_s, self._settings.half_life_s)

        capacity = Amount(
            float(self.fleet.exists.sum()) * 1000, float(self.fleet.total_nbytes.sum())
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

    def _book(self, lease: LeaseGranted, sign: int) -> None:
        """Take a lease's slice from the fleet, or give it back with -1."""
        row = self.fleet.row_of.get(lease.node_name)
        if row is None:
            return
        column = self.fleet.column(row, lease.device_index)
        milli = sign * lease.share_percent * 10
        nbytes = lease.memory_nbytes + self.unsettled.get(lease.lease_id, 0)
        self.fleet.take(row, [column], milli, sign * nbytes)

    def _hear(self, fact: NodeHeard, now_ns: int) -> None:
        self.beats[fact.node_name] = Beat(
            now_ns, is_heard=True, loads=fact.loads, sessions=fact.sessions
        )
        row = self.fleet.row_of[fact.node_name]
        self.fleet.hear(row, now_ns)
        for session in fact.sessions:
            self._settle(session)
        own = self._own_nbytes(fact)
        nobodys = own.get(-1, 0)
        # Whole rows at once: one number of an array costs as much as all of its row.
        devices = self.fleet.devices_of(row)
        for load in fact.loads:
            column = self.fleet.column(row, load.index)
            free_milli, total_nbytes, before, foreign_before = devices[column]
            level = load_level(load.busy_percent, 100 - free_milli // 10, before)
            foreign = load.used_nbytes - own.get(load.index, 0) - nobodys
            if foreign < FOREIGN_SHARE * total_nbytes:
                foreign = 0
            if (foreign, level) != (foreign_before, before):
                self.fleet.observe(row, column, foreign, level)

    def _settle(self, session: SessionReport) -> None:
        """A node has given up what it was told to: others may have it."""
        lease = self.leases.get(session.lease_id)
        if lease is None or lease.lease_id not in self.unsettled or session.refusal:
            return
        if (session.slice_number, session.epoch) == (lease.slice_number, lease.epoch):
            self._book(lease, -1)
            del self.unsettled[lease.lease_id]
            self._book(lease, 1)

    def _own_nbytes(self, fact: NodeHeard) -> dict[int, int]:
        """What sessions use of each device; -1: of some device, the lease is over."""
        own: dict[int, int] = {}
        for session in fact.sessions:
            lease = self.leases.get(session.lease_id)
            index = lease.device_index if lease is not None else -1
            own[index] = own.get(index, 0) + session.allocated_nbytes
        return own

    def _extend(self, lease: LeaseGranted, now_ns: int) -> None:
        deadline_ns = now_ns + lease.ttl_ms * NS_PER_MS
        self.deadlines_ns[lease.lease_id] = deadline_ns
        heapq.heappush(self._due, (deadline_ns, lease.lease_id))

    def due(self, now_ns: int) -> list[LeaseGranted]:
        """Live leases whose time has run out, in the order in which it did."""
        found: list[LeaseGranted] = []
        kept: list[tuple[int, str]] = []
        while self._due and self._due[0][0] <= now_ns:
            entry = heapq.heappop(self._due)
            # An entry of an ended lease, or from before a renewal, says nothing.
            notice = self.notices.get(entry[1])
            times = (
                self.deadlines_ns.get(entry[1]),
                self.limits_ns.get(entry[1]),
                notice.until_ns if notice else None,
            )
            if entry[0] in times and entry not in kept:
                found.append(self.leases[entry[1]])
                kept.append(entry)
        for entry in kept:  # looking changes nothing: they are due until they end
            heapq.heappush(self._due, entry)
        return found

    def _end(self, event: LeaseEnded) -> None:
        lease = self.leases.pop(event.lease_id, None)
        if lease is not None:
            del self._by_node[lease.node_name][lease.lease_id]
            self._book(lease, -1)
            self._charge(lease, -1, event.at_s)
            self._remember_holder(lease)
            self.unsettled.pop(lease.lease_id, None)
            self.elastic.pop(lease.lease_id, None)
            self.limits_ns.pop(lease.lease_id, None)
            self.notices.pop(lease.lease_id, None)
            leases = self.of_request.get(lease.request_id)
            if leases is not None:
                del leases[lease.lease_id]
                if not leases:
                    del self.of_request[lease.request_id]
                    self._forget(lease.request_id, event.reason)
        self.deadlines_ns.pop(event.lease_id, None)
        self.ended.pop(event.lease_id, None)
        self.ended[event.lease_id] = event
        if len(self.ended) > MAX_ENDED_LEASES:
            del self.ended[next(iter(self.ended))]

    def _remember_holder(self, lease: LeaseGranted) -> None:
        """Its node may tell of its last seconds after its end."""
        self._over[lease.lease_id] = holder_of(lease)
        if len(self._over) > MAX_ENDED_LEASES:
            del self._over[next(iter(self._over))]

    # ---- reading ----

    def holder(self, lease_id: str) -> Holder | None:
        """Whose a lease is, or was until lately; None: nobody knows."""
        lease = self.leases.get(lease_id)
        return holder_of(lease) if lease is not None else self._over.get(lease_id)

    def leases_on(self, node_name: str) -> Iterator[LeaseGranted]:
        """Live leases of one node, oldest first."""
        return iter(self._by_node.get(node_name, {}).values())

    def living(self, now_ns: int, dead_after_ms: int) -> Bools:
        """Nodes that were heard lately, by row of the fleet."""
        return self.fleet.heard_since(now_ns - dead_after_ms * NS_PER_MS)

    def held(self) -> dict[tuple[str, int], Held]:
        """What is taken of each (node, device index) that has leases."""
        sums: dict[tuple[str, int], Held] = {}
        for lease in self.leases.values():
            key = (lease.node_name, lease.device_index)
            share, memory, count = sums.get(key, Held())
            sums[key] = Held(
                share + lease.share_percent, memory + lease.memory_nbytes, count + 1
            )
        return sums

    def device(self, node_name: str, index: int) -> Device:
        """One device of a node that has joined."""
        devices = self.nodes[node_name].devices
        return next(device for device in devices if device.index == index)

    def silence_ms(self, node_name: str, now_ns: int) -> int:
        """How long ago a node was heard, or when we started if it never was."""
        return (now_ns - self.beats[node_name].at_ns) // NS_PER_MS

    def is_alive(self, node_name: str, now_ns: int, dead_after_ms: int) -> bool:
        """Whether new leases may go there."""
        beat = self.beats[node_name]
        return beat.is_heard and self.silence_ms(node_name, now_ns) < dead_after_ms

    def may_be_alive(self, node_name: str, now_ns: int, dead_after_ms: int) -> bool:
        """Whether its name must still be kept for it."""
        return self.silence_ms(node_name, now_ns) < dead_after_ms

    def expires_in_ms(self, lease_id: str, now_ns: int) -> int:
        """Time left of a live lease; 0 if it has run out."""
        return max(0, self.deadlines_ns[lease_id] - now_ns) // NS_PER_MS
