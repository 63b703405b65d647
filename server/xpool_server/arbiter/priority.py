"""Classes first, fair shares within each.

A higher class takes the device at the next operation's end. A lower one that has waited
for ``starvation_ns`` gets one quantum all the same, the one first that waits longest.
"""

# ruff: noqa: D102  the interface in policy.py documents the methods

from __future__ import annotations

from typing import ClassVar

from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.tenant import Tenant


class ByPriority(Policy):
    """The default: without classes it is ``fair_share``."""

    name: ClassVar[str] = "priority"
    number: ClassVar[int] = 3
    has_classes: ClassVar[bool] = True

    def is_overdue(self, tenant: Tenant, now_ns: int) -> bool:
        return now_ns >= tenant.since_ns + self.settings.starvation_ns

    def rank(self, tenant: Tenant, now_ns: int) -> tuple[int, ...]:
        if self.is_overdue(tenant, now_ns):
            return (0, tenant.since_ns, tenant.virtual_ns)
        return (1, -tenant.priority, tenant.virtual_ns)

    def must_yield(
        self, holder: Tenant, held_ns: int, waiting: Tenant, now_ns: int
    ) -> bool:
        is_over = held_ns >= self.settings.quantum_ns
        if self.is_overdue(waiting, now_ns):
            return is_over or waiting.priority >= holder.priority
        if holder.is_overdue:
            return is_over
        if waiting.priority != holder.priority:
            return waiting.priority > holder.priority
        return is_over and waiting.virtual_ns < holder.virtual_ns
