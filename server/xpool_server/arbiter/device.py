"""One device and its tenants: who waits, who has it, who is next.

The oracle of ``native/arbiter.cpp``. Nothing here waits, locks or reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.tenant import NS_PER_MS, Place, Tenant, arrive, refill

LAST_NS: Final = 50 * NS_PER_MS
"""Of a time alone on the device, what may have been one operation."""


class Clock(Protocol):
    """The virtual time of a device."""

    virtual_ns: int
    """Where those begin who come now."""


class PlainClock:
    """A device's virtual time that nobody shares."""

    def __init__(self) -> None:
        self.virtual_ns = 0


def next_tenant(
    policy: Policy, clock: Clock, tenants: Mapping[int, Tenant], now_ns: int
) -> int | None:
    """The waiting tenant that goes next; None if none waits.

    Those that have arrived are given their virtual time. Of equals the lowest number
    goes first.

    Args:
        policy: decides.
        clock: of the device.
        tenants: by number.
        now_ns: the moment.
    """
    waiting = []
    for number, tenant in sorted(tenants.items()):
        if tenant.place == Place.ARRIVED:
            arrive(tenant, policy.settings, clock.virtual_ns)
        if tenant.place in (Place.WAITING, Place.INTERRUPTED):
            waiting.append((policy.rank(tenant, now_ns), number))
    return min(waiting)[1] if waiting else None


def charge(
    policy: Policy,
    clock: Clock,
    tenant: Tenant,
    used_ns: int,
    now_ns: int,
    *,
    alone_ns: int,
) -> None:
    """Device time was used.

    Args:
        policy: whose settings hold.
        clock: of the device.
        tenant: has used it.
        used_ns: measured; or a correction of what was estimated, which may be
            negative.
        now_ns: the moment.
        alone_ns: so much of it while nobody waited.
    """
    before_ns = tenant.virtual_ns
    tenant.virtual_ns = max(
        0, before_ns + used_ns * 100 // max(1, tenant.share_percent)
    )
    tenant.used_ns += used_ns
    if tenant.is_capped:
        refill(tenant, policy.settings, now_ns)
        tenant.tokens_ns -= used_ns
    # Who comes now begins where the one begins that is served. Nobody has missed
    # anything while one was alone, but for its last operation, which may be all that
    # it did.
    missed_ns = max(0, min(alone_ns, used_ns - LAST_NS))
    start_ns = before_ns + missed_ns * 100 // max(1, tenant.share_percent)
    clock.virtual_ns = max(clock.virtual_ns, start_ns)
