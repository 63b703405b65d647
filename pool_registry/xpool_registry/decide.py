"""Commands and the state make events, or a refusal. Nothing here changes anything.

Every function takes the state as it is, a command, and the moment; ids are
arguments too. It returns the facts that follow, in order, for the driver
(``registry.py``) to store and apply, or raises the ``PoolError`` to send back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from xpool_protocol.errors import (
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NameTaken,
    NoCapacity,
    UsageError,
)

from xpool_registry.bounds import (
    check_heartbeat,
    check_join,
    check_text,
)
from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    EndedByNode,
    JoinNode,
    Moment,
    ReleaseLease,
    RenewLease,
    TakeHeartbeat,
)
from xpool_registry.events import LeaseEnded, LeaseGranted, NodeJoined, RegistryEvent
from xpool_registry.looking import refusal_of
from xpool_registry.observations import (
    LeaseRenewed,
    NodeHeard,
    Observation,
    SessionReport,
)
from xpool_registry.queueing import request_from
from xpool_registry.reports import SessionHead
from xpool_registry.schedule import schedule
from xpool_registry.settings import MAX_TEXT_CHARS, Settings
from xpool_registry.state import State
from xpool_registry.upkeep import room

Facts = list[RegistryEvent | Observation]

EXPIRED = "expired"
RELEASED = "released"
TIME_LIMIT = "time limit"
RESTARTED = "server restarted"


def join(state: State, command: JoinNode, at: Moment, settings: Settings) -> Facts:
    """A node offers its devices.

    Raises:
        NameTaken: another server holds the name and was heard lately.
        UsageError: a value out of bounds, or the pool is full of nodes.
    """
    check_join(command)
    joined = NodeJoined(
        node_name=command.node_name,
        boot_id=command.boot_id,
        address=command.address,
        devices=tuple(sorted(command.devices, key=lambda device: device.index)),
        version=command.version,
        labels=tuple(sorted(command.labels)),
        at_s=at.wall_s,
    )
    known = state.nodes.get(command.node_name)
    if known is None:
        return [*room(state, at, settings), joined]
    if known.boot_id == command.boot_id:
        return _rejoin(known, joined)
    if known.address != command.address:
        _refuse_if_taken(state, known, at, settings)
    ends: Facts = [
        _end_of(lease, RESTARTED, at) for lease in state.leases_on(command.node_name)
    ]
    return [*ends, joined]


def _rejoin(known: NodeJoined, joined: NodeJoined) -> Facts:
    """The same server process again; its leases go on."""
    before = (known.address, known.devices, known.labels)
    if before != (joined.address, joined.devices, joined.labels):
        raise UsageError(
            f"node {known.node_name} has joined with other devices, labels or another"
            " address under this boot_id: a server that changes them needs a new one"
        )
    return [NodeHeard(node_name=joined.node_name)]


def _refuse_if_taken(
    state: State, known: NodeJoined, at: Moment, settings: Settings
) -> None:
    name = known.node_name
    if state.may_be_alive(name, at.now_ns, settings.dead_after_ms):
        silence_s = state.silence_ms(name, at.now_ns) / 1000
        raise NameTaken(
            f"the node name {name} belongs to the server at {known.address}, heard"
            f" {silence_s:.1f} s ago: choose another name, or stop that server and"
            f" wait {settings.dead_after_ms / 1000:g} s"
        )


def must_rejoin(state: State, command: TakeHeartbeat) -> bool:
    """Whether a heartbeat comes from a server process that has not joined."""
    known = state.nodes.get(command.node_name)
    return known is None or known.boot_id != command.boot_id


def heartbeat(state: State, command: TakeHeartbeat, at: Moment) -> Facts:
    """A node that has joined (``must_rejoin`` is false) lives.

    Raises:
        UsageError: a value out of bounds.
    """
    devices = state.nodes[command.node_name].devices
    check_heartbeat(command, frozenset(device.index for device in devices))
    ends: dict[str, LeaseEnded] = {}
    for ended in command.ended:
        lease = state.leases.get(ended.lease_id)
        if lease is not None and _may_end(command.node_name, ended, lease):
            ends[lease.lease_id] = _end_of(lease, ended.reason or "ended by node", at)
    heard = NodeHeard(
        node_name=command.node_name, loads=command.loads, sessions=command.sessions
    )
    return [*ends.values(), heard]


def _may_end(node_name: str, ended: EndedByNode, lease: LeaseGranted) -> bool:
    """A node may end what is its own, not what has moved on."""
    return lease.node_name == node_name and lease.epoch == ended.epoch


def is_as_granted(
    lease: LeaseGranted | None,
    session: SessionHead | SessionReport,
    node_name: str,
) -> bool:
    """Whether a session is what nearly all are: of a live lease as it was granted.

    Of all others there is something to judge, or to tell their node.
    """
    return (
        lease is not None
        and lease.epoch == session.epoch
        and lease.node_name == node_name
        and not lease.slice_number
    )


class SessionVerdict(NamedTuple):
    """What the registry makes of the sessions that a node reports."""

    to_end: dict[str, str]
    """Lease id to reason: sessions that have no right to be there."""

    unknown: list[str]
    """Lease ids that this registry never saw, or has forgotten: left alone."""


def judge_sessions(
    state: State, node_name: str, sessions: tuple[SessionReport, ...]
) -> SessionVerdict:
    """Which sessions must end, as the state is now."""
    verdict = SessionVerdict({}, [])
    for session in sessions:
        lease = state.leases.get(session.lease_id)
        ended = state.ended.get(session.lease_id)
        if lease is None and ended is None:
            verdict.unknown.append(session.lease_id)
        elif lease is None:
            assert ended is not None
            verdict.to_end[session.lease_id] = ended.reason
        elif lease.node_name != node_name:
            verdict.to_end[session.lease_id] = f"the lease is on {lease.node_name}"
        elif session.epoch < lease.epoch:
            verdict.to_end[session.lease_id] = f"epoch {lease.epoch} took its place"
    return verdict


def acquire(
    state: State,
    command: AcquireLease,
    lease_id: str,
    at: Moment,
    settings: Settings,
) -> LeaseGranted:
    """A client gets a slice of the device that suits best.

    Raises:
        NoCapacity: none fits; the text lists what is free.
        UsageError: a value out of bounds.
    """
    command_of_one = AcquireGroup(slice=command, device_count=1)
    return acquire_group(state, command_of_one, [lease_id], at, settings)[0]


def acquire_group(
    state: State,
    command: AcquireGroup,
    lease_ids: Sequence[str],
    at: Moment,
    settings: Settings,
) -> list[LeaseGranted]:
    """A client gets a slice of each of several devices, on as few nodes as can be.

    The leases are stored together and then live each for itself: one may end while
    the others go on.

    Args:
        state: as it is.
        command: how many, and how large.
        lease_ids: one for each device; the first names the group.
        at: now.
        settings: the registry's.

    Raises:
        NoCapacity: not so many devices have that much free; nothing is taken.
        UsageError: a value out of bounds.
    """
    request = request_from(command, "", at, settings)
    assert len(lease_ids) == command.device_count
    assert not state.leases.keys() & set(lease_ids), "ids are random, never twice"
    ids = iter(lease_ids)
    plan = schedule(
        state, at, settings, lambda: next(ids), extra=request, only_extra=True
    )
    if "" not in plan.granted:
        raise NoCapacity(refusal_of(state, request, plan.reasons[""], at, settings))
    return plan.granted[""]


def renew(state: State, command: RenewLease, at: Moment) -> LeaseRenewed:
    """A lease's holder lives.

    Raises:
        LeaseExpired: it has ended or run out.
        LeaseUnknown: it was never given, or ended too long ago to be remembered.
        EpochStale: a newer epoch exists.
    """
    lease = state.leases.get(command.lease_id)
    if lease is None:
        ended = state.ended.get(command.lease_id)
        if ended is None:
            raise _unknown(command.lease_id)
        raise LeaseExpired(
            f"lease {command.lease_id} ended {at.wall_s - ended.at_s:.0f} s ago"
            f" ({ended.reason}): acquire a new one"
        )
    _check_epoch(lease, command.epoch)
    if state.deadlines_ns[lease.lease_id] <= at.now_ns:
        raise LeaseExpired(
            f"lease {lease.lease_id} was not renewed within its"
            f" {lease.ttl_ms / 1000:g} s: acquire a new one"
        )
    return LeaseRenewed(lease_id=lease.lease_id)


def release(state: State, command: ReleaseLease, at: Moment) -> LeaseEnded | None:
    """A holder gives its slice back; None if that was done before.

    Raises:
        LeaseUnknown: it was never given, or ended too long ago to be remembered.
        EpochStale: a newer epoch exists, and this holder has no say in it.
        UsageError: the reason is out of bounds.
    """
    check_text("reason", command.reason, MAX_TEXT_CHARS, may_be_empty=True)
    lease = state.leases.get(command.lease_id)
    if lease is None:
        if command.lease_id not in state.ended:
            raise _unknown(command.lease_id)
        return None
    _check_epoch(lease, command.epoch)
    return _end_of(lease, command.reason or RELEASED, at)


def expire(state: State, at: Moment) -> list[LeaseEnded]:
    """Leases whose time has run out, or that reached their limit."""
    ends: dict[str, LeaseEnded] = {}
    for lease in state.due(at.now_ns):
        limit_ns = state.limits_ns.get(lease.lease_id)
        is_at_limit = limit_ns is not None and limit_ns <= at.now_ns
        reason = (
            f"{TIME_LIMIT} of {lease.limit_ms / 1000:g} s" if is_at_limit else EXPIRED
        )
        notice = state.notices.get(lease.lease_id)
        if notice is not None and notice.until_ns <= at.now_ns:
            reason = notice.event.reason
        ends[lease.lease_id] = _end_of(lease, reason, at)
    return list(ends.values())


def _end_of(lease: LeaseGranted, reason: str, at: Moment) -> LeaseEnded:
    return LeaseEnded(
        lease_id=lease.lease_id, epoch=lease.epoch, reason=reason, at_s=at.wall_s
    )


def _unknown(lease_id: str) -> LeaseUnknown:
    return LeaseUnknown(f"this registry has no lease {lease_id[:40]!r}")


def _check_epoch(lease: LeaseGranted, epoch: int) -> None:
    if epoch < lease.epoch:
        raise EpochStale(
            f"lease {lease.lease_id} has epoch {lease.epoch} by now: the holder of"
            f" epoch {epoch} has lost it"
        )
    if epoch > lease.epoch:
        raise LeaseUnknown(
            f"epoch {epoch} of lease {lease.lease_id} was never given out"
        )
