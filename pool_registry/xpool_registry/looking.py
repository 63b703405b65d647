"""The pool as people see it: what each device has free, and why that does not do."""

from __future__ import annotations

import numpy as np

from xpool_registry.commands import Moment
from xpool_registry.demand import Demand, Spot
from xpool_registry.events import RequestQueued
from xpool_registry.nearness import place, regions
from xpool_registry.placement import MAX_DEVICES_NAMED, DeviceOffer, refusal
from xpool_registry.reservations import demand_from
from xpool_registry.settings import Settings
from xpool_registry.state import State


def offer_of(
    state: State,
    spot: Spot,
    now_ns: int,
    *,
    is_alive: bool,
    demand: Demand | None = None,
) -> DeviceOffer:
    """One device, and what keeps a demand off it."""
    fleet = state.fleet
    node = fleet.nodes[spot.row]
    device = node.devices[spot.column]
    return DeviceOffer(
        node_name=node.name,
        device_index=device.index,
        memory_nbytes=device.memory_nbytes,
        free_share_percent=int(fleet.free_milli[spot]) // 10,
        free_nbytes=int(fleet.free_nbytes[spot]),
        silence_ms=None if is_alive else state.silence_ms(node.name, now_ns),
        closed=closed_text(state, node.name),
        ruled_out=demand.constraints.rules_out(node, device) if demand else "",
    )


def closed_text(state: State, node_name: str) -> str:
    """Why a node takes no new leases although it is alive; empty if it does."""
    cordoned = state.cordoned.get(node_name)
    if cordoned is None:
        return ""
    word = "draining" if cordoned.is_draining else "cordoned"
    return f"{word}: {cordoned.reason}" if cordoned.reason else word


def refusal_of(
    state: State, request: RequestQueued, reason: str, at: Moment, settings: Settings
) -> str:
    """Why a request does not start now, for people."""
    demand = demand_from(request)
    may = state.living(at.now_ns, settings.dead_after_ms)
    placer = state.placers[request.policy]
    fits = place(placer, request, demand, may) is not None
    # There is room, but a limit or a promise to somebody else is in the way.
    if fits:
        return reason
    short = shortages_of(state, demand, at.now_ns, settings)
    if request.close_by and request.device_count > 1:
        count = len(regions(state.fleet, request, may))
        return (
            f"all {request.device_count} devices must lie on nodes with one value of"
            f" the label {request.close_by} ({count} are known): {short}"
        )
    return short


def shortages_of(state: State, demand: Demand, now_ns: int, settings: Settings) -> str:
    """Why a demand does not fit; names the devices that come nearest."""
    fleet = state.fleet
    heard = state.living(now_ns, settings.dead_after_ms)
    living = heard & fleet.is_open
    allowed = demand.mask(fleet)
    fitting = demand.fits(fleet, slice(None), allowed) & living[:, None]
    # In front: alive and admitted, then the most free share; of equals by row.
    is_far = ~living[:, None] if allowed is None else ~(living[:, None] & allowed)
    order = np.where(fleet.exists, is_far * 10_000 - fleet.free_milli, 1 << 40)
    nearest = np.argsort(order, axis=None, kind="stable")[:MAX_DEVICES_NAMED]
    total = fleet.device_count
    spots = [
        Spot(*(int(i) for i in np.unravel_index(flat, order.shape)))
        for flat in nearest[:total]
    ]
    named = [
        offer_of(state, spot, now_ns, is_alive=bool(heard[spot.row]), demand=demand)
        for spot in spots
    ]
    return refusal(demand, named, total, int(fitting.sum()))
