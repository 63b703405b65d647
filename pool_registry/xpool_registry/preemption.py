"""Which leases have to leave so that a request of higher priority can start.

The problem separates by device: few leases share one, so for each device the sets of
leases are tried, and the cheapest that frees enough is kept; then the cheapest devices
are taken. The cost, in this order: the priority of who must leave, how much work is
lost, how many must. A job on several devices that loses one loses the work of all, and
loses it once: after one of its devices the others are free. Who ends by itself within
the grace counts as gone.

Source:
    The separation makes it exact where published schedulers solve an integer program
    over the whole pool; ADR 0044.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush, nsmallest
from itertools import combinations, islice
from typing import Final, NamedTuple

import numpy as np

from xpool_registry.commands import Moment
from xpool_registry.deadlines import grace_ms_of
from xpool_registry.demand import Demand, Spot
from xpool_registry.events import LeaseGranted, RequestQueued
from xpool_registry.fleet import Bools
from xpool_registry.known import NS_PER_MS
from xpool_registry.reservations import LATE_NS, demand_from, kept_from
from xpool_registry.settings import Settings
from xpool_registry.state import State

RANKS: Final = {"low": 0, "normal": 1, "high": 2}

PREEMPTS: Final = "high"
"""The class that may make others leave. Were it every class above another, a quarter
of the low class's work would be thrown away on a busy day, for little."""

MAX_ENUMERATED: Final = 12
"""Leases of one device whose sets are all tried: 4,095 sets. Of more, the largest."""

MAX_SETS: Final = 64
"""Sets of jobs on several devices that are tried. Dearer ones than what was found are
not even looked at, so that it is seldom more than some."""

WORK_FOR_A_SECOND: Final = 10.0
"""Device seconds of work that may be thrown away for each second that a request of
high priority starts earlier. More of it, and little is saved; ADR 0080."""

SECONDS_PER_HOUR: Final = 3600.0


class Victims(NamedTuple):
    """Who leaves, and the devices that this frees."""

    leases: tuple[LeaseGranted, ...]
    spots: tuple[Spot, ...]
    lost: float
    """Work that is thrown away, in device seconds."""


class _Way(NamedTuple):
    """The cheapest way to free one device; tuples compare by cost."""

    lost: float
    size: int
    spot: Spot
    leases: tuple[LeaseGranted, ...]


def budget_left(state: State, tenant: str, wall_s: float) -> int:
    """How many more leases a tenant's requests may end within this hour."""
    known = state.tenants.get(tenant)
    allowed = known.preemptions_per_hour if known else 60
    recent = state.preempted_s.get(tenant, ())
    return allowed - sum(wall_s - at_s < SECONDS_PER_HOUR for at_s in recent)


def victims(
    state: State,
    request: RequestQueued,
    at: Moment,
    may: Bools,
    settings: Settings,
) -> Victims | None:
    """The cheapest leases to end; None: ending all that may be ended is not enough.

    Args:
        state: as it is.
        request: what wants to start.
        at: now.
        may: nodes that may be taken.
        settings: how long a lease is left in peace.
    """
    if request.priority != PREEMPTS:
        return None
    rank = RANKS[request.priority]
    budget = budget_left(state, request.tenant, at.wall_s)
    if budget <= 0:
        return None
    demand = demand_from(request)
    work = _work_of_jobs(state, at.wall_s)
    starts_ns = at.now_ns + grace_ms_of(settings, len(state.leases)) * NS_PER_MS
    over = _over_by(state, starts_ns)
    usable = list(_usable(state, request, starts_ns, may))
    for highest in range(rank):
        candidates = _candidates(state, highest, at.wall_s, settings, over)
        search = _Search(state, demand, candidates, work, over)
        chosen = search.cheapest([Spot(int(r), int(c)) for r, c in usable])
        if chosen is None:
            continue
        leases = tuple(lease for way in chosen for lease in way.leases)
        if len(leases) > budget:
            return None
        lost, _ = search.cost(chosen)
        return Victims(leases, tuple(way.spot for way in chosen), lost)
    return None


def is_worth_it(
    found: Victims, starts_ns: int | None, at: Moment, grace_ms: int
) -> bool:
    """Whether so much work may be lost for an earlier start.

    Args:
        found: who would leave.
        starts_ns: when it starts if nobody leaves; None: nobody knows.
        at: now.
        grace_ms: how long those who leave are given.
    """
    if starts_ns is None:
        return True
    saved_s = (starts_ns - at.now_ns) / 1e9 - grace_ms / 1000
    return found.lost <= WORK_FOR_A_SECOND * saved_s


def _job_of(lease: LeaseGranted) -> str:
    return lease.group_id or lease.lease_id


