"""No arbiter: everybody runs at once, as the system lets them. It needs no device."""

# ruff: noqa: D102  the interface in policy.py documents the methods

from __future__ import annotations

from typing import ClassVar

from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.tenant import Tenant


class Null(Policy):
    """For measuring what the others cost, and where something else keeps shares."""

    name: ClassVar[str] = "null"
    number: ClassVar[int] = 0
    arbitrates: ClassVar[bool] = False
    keeps_shares: ClassVar[bool] = False

    def rank(self, tenant: Tenant, now_ns: int) -> tuple[int, ...]:
        return (0,)

    def must_yield(
        self, holder: Tenant, held_ns: int, waiting: Tenant, now_ns: int
    ) -> bool:
        return False
