"""Checks what others sent against its bounds, before anything is decided by it.

Each check raises ``UsageError`` with the field, the value and what would do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xpool_protocol.errors import UsageError
from xpool_protocol.quantities import MAX_NBYTES

from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    JoinNode,
    TakeHeartbeat,
)
from xpool_registry.reports import heads_of
from xpool_registry.settings import (
    MAX_DEVICES,
    MAX_GROUP_DEVICES,
    MAX_NAME_CHARS,
    MAX_NODES,
    MAX_SESSIONS,
    MAX_TEXT_CHARS,
    ttl_ms_checked,
)

MODES = ("elastic", "capped")
PRIORITIES = ("high", "normal", "low")
POLICIES = ("auto", "pack", "spread")
MAX_LABELS = 32
MAX_RTT_US = 60_000_000
"""A minute: who is further away has no network."""

MAX_DEVICE_INDEX = (1 << 16) - 1

_NODE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_CHARS - 1}}}")


def check_node_name(name: str) -> None:
    """Names end up in tables, URIs and file names: host names, no more."""
    if not _NODE_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:40]!r} is not a node name: use letters, digits, '.', '_' and"
            f" '-', beginning with a letter or digit, at most {MAX_NAME_CHARS}"
        )


def check_text(field: str, text: str, max_chars: int, *, may_be_empty: bool) -> None:
    """One line of printable text: a terminal shows it as it is."""
    if len(text) > max_chars:
        raise UsageError(f"{field} has {len(text)} characters; {max_chars} are allowed")
    if not text and not may_be_empty:
        raise UsageError(f"{field} is empty")
    if not text.isprintable():
        raise UsageError(f"{field} holds characters that cannot be printed: {text!r}")


def check_number(field: str, value: int, lowest: int, highest: int) -> None:
    """A whole number in its range."""
    if not lowest <= value <= highest:
        raise UsageError(f"{field} is {value}; it must be from {lowest} to {highest}")


def check_join(command: JoinNode) -> None:
    """A node's description of itself."""
    check_node_name(command.node_name)
    check_text("boot_id", command.boot_id, MAX_NAME_CHARS, may_be_empty=False)
    check_text("address", command.address, MAX_TEXT_CHARS, may_be_empty=False)
    if "://" not in command.address:
        raise UsageError(
            f"{command.address!r} is not a data-plane address: write a URI, for"
            " instance tcp://10.0.0.5:7800"
        )
    check_text("version", command.version, MAX_NAME_CHARS, may_be_empty=True)
    check_labels(command.labels)
    check_number("the number of devices", len(command.devices), 1, MAX_DEVICES)
    _check_distinct("devices", [device.index for device in command.devices])
    for device in command.devices:
        check_number("device index", device.index, 0, MAX_DEVICE_INDEX)
        check_text("device kind", device.kind, MAX_NAME_CHARS, may_be_empty=False)
        check_text("device name", device.name, MAX_NAME_CHARS, may_be_empty=True)
        check_text(
            "device architecture",
            device.architecture,
            MAX_NAME_CHARS,
            may_be_empty=True,
        )
        check_number("device memory_nbytes", device.memory_nbytes, 0, MAX_NBYTES)


def check_heartbeat(command: TakeHeartbeat, device_indexes: frozenset[int]) -> None:
    """A known node's load and sessions."""
    check_number("the number of loads", len(command.loads), 0, MAX_DEVICES)
    check_number("the number of sessions", len(command.sessions), 0, MAX_SESSIONS)
    check_number("the number of ended leases", len(command.ended), 0, MAX_SESSIONS)
    _check_distinct("loads", [load.index for load in command.loads])
    for load in command.loads:
        if load.index not in device_indexes:
            raise UsageError(f"a load names device {load.index}, which never joined")
        if not 0 <= load.busy_percent <= 100:  # false for NaN too
            raise UsageError(f"busy_percent is {load.busy_percent}, not 0 to 100")
    for session in heads_of(command.sessions):
        if _is_usual(session.lease_id, session.state) and not session.refusal:
            continue
        check_text("lease_id", session.lease_id, MAX_NAME_CHARS, may_be_empty=False)
        check_text("session state", session.state, MAX_NAME_CHARS, may_be_empty=True)
        check_text("refusal", session.refusal, MAX_TEXT_CHARS, may_be_empty=True)
    for ended in command.ended:
        check_text("lease_id", ended.lease_id, MAX_NAME_CHARS, may_be_empty=False)
        check_text("reason", ended.reason, MAX_TEXT_CHARS, may_be_empty=True)


def _is_usual(lease_id: str, state: str) -> bool:
    """Whether the checks of a session's texts would pass, as nearly all do."""
    text = lease_id + state
    return bool(lease_id) and len(text) <= MAX_NAME_CHARS and text.isprintable()


def check_acquire(command: AcquireLease) -> None:
    """A client's wish."""
    check_text("tenant", command.tenant, MAX_NAME_CHARS, may_be_empty=False)
    check_text("client", command.client, MAX_TEXT_CHARS, may_be_empty=True)
    check_number("share_percent", command.share_percent, 1, 100)
    check_number(
        "min_share_percent", command.min_share_percent, 0, command.share_percent
    )
    check_number("memory_nbytes", command.memory_nbytes, 0, MAX_NBYTES)
    if command.ttl_ms:
        ttl_ms_checked(command.ttl_ms)
    if command.priority not in PRIORITIES:
        raise UsageError(
            f"priority is {command.priority[:40]!r}; it must be high, normal or low"
        )
    if command.mode not in MODES:
        raise UsageError(f"mode is {command.mode[:40]!r}; it must be elastic or capped")


def check_acquire_group(command: AcquireGroup) -> None:
    """A client's wish for several devices."""
    check_acquire(command.slice)
    check_number("device_count", command.device_count, 1, MAX_GROUP_DEVICES)
    if command.policy not in POLICIES:
        raise UsageError(
            f"policy is {command.policy[:40]!r}; it must be {', '.join(POLICIES)}"
        )
    wanted = command.constraints
    for field, text in (
        ("kind", wanted.kind),
        ("model", wanted.model),
        ("architecture", wanted.architecture),
        ("node", wanted.node_name),
    ):
        check_text(field, text, MAX_NAME_CHARS, may_be_empty=True)
    check_number("min_memory_nbytes", wanted.min_memory_nbytes, 0, MAX_NBYTES)
    check_labels(wanted.labels)
    check_text("apart", command.apart, MAX_NAME_CHARS, may_be_empty=True)
    check_text("close_by", command.close_by, MAX_NAME_CHARS, may_be_empty=True)
    check_number("max_rtt_us", wanted.max_rtt_us, 0, MAX_RTT_US)
    check_number("the number of distances", len(wanted.distances), 0, MAX_NODES)
    for name, rtt_us in wanted.distances:
        check_node_name(name)
        check_number("rtt_us", rtt_us, 0, MAX_RTT_US)


def check_labels(labels: Sequence[tuple[str, str]]) -> None:
    """What an operator says of a node, or a client asks of it."""
    check_number("the number of labels", len(labels), 0, MAX_LABELS)
    for key, value in labels:
        check_text("label", key, MAX_NAME_CHARS, may_be_empty=False)
        check_text(f"label {key}", value, MAX_NAME_CHARS, may_be_empty=True)


def _check_distinct(field: str, indexes: Sequence[int]) -> None:
    if len(set(indexes)) != len(indexes):
        raise UsageError(f"{field} name one device index twice")
