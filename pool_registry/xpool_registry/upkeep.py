"""What an admin does to nodes and leases: cordon, drain, evict. Pure."""

from __future__ import annotations

from xpool_protocol.errors import LeaseUnknown, UsageError

from xpool_registry.bounds import check_number, check_text
from xpool_registry.commands import Moment
from xpool_registry.events import (
    LeaseEnded,
    LeaseNoticed,
    NodeCordoned,
    NodeUncordoned,
    NoticeWithdrawn,
    RegistryEvent,
)
from xpool_registry.settings import MAX_LIMIT_MS, MAX_TEXT_CHARS
from xpool_registry.state import State

EVICTED = "evicted by an admin"


def cordon(
    state: State, node_name: str, reason: str, at: Moment
) -> list[RegistryEvent]:
    """No new leases for a node.

    Raises:
        UsageError: no such node, or a reason out of bounds.
    """
    _check_node(state, node_name)
    check_text("reason", reason, MAX_TEXT_CHARS, may_be_empty=True)
    return [NodeCordoned(node_name=node_name, reason=reason, at_s=at.wall_s)]


def drain(
    state: State, node_name: str, reason: str, deadline_ms: int, at: Moment
) -> list[RegistryEvent]:
    """No new leases, and those there are have to leave by the deadline.

    Args:
        state: as it is.
        node_name: which node.
        reason: for people.
        deadline_ms: from now; 0: they are waited for, however long they take.
        at: now.

    Raises:
        UsageError: no such node, or a value out of bounds.
    """
    _check_node(state, node_name)
    check_text("reason", reason, MAX_TEXT_CHARS, may_be_empty=True)
    check_number("deadline_ms", deadline_ms, 0, MAX_LIMIT_MS)
    events: list[RegistryEvent] = [
        NodeCordoned(
            node_name=node_name, reason=reason, is_draining=True, at_s=at.wall_s
        )
    ]
    if deadline_ms:
        events += [
            _notice(lease.lease_id, deadline_ms, f"{node_name} is drained", at)
            for lease in state.leases_on(node_name)
        ]
    return events


def uncordon(state: State, node_name: str, at: Moment) -> list[RegistryEvent]:
    """New leases again; whoever was asked to leave for a drain may stay.

    Raises:
        UsageError: no such node.
    """
    _check_node(state, node_name)
    if node_name not in state.cordoned:
        return []
    events: list[RegistryEvent] = [NodeUncordoned(node_name=node_name, at_s=at.wall_s)]
    drained = f"{node_name} is drained"
    for lease in state.leases_on(node_name):
        notice = state.notices.get(lease.lease_id)
        if notice is not None and notice.event.reason == drained:
            events.append(NoticeWithdrawn(lease_id=lease.lease_id, at_s=at.wall_s))
    return events


def evict(
    state: State, lease_id: str, reason: str, grace_ms: int, at: Moment
) -> RegistryEvent:
    """Take a lease from its holder, at once or after a grace.

    Raises:
        LeaseUnknown: no such lease is live.
        UsageError: a value out of bounds.
    """
    check_text("reason", reason, MAX_TEXT_CHARS - 32, may_be_empty=True)
    check_number("grace_ms", grace_ms, 0, MAX_LIMIT_MS)
    lease = state.leases.get(lease_id)
    if lease is None:
        raise LeaseUnknown(f"no lease {lease_id[:40]!r} is live")
    why = f"{EVICTED}: {reason}" if reason else EVICTED
    if grace_ms:
        return _notice(lease_id, grace_ms, why, at)
    return LeaseEnded(lease_id=lease_id, epoch=lease.epoch, reason=why, at_s=at.wall_s)


def _notice(lease_id: str, grace_ms: int, reason: str, at: Moment) -> LeaseNoticed:
    return LeaseNoticed(
        lease_id=lease_id,
        request_id="",
        tenant="",
        grace_ms=grace_ms,
        reason=reason,
        at_s=at.wall_s,
    )


def _check_node(state: State, node_name: str) -> None:
    if node_name not in state.nodes:
        raise UsageError(
            f'no node {node_name[:40]!r} has joined: see "xpool admin nodes"'
        )
