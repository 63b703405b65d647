"""Who of those who wait starts now: one pass over the queue.

The order: what is promised, then priority, then whose turn it is by fair share, then
who came first. The first that does not fit heads the queue and gets a promise; all
after it may only fill what it leaves (``reservations.py``). A group of devices is
granted whole or not at all, in one decision, so that two groups never wait for each
other with half of what they want.

Nothing here changes the state: what a pass grants is taken from the fleet while it
looks on, and given back before it returns; the facts that it returns do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from xpool_registry.commands import Moment
from xpool_registry.deadlines import grace_ms_of
from xpool_registry.demand import Demand, Spot
from xpool_registry.elastic import as_much_as_fits, reclaim
from xpool_registry.events import (
    LeaseGranted,
    LeaseNoticed,
    NoticeWithdrawn,
    RegistryEvent,
    RequestQueued,
    StartPromised,
)
from xpool_registry.fairshare import Amount
from xpool_registry.fleet import Bools
from xpool_registry.granting import leases_of, why_there
from xpool_registry.known import NS_PER_MS
from xpool_registry.nearness import place, regions
from xpool_registry.preemption import RANKS, is_worth_it, victims
from xpool_registry.reservations import (
    LATE_NS,
    apart_from,
    demand_from,
    demand_of_least,
    earliest,
    kept_from,
    most_free,
)
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.turns import PRIORITIES, in_order

MAX_TRIED: Final = 500
"""Requests that one pass tries to place; those behind wait for the next."""

MAX_BACKFILL: Final = 100
"""Requests that it tries behind the first that does not fit."""

NewId = Callable[[], str]


@dataclass(slots=True)
class Plan:
    """What a pass decided."""

    facts: list[RegistryEvent] = field(default_factory=list)
    granted: dict[str, list[LeaseGranted]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why each of the others waits on, for people."""

    in_vain: list[str] = field(default_factory=list)
    """Requests for which a start was looked for, and none found."""

    order: list[str] = field(default_factory=list)
    """Those that wait on, in the order in which they are served, as far as looked."""


