"""What is asked of the registry: imperative, unchecked, straight from the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xpool_registry.accounting import Second
from xpool_registry.demand import NO_CONSTRAINTS, Constraints
from xpool_registry.events import Device
from xpool_registry.observations import DeviceLoad, SessionReport


@dataclass(frozen=True, slots=True)
class Moment:
    """When a command is decided."""

    now_ns: int
    """Monotonic clock of the registry; decides expiry and liveness."""

    wall_s: float
    """Seconds since 1970; recorded for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinNode:
    """Offer a node's devices."""

    node_name: str
    boot_id: str
    address: str
    devices: tuple[Device, ...]
    version: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedByNode:
    """A lease that the node itself has ended."""

    lease_id: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeHeartbeat:
    """Note that a node lives, and what it says about itself."""

    node_name: str
    boot_id: str
    loads: tuple[DeviceLoad, ...] = ()
    sessions: Sequence[SessionReport] = ()
    ended: tuple[EndedByNode, ...] = ()
    usage: tuple[tuple[str, tuple[Second, ...]], ...] = ()
    """Of each lease what its node has measured, second by second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireLease:
    """Grant a slice; 0 leaves memory and TTL to the registry."""

    tenant: str
    share_percent: int
    memory_nbytes: int = 0
    ttl_ms: int = 0
    mode: str = "elastic"
    client: str = ""
    priority: str = "normal"
    min_share_percent: int = 0
    """So little will do; 0: all of it, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireGroup:
    """Grant such a slice of each of several different devices, or of none."""

    slice: AcquireLease
    device_count: int
    policy: str = "auto"
    """``auto``, ``pack`` or ``spread``."""

    same_node: bool = False
    constraints: Constraints = NO_CONSTRAINTS
    apart: str = ""
    """No node of it holds another lease of its tenant with the same text."""

    near: bool = False
    """The nearest to the client of what has room."""

    close_by: str = ""
    """All devices on nodes with one value of this label."""

    ticket: str = ""
    """Random, of the client's making: with it the same request may be sent again."""

    wait_ms: int = 0
    """How long it may stand in the queue; 0: it is granted now or refused."""

    limit_ms: int = 0
    """How long its leases last at most; 0: as long as they are renewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """Leave the queue, and give back what was granted meanwhile."""

    ticket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonNode:
    """No new leases for a node; of a drain also none that stay."""

    node_name: str
    reason: str = ""
    is_draining: bool = False
    deadline_ms: int = 0
    """0: leases are waited for, however long they take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTenant:
    """Decide on a tenant or a group; see ``TenantSet``."""

    name: str
    parent: str = ""
    weight: float = 1.0
    quota_percent: int = 0
    limit_percent: int = 0
    limit_nbytes: int = 0
    preemptions_per_hour: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewLease:
    """Let a lease live for one more TTL."""

    lease_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLease:
    """Take a slice back."""

    lease_id: str
    epoch: int
    reason: str = ""
