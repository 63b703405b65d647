"""What a policy knows of a tenant of a device, and its token bucket."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

NS_PER_MS: Final = 1_000_000

LEAST_TOKENS_NS: Final = NS_PER_MS
"""A capped tenant starts when it may run for so long: shorter turns only cost."""


class Priority(IntEnum):
    """Who goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class Place(IntEnum):
    """Where a tenant stands; as in ``native/arbiter.h``."""

    EMPTY = 0
    IDLE = 1
    ARRIVED = 2
    """Waits, and its virtual time has not been looked at yet."""
    WAITING = 3
    RUNNING = 4
    PASSED = 5
    """Its turn was given to others: it must queue again."""
    INTERRUPTED = 6
    """A higher class has taken its turn in the middle of an operation."""


class Tenant(Protocol):
    """One session on a device. Times are nanoseconds of the node's monotonic clock."""

    place: int
    virtual_ns: int
    """Device time by share: ns * 100 / share."""
    share_percent: int
    priority: int
    is_capped: int
    since_ns: int
    """It waits since."""
    tokens_ns: int
    """Of a capped one: device time that it may use now; negative: what it owes."""
    tokens_at_ns: int
    used_ns: int
    is_overdue: int
    """It runs because it has waited for too long."""
    left_ns: int
    """It had nothing to do since; 0: it has not been here yet."""


@dataclass(slots=True)
class PlainTenant:
    """A tenant that nobody shares."""

    share_percent: int
    priority: int = Priority.NORMAL
    is_capped: int = 0
    place: int = Place.IDLE
    virtual_ns: int = 0
    since_ns: int = 0
    tokens_ns: int = 0
    tokens_at_ns: int = 0
    used_ns: int = 0
    is_overdue: int = 0
    left_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may choose of the arbiter."""

    quantum_ns: int = 2 * NS_PER_MS
    """Device time after which a tenant makes room, if others have had less."""

    lag_ns: int = 10 * NS_PER_MS
    """Device time that a tenant may catch up after it has slept, at most."""

    pause_ns: int = 20 * NS_PER_MS
    """Who was away for so long has slept."""

    pause_lag_ns: int = 100 * NS_PER_MS
    """Device time that a tenant may catch up after a shorter pause, at most."""

    burst_ns: int = 20 * NS_PER_MS
    """Device time that a capped tenant may have saved, at most."""

    starvation_ns: int = 1000 * NS_PER_MS
    """How long a lower class may wait for a turn while a higher one works."""


def refill(tenant: Tenant, settings: Settings, now_ns: int) -> int:
    """Device time that a capped tenant may use now; negative: what it owes."""
    gained = max(0, now_ns - tenant.tokens_at_ns) * max(1, tenant.share_percent) // 100
    tenant.tokens_at_ns = max(now_ns, tenant.tokens_at_ns)
    tenant.tokens_ns = min(settings.burst_ns, tenant.tokens_ns + gained)
    return tenant.tokens_ns


def ready_at_ns(tenant: Tenant, settings: Settings) -> int:
    """When a capped tenant that may not run now may run again."""
    missing = max(0, min(LEAST_TOKENS_NS, settings.burst_ns) - tenant.tokens_ns)
    return tenant.tokens_at_ns + -(-missing * 100 // max(1, tenant.share_percent))


def arrive(tenant: Tenant, settings: Settings, virtual_ns: int) -> None:
    """Begin to wait: who was away has saved nothing but for a short pause's worth.

    Those that stayed may have been far ahead, by an operation of theirs, and say where
    everybody is only for as long as it was away.

    Args:
        tenant: has work.
        settings: of the arbiter.
        virtual_ns: where those begin who come now.
    """
    is_new = tenant.left_ns == 0
    has_slept = is_new or tenant.since_ns >= tenant.left_ns + settings.pause_ns
    lag_ns = settings.lag_ns if has_slept else settings.pause_lag_ns
    lag_ns = lag_ns * 100 // max(1, tenant.share_percent)
    tenant.virtual_ns = max(tenant.virtual_ns, virtual_ns - lag_ns)
    tenant.place = Place.WAITING
