"""Leases that may shrink: what is taken back from them at once, and given again.

A job that says how little will do (``--at-least``) gets as much as is free up to its
wish. What it has above that least is *surplus*: a request that would wait otherwise
takes it back by a resize, before anybody is asked to leave, and no work is lost. From
leases of lower priority it takes back as much as it wishes, from its equals as much as
it needs. When nobody waits any more, those that were shrunk grow again. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import numpy as np

from xpool_registry.commands import Moment
from xpool_registry.demand import Demand, Spot
from xpool_registry.events import LeaseGranted, LeaseResized, RequestQueued
from xpool_registry.fleet import Bools, Fleet
from xpool_registry.preemption import RANKS
from xpool_registry.resizing import session_of
from xpool_registry.state import State

SLACK_NBYTES: Final = 64 << 20
"""Left above what a job has in use, so that its next allocation does not fail."""


class Surplus(NamedTuple):
    """What leases give back, and the devices that this frees."""

    resized: tuple[LeaseResized, ...]
    spots: tuple[Spot, ...]
    is_at_once: bool
    """False: memory too, and their nodes must say first that it is free."""


class _Way(NamedTuple):
    """How one device is freed; tuples compare by cost."""

    rank: int
    lease_count: int
    milli: int
    spot: Spot
    resized: tuple[LeaseResized, ...]
    is_at_once: bool


def reclaim(
    state: State,
    demand: Demand,
    at: Moment,
    *,
    highest: int,
    may: Bools,
    kept: Bools | None,
    shrunk: Collection[str],
) -> Surplus | None:
    """The least surplus that lets a demand start; None: there is not enough.

    Args:
        state: as it is, with what is granted meanwhile taken from the fleet.
        demand: what wants to start.
        at: now.
        highest: leases up to this rank give back.
        may: nodes that may be taken.
        kept: devices that are kept for others.
        shrunk: leases that have given back meanwhile.
    """
    by_spot = _by_spot(state, highest, shrunk)
    if not by_spot:
        return None
    fleet = state.fleet
    usable = fleet.exists & may[:, None] & fleet.is_open[:, None]
    allowed = demand.mask(fleet)
    if allowed is not None:
        usable &= allowed
    if kept is not None:
        usable &= ~kept
    ways = []
    for spot, leases in by_spot.items():
        way = _way(state, demand, spot, leases, at) if usable[spot] else None
        if way is not None:
            ways.append(way)
    if demand.device_count > 1:
        free = usable & demand.fits(fleet, slice(None), allowed)
        found = (Spot(int(row), int(column)) for row, column in np.argwhere(free))
        ways += [
            _Way(-1, 0, 0, spot, (), is_at_once=True)
            for spot in found
            if spot not in by_spot
        ]
    chosen = _cheapest(ways, demand)
    if chosen is None:
        return None
    return Surplus(
        tuple(one for way in chosen for one in way.resized),
        tuple(way.spot for way in chosen),
        all(way.is_at_once for way in chosen),
    )


def _by_spot(
    state: State, highest: int, shrunk: Collection[str]
) -> dict[Spot, list[LeaseGranted]]:
    """Leases with surplus, or that have just given some back, by device."""
    found: dict[Spot, list[LeaseGranted]] = {}
    for lease_id in state.elastic:
        lease = state.leases[lease_id]
        if RANKS[lease.priority] > highest or lease_id in shrunk:
            continue
        spot = Spot.of(state.fleet, lease.node_name, lease.device_index)
        found.setdefault(spot, []).append(lease)
    return found


def _way(
    state: State, demand: Demand, spot: Spot, leases: list[LeaseGranted], at: Moment
) -> _Way | None:
    """Free one device: of the lowest priority first, of few rather than of many."""
    fleet = state.fleet
    total = int(fleet.total_nbytes[spot])
    short_milli, short_nbytes = demand.shortage(fleet, spot)
    is_at_once = short_nbytes <= 0
    # What was asked back before is on its way, and is not asked for twice.
    short_nbytes -= sum(state.unsettled.get(one.lease_id, 0) for one in leases)
    resized: list[LeaseResized] = []
    rank, taken = -1, 0
    for lease in sorted(leases, key=_first_to_shrink):
        if short_milli <= 0 and short_nbytes <= 0:
            break
        one = _shrunk(state, lease, short_milli, short_nbytes, total, at)
        given_milli = 10 * (lease.share_percent - one.share_percent)
        given_nbytes = lease.memory_nbytes - one.memory_nbytes
        if given_milli > 0 or given_nbytes > 0:
            resized.append(one)
            rank = RANKS[lease.priority]
            taken += given_milli
            short_milli -= given_milli
            short_nbytes -= given_nbytes
    if short_milli > 0 or short_nbytes > 0:
        return None
    return _Way(rank, len(resized), taken, spot, tuple(resized), is_at_once)


def _first_to_shrink(lease: LeaseGranted) -> tuple[int, int, str]:
    surplus = lease.share_percent - lease.min_share_percent
    return RANKS[lease.priority], -surplus, lease.lease_id


def _shrunk(
    state: State,
    lease: LeaseGranted,
    short_milli: int,
    short_nbytes: int,
    total: int,
    at: Moment,
) -> LeaseResized:
    """A lease with so much less, as far as it may shrink."""
    give = max(0, -(-short_milli // 10))
    share = max(lease.min_share_percent, lease.share_percent - give)
    nbytes = lease.memory_nbytes
    if short_nbytes > 0 and lease.is_memory_implied:
        report = session_of(state, lease)
        least = total * lease.min_share_percent // 100
        if report is not None:  # without one nobody knows what it has in use
            in_use = report.allocated_nbytes + report.overhead_nbytes
            least = max(least, in_use + SLACK_NBYTES)
            nbytes = max(min(nbytes, least), nbytes - short_nbytes)
    return _resized(lease, share, nbytes, at)


def _resized(lease: LeaseGranted, share: int, nbytes: int, at: Moment) -> LeaseResized:
    return LeaseResized(
        lease_id=lease.lease_id,
        number=lease.slice_number + 1,
        share_percent=share,
        memory_nbytes=nbytes,
        mode=lease.mode,
        priority=lease.priority,
        at_s=at.wall_s,
    )


def _cheapest(ways: list[_Way], demand: Demand) -> list[_Way] | None:
    ways.sort()
    if not demand.same_node:
        chosen = ways[: demand.device_count]
        return chosen if len(chosen) == demand.device_count else None
    by_row: dict[int, list[_Way]] = {}
    for way in ways:
        row = by_row.setdefault(way.spot.row, [])
        row.append(way)
    groups = [
        row[: demand.device_count]
        for row in by_row.values()
        if len(row) >= demand.device_count
    ]
    return min(
        groups,
        key=lambda row: (
            max(way.rank for way in row),
            sum(way.lease_count for way in row),
            sum(way.milli for way in row),
        ),
        default=None,
    )


def as_much_as_fits(fleet: Fleet, request: RequestQueued, spots: Iterable[Spot]) -> int:
    """The share that a request with a least gets on devices that hold the least."""
    share = request.share_percent
    for spot in spots:
        share = min(share, int(fleet.free_milli[spot]) // 10)
        total = int(fleet.total_nbytes[spot])
        if not request.memory_nbytes and total:
            share = min(share, int(fleet.free_nbytes[spot]) * 100 // total)
    return max(share, request.min_share_percent)


def growth(state: State, at: Moment) -> list[LeaseResized]:
    """Leases that have less than they wished and get more, now that nobody waits.

    The oldest first; a node that has yet to follow the last change is left alone.
    """
    fleet = state.fleet
    free: dict[Spot, tuple[int, int]] = {}
    grown = []
    for lease_id in state.elastic:
        lease = state.leases[lease_id]
        if lease.share_percent >= lease.wish_percent or lease_id in state.notices:
            continue
        report = session_of(state, lease)
        if lease.slice_number and (
            report is None or report.slice_number != lease.slice_number
        ):
            continue
        spot = Spot.of(fleet, lease.node_name, lease.device_index)
        milli, nbytes = free.get(
            spot, (int(fleet.free_milli[spot]), int(fleet.free_nbytes[spot]))
        )
        total = int(fleet.total_nbytes[spot])
        more = min(lease.wish_percent - lease.share_percent, milli // 10)
        if lease.is_memory_implied and total:
            missing = total * lease.wish_percent // 100 - lease.memory_nbytes
            more_nbytes = min(max(0, missing), max(0, nbytes))
        else:
            more_nbytes = 0
        if more <= 0:
            continue
        free[spot] = (milli - 10 * more, nbytes - more_nbytes)
        grown.append(
            _resized(
                lease,
                lease.share_percent + more,
                lease.memory_nbytes + more_nbytes,
                at,
            )
        )
    return grown
