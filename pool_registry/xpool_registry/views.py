"""What the registry answers: facts put together for holders, nodes and admins."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from xpool_registry.events import Device, LeaseGranted, NodeJoined, RequestQueued
from xpool_registry.observations import DeviceLoad, SessionReport
from xpool_registry.placement import DeviceOffer


class HeldLease(NamedTuple):
    """A live lease with all that its holder or an admin is told of it."""

    lease: LeaseGranted
    node: NodeJoined
    device: Device
    expires_in_ms: int
    ttl_ms: int
    """What one renewal gives it now."""

    token: str = ""
    """Only its holder gets one."""

    notice: str = ""
    """Why it is asked back; empty: it is not."""

    leaves_in_ms: int = 0
    """It ends by then, if it is asked back."""

    session: SessionReport | None = None


class QueuePlace(NamedTuple):
    """Where a request stands, as its client or an admin is told."""

    request: RequestQueued
    place: int
    """1 is the next."""

    waiting_count: int
    reason: str
    starts_at_s: float
    """Wall clock: promised for then at the latest; 0: nobody knows."""

    waited_ms: int
    ask_again_ms: int


class Answer(NamedTuple):
    """Leases, or a place in the queue."""

    leases: list[HeldLease]
    place: QueuePlace | None = None


class HeartbeatAnswer(NamedTuple):
    """What a node is told."""

    must_rejoin: bool
    to_end: dict[str, str]
    """Lease id to reason."""

    resized: tuple[LeaseGranted, ...] = ()
    """Leases with a slice that the node has yet to be told."""

    stored_s: Mapping[str, int] = MappingProxyType({})
    """Of leases whose use is not all stored: up to which second it is."""

    next_ms: int = 0
    """When it is to come back; 0: as Join said."""


class NodeView(NamedTuple):
    """A node as an admin sees it."""

    node: NodeJoined
    is_alive: bool
    silence_ms: int
    lease_count: int
    closed: str = ""
    """Why it gets no new leases although it is alive: cordoned or draining."""


class DeviceView(NamedTuple):
    """A device as an admin sees it."""

    device: Device
    offer: DeviceOffer
    lease_count: int
    load: DeviceLoad | None
