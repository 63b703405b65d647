"""Tenants as an admin sees them: shares of use beside shares of right."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from xpool_protocol.errors import LeaseUnknown

from xpool_registry.commands import Moment
from xpool_registry.events import TenantSet
from xpool_registry.fairshare import Amount, rights
from xpool_registry.state import State


class TenantView(NamedTuple):
    """One tenant or group."""

    name: str
    known: TenantSet | None
    """What an admin has decided; None: nothing."""

    held: Amount
    use: float
    """Its dominant share of the pool, the recent past included, 0 to 1."""

    right: float
    """What it would get if everybody wanted all, 0 to 1."""

    lease_count: int
    waiting_count: int


LEAST_USE: Final = 0.0005
"""Who holds and wants nothing and has used less of the pool lately is no news."""


def tenants_of(state: State, at: Moment) -> list[TenantView]:
    """Everybody who is known, holds something, has used some lately or waits."""
    shares = state.shares(at.wall_s)
    leases = Counter(lease.tenant for lease in state.leases.values())
    waiting = Counter(request.tenant for request in state.waiting.values())
    lately = {name for name in state.books if shares.dominant(name) >= LEAST_USE}
    names = {*state.tenants, *leases, *waiting, *lately}
    right = rights(state.tenants, names)
    return [
        TenantView(
            name=name,
            known=state.tenants.get(name),
            held=shares.held(name),
            use=min(1.0, shares.dominant(name)),  # a clock may have jumped
            right=right[name],
            lease_count=leases[name],
            waiting_count=waiting[name],
        )
        for name in sorted(names)
    ]


def check_same_tenant(owner: str, caller: str) -> None:
    """A ticket is its tenant's own.

    Raises:
        LeaseUnknown: somebody else asks; not told whose it is.
    """
    if owner != caller:
        raise LeaseUnknown("this tenant has no such request")
