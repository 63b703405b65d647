"""Where a request may look for room, nearest first: distances, and nodes close by.

A client measures its round trip to servers and says so with its request. How far is too
far is a constraint (``Constraints.max_rtt_us``); with ``near`` the request takes what
is nearest of all that has room. Devices of one request may have to lie close to one
another: on nodes with the same value of a label that their operator has set. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xpool_registry.demand import Demand, Spot
from xpool_registry.events import RequestQueued
from xpool_registry.fleet import Bools, Fleet
from xpool_registry.placer import Placer

LEAST_RTT_US = 100
"""Shorter round trips are equally short: a connection's own cost is as large."""


def band(rtt_us: int) -> int:
    """How far, in doublings: what differs by less is no reason to choose.

    >>> band(50), band(150), band(1500), band(20_000)
    (0, 0, 3, 7)
    """
    return max(1, rtt_us // LEAST_RTT_US).bit_length() - 1


def regions(fleet: Fleet, request: RequestQueued, may: Bools) -> list[Bools]:
    """Sets of nodes, each of which may hold all devices of a request.

    One set of all, unless the devices must lie close to one another; then one for
    each value of the label, the tightest first.
    """
    label = request.close_by
    if not label or request.device_count < 2:
        return [may]
    rows_of: dict[str, list[int]] = {}
    for row, node in enumerate(fleet.nodes):
        value = node.labels.get(label)
        if value is not None:
            rows_of.setdefault(value, []).append(row)
    free = fleet.free_milli.sum(axis=1)
    order = sorted(rows_of, key=lambda one: (int(free[rows_of[one]].sum()), one))
    found = []
    for value in order:
        region = np.zeros_like(may)
        region[rows_of[value]] = may[rows_of[value]]
        found.append(region)
    return found


def _ever_wider(fleet: Fleet, request: RequestQueued, region: Bools) -> Iterator[Bools]:
    """The region's nearest nodes, then those of twice the distance too, and so on."""
    distances = dict(request.constraints.distances)
    bands = {name: band(rtt_us) for name, rtt_us in distances.items()}
    of_row = np.array([bands.get(node.name, 1 << 30) for node in fleet.nodes])
    for limit in sorted({*bands.values()}):
        yield region & (of_row <= limit)
    yield region


def place(
    placer: Placer,
    request: RequestQueued,
    demand: Demand,
    may: Bools,
    kept: Bools | None = None,
) -> list[Spot] | None:
    """The devices that suit a request best, in order; None: not so many are free."""
    fleet = placer.fleet
    areas = regions(fleet, request, may)
    if not request.near:
        for area in areas:
            spots = placer.place(demand, area, kept)
            if spots is not None:
                return spots
        return None
    # Of all regions the nearest: each is widened by one step after the other.
    for step in zip(*(_ever_wider(fleet, request, one) for one in areas), strict=True):
        for area in step:
            spots = placer.place(demand, area, kept)
            if spots is not None:
                return spots
    return None


def words(request: RequestQueued, node_name: str) -> str:
    """How far a node is from the client, for people; empty if nobody measured."""
    rtt_us = dict(request.constraints.distances).get(node_name)
    return "" if rtt_us is None else f"{rtt_us / 1000:.1f} ms from its client"
