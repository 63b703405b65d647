"""What is kept for requests that wait, and when they can start.

EASY backfill: the first request that does not fit gets a promise, the earliest time
at which the known ends of leases leave room for it. Others may start meanwhile if
they are over by then, or fit beside it.

Source:
    Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from xpool_registry.demand import Demand, Spot
from xpool_registry.events import LeaseGranted, RequestQueued
from xpool_registry.fleet import Bools, Fleet
from xpool_registry.known import NS_PER_MS, Promise
from xpool_registry.nearness import place
from xpool_registry.placer import Placer
from xpool_registry.policies import BestFit
from xpool_registry.state import State

LATE_NS: Final = 500 * NS_PER_MS
"""A lease that ends is noticed by the next tick; a promise allows for it."""


def kept_from(
    state: State, demand: Demand, ends_ns: int | None, but_for: str = ""
) -> Bools | None:
    """Devices that a demand may not take because they are kept for others.

    Args:
        state: as it is, with what is granted meanwhile taken from the fleet.
        demand: what would start now.
        ends_ns: when it would end; None: nobody knows.
        but_for: the request that it is; what is kept for it, it may take.

    Returns:
        Shape ``(nodes, columns)``; None: nothing is kept from it.
    """
    mask: Bools | None = None
    for request_id, promise in state.promises.items():
        if request_id == but_for:
            continue
        is_over = (
            ends_ns is not None
            and promise.starts_ns is not None
            and ends_ns <= promise.starts_ns
        )
        if is_over:
            continue
        for spot in promise.spots:
            if not _is_room_beside(state, demand, promise, spot, but_for):
                if mask is None:
                    mask = np.zeros(state.fleet.exists.shape, np.bool_)
                mask[spot] = True
    return mask


def demand_from(request: RequestQueued) -> Demand:
    """What a request means to placement."""
    return Demand(
        share_milli=request.share_percent * 10,
        device_count=request.device_count,
        memory_nbytes=request.memory_nbytes,
        same_node=request.same_node,
        constraints=request.constraints,
    )


def demand_of_least(request: RequestQueued) -> Demand:
    """The least that will do."""
    share_percent = request.min_share_percent or request.share_percent
    return replace(demand_from(request), share_milli=share_percent * 10)


def apart_from(state: State, request: RequestQueued, may: Bools) -> Bools:
    """Of those nodes the ones without a lease that the request must keep away from."""
    if not request.apart:
        return may
    may = may.copy()
    for row, node in enumerate(state.fleet.nodes):
        for lease in state.leases_on(node.name):
            if (lease.tenant, lease.apart) == (request.tenant, request.apart):
                may[row] = False
    return may


def _is_room_beside(
    state: State, demand: Demand, promise: Promise, spot: Spot, but_for: str
) -> bool:
    """Whether it fits on one device at the promised time beside all that is promised.

    Who was promised an earlier start may still be there by then.
    """
    fleet = state.fleet
    milli, nbytes = int(fleet.free_milli[spot]), int(fleet.free_nbytes[spot])
    if promise.starts_ns is not None:
        index = fleet.device_index(*spot)
        for lease in state.leases_on(fleet.nodes[spot.row].name):
            ends_ns = state.ends_ns(lease)
            is_over = ends_ns is not None and ends_ns <= promise.starts_ns
            if lease.device_index == index and is_over:
                milli += lease.share_percent * 10
                nbytes += lease.memory_nbytes
    kept = [
        demand_from(state.waiting[request_id])
        for request_id, other in state.promises.items()
        if request_id != but_for
        and spot in other.spots
        and _is_by(other.starts_ns, promise.starts_ns)
    ]
    total = int(fleet.total_nbytes[spot])
    both = (demand, *kept)
    needs = [one.memory_nbytes or total * one.share_milli // 1000 for one in both]
    return milli >= sum(one.share_milli for one in both) and nbytes >= sum(needs)


def _is_by(starts_ns: int | None, at_ns: int | None) -> bool:
    """Whether a promised start may be at another one or before."""
    return starts_ns is None or at_ns is None or starts_ns <= at_ns


def earliest(
    state: State, request: RequestQueued, now_ns: int, may: Bools
) -> tuple[int, list[Spot]] | None:
    """When a request can start at the latest, and where; None: nobody knows.

    Promises to others stand: their devices count as taken.
    """
    ending = sorted(
        (ends_ns, lease_id)
        for lease_id in {*state.limits_ns, *state.notices}
        if (ends_ns := state.ends_ns(state.leases[lease_id])) is not None
    )
    later = _Later(state, request, [state.leases[name] for _, name in ending], may)
    if later.place(len(ending)) is None:
        return None
    low, high = 0, len(ending)  # it fits once the first ``high`` have ended
    while low < high:
        middle = (low + high) // 2
        if later.place(middle) is None:
            low = middle + 1
        else:
            high = middle
    spots = later.place(high)
    assert spots is not None
    starts_ns = max(now_ns, ending[high - 1][0] if high else now_ns) + LATE_NS
    return starts_ns, spots


class _Later:
    """The fleet as it will be once the first so many of some leases have ended.

    One twin of the fleet goes to and fro: with ten thousand leases everybody would wait
    long for a twin of each moment.
    """

    def __init__(
        self,
        state: State,
        request: RequestQueued,
        leases: Sequence[LeaseGranted],
        may: Bools,
    ) -> None:
        self._request, self._may = request, apart_from(state, request, may)
        self._fleet = fleet = state.fleet.copy()
        for request_id, promise in state.promises.items():
            if request_id == request.request_id:
                continue
            kept = demand_from(state.waiting[request_id])
            for spot in promise.spots:
                total = int(fleet.total_nbytes[spot])
                nbytes = kept.memory_nbytes or total * kept.share_milli // 1000
                fleet.take(spot.row, [spot.column], kept.share_milli, nbytes)
        spots = [Spot.of(fleet, one.node_name, one.device_index) for one in leases]
        places = np.array(spots, np.int64).reshape(len(leases), 2)
        self._rows, self._columns = places[:, 0], places[:, 1]
        self._milli = np.array([10 * one.share_percent for one in leases], np.int64)
        self._nbytes = np.array([one.memory_nbytes for one in leases], np.int64)
        self._placer = Placer(fleet, BestFit())
        self._ended = 0

    def place(self, ended: int) -> list[Spot] | None:
        """Where the request goes once the first ``ended`` have ended; None: nowhere."""
        low, high = sorted((self._ended, ended))
        sign = 1 if ended > self._ended else -1
        part = slice(low, high)
        self._fleet.give_back(
            self._rows[part],
            self._columns[part],
            sign * self._milli[part],
            sign * self._nbytes[part],
        )
        self._ended = ended
        demand = demand_from(self._request)
        return place(self._placer, self._request, demand, self._may)


def most_free(state: State, demand: Demand, may: Bools) -> list[Spot] | None:
    """Devices to keep free for a demand of which nobody knows when it can start.

    Those of which most is free, on one node if it asks for that; none that is kept
    for somebody else.
    """
    fleet = state.fleet
    kept = {spot for promise in state.promises.values() for spot in promise.spots}
    allowed = demand.mask(fleet)
    usable = fleet.exists & may[:, None] & fleet.is_open[:, None]
    if allowed is not None:
        usable &= allowed
    usable &= fleet.total_nbytes >= demand.memory_nbytes
    found = [Spot(int(row), int(column)) for row, column in np.argwhere(usable)]
    spots = [spot for spot in found if spot not in kept]
    spots.sort(key=lambda spot: -int(fleet.free_milli[spot]))
    if not demand.same_node:
        chosen = spots[: demand.device_count]
        return chosen if len(chosen) == demand.device_count else None
    by_row: dict[int, list[Spot]] = {}
    for spot in spots:
        row = by_row.setdefault(spot.row, [])
        row.append(spot)
        if len(row) == demand.device_count:
            return row
    return None


def can_ever(fleet: Fleet, demand: Demand, may: Bools) -> bool:
    """Whether those nodes could hold it, were nobody else there."""
    allowed = demand.mask(fleet)
    fitting = fleet.exists & (fleet.total_nbytes >= demand.memory_nbytes)
    if allowed is not None:
        fitting &= allowed
    fitting &= may[:, None]
    counts = fitting.sum(axis=1)
    most = counts.max(initial=0) if demand.same_node else counts.sum()
    return bool(most >= demand.device_count)
