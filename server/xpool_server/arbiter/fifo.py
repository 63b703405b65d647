"""First come, first served: what a device does that nobody arbitrates."""

# ruff: noqa: D102  the interface in policy.py documents the methods

from __future__ import annotations

from typing import ClassVar

from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.tenant import Tenant


class Fifo(Policy):
    """Each keeps the device until it has nothing to do, whatever its share."""

    name: ClassVar[str] = "fifo"
    number: ClassVar[int] = 1
    keeps_shares: ClassVar[bool] = False

    def rank(self, tenant: Tenant, now_ns: int) -> tuple[int, ...]:
        return (tenant.since_ns,)

    def must_yield(
        self, holder: Tenant, held_ns: int, waiting: Tenant, now_ns: int
    ) -> bool:
        return False
