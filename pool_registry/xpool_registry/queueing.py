"""Who may stand in the queue, and who leaves it without a lease."""

from __future__ import annotations

import hashlib

import numpy as np
from xpool_protocol.errors import NoCapacity, UsageError

from xpool_registry.bounds import check_acquire_group, check_number, check_text
from xpool_registry.commands import AcquireGroup, Moment, SetTenant
from xpool_registry.demand import Demand
from xpool_registry.events import RequestLeft, RequestQueued, TenantSet
from xpool_registry.fairshare import MAX_DEPTH
from xpool_registry.nearness import regions
from xpool_registry.placement import describe
from xpool_registry.reservations import can_ever, demand_from
from xpool_registry.settings import (
    MAX_LIMIT_MS,
    MAX_NAME_CHARS,
    MAX_TENANTS,
    MAX_WAIT_MS,
    MAX_WAITING,
    MAX_WAITING_OF_TENANT,
    Settings,
)
from xpool_registry.state import State

TICKET_CHARS = 32
"""128 bits in hexadecimal: whoever knows a ticket gets its leases."""


def request_id_of(ticket: str) -> str:
    """What a request is called in listings and logs; does not tell its ticket."""
    return hashlib.sha256(ticket.encode()).hexdigest()[:16]


def check_ticket(ticket: str) -> None:
    """It must be hard to guess.

    Raises:
        UsageError: it is not of the form that clients make.
    """
    is_hex = len(ticket) == TICKET_CHARS and set(ticket) <= set("0123456789abcdef")
    if not is_hex:
        raise UsageError(
            f"a ticket is {TICKET_CHARS} random hexadecimal digits in lower case"
        )


def request_from(
    command: AcquireGroup, request_id: str, at: Moment, settings: Settings
) -> RequestQueued:
    """A client's wish as it stands in the queue.

    Raises:
        UsageError: a value out of bounds.
    """
    check_acquire_group(command)
    check_number("wait_ms", command.wait_ms, 0, MAX_WAIT_MS)
    check_number("limit_ms", command.limit_ms, 0, MAX_LIMIT_MS)
    if command.wait_ms and not command.ticket:
        raise UsageError("a request that may wait needs a ticket to ask again with")
    wish = command.slice
    return RequestQueued(
        request_id=request_id,
        tenant=wish.tenant,
        client=wish.client,
        priority=wish.priority or "normal",
        share_percent=wish.share_percent,
        memory_nbytes=wish.memory_nbytes,
        device_count=command.device_count,
        mode=wish.mode,
        ttl_ms=wish.ttl_ms or settings.default_ttl_ms,
        wait_ms=command.wait_ms,
        limit_ms=command.limit_ms,
        policy=command.policy,
        same_node=command.same_node,
        constraints=command.constraints,
        apart=command.apart,
        min_share_percent=wish.min_share_percent,
        near=command.near,
        close_by=command.close_by,
        has_own_ttl=bool(wish.ttl_ms),
        at_s=at.wall_s,
    )


def could_ever(state: State, request: RequestQueued) -> bool:
    """Whether the devices that have joined could hold it, were nobody else there."""
    everywhere = np.ones(state.fleet.count, np.bool_)
    demand = demand_from(request)
    return any(
        can_ever(state.fleet, demand, region)
        for region in regions(state.fleet, request, everywhere)
    )


def check_may_wait(state: State, request: RequestQueued) -> None:
    """Whether waiting could ever help, and the queue has room.

    Raises:
        NoCapacity: no device that has joined could hold it, or too many wait.
    """
    demand = demand_from(request)
    # Before the first server has joined nobody knows what there will be.
    if state.fleet.node_count and not could_ever(state, request):
        raise NoCapacity(never(state, demand))
    if len(state.waiting) >= MAX_WAITING:
        raise NoCapacity(
            f"{MAX_WAITING} requests wait already, and the queue takes no more"
        )
    own = sum(one.tenant == request.tenant for one in state.waiting.values())
    if own >= MAX_WAITING_OF_TENANT:
        raise NoCapacity(
            f"{request.tenant} has {own} requests in the queue, which is the most that"
            " one tenant may have"
        )


def never(state: State, demand: Demand) -> str:
    """Why waiting would not help, for people."""
    if not state.fleet.node_count:
        return (
            "no server has joined yet: start one with"
            ' "xpool server" or a whole pool with "xpool up"'
        )
    where = " on one node" if demand.same_node else ""
    count = demand.device_count
    devices = "no device" if count == 1 else f"never {count} devices{where}"
    return (
        f"{devices} of this pool could hold {describe(demand)}, even with nobody else"
        ' there: see "xpool admin devices" for what there is'
    )


def leave(state: State, at: Moment) -> list[RequestLeft]:
    """Requests whose time in the queue is up, or whose client has gone."""
    left = []
    for request_id in state.waiting:
        if state.out_ns[request_id] <= at.now_ns:
            reason = "its time in the queue is up"
        elif state.silent_ns[request_id] <= at.now_ns:
            reason = "its client asks no more"
        else:
            continue
        left.append(RequestLeft(request_id=request_id, reason=reason, at_s=at.wall_s))
    return left


def set_tenant(state: State, command: SetTenant, at: Moment) -> TenantSet:
    """What an admin decides on a tenant.

    Raises:
        UsageError: a value out of bounds, an unknown parent, or a ring of groups.
    """
    check_text("tenant", command.name, MAX_NAME_CHARS, may_be_empty=False)
    if not 0.001 <= command.weight <= 1e6:  # false for NaN too
        raise UsageError(f"weight is {command.weight}; it must be from 0.001 to 1e6")
    for field in ("quota_percent", "limit_percent"):
        check_number(field, getattr(command, field), 0, 100_000_000)
    check_number("limit_nbytes", command.limit_nbytes, 0, 1 << 62)
    check_number("preemptions_per_hour", command.preemptions_per_hour, 0, 1_000_000)
    if command.limit_percent and command.quota_percent > command.limit_percent:
        raise UsageError(
            f"the quota of {command.quota_percent}% is more than the limit of"
            f" {command.limit_percent}%"
        )
    if command.name not in state.tenants and len(state.tenants) >= MAX_TENANTS:
        raise UsageError(f"{MAX_TENANTS} tenants are known, and no more are taken")
    _check_parent(state, command)
    return TenantSet(
        name=command.name,
        parent=command.parent,
        weight=command.weight,
        quota_percent=command.quota_percent,
        limit_percent=command.limit_percent,
        limit_nbytes=command.limit_nbytes,
        preemptions_per_hour=command.preemptions_per_hour,
        at_s=at.wall_s,
    )


def _check_parent(state: State, command: SetTenant) -> None:
    above, depth = command.parent, 1
    while above:
        known = state.tenants.get(above)
        if known is None:
            raise UsageError(
                f'there is no group {above!r}: make it first with "xpool admin tenant'
                f' set {above}"'
            )
        depth += 1
        if above == command.name or depth > MAX_DEPTH:
            raise UsageError(
                f"{command.name} under {command.parent} makes a ring, or more than"
                f" {MAX_DEPTH} levels"
            )
        above = known.parent
