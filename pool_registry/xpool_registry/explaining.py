"""Why a lease is where it is, why a request waits, what a request would get. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from xpool_protocol.errors import LeaseUnknown

from xpool_registry.ages import age
from xpool_registry.commands import Moment
from xpool_registry.deadlines import grace_ms_of
from xpool_registry.demand import NO_CONSTRAINTS, Demand, Spot
from xpool_registry.elastic import as_much_as_fits, reclaim
from xpool_registry.events import LeaseGranted, RequestQueued
from xpool_registry.fairshare import Amount
from xpool_registry.fleet import Bools
from xpool_registry.looking import offer_of
from xpool_registry.nearness import place, regions, words
from xpool_registry.placement import DeviceOffer, describe, shortage
from xpool_registry.preemption import RANKS, is_worth_it, victims
from xpool_registry.queueing import could_ever, never
from xpool_registry.reservations import (
    apart_from,
    demand_from,
    demand_of_least,
    earliest,
    kept_from,
)
from xpool_registry.settings import Settings
from xpool_registry.state import State

MAX_VERDICTS = 200
"""Devices listed one by one; the nearest."""


@dataclass(slots=True)
class Explanation:
    """For people, in order; ``--json`` has the same parts."""

    headline: str
    facts: list[str] = field(default_factory=list)
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    """Of each device: what it has free, and what rules it out; empty: it fits."""

    changes: list[str] = field(default_factory=list)
    """What would have to change."""

    starts_at_s: float = 0.0
    """Expected, wall clock; 0: nobody knows."""


def explain(
    state: State,
    name: str,
    at: Moment,
    settings: Settings,
    reasons: dict[str, str],
    places: dict[str, int],
) -> Explanation:
    """Of a lease or a request.

    Raises:
        LeaseUnknown: nothing has that name.
    """
    lease = state.leases.get(name)
    if lease is not None:
        return _of_lease(state, lease, at, settings)
    live = state.of_request.get(name)
    if live:
        return _of_lease(state, next(iter(live.values())), at, settings)
    request = state.waiting.get(name)
    if request is not None:
        found = of_request(state, request, at, settings)
        place = places.get(name, len(places) + 1)
        reason = reasons.get(name, "it has just come")
        found.headline = (
            f"request {name} waits, place {place} of {len(state.waiting)}: {reason}"
        )
        return found
    over = state.ended.get(name)
    if over is not None:
        return Explanation(
            f"lease {name} ended {age(at.wall_s - over.at_s)} ago: {over.reason}"
        )
    if name in state.gone:
        return Explanation(f"request {name} is over: {state.gone[name]}")
    raise LeaseUnknown(
        f"no lease and no request is called {name[:40]!r}: see"
        ' "xpool admin leases" and "xpool admin queue"'
    )


def _of_lease(
    state: State, lease: LeaseGranted, at: Moment, settings: Settings
) -> Explanation:
    where = f"{lease.share_percent}% of {lease.node_name}/{lease.device_index}"
    found = Explanation(f"lease {lease.lease_id} of {lease.tenant} has {where}")
    found.facts.append(f"placed there by {lease.why or 'a registry that did not say'}")
    found.facts.append(f"granted {age(at.wall_s - lease.at_s)} ago")
    if lease.min_share_percent:
        found.facts.append(
            f"others may take it back down to {lease.min_share_percent}%; it wishes"
            f" {lease.wish_percent}%"
        )
    if lease.waited_ms:
        found.facts.append(f"its request had waited {age(lease.waited_ms / 1000)}")
    if lease.group_size > 1:
        found.facts.append(
            f"one of {lease.group_size} devices that were granted together"
        )
    ends_ns = state.ends_ns(lease)
    if ends_ns is not None:
        left_s = max(0, ends_ns - at.now_ns) / 1e9
        notice = state.notices.get(lease.lease_id)
        why = notice.event.reason if notice else "its time limit"
        found.facts.append(f"it ends in {age(left_s)}: {why}")
    beside = [
        other
        for other in state.leases_on(lease.node_name)
        if other.device_index == lease.device_index and other.lease_id != lease.lease_id
    ]
    if beside:
        shares = ", ".join(f"{one.tenant} {one.share_percent}%" for one in beside[:6])
        found.facts.append(f"beside it on the device: {shares}")
    demand = Demand(
        share_milli=10 * lease.share_percent,
        memory_nbytes=lease.memory_nbytes,
        constraints=lease.constraints or NO_CONSTRAINTS,
    )
    here = Spot.of(state.fleet, lease.node_name, lease.device_index)
    kept = kept_from(state, demand, ends_ns)
    verdicts, _ = _verdicts(state, demand, kept, at, settings)
    others = [(str(offer), short) for spot, offer, short in verdicts if spot != here]
    found.verdicts = others[:MAX_VERDICTS]
    _say_how_many(state, found)
    return found


def _say_how_many(state: State, found: Explanation) -> None:
    if state.fleet.device_count > MAX_VERDICTS + 1:
        found.facts.append(
            f"the nearest {MAX_VERDICTS} of {state.fleet.device_count} devices are"
            " listed"
        )


def of_request(
    state: State, request: RequestQueued, at: Moment, settings: Settings
) -> Explanation:
    """Of a request that waits, or that nobody has made."""
    demand = demand_from(request)
    count = request.device_count
    wants = f"{count} x {describe(demand)}" if count > 1 else describe(demand)
    found = Explanation(f"{wants} for {request.tenant}, {request.priority} priority")
    if not could_ever(state, request):
        found.changes.append(never(state, demand))
        _add_verdicts(state, found, request, at, settings)
        return found
    if not state.fleet.node_count:
        found.changes.append(never(state, demand))
        return found
    may = state.living(at.now_ns, settings.dead_after_ms)
    ends_ns = at.now_ns + request.limit_ms * 1_000_000 if request.limit_ms else None
    kept = kept_from(state, demand, ends_ns, request.request_id)
    spots = place(state.placers[request.policy], request, demand, may, kept)
    limit = state.shares(at.wall_s).over_limit(request.tenant, _amount(request, demand))
    _add_verdicts(state, found, request, at, settings)
    if limit:
        found.changes.append(limit)
    if spots is not None and not limit:
        found.facts.append(f"it fits now, on {_names(state, spots)}")
        found.starts_at_s = at.wall_s
        return found
    if not limit and _fits_on_surplus(state, found, request, at, may, kept):
        return found
    _add_prospects(state, found, request, at, settings)
    return found


def _fits_on_surplus(
    state: State,
    found: Explanation,
    request: RequestQueued,
    at: Moment,
    may: Bools,
    kept: Bools | None,
) -> bool:
    """Whether it starts now on what is free for its least, or what others give back."""
    rank = RANKS[request.priority]
    least = demand_of_least(request)
    spots = place(state.placers[request.policy], request, least, may, kept)
    if request.min_share_percent and spots is not None:
        share = as_much_as_fits(state.fleet, request, spots)
        found.facts.append(f"it fits now with {share}%, on {_names(state, spots)}")
        found.starts_at_s = at.wall_s
        return True
    for demand, highest in ((demand_from(request), rank - 1), (least, rank)):
        surplus = None
        for region in regions(state.fleet, request, may):
            surplus = surplus or reclaim(
                state, demand, at, highest=highest, may=region, kept=kept, shrunk=()
            )
        if surplus is not None and surplus.resized:
            count = len(surplus.resized)
            who = "one lease gives" if count == 1 else f"{count} leases give"
            found.facts.append(
                f"it fits now, on {_names(state, surplus.spots)}: {who} back what it"
                f" has above its least"
            )
            found.starts_at_s = at.wall_s
            return True
    return False


def _add_prospects(
    state: State,
    found: Explanation,
    request: RequestQueued,
    at: Moment,
    settings: Settings,
) -> None:
    """When it would start, and who would have to leave for it."""
    may = state.living(at.now_ns, settings.dead_after_ms)
    promise = state.promises.get(request.request_id)
    if promise is not None and promise.starts_ns is not None:
        found.starts_at_s = promise.starts_at_s
        found.facts.append(f"kept for it: {_names(state, promise.spots)}")
        _add_leaving(state, found, request, promise.starts_ns, at, settings)
        return
    ahead = earliest(state, request, at.now_ns, may)
    if ahead is not None:
        starts_ns, spots = ahead
        found.starts_at_s = at.wall_s + (starts_ns - at.now_ns) / 1e9
        found.facts.append(
            f"by the known ends of leases there is room on {_names(state, spots)} then,"
            " if it is next"
        )
    else:
        found.facts.append(
            "nobody knows when: too many leases have no time limit (xpool run"
            " --time-limit)"
        )
    _add_leaving(state, found, request, ahead[0] if ahead else None, at, settings)


def _add_leaving(
    state: State,
    found: Explanation,
    request: RequestQueued,
    starts_ns: int | None,
    at: Moment,
    settings: Settings,
) -> None:
    """Who would have to leave for an earlier start, or why nobody is asked."""
    living = state.living(at.now_ns, settings.dead_after_ms)
    may = apart_from(state, request, living)
    leaving = victims(state, request, at, may, settings)
    if leaving is None or not leaving.leases:
        return
    left_ms = grace_ms_of(settings, len(state.leases))
    if not is_worth_it(leaving, starts_ns, at, left_ms):
        found.facts.append(
            f"nobody is asked to leave for it: {leaving.lost:.0f} device seconds of"
            " work would be lost, too much for a start so little earlier"
        )
        return
    names = ", ".join(lease.lease_id for lease in leaving.leases[:6])
    count = len(leaving.leases)
    who = "1 lease" if count == 1 else f"{count} leases"
    found.changes.append(
        f"{who} of lower priority may be asked to leave for it: {names}"
    )


def _amount(request: RequestQueued, demand: Demand) -> Amount:
    count = request.device_count
    return Amount(
        float(demand.share_milli) * count, float(demand.memory_nbytes) * count
    )


def _add_verdicts(
    state: State,
    found: Explanation,
    request: RequestQueued,
    at: Moment,
    settings: Settings,
) -> None:
    """Each device, and what rules it out; and what that means for the request."""
    demand = demand_from(request)
    ends_ns = at.now_ns + request.limit_ms * 1_000_000 if request.limit_ms else None
    kept = kept_from(state, demand, ends_ns, request.request_id)
    verdicts, fitting = _verdicts(state, demand, kept, at, settings)
    for _, offer, short in verdicts[:MAX_VERDICTS]:
        far = words(request, offer.node_name)
        found.verdicts.append((f"{offer}, {far}" if far else str(offer), short))
    _say_how_many(state, found)
    lacking = request.device_count - fitting
    if lacking > 0:
        more = "1 more device" if lacking == 1 else f"{lacking} more devices"
        found.changes.append(f"{more} must get {describe(demand)} free")
    elif request.close_by and request.device_count > 1:
        found.changes.append(
            f"{request.device_count} of them must be on nodes with one value of the"
            f" label {request.close_by}"
        )
    elif request.same_node and request.device_count > 1:
        found.changes.append(f"{request.device_count} of them must be on one node")


def _verdicts(
    state: State, demand: Demand, kept: Bools | None, at: Moment, settings: Settings
) -> tuple[list[tuple[Spot, DeviceOffer, str]], int]:
    """What devices have, and what rules each out; and how many are not ruled out.

    In front what fits, the emptiest first; so many as are told. Words are made for
    those alone: everybody waits while this looks.
    """
    fleet = state.fleet
    heard = state.living(at.now_ns, settings.dead_after_ms)
    fitting = demand.fits(fleet, slice(None), demand.mask(fleet))
    fitting &= (heard & fleet.is_open)[:, None]
    if kept is not None:
        fitting &= ~kept
    order = np.where(fleet.exists, ~fitting * 10_000 - fleet.free_milli, 1 << 40)
    nearest = np.argsort(order, axis=None, kind="stable")[: MAX_VERDICTS + 1]
    verdicts = []
    for flat in nearest[: fleet.device_count]:
        spot = Spot(*(int(i) for i in np.unravel_index(flat, order.shape)))
        is_alive = bool(heard[spot.row])
        offer = offer_of(state, spot, at.now_ns, is_alive=is_alive, demand=demand)
        short = shortage(demand, offer)
        if not short and kept is not None and kept[spot]:
            short = "kept for a request that comes first"
        verdicts.append((spot, offer, short))
    return verdicts, int(fitting.sum())


def _names(state: State, spots: Sequence[Spot]) -> str:
    fleet = state.fleet
    return ", ".join(
        f"{fleet.nodes[spot.row].name}/{fleet.device_index(*spot)}" for spot in spots
    )