def _work_of_jobs(state: State, wall_s: float) -> dict[str, float]:
    """What each job has done so far on all its devices, in device seconds."""
    work: dict[str, float] = {}
    for lease in state.leases.values():
        done = max(0.0, wall_s - lease.at_s) * lease.share_percent / 100
        work[_job_of(lease)] = work.get(_job_of(lease), 0.0) + done
    return work


def _over_by(state: State, at_ns: int) -> dict[str, LeaseGranted]:
    """Leases that are over by then without anybody's doing."""
    ending = {**state.limits_ns, **state.notices}
    leases = (state.leases[lease_id] for lease_id in ending)
    return {
        lease.lease_id: lease
        for lease in leases
        if (ends_ns := state.ends_ns(lease)) is not None and ends_ns <= at_ns
    }


def _usable(
    state: State, request: RequestQueued, starts_ns: int, may: Bools
) -> Iterable[Sequence[int]]:
    """Devices that the request may have once they are free.

    What is kept for others is not among them, unless the request is over by then.
    """
    fleet, demand = state.fleet, demand_from(request)
    usable = fleet.exists & may[:, None] & fleet.is_open[:, None]
    allowed = demand.mask(fleet)
    if allowed is not None:
        usable &= allowed
    usable &= fleet.total_nbytes >= demand.memory_nbytes
    ends_ns = None
    if request.limit_ms:
        ends_ns = starts_ns + LATE_NS + request.limit_ms * NS_PER_MS
    kept = kept_from(state, demand, ends_ns, request.request_id)
    if kept is not None:
        usable &= ~kept
    return np.argwhere(usable).tolist()


def _candidates(
    state: State,
    highest: int,
    wall_s: float,
    settings: Settings,
    over: Mapping[str, LeaseGranted],
) -> dict[Spot, list[LeaseGranted]]:
    """Leases that may be ended, by device."""
    by_spot: dict[Spot, list[LeaseGranted]] = {}
    for lease in state.leases.values():
        if RANKS[lease.priority] > highest or lease.lease_id in over:
            continue
        if lease.lease_id in state.notices:
            continue
        if wall_s - lease.at_s < settings.min_run_ms / 1000:
            continue
        spot = Spot.of(state.fleet, lease.node_name, lease.device_index)
        by_spot.setdefault(spot, []).append(lease)
    return by_spot


