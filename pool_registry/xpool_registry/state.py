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
from collections.abc import Iterable

from msgspec.structs import replace

from xpool_registry.accounting import Holder
from xpool_registry.deadlines import Deadlines, stretched_ttl_ms
from xpool_registry.demand import Demand
from xpool_registry.events import (
    LeaseEnded,
    LeaseGranted,
    LeaseNoticed,
    LeaseResized,
    LogCompacted,
    NodeCordoned,
    NodeForgotten,
    NodeJoined,
    NodeUncordoned,
    NoticeWithdrawn,
    RegistryCreated,
    RegistryEvent,
    RegistryRestored,
    RequestLeft,
    RequestQueued,
    StartPromised,
    TenantRemoved,
    TenantSet,
    TokenCreated,
    TokenRevoked,
    UseCarried,
)
from xpool_registry.fairshare import Amount, Book
from xpool_registry.fleet import DeviceFacts, Fleet, NodeFacts
from xpool_registry.hearing import Hearing
from xpool_registry.known import (
    NEVER_NS,
    NS_PER_MS,
    Beat,
    Notice,
    Promise,
    holder_of,
)
from xpool_registry.mix import Learning
from xpool_registry.observations import (
    LeaseRenewed,
    NodeHeard,
    Observation,
    RequestAsked,
)
from xpool_registry.placer import Placer
from xpool_registry.policies import BestFit, Spread
from xpool_registry.reading import Reading
from xpool_registry.settings import MAX_ENDED_LEASES, Settings
from xpool_registry.waiting_state import MAX_PAID, WaitingState


class State(Reading, Deadlines, Hearing, WaitingState):
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
        #: Whose the live leases are.
        self._holders: dict[str, Holder] = {}
        #: Whose the leases were that are over, oldest end first.
        self._over: dict[str, Holder] = {}
        self._by_node: dict[str, dict[str, LeaseGranted]] = {}
        self._due: list[tuple[int, str]] = []
        self._looked_at_ns: dict[str, int] = {}

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
        most = 0
        for event in events:
            state.apply(event, now_ns)
            most = max(most, len(state.leases))
        # Holders may still count with a TTL from when there were more of them.
        for lease in state.leases.values():
            if not lease.has_own_ttl and most > len(state.leases):
                ttl_ms = stretched_ttl_ms(lease.ttl_ms, most)
                state._extend(lease, now_ns, ttl_ms)
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
            case NodeForgotten():
                self._forget_node(fact.node_name)
            case TokenCreated():
                self.tokens[fact.token_id] = fact
                self.has_had_tokens = True
            case TokenRevoked():
                self.tokens.pop(fact.token_id, None)
            case RegistryRestored():
                self.last_epoch = max(self.last_epoch, fact.last_epoch)
            case UseCarried():
                self.books.pop(fact.tenant, None)  # the order tells who came last
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
        self._break_promises(row)  # those devices are others now
        for lease in self.leases_on(event.node_name):
            self._book(lease, 1)

    def _forget_node(self, node_name: str) -> None:
        self._break_promises(self.fleet.drop(node_name))
        del self.nodes[node_name], self.beats[node_name]
        self.cordoned.pop(node_name, None)
        self._by_node.pop(node_name, None)

    def _break_promises(self, row: int) -> None:
        for request_id, promise in list(self.promises.items()):
            if any(spot.row == row for spot in promise.spots):
                del self.promises[request_id]

    def _grant(self, lease: LeaseGranted, now_ns: int) -> None:
        self.leases[lease.lease_id] = lease
        self._holders[lease.lease_id] = holder_of(lease)
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
        self._holders[lease.lease_id] = holder_of(lease)
        self._by_node[lease.node_name][lease.lease_id] = lease
        if lease.request_id:
            self.of_request[lease.request_id][lease.lease_id] = lease

    def _charge(self, lease: LeaseGranted, factor: int, at_s: float) -> None:
        if not self.began_s:
            self.began_s = at_s
        book = self._book_of(lease.tenant)
        book.advance(at_s, self._settings.half_life_s)
        milli = lease.share_percent * 10
        book.change(Amount(milli, lease.memory_nbytes), factor)

    def _book(self, lease: LeaseGranted, sign: int) -> None:
        """Take a lease's slice from the fleet, or give it back with -1."""
        row = self.fleet.row_of.get(lease.node_name)
        if row is None:
            return
        column = self.fleet.column(row, lease.device_index)
        milli = sign * lease.share_percent * 10
        nbytes = lease.memory_nbytes + self.unsettled.get(lease.lease_id, 0)
        self.fleet.take(row, [column], milli, sign * nbytes)

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
        self._looked_at_ns.pop(event.lease_id, None)
        self.ended.pop(event.lease_id, None)
        self.ended[event.lease_id] = event
        if len(self.ended) > MAX_ENDED_LEASES:
            del self.ended[next(iter(self.ended))]

    def _remember_holder(self, lease: LeaseGranted) -> None:
        """Its node may tell of its last seconds after its end."""
        self._over[lease.lease_id] = self._holders.pop(lease.lease_id)
        if len(self._over) > MAX_ENDED_LEASES:
            del self._over[next(iter(self._over))]
