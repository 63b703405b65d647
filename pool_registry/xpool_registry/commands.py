"""What is asked of the registry: imperative, unchecked, straight from the wire."""

from __future__ import annotations

from dataclasses import dataclass

from xpool_registry.demand import NO_CONSTRAINTS, Constraints
from xpool_registry.events import Device, DeviceLoad, SessionReport


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
    sessions: tuple[SessionReport, ...] = ()
    ended: tuple[EndedByNode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireLease:
    """Grant a slice; 0 leaves memory and TTL to the registry."""

    tenant: str
    share_percent: int
    memory_nbytes: int = 0
    ttl_ms: int = 0
    mode: str = "elastic"
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireGroup:
    """Grant such a slice of each of several different devices, or of none."""

    slice: AcquireLease
    device_count: int
    policy: str = "auto"
    """``auto``, ``pack`` or ``spread``."""

    same_node: bool = False
    constraints: Constraints = NO_CONSTRAINTS


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
