"""What a policy is. ``tests/server/arbiter/test_policies.py`` holds its suite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from xpool_server.arbiter.tenant import Settings, Tenant


class Policy(ABC):
    """Who goes next, and who makes room. Pure: time is an argument."""

    name: ClassVar[str]
    number: ClassVar[int]
    """Of ``enum class Policy`` in ``native/arbiter.h``."""
    arbitrates: ClassVar[bool] = True
    """False: nobody ever waits."""
    has_classes: ClassVar[bool] = False
    """A higher class goes before a lower one."""
    keeps_shares: ClassVar[bool] = True
    """Tenants that are always busy get their shares."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    @abstractmethod
    def rank(self, tenant: Tenant, now_ns: int) -> tuple[int, ...]:
        """The smallest of those who wait goes next."""

    @abstractmethod
    def must_yield(
        self, holder: Tenant, held_ns: int, waiting: Tenant, now_ns: int
    ) -> bool:
        """Whether the holder makes room between two operations.

        Args:
            holder: has the device.
            held_ns: device time that it has used in this turn.
            waiting: is next.
            now_ns: the moment.
        """

    def is_overdue(self, tenant: Tenant, now_ns: int) -> bool:
        """Whether a tenant has waited for longer than its class may be kept."""
        del tenant, now_ns
        return False
