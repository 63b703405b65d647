"""What is granted: the leases of a request on the devices that it gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xpool_registry.commands import Moment
from xpool_registry.demand import Constraints, Spot
from xpool_registry.events import LeaseGranted, RequestQueued
from xpool_registry.fleet import Bools, Fleet
from xpool_registry.nearness import words
from xpool_registry.reservations import demand_from
from xpool_registry.state import State


def why_there(
    state: State, request: RequestQueued, spots: Sequence[Spot], may: Bools
) -> str:
    """Why a request got the devices that it got, for people.

    Args:
        state: before they are taken.
        request: which one.
        spots: the devices, all of which are on their best node if one could hold all.
        may: nodes that could be taken.
    """
    placer, fleet = state.placers[request.policy], state.fleet
    why = getattr(placer.policy, "word", placer.policy.name)
    if request.near:
        why = f"the nearest with room, and of those {why}"
    able = placer.candidate_count(demand_from(request), may)
    why = f"{why}; {_field(fleet, able, may)}"
    node = fleet.nodes[spots[0].row]
    far = words(request, node.name)
    if far:
        why = f"{why}; {node.name} is {far}"
    if request.close_by and len(spots) > 1:
        value = node.labels.get(request.close_by, "")
        why = f"{why}; all close by, {request.close_by}={value}"
    return why


def _field(fleet: Fleet, able: int, may: Bools) -> str:
    """Among how many nodes it was chosen, and what kept the others off."""
    living = int(np.count_nonzero(may))
    usable = int(np.count_nonzero(may & fleet.is_open))
    off = (
        (fleet.node_count - living, "silent"),
        (living - usable, "cordoned"),
        (usable - able, "without such devices free"),
    )
    others = ", ".join(f"{count} {what}" for count, what in off if count)
    match able:
        case 0:
            chosen = "no node could hold all of it alone"
        case 1:
            chosen = "the only node that could hold it"
        case _:
            chosen = f"the best of {able} nodes that could hold it"
    return f"{chosen} (others: {others})" if others else chosen


def leases_of(
    request: RequestQueued,
    spots: Sequence[Spot],
    share: int,
    *,
    fleet: Fleet,
    ids: Sequence[str],
    epoch: int,
    why: str,
    at: Moment,
) -> list[LeaseGranted]:
    """One lease for each device.

    Args:
        request: what was asked for.
        spots: the devices.
        share: percent of each that it gets.
        fleet: whose devices they are.
        ids: of the leases.
        epoch: of the first; the others' follow.
        why: for people.
        at: now.
    """
    waited_s = max(0.0, at.wall_s - request.at_s)
    constraints = _lasting(request.constraints)
    return [
        LeaseGranted(
            lease_id=lease_id,
            epoch=epoch + i,
            tenant=request.tenant,
            client=request.client,
            node_name=fleet.nodes[spot.row].name,
            device_index=fleet.device_index(*spot),
            share_percent=share,
            memory_nbytes=request.memory_nbytes
            or int(fleet.total_nbytes[spot]) * share // 100,
            mode=request.mode,
            ttl_ms=request.ttl_ms,
            at_s=at.wall_s,
            group_id=ids[0] if len(ids) > 1 else "",
            group_size=len(ids),
            priority=request.priority,
            request_id=request.request_id,
            limit_ms=request.limit_ms,
            apart=request.apart,
            why=why,
            waited_ms=int(1000 * waited_s),
            min_share_percent=request.min_share_percent,
            wish_percent=request.share_percent if request.min_share_percent else 0,
            is_memory_implied=not request.memory_nbytes,
            has_own_ttl=request.has_own_ttl,
            constraints=constraints,
        )
        for i, (lease_id, spot) in enumerate(zip(ids, spots, strict=True))
    ]


def _lasting(constraints: Constraints) -> Constraints | None:
    """What of them is kept with a lease: not distances that rule nobody out."""
    if constraints.distances and not constraints.max_rtt_us:
        constraints = replace(constraints, distances=())
    return constraints or None
