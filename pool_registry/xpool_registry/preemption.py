"""Which leases have to leave so that a request of higher priority can start.

The problem separates by device: few leases share one, so for each device the sets of
leases are tried, and the cheapest that frees enough is kept; then the cheapest devices
are taken. The cost, in this order: the priority of who must leave, how much work is
lost, how many must.

Source:
    The separation makes it exact where published schedulers solve an integer program
    over the whole pool; ADR 0044.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    for highest in range(rank):
        ways = _ways(state, request, highest, wall_s, may, settings)
        chosen = _cheapest(ways, demand)
        if chosen is None:
            continue
        leases = tuple(lease for way in chosen for lease in way.leases)
        if len(leases) > budget:
            return None
        return Victims(leases, tuple(way.spot for way in chosen))
    return None


def _ways(
    state: State,
    request: RequestQueued,
    highest: int,
    wall_s: float,
    may: Bools,
    settings: Settings,
) -> list[_Way]:
    """Of each device that can be freed the cheapest way."""
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
    by_spot: dict[Spot, list[LeaseGranted]] = {}
    for lease in state.leases.values():
        if RANKS[lease.priority] > highest or lease.lease_id in state.notices:
            continue
        if wall_s - lease.at_s < settings.min_run_ms / 1000:
            continue
        spot = Spot.of(fleet, lease.node_name, lease.device_index)
        by_spot.setdefault(spot, []).append(lease)
    ways = []
    for row, column in np.argwhere(usable):
        spot = Spot(int(row), int(column))
        way = _way(state, demand, spot, by_spot.get(spot, []), wall_s)
        if way is not None:
            ways.append(way)
    return ways


def _way(
    state: State,
    demand: Demand,
    spot: Spot,
    candidates: Sequence[LeaseGranted],
    wall_s: float,
) -> _Way | None:
    fleet = state.fleet
    short_milli, short_nbytes = demand.shortage(fleet, spot)
    if short_milli <= 0 and short_nbytes <= 0:
        return _Way(0.0, 0, spot, ())
    if len(candidates) > MAX_ENUMERATED:
        candidates = sorted(candidates, key=lambda one: -one.share_percent)
        candidates = candidates[:MAX_ENUMERATED]
    ways = (
        _Way(_lost(chosen, wall_s), size, spot, chosen)
        for size in range(1, len(candidates) + 1)
        for chosen in combinations(candidates, size)
        if 10 * sum(one.share_percent for one in chosen) >= short_milli
        and sum(one.memory_nbytes for one in chosen) >= short_nbytes
    )
    return min(ways, key=lambda way: (way.lost, way.size), default=None)


def _lost(leases: Sequence[LeaseGranted], wall_s: float) -> float:
    """Work of those leases so far, in device seconds."""
    return sum(
        max(0.0, wall_s - lease.at_s) * lease.share_percent / 100 for lease in leases
    )


def _cheapest(ways: list[_Way], demand: Demand) -> list[_Way] | None:
    """As many devices as are wanted, at the least cost."""
    ways.sort(key=lambda way: (way.lost, way.size, way.spot))
    if not demand.same_node:
        chosen = ways[: demand.device_count]
        return chosen if len(chosen) == demand.device_count else None
    by_row: dict[int, list[_Way]] = {}
    for way in ways:
        by_row.setdefault(way.spot.row, []).append(way)
    groups = [
        row[: demand.device_count]
        for row in by_row.values()
        if len(row) >= demand.device_count
    ]
    return min(
        groups,
        key=lambda row: (sum(w.lost for w in row), sum(w.size for w in row)),
        default=None,
    )
