"""Start-time fair queueing on measured device time.

Each tenant has a virtual time: the device time that it was charged, by its share. The
one that is least far goes next, for a quantum or an operation, whichever is longer. Two
that are always busy differ, by share, by at most one such turn of each.

Source: Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996.
"""

# ruff: noqa: D102  the interface in policy.py documents the methods

from __future__ import annotations

from typing import ClassVar

from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.tenant import Tenant


class FairShare(Policy):
    """Shares, and no classes."""

    name: ClassVar[str] = "fair_share"
    number: ClassVar[int] = 2

    def rank(self, tenant: Tenant, now_ns: int) -> tuple[int, ...]:
        return (tenant.virtual_ns,)

    def must_yield(
        self, holder: Tenant, held_ns: int, waiting: Tenant, now_ns: int
    ) -> bool:
        is_over = held_ns >= self.settings.quantum_ns
        return is_over and waiting.virtual_ns < holder.virtual_ns