class _Search:
    """The cheapest devices, and on each the cheapest leases."""

    def __init__(
        self,
        state: State,
        demand: Demand,
        candidates: Mapping[Spot, Sequence[LeaseGranted]],
        work: Mapping[str, float],
        over: Mapping[str, LeaseGranted],
    ) -> None:
        self._demand = demand
        self._candidates = candidates
        self._work = work
        fleet = state.fleet
        short_milli = demand.share_milli - fleet.free_milli
        short_nbytes = demand.needs_nbytes(fleet.total_nbytes) - fleet.free_nbytes
        for lease in over.values():  # free by then anyway
            spot = Spot.of(fleet, lease.node_name, lease.device_index)
            short_milli[spot] -= 10 * lease.share_percent
            short_nbytes[spot] -= lease.memory_nbytes
        #: Thousandths and bytes that each device lacks; not above 0: it has enough.
        self._short_milli: list[list[int]] = short_milli.tolist()
        self._short_nbytes: list[list[int]] = short_nbytes.tolist()

    def cheapest(self, spots: Sequence[Spot]) -> list[_Way] | None:
        """As many devices as are wanted; None: there are not so many."""
        if not self._demand.same_node:
            return self._taken(spots)
        rows: dict[int, list[Spot]] = {}
        for spot in spots:
            rows.setdefault(spot.row, []).append(spot)
        groups = [taken for row in rows.values() if (taken := self._taken(row))]
        return min(groups, key=self.cost, default=None)

    def cost(self, ways: Iterable[_Way]) -> tuple[float, int]:
        """The work of all who leave, each job's once; how many leases that is."""
        leases = [lease for way in ways for lease in way.leases]
        jobs = {_job_of(lease) for lease in leases}
        return sum(self._work[job] for job in jobs), len(leases)

    def _taken(self, spots: Sequence[Spot]) -> list[_Way] | None:
        """The cheapest of those devices.

        Once it is known which of the jobs on several devices leave, the rest separates
        by device. So sets of such jobs are tried, the least work first, until they
        cost more by themselves than what was found.
        """
        nobody: frozenset[str] = frozenset()
        best = self._first_alone(spots)
        spots_of = self._jobs_on_several(spots)
        if best is None or not spots_of or self._demand.device_count < 2:
            return best
        others = frozenset(spots_of)
        alone = self._ways(spots, nobody, others)
        jobs = sorted(spots_of, key=lambda job: (self._work[job], job))
        sets = _by_sum(jobs, [self._work[job] for job in jobs])
        for lost, ended in islice(sets, MAX_SETS):
            if lost > self.cost(best)[0]:
                break
            touched = {spot for job in ended for spot in spots_of[job]}
            ways = {**alone, **self._ways(touched, ended, others)}
            found = self._first(ways)
            if found is not None:
                best = min(best, found, key=self.cost)
        return best

    def _jobs_on_several(self, spots: Iterable[Spot]) -> dict[str, set[Spot]]:
        spots_of: dict[str, set[Spot]] = {}
        for spot in spots:
            for lease in self._candidates.get(spot, ()):
                if lease.group_id:
                    spots_of.setdefault(lease.group_id, set()).add(spot)
        return {job: on for job, on in spots_of.items() if len(on) > 1}

    def _first(self, ways: Mapping[Spot, _Way]) -> list[_Way] | None:
        count = self._demand.device_count
        return nsmallest(count, ways.values(), _cost) if len(ways) >= count else None

    def _first_alone(self, spots: Iterable[Spot]) -> list[_Way] | None:
        """As ``_first`` of all ways, each device by itself.

        No way costs less than the least work on its device, so that most need not be
        looked at.
        """
        nobody: frozenset[str] = frozenset()
        count = self._demand.device_count
        bounds = sorted(
            (bound, spot) for spot in spots if (bound := self._least(spot)) is not None
        )
        ways: dict[Spot, _Way] = {}
        costs: list[float] = []  # of the cheapest so far, negative, the dearest first
        for bound, spot in bounds:
            if len(costs) == count and bound > -costs[0]:
                break
            way = self._way(spot, nobody, nobody)
            if way is None:
                continue
            ways[spot] = way
            heappush(costs, -way.lost)
            if len(costs) > count:
                heappop(costs)
        return self._first(ways)

    def _least(self, spot: Spot) -> float | None:
        """No way to free that device costs less; None: it cannot be freed."""
        short_milli = self._short_milli[spot.row][spot.column]
        if short_milli <= 0 and self._short_nbytes[spot.row][spot.column] <= 0:
            return 0.0
        candidates = self._candidates.get(spot, ())
        return min((self._work[_job_of(one)] for one in candidates), default=None)

    def _ways(
        self, spots: Iterable[Spot], ended: frozenset[str], others: frozenset[str]
    ) -> dict[Spot, _Way]:
        """Of each device that can be freed the cheapest way.

        Args:
            spots: the devices.
            ended: jobs that leave anyway, and cost nothing more.
            others: jobs that stay if they are not among those.
        """
        ways = ((spot, self._way(spot, ended, others - ended)) for spot in spots)
        return {spot: way for spot, way in ways if way is not None}

    def _way(
        self, spot: Spot, ended: frozenset[str], stay: frozenset[str]
    ) -> _Way | None:
        short_milli = self._short_milli[spot.row][spot.column]
        short_nbytes = self._short_nbytes[spot.row][spot.column]
        if short_milli <= 0 and short_nbytes <= 0:
            return _Way(0.0, 0, spot, ())
        candidates = [
            lease
            for lease in self._candidates.get(spot, ())
            if _job_of(lease) not in stay
        ]
        if len(candidates) > MAX_ENUMERATED:
            candidates.sort(key=lambda one: -one.share_percent)
            del candidates[MAX_ENUMERATED:]
        ways = (
            _Way(self._lost(chosen, ended), size, spot, chosen)
            for size in range(1, len(candidates) + 1)
            for chosen in combinations(candidates, size)
            if 10 * sum(one.share_percent for one in chosen) >= short_milli
            and sum(one.memory_nbytes for one in chosen) >= short_nbytes
        )
        return min(ways, key=_cost, default=None)

    def _lost(self, leases: Sequence[LeaseGranted], ended: frozenset[str]) -> float:
        jobs = {_job_of(lease) for lease in leases}
        return sum(self._work[job] for job in jobs if job not in ended)


def _by_sum(
    names: Sequence[str], values: Sequence[float]
) -> Iterator[tuple[float, frozenset[str]]]:
    """All sets of some of the names, the smallest sum of their values first.

    ``values`` belong to the names, ascend, and none is negative.
    """
    heap: list[tuple[float, tuple[int, ...]]] = [(values[0], (0,))]
    while heap:
        total, places = heappop(heap)
        yield total, frozenset(names[i] for i in places)
        last = places[-1]
        if last + 1 < len(names):
            heappush(heap, (total + values[last + 1], (*places, last + 1)))
            instead = total - values[last] + values[last + 1]
            heappush(heap, (instead, (*places[:-1], last + 1)))


def _cost(way: _Way) -> tuple[float, int, Spot]:
    return way.lost, way.size, way.spot
