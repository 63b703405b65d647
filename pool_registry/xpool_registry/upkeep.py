"""What an admin does to nodes and leases: cordon, drain, forget, evict. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from xpool_protocol.errors import LeaseUnknown, UsageError

from xpool_registry.bounds import check_number, check_text
from xpool_registry.commands import Moment
from xpool_registry.events import (
    LeaseEnded,
    LeaseNoticed,
    NodeCordoned,
    NodeForgotten,
    NodeUncordoned,
    NoticeWithdrawn,
    RegistryEvent,
)
from xpool_registry.settings import MAX_LIMIT_MS, MAX_NODES, MAX_TEXT_CHARS, Settings
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


def forget(
    state: State, node_name: str, reason: str, at: Moment, settings: Settings
) -> NodeForgotten:
    """List a node no more that is gone for good; it may join again as a new one.

    Raises:
        UsageError: no such node, it was heard lately, it has leases, or a reason out
            of bounds.
    """
    _check_node(state, node_name)
    check_text("reason", reason, MAX_TEXT_CHARS, may_be_empty=True)
    if state.may_be_alive(node_name, at.now_ns, settings.dead_after_ms):
        silence_s = state.silence_ms(node_name, at.now_ns) / 1000
        raise UsageError(
            f"{node_name} was heard {silence_s:.1f} s ago: stop its server first, and"
            f" wait {settings.dead_after_ms / 1000:g} s"
        )
    count = sum(1 for _ in state.leases_on(node_name))
    if count:
        raise UsageError(
            f"{node_name} still has {count} {'lease' if count == 1 else 'leases'}: they"
            ' end when they are not renewed, or by "xpool admin evict"'
        )
    return NodeForgotten(node_name=node_name, reason=reason, at_s=at.wall_s)


def lapsed(
    state: State, silent: Iterable[str], at: Moment, settings: Settings
) -> list[NodeForgotten]:
    """Which silent nodes have been so for so long that they are forgotten.

    Not those that an admin has cordoned: that would be forgotten with them.
    """
    after_ms = settings.forget_after_ms
    if not after_ms:
        return []
    return [
        NodeForgotten(node_name=name, reason="silent for long", at_s=at.wall_s)
        for name in sorted(silent)
        if state.silence_ms(name, at.now_ns) >= after_ms and _may_go(state, name)
    ]


def room(state: State, at: Moment, settings: Settings) -> list[NodeForgotten]:
    """What has to go before one more node can join: of those silent, the longest so.

    Raises:
        UsageError: all places are taken by nodes that live, have leases or are
            cordoned.
    """
    if len(state.nodes) < MAX_NODES:
        return []
    silences_ms = {name: state.silence_ms(name, at.now_ns) for name in state.nodes}
    gone = [
        name
        for name, silence_ms in silences_ms.items()
        if silence_ms >= settings.dead_after_ms and _may_go(state, name)
    ]
    if not gone:
        raise UsageError(f"the pool holds {MAX_NODES} nodes and takes no more")
    name = max(gone, key=lambda one: (silences_ms[one], one))
    reason = f"the pool holds {MAX_NODES} nodes"
    return [NodeForgotten(node_name=name, reason=reason, at_s=at.wall_s)]


def _may_go(state: State, node_name: str) -> bool:
    return node_name not in state.cordoned and not any(state.leases_on(node_name))


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
