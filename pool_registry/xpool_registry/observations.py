"""What is true for seconds and comes often: kept in memory, never stored.

As of events, what holds only numbers and text is nothing for the garbage collector.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class DeviceLoad(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How busy a device was, by its node's own measurement."""

    index: int
    used_nbytes: int
    busy_percent: float
    session_count: int


class SessionReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session as its node sees it."""

    lease_id: str
    epoch: int
    state: str
    executed_ops: int
    allocated_nbytes: int
    received_nbytes: int
    share_percent: int = 0
    """The slice that is in force, as far as the node says; 0: it does not."""

    memory_nbytes: int = 0
    mode: str = ""
    priority: str = ""
    refusal: str = ""
    """Why the change of the slice that it was told last is not in force."""

    slice_number: int = 0
    """Of that change; 0: it was told none, or has not decided yet."""

    device_ns: int = 0
    """Of the device's time, since the session began."""

    waiting_ns: int = 0
    held_ns: int = 0
    sent_nbytes: int = 0
    longest_hold_ns: int = 0
    got_percent: float = 0.0
    """Of the device's time in the last ten seconds."""

    overhead_nbytes: int = 0
    """Of the quota: what the framework holds beside the job's own storages."""


class NodeHeard(msgspec.Struct, frozen=True, kw_only=True):
    """A node proved that it lives."""

    node_name: str
    loads: tuple[DeviceLoad, ...] = ()
    sessions: Sequence[SessionReport] = ()


class LeaseRenewed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lease's holder proved that it lives."""

    lease_id: str


class RequestAsked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The client of a waiting request proved that it lives."""

    request_id: str


Observation = NodeHeard | LeaseRenewed | RequestAsked
"""Every kind of fact that is not stored."""
