"""Slices of running jobs that change: what an admin may ask, and what a node answers.

The registry decides whether it fits; the node applies it, and alone knows what a job
has in use at that moment. It says with its next heartbeat what is in force. If it could
not follow, the lease goes back to that. Pure, as ``decide.py`` is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xpool_protocol.errors import LeaseUnknown, NoCapacity, UsageError
from xpool_protocol.quantities import MAX_NBYTES, text_from_nbytes

from xpool_registry.bounds import MODES, check_number
from xpool_registry.commands import Moment
from xpool_registry.events import LeaseGranted, LeaseResized
from xpool_registry.known import Held
from xpool_registry.observations import SessionReport
from xpool_registry.state import State

PRIORITIES = ("low", "normal", "high")

FEW_NODES = 64
"""Up to so many nodes send their heartbeats often enough for a quick resize."""

QUICK_HEARTBEAT_MS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeLease:
    """Give a running job another slice; 0 and empty leave a part as it is."""

    lease_id: str
    share_percent: int = 0
    memory_nbytes: int = 0
    mode: str = ""
    priority: str = ""


def check_resize(command: ResizeLease) -> None:
    """An admin's wish, against its bounds."""
    check_number("share_percent", command.share_percent, 0, 100)
    check_number("memory_nbytes", command.memory_nbytes, 0, MAX_NBYTES)
    if command.mode and command.mode not in MODES:
        raise UsageError(f"mode is {command.mode[:40]!r}; it must be elastic or capped")
    if command.priority and command.priority not in PRIORITIES:
        raise UsageError(
            f"priority is {command.priority[:40]!r}; it must be low, normal or high"
        )


def resize(state: State, command: ResizeLease, at: Moment) -> LeaseResized:
    """A running job's slice changes.

    Raises:
        LeaseUnknown: no such lease is live.
        NoCapacity: its device has not so much left, or it uses more memory than
            that; the text has the figures.
        UsageError: a value out of bounds.
    """
    check_resize(command)
    lease = state.leases.get(command.lease_id)
    if lease is None:
        raise LeaseUnknown(f"no lease {command.lease_id[:40]!r} is live")
    resized = LeaseResized(
        lease_id=lease.lease_id,
        number=lease.slice_number + 1,
        share_percent=command.share_percent or lease.share_percent,
        memory_nbytes=command.memory_nbytes or lease.memory_nbytes,
        mode=command.mode or lease.mode,
        priority=command.priority or lease.priority,
        # An admin's word stands: it does not grow back by itself.
        wish_percent=command.share_percent if lease.min_share_percent else 0,
        is_memory_named=command.memory_nbytes != 0,
        at_s=at.wall_s,
    )
    _check_room(state, lease, resized)
    _check_use(state, lease, resized)
    return resized


def _check_room(state: State, lease: LeaseGranted, resized: LeaseResized) -> None:
    held = state.held().get((lease.node_name, lease.device_index), Held())
    device = state.device(lease.node_name, lease.device_index)
    name = f"{lease.node_name}/{lease.device_index}"
    others_percent = held.share_percent - lease.share_percent
    others_nbytes = held.memory_nbytes - lease.memory_nbytes
    if others_percent + resized.share_percent > 100:
        raise NoCapacity(
            f"{resized.share_percent}% do not fit {name}: others hold"
            f" {others_percent}% of it"
        )
    if others_nbytes + resized.memory_nbytes > device.memory_nbytes:
        raise NoCapacity(
            f"{text_from_nbytes(resized.memory_nbytes)} do not fit {name}: others hold"
            f" {text_from_nbytes(others_nbytes)} of its"
            f" {text_from_nbytes(device.memory_nbytes)}"
        )


def _check_use(state: State, lease: LeaseGranted, resized: LeaseResized) -> None:
    report = session_of(state, lease)
    if report is None or resized.memory_nbytes >= lease.memory_nbytes:
        return
    in_use = report.allocated_nbytes + report.overhead_nbytes
    if resized.memory_nbytes < in_use:
        raise NoCapacity(
            f"{text_from_nbytes(in_use)} ({in_use} bytes) are in use: the quota cannot"
            f" shrink to {text_from_nbytes(resized.memory_nbytes)}"
        )


def session_of(state: State, lease: LeaseGranted) -> SessionReport | None:
    """What its node has said of a lease's session last."""
    beat = state.beats.get(lease.node_name)
    if beat is None:
        return None
    return next((one for one in beat.sessions if one.lease_id == lease.lease_id), None)


def reconcile(
    state: State, sessions: Iterable[SessionReport], at: Moment
) -> tuple[list[LeaseGranted], list[LeaseResized]]:
    """What a node has yet to be told, and what it could not follow.

    Returns:
        Leases whose slice is to be told, and changes back to what is in force.
    """
    to_tell, backs = [], []
    for session in sessions:
        lease = state.leases.get(session.lease_id)
        if lease is None or lease.epoch != session.epoch or not lease.slice_number:
            continue
        if session.slice_number < lease.slice_number:
            to_tell.append(lease)
        elif session.slice_number == lease.slice_number and session.refusal:
            if _is_in_force(lease, session) or not _makes_sense(session):
                continue
            backs.append(
                LeaseResized(
                    lease_id=lease.lease_id,
                    number=lease.slice_number,
                    share_percent=session.share_percent,
                    memory_nbytes=session.memory_nbytes,
                    mode=session.mode,
                    priority=session.priority,
                    at_s=at.wall_s,
                )
            )
    return to_tell, backs


def _makes_sense(session: SessionReport) -> bool:
    return (
        1 <= session.share_percent <= 100
        and 0 < session.memory_nbytes <= MAX_NBYTES
        and session.mode in MODES
        and session.priority in PRIORITIES
    )


def _is_in_force(lease: LeaseGranted, session: SessionReport) -> bool:
    mine = (lease.share_percent, lease.memory_nbytes, lease.mode, lease.priority)
    theirs = (session.share_percent, session.memory_nbytes)
    return mine == (*theirs, session.mode, session.priority)