class _Pass:
    """One look at the queue."""

    def __init__(
        self,
        state: State,
        at: Moment,
        settings: Settings,
        new_id: NewId,
        resting: Container[str],
    ) -> None:
        self.state, self.at, self.settings, self.new_id = state, at, settings, new_id
        self.resting = resting
        self.shares = state.shares(at.wall_s)
        self.may = state.living(at.now_ns, settings.dead_after_ms)
        self.plan = Plan()
        self.taken: list[tuple[Spot, int, int]] = []
        self.epoch = state.last_epoch
        self.blocked: set[tuple[Demand, str, str, int, int, str]] = set()
        self.head: RequestQueued | None = None
        self.is_over = False
        #: Leases that have given something back, and requests that wait for it.
        self.shrunk: set[str] = set()
        self.coming: set[str] = set()
        self.apart_rows: dict[tuple[str, str], set[int]] = {}
        self.mean = state.fleet.memory_nbytes / max(1, state.fleet.device_count)

    def run(self, requests: Iterator[RequestQueued]) -> Plan:
        tried = 0
        with self._given_back():
            for request in requests:
                # What was just promised counts from the next pass on.
                if tried >= MAX_TRIED or self.is_over:
                    break
                if len(self.plan.order) > MAX_BACKFILL:
                    break
                tried += 1
                self._consider(request)
        self._withdraw()
        return self.plan

    def _withdraw(self) -> None:
        """Who was asked to leave for a request that has started otherwise may stay."""
        state = self.state
        for lease_id, notice in state.notices.items():
            wanted_by = notice.event.request_id
            is_wanted = (
                wanted_by in state.waiting and wanted_by not in self.plan.granted
            )
            if wanted_by and not is_wanted:
                self.plan.facts.append(
                    NoticeWithdrawn(lease_id=lease_id, at_s=self.at.wall_s)
                )

    @contextmanager
    def _given_back(self) -> Iterator[None]:
        try:
            yield
        finally:
            for spot, milli, nbytes in self.taken:
                self.state.fleet.take(spot.row, [spot.column], -milli, -nbytes)

    def _consider(self, request: RequestQueued) -> None:
        demand = demand_from(request)
        amount = self._amount(request)
        limit = self.shares.over_limit(request.tenant, amount)
        if limit:
            self.plan.reasons[request.request_id] = limit
            return
        apart = request.apart
        # What did not fit once in a pass fits no better later in it.
        form = (
            demand,
            request.policy,
            request.priority,
            request.min_share_percent,
            request.limit_ms,
            f"{request.near} {request.close_by} {request.tenant} {apart}"
            if apart
            else "",
        )
        spots: Sequence[Spot] | None = None
        is_promised = request.request_id in self.state.promises
        if is_promised or form not in self.blocked:
            spots = self._place(request, demand)
        share = request.share_percent
        if spots is None and form not in self.blocked:
            spots, share = self._on_less(request, demand)
        if spots is None:
            self.blocked.add(form)
            self._wait(request, demand)
            return
        self._grant(request, spots, share)
        self.shares.add(request.tenant, amount)

    def _on_less(
        self, request: RequestQueued, demand: Demand
    ) -> tuple[Sequence[Spot] | None, int]:
        """Where it starts on what is free, or on what others give back at once."""
        share, rank = request.share_percent, RANKS[request.priority]
        least = demand_of_least(request)
        spots: Sequence[Spot] | None = None
        if rank and self.state.elastic:
            spots = self._take_back(request, demand, rank - 1)
        if spots is not None:
            return spots, share
        if request.min_share_percent and request.request_id not in self.coming:
            spots = self._place(request, least)
        if spots is None and self.state.elastic:
            spots = self._take_back(request, least, rank)
        if spots is not None:
            share = as_much_as_fits(self.state.fleet, request, spots)
        return spots, share

    def _take_back(
        self, request: RequestQueued, demand: Demand, highest: int
    ) -> Sequence[Spot] | None:
        """Take back surplus; the devices, if they are free by that now."""
        state = self.state
        if request.request_id in self.coming:
            return None
        kept, may = self._bounds(request, demand)
        found = None
        for region in regions(state.fleet, request, may):
            found = found or reclaim(
                state,
                demand,
                self.at,
                highest=highest,
                may=region,
                kept=kept,
                shrunk=self.shrunk,
            )
        is_queued = request.request_id in state.waiting
        if found is None or not (found.is_at_once or is_queued):
            return None
        for one in found.resized:
            lease = state.leases[one.lease_id]
            spot = Spot.of(state.fleet, lease.node_name, lease.device_index)
            milli = 10 * (one.share_percent - lease.share_percent)
            state.fleet.take(spot.row, [spot.column], milli)
            self.taken.append((spot, milli, 0))
            self.shrunk.add(one.lease_id)
        self.plan.facts += found.resized
        if found.is_at_once:
            return found.spots
        self.coming.add(request.request_id)
        if found.resized:
            self._say_promise(request, found.spots, 0.0, is_firm=False)
        return None

    def _amount(self, request: RequestQueued) -> Amount:
        """What it would hold; its memory by the pool's mean device if unsaid."""
        count = request.device_count
        nbytes = request.memory_nbytes or self.mean * request.share_percent / 100
        return Amount(10.0 * request.share_percent * count, float(nbytes * count))

    def _place(self, request: RequestQueued, demand: Demand) -> list[Spot] | None:
        kept, may = self._bounds(request, demand)
        placer = self.state.placers[request.policy]
        return place(placer, request, demand, may, kept)

    def _bounds(
        self, request: RequestQueued, demand: Demand
    ) -> tuple[Bools | None, Bools]:
        """Devices that are kept from it, and nodes that it may take."""
        ends_ns = None
        if request.limit_ms:
            ends_ns = self.at.now_ns + request.limit_ms * NS_PER_MS
        kept = kept_from(self.state, demand, ends_ns, request.request_id)
        may = self.may
        if request.apart:
            may = apart_from(self.state, request, may)
            # What this pass has granted is not in the state yet.
            for row in self.apart_rows.get((request.tenant, request.apart), ()):
                may[row] = False
        return kept, may

    def _wait(self, request: RequestQueued, demand: Demand) -> None:
        state = self.state
        self.plan.order.append(request.request_id)
        if request.request_id in self.coming:
            self.plan.reasons[request.request_id] = "others are giving back memory"
            return
        promise = state.promises.get(request.request_id)
        if promise is not None:
            self.plan.reasons[request.request_id] = "its devices are not free yet"
            if promise.starts_ns is None or self._is_far(promise.starts_ns):
                self._seek(request, demand)
            return
        if self.head is None:
            self.head = request
            self.plan.reasons[request.request_id] = "it is the next; no room yet"
            if request.request_id in state.waiting and self._may_promise(request):
                self._seek(request, demand)
            return
        self.plan.reasons[request.request_id] = "others come first, and no room beside"

    def _may_promise(self, request: RequestQueued) -> bool:
        """One promise for each class; none while a higher class has one."""
        rank = PRIORITIES.index
        promised = (self.state.waiting[one] for one in self.state.promises)
        return all(rank(one.priority) > rank(request.priority) for one in promised)

    def _grace_ms(self) -> int:
        return grace_ms_of(self.settings, len(self.state.leases))

    def _is_far(self, starts_ns: int) -> bool:
        """Whether asking others to leave would be quicker."""
        grace_ns = self._grace_ms() * NS_PER_MS
        return starts_ns > self.at.now_ns + grace_ns + 2 * LATE_NS

    def _seek(self, request: RequestQueued, demand: Demand) -> None:
        """Promise it a start, unless none was found just now: that looks at all."""
        if request.request_id in self.resting:
            return
        self._promise(request, demand)
        if not self.is_over:
            self.plan.in_vain.append(request.request_id)

    def _promise(self, request: RequestQueued, demand: Demand) -> None:
        """Keep devices for the head of the queue, and free some if it may do that."""
        state = self.state
        before = state.promises.get(request.request_id)
        found = None
        if before is None or before.starts_ns is None:
            found = earliest(state, request, self.at.now_ns, self.may)
        starts_ns = found[0] if found else before.starts_ns if before else None
        is_far = starts_ns is None or self._is_far(starts_ns)
        if is_far and self._preempt(request, starts_ns):
            return
        if found is not None:
            wait_s = (found[0] - self.at.now_ns) / 1e9
            starts_at_s = self.at.wall_s + wait_s
            self._say_promise(request, found[1], starts_at_s, is_firm=True)
            return
        if before is not None:
            return
        since_ns = state.out_ns[request.request_id] - request.wait_ms * NS_PER_MS
        if self.at.now_ns - since_ns < self.settings.hold_after_ms * NS_PER_MS:
            return
        kept = None
        for region in regions(state.fleet, request, self.may):
            kept = kept or most_free(state, demand, region)
        if kept is not None:
            self._say_promise(request, kept, 0.0, is_firm=False)

    def _preempt(self, request: RequestQueued, starts_ns: int | None) -> bool:
        """Ask leases of lower priority to leave; whether that is enough, and worth it.

        Args:
            request: what waits.
            starts_ns: when it starts if nobody is asked; None: nobody knows.
        """
        at, settings, left_ms = self.at, self.settings, self._grace_ms()
        if self.shrunk:
            return False  # the state does not show yet what is free by that
        chosen = None
        may = apart_from(self.state, request, self.may)
        for region in regions(self.state.fleet, request, may):
            chosen = chosen or victims(self.state, request, at, region, settings)
        if chosen is None or not is_worth_it(chosen, starts_ns, at, left_ms):
            return False
        reason = f"request {request.request_id} of {request.priority} priority took it"
        self.plan.facts += [
            LeaseNoticed(
                lease_id=lease.lease_id,
                request_id=request.request_id,
                tenant=request.tenant,
                grace_ms=left_ms,
                reason=reason,
                at_s=at.wall_s,
            )
            for lease in chosen.leases
        ]
        late_s = left_ms / 1000 + LATE_NS / 1e9
        self._say_promise(request, chosen.spots, at.wall_s + late_s, is_firm=True)
        return True

    def _say_promise(
        self,
        request: RequestQueued,
        spots: Sequence[Spot],
        starts_at_s: float,
        *,
        is_firm: bool,
    ) -> None:
        fleet = self.state.fleet
        promise = StartPromised(
            request_id=request.request_id,
            starts_at_s=starts_at_s,
            devices=tuple(
                (fleet.nodes[spot.row].name, fleet.device_index(*spot))
                for spot in spots
            ),
            is_firm=is_firm,
            at_s=self.at.wall_s,
        )
        self.plan.facts.append(promise)
        self.is_over = True

    def _grant(self, request: RequestQueued, spots: Sequence[Spot], share: int) -> None:
        state = self.state
        ids = [self.new_id() for _ in spots]
        leases = leases_of(
            request,
            spots,
            share,
            fleet=state.fleet,
            ids=ids,
            epoch=self.epoch + 1,
            why=why_there(state, request, spots, self.may),
            at=self.at,
        )
        self.epoch += len(leases)
        for lease, spot in zip(leases, spots, strict=True):
            milli = share * 10
            state.fleet.take(spot.row, [spot.column], milli, lease.memory_nbytes)
            self.taken.append((spot, milli, lease.memory_nbytes))
        if request.apart:
            rows = self.apart_rows.setdefault((request.tenant, request.apart), set())
            rows.update(spot.row for spot in spots)
        self.plan.granted[request.request_id] = leases
        self.plan.facts += leases


def schedule(
    state: State,
    at: Moment,
    settings: Settings,
    new_id: NewId,
    *,
    extra: RequestQueued | None = None,
    only_extra: bool = False,
    resting: Container[str] = (),
) -> Plan:
    """One pass.

    Args:
        state: as it is.
        at: now.
        settings: the registry's.
        new_id: makes ids of leases.
        extra: a request that is not in the queue yet.
        only_extra: nothing has been freed since the last pass, so that only the new
            one need be looked at.
        resting: requests for which no start was found just now: for them none is
            looked for again, but for what is free.
    """
    one = _Pass(state, at, settings, new_id, resting)
    if only_extra:
        assert extra is not None
        return one.run(iter([extra]))
    return one.run(in_order(state, one.shares, extra))
