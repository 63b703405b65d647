"""Which leases have to leave so that a request of higher priority can start.

The problem separates by device: few leases share one, so for each device the sets of
leases are tried, and the cheapest that frees enough is kept; then the cheapest devices
are taken. The cost, in this order: the priority of who must leave, how much work is
lost, how many must. A job on several devices that loses one loses the work of all, and
loses it once: after one of its devices the others are free.

Source:
    The separation makes it exact where published schedulers solve an integer program
    over the whole pool; ADR 0044.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np

from xpool_registry.demand import Demand, Spot
from xpool_registry.events import LeaseGranted, RequestQueued
from xpool_registry.fleet import Bools
from xpool_registry.reservations import demand_from
from xpool_registry.settings import Settings
from xpool_registry.state import State

RANKS: Final = {"low": 0, "normal": 1, "high": 2}

PREEMPTS: Final = "high"
"""The class that may make others leave. Were it every class above another, a quarter
of the low class's work would be thrown away on a busy day, for little."""

MAX_ENUMERATED: Final = 12
"""Leases of one device whose sets are all tried: 4,095 sets. Of more, the largest."""

MAX_BEGINNINGS: Final = 32
"""Devices of jobs on several that are tried as the first to be freed."""

SECONDS_PER_HOUR: Final = 3600.0


class Victims(NamedTuple):
    """Who leaves, and the devices that this frees."""

    leases: tuple[LeaseGranted, ...]
    spots: tuple[Spot, ...]


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
    wall_s: float,
    may: Bools,
    settings: Settings,
) -> Victims | None:
    """The cheapest leases to end; None: ending all that may be ended is not enough.

    Args:
        state: as it is.
        request: what wants to start.
        wall_s: now.
        may: nodes that may be taken.
        settings: how long a lease is left in peace.
    """
    if request.priority != PREEMPTS:
        return None
    rank = RANKS[request.priority]
    budget = budget_left(state, request.tenant, wall_s)
    if budget <= 0:
        return None
    demand = demand_from(request)
    work = _work_of_jobs(state, wall_s)
    for highest in range(rank):
        candidates = _candidates(state, highest, wall_s, settings)
        usable = _usable(state, request, may)
        search = _Search(state, demand, candidates, work)
        chosen = search.cheapest([Spot(int(r), int(c)) for r, c in usable])
        if chosen is None:
            continue
        leases = tuple(lease for way in chosen for lease in way.leases)
        if len(leases) > budget:
            return None
        return Victims(leases, tuple(way.spot for way in chosen))
    return None


def _job_of(lease: LeaseGranted) -> str:
    return lease.group_id or lease.lease_id


def _work_of_jobs(state: State, wall_s: float) -> dict[str, float]:
    """What each job has done so far on all its devices, in device seconds."""
    work: dict[str, float] = {}
    for lease in state.leases.values():
        done = max(0.0, wall_s - lease.at_s) * lease.share_percent / 100
        work[_job_of(lease)] = work.get(_job_of(lease), 0.0) + done
    return work


def _usable(
    state: State, request: RequestQueued, may: Bools
) -> Iterable[Sequence[int]]:
    """Devices that the request may have once they are free."""
    fleet, demand = state.fleet, demand_from(request)
    usable = fleet.exists & may[:, None] & fleet.is_open[:, None]
    allowed = demand.mask(fleet)
    if allowed is not None:
        usable &= allowed
    usable &= fleet.total_nbytes >= demand.memory_nbytes
    for request_id, promise in state.promises.items():
        if request_id != request.request_id:
            for spot in promise.spots:
                usable[spot] = False
    return np.argwhere(usable).tolist()


def _candidates(
    state: State, highest: int, wall_s: float, settings: Settings
) -> dict[Spot, list[LeaseGranted]]:
    """Leases that may be ended, by device."""
    by_spot: dict[Spot, list[LeaseGranted]] = {}
    for lease in state.leases.values():
        if RANKS[lease.priority] > highest or lease.lease_id in state.notices:
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
    ) -> None:
        self._state = state
        self._demand = demand
        self._candidates = candidates
        self._work = work
        #: Where else the jobs are that are on more than one of the devices.
        self._spots_of: dict[str, set[Spot]] = {}
        for spot, leases in candidates.items():
            for lease in leases:
                if lease.group_id:
                    self._spots_of.setdefault(lease.group_id, set()).add(spot)

    def cheapest(self, spots: Sequence[Spot]) -> list[_Way] | None:
        """As many devices as are wanted; None: there are not so many."""
        ways = {}
        for spot in spots:
            way = self._way(spot, frozenset())
            if way is not None:
                ways[spot] = way
        if not self._demand.same_node:
            return self._taken(ways)
        rows: dict[int, dict[Spot, _Way]] = {}
        for spot, way in ways.items():
            rows.setdefault(spot.row, {})[spot] = way
        groups = [taken for row in rows.values() if (taken := self._taken(row))]
        return min(
            groups,
            key=lambda row: (sum(w.lost for w in row), sum(w.size for w in row)),
            default=None,
        )

    def _taken(self, ways: dict[Spot, _Way]) -> list[_Way] | None:
        """One device after the other; the cheaper of two ways to begin."""
        count = self._demand.device_count
        if len(ways) < count:
            return None
        first = min(ways.values(), key=_cost)
        found = [self._taken_from(ways, first)]
        # Who is on several of them is dear at first, and then costs nothing more.
        shared = [
            way
            for way in ways.values()
            if any(len(self._spots_of.get(one.group_id, ())) > 1 for one in way.leases)
        ]
        if count > 1 and shared:
            found += [self._taken_from(ways, way) for way in _best_of(shared)]
        return min(found, key=lambda row: (sum(w.lost for w in row), _size(row)))

    def _taken_from(self, ways: Mapping[Spot, _Way], first: _Way) -> list[_Way]:
        left, taken = dict(ways), [first]
        ended = {_job_of(lease) for lease in first.leases}
        del left[first.spot]
        self._reckon_anew(left, {_job_of(one) for one in first.leases}, ended)
        while len(taken) < self._demand.device_count:
            way = min(left.values(), key=_cost)
            del left[way.spot]
            taken.append(way)
            jobs = {_job_of(one) for one in way.leases}
            ended |= jobs
            self._reckon_anew(left, jobs, ended)
        return taken

    def _reckon_anew(
        self, ways: dict[Spot, _Way], jobs: set[str], ended: set[str]
    ) -> None:
        """Of the devices on which those jobs are, too."""
        for job in jobs:
            for spot in self._spots_of.get(job, ()):
                if spot in ways:
                    way = self._way(spot, frozenset(ended))
                    assert way is not None
                    ways[spot] = way

    def _way(self, spot: Spot, ended: frozenset[str]) -> _Way | None:
        """The cheapest way to free one device, if those jobs are ended anyway."""
        short_milli, short_nbytes = self._demand.shortage(self._state.fleet, spot)
        if short_milli <= 0 and short_nbytes <= 0:
            return _Way(0.0, 0, spot, ())
        candidates = self._candidates.get(spot, ())
        if len(candidates) > MAX_ENUMERATED:
            candidates = sorted(candidates, key=lambda one: -one.share_percent)
            candidates = candidates[:MAX_ENUMERATED]
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


def _cost(way: _Way) -> tuple[float, int, Spot]:
    return way.lost, way.size, way.spot


def _size(ways: Sequence[_Way]) -> int:
    return sum(way.size for way in ways)


def _best_of(ways: list[_Way]) -> list[_Way]:
    return sorted(ways, key=_cost)[:MAX_BEGINNINGS]
