"""What a server says in a heartbeat, made once and put together each second.

A thousand servers share two cores with the registry that is measured. What they say of
a session is the same each second but for the seconds of use, so only those are added:
protobuf lets the parts of a message come in any order, and the bytes mean the same as
the message made whole (``heartbeat``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from xpool_protocol.control import registry_pb2 as pb

GIB: Final = 1 << 30
DEVICES: Final = 8
BOOT_ID: Final = "boot"
MAX_SECONDS: Final = 1000
"""Remembered as bytes; a run has some fifty."""

_SESSIONS: Final = b"\x22"
"""Field 4 of a heartbeat, a message."""

_USAGE: Final = b"\x9a\x03"
"""Field 51 of a session's report, a message."""


def heartbeat(
    name: str, sessions: Iterable[tuple[pb.Lease, list[int]]]
) -> pb.HeartbeatRequest:
    """What a server says of its devices and sessions, made whole."""
    reports = []
    for lease, seconds in sessions:
        report = session_report(lease)
        report.usage.extend(map(usage_second, seconds))
        reports.append(report)
    request = greeting(name)
    request.sessions.extend(reports)
    return request


def greeting(name: str) -> pb.HeartbeatRequest:
    """What does not change."""
    return pb.HeartbeatRequest(
        node_name=name,
        boot_id=BOOT_ID,
        loads=[
            pb.DeviceLoad(index=i, used_nbytes=GIB, busy_percent=50.0, session_count=1)
            for i in range(DEVICES)
        ],
    )


def session_report(lease: pb.Lease) -> pb.SessionReport:
    """What a server says of a session at work, but for its seconds of use."""
    return pb.SessionReport(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        state="open",
        executed_ops=1_000_000,
        allocated_nbytes=GIB,
        received_nbytes=GIB,
        share_percent=lease.share_percent,
        memory_nbytes=lease.memory_nbytes,
        mode=lease.mode,
        priority=lease.priority,
        device_ns=10_000_000_000,
        waiting_ns=1_000_000_000,
        held_ns=10_000_000_000,
        sent_nbytes=GIB,
        longest_hold_ns=1_000_000,
        got_percent=50.0,
        overhead_nbytes=GIB // 8,
    )


def usage_second(at_s: int) -> pb.UsageSecond:
    """What a session used within a second."""
    return pb.UsageSecond(
        at_s=at_s,
        device_ns=500_000_000,
        waiting_ns=1_000_000,
        executed_ops=1000,
        received_nbytes=1 << 20,
        sent_nbytes=1 << 20,
        allocated_nbytes=GIB,
    )


class Words:
    """Bytes of one server's heartbeats."""

    _of_second: Final[dict[int, bytes]] = {}

    def __init__(self, name: str) -> None:
        self._greeting = greeting(name).SerializeToString()
        self._reports: dict[str, bytes] = {}

    def heartbeat(
        self, leases: Mapping[str, pb.Lease], seconds: Mapping[str, list[int]]
    ) -> bytes:
        """As ``heartbeat`` has it, of leases by id with their seconds by id."""
        parts = [self._greeting]
        reports = self._reports
        for lease_id, lease in leases.items():
            report = reports.get(lease_id)
            if report is None:
                reports[lease_id] = report = session_report(lease).SerializeToString()
            usage = b"".join(map(self._second, seconds[lease_id]))
            parts += (_SESSIONS, varint(len(report) + len(usage)), report, usage)
        return b"".join(parts)

    def forget(self, lease_id: str) -> None:
        """It is over."""
        self._reports.pop(lease_id, None)

    def _second(self, at_s: int) -> bytes:
        known = self._of_second.get(at_s)
        if known is None:
            body = usage_second(at_s).SerializeToString()
            known = _USAGE + varint(len(body)) + body
            if len(self._of_second) >= MAX_SECONDS:
                self._of_second.clear()
            self._of_second[at_s] = known
        return known


def varint(number: int) -> bytes:
    """As protobuf writes a length.

    >>> list(varint(5)), list(varint(300))
    ([5], [172, 2])
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
