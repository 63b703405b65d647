"""What the wire says and what the registry means by it, field by field.

No decisions here: a request becomes a command, an answer becomes a reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.serving import Answering, Call

from xpool_registry import commands, events, observations
from xpool_registry.accounting import Second
from xpool_registry.demand import Constraints
from xpool_registry.registry import (
    DeviceView,
    HeldLease,
    NodeView,
    QueuePlace,
    Registry,
)
from xpool_registry.reports import LateReports, SessionHead
from xpool_registry.resizing import ResizeLease

MAX_KEPT_NBYTES: Final = 1 << 16
"""Of a heartbeat: two hundred sessions. Of longer ones what is needed is copied."""

_log = structlog.get_logger(__name__)


class RegistryService:
    """A ``RegistryHandler`` in front of one ``Registry``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """A node offers its devices."""
        self._registry.join(
            commands.JoinNode(
                node_name=request.node_name,
                boot_id=request.boot_id,
                address=request.address,
                devices=tuple(_device_from_wire(device) for device in request.devices),
                version=request.version,
                labels=tuple(sorted(request.labels.items())),
            )
        )
        return pb.JoinReply(
            public_key=self._registry.public_key,
            heartbeat_interval_ms=self._registry.settings.heartbeat_interval_ms,
            registry_id=self._registry.registry_id,
            door_key=self._registry.door_key,
        )

    def heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatReply:
        """A node is alive."""
        answer = self._registry.heartbeat(
            commands.TakeHeartbeat(
                node_name=request.node_name,
                boot_id=request.boot_id,
                loads=tuple(_load_from_wire(load) for load in request.loads),
                sessions=_sessions_from_wire(request),
                ended=tuple(_ended_from_wire(ended) for ended in request.ended),
                usage=tuple(_usage_from_wire(request, self._registry.charged_s)),
            )
        )
        return pb.HeartbeatReply(
            must_rejoin=answer.must_rejoin,
            end_leases=[
                pb.LeaseToEnd(lease_id=lease_id, reason=reason)
                for lease_id, reason in answer.to_end.items()
            ],
            slices=[
                pb.SliceOfLease(
                    lease_id=lease.lease_id,
                    epoch=lease.epoch,
                    share_percent=lease.share_percent,
                    memory_nbytes=lease.memory_nbytes,
                    mode=lease.mode,
                    priority=lease.priority,
                    number=lease.slice_number,
                )
                for lease in answer.resized
            ],
            next_heartbeat_ms=answer.next_ms,
            usage_stored_s=answer.stored_s,
        )

    def resize(self, request: pb.ResizeRequest) -> pb.ResizeReply:
        """An admin changes a running job's slice."""
        held = self._registry.resize(
            ResizeLease(
                lease_id=request.lease_id,
                share_percent=request.share_percent,
                memory_nbytes=request.memory_nbytes,
                mode=request.mode,
                priority=request.priority,
            )
        )
        return pb.ResizeReply(
            lease=_wire_from_lease(held), number=held.lease.slice_number
        )

    def acquire(self, request: pb.AcquireRequest) -> pb.Lease:
        """A client asks for a slice."""
        with self._timed():
            return _wire_from_lease(self._registry.acquire(_wish_from_wire(request)))

    def acquire_group(self, request: pb.AcquireGroupRequest) -> pb.LeaseGroup:
        """A client asks for slices of several devices."""
        with self._timed():
            answer = self._registry.ask(group_from_wire(request))
        return pb.LeaseGroup(
            leases=[_wire_from_lease(held) for held in answer.leases],
            queue=_wire_from_place(answer.place) if answer.place else None,
        )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """The wait for the registry's lock is in it."""
        began_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self._registry.decisions.add(time.perf_counter_ns() - began_ns)

    def cancel(self, request: pb.CancelRequest) -> pb.CancelReply:
        """A client leaves the queue."""
        command = commands.CancelRequest(ticket=request.ticket)
        return pb.CancelReply(was_live=self._registry.cancel(command))

    def renew(self, request: pb.RenewRequest) -> pb.Lease:
        """A lease's holder is alive."""
        command = commands.RenewLease(lease_id=request.lease_id, epoch=request.epoch)
        return _wire_from_lease(self._registry.renew(command))

    def release(self, request: pb.ReleaseRequest) -> pb.ReleaseReply:
        """A lease's holder is done."""
        command = commands.ReleaseLease(
            lease_id=request.lease_id, epoch=request.epoch, reason=request.reason
        )
        return pb.ReleaseReply(was_live=self._registry.release(command))

    def list_nodes(self, request: pb.ListNodesRequest) -> pb.ListNodesReply:
        """All nodes."""
        del request  # has no fields yet
        return pb.ListNodesReply(
            nodes=[_wire_from_node(view) for view in self._registry.nodes()]
        )

    def list_devices(self, request: pb.ListDevicesRequest) -> pb.ListDevicesReply:
        """All devices."""
        del request
        return pb.ListDevicesReply(
            devices=[_wire_from_device(view) for view in self._registry.devices()]
        )

    def list_leases(self, request: pb.ListLeasesRequest) -> pb.ListLeasesReply:
        """All live leases."""
        del request
        return pb.ListLeasesReply(
            leases=[_wire_from_held(held) for held in self._registry.leases()]
        )

    def begin(self) -> Answering:
        """A call comes in."""
        return self._registry.begin()

    def admit(self, call: Call) -> Any:
        """The request as its caller may make it."""
        return self._registry.admit(call.method, call.request, call.token, call.peer)

    def unexpected(self, error: Exception) -> None:
        """A bug: the caller is told so, the log gets the traceback."""
        _log.error("call failed", exc_info=error)


def group_from_wire(request: pb.AcquireGroupRequest) -> commands.AcquireGroup:
    """A client's wish."""
    wanted = request.wanted
    return commands.AcquireGroup(
        slice=_wish_from_wire(request.slice),
        device_count=request.device_count,
        policy=request.policy or "auto",
        same_node=request.same_node,
        constraints=Constraints(
            kind=wanted.kind,
            model=wanted.model,
            architecture=wanted.architecture,
            min_memory_nbytes=wanted.min_memory_nbytes,
            labels=tuple(sorted(wanted.labels.items())),
            node_name=wanted.node_name,
            max_rtt_us=request.max_rtt_us,
            distances=tuple(
                sorted({one.node_name: one.rtt_us for one in request.distances}.items())
            ),
        ),
        apart=request.apart,
        near=request.near,
        close_by=request.close_by,
        ticket=request.ticket,
        wait_ms=request.wait_ms,
        limit_ms=request.limit_ms,
    )


def _wire_from_place(place: QueuePlace) -> pb.QueuePlace:
    return pb.QueuePlace(
        request_id=place.request.request_id,
        place=place.place,
        waiting_count=place.waiting_count,
        reason=place.reason,
        starts_at_s=place.starts_at_s,
        ask_again_ms=place.ask_again_ms,
        waited_ms=place.waited_ms,
    )


def _wish_from_wire(request: pb.AcquireRequest) -> commands.AcquireLease:
    return commands.AcquireLease(
        tenant=request.tenant,
        share_percent=request.share_percent,
        memory_nbytes=request.memory_nbytes,
        ttl_ms=request.ttl_ms,
        mode=request.mode,
        client=request.client,
        priority=request.priority or "normal",
        min_share_percent=request.min_share_percent,
    )


def _device_from_wire(device: pb.Device) -> events.Device:
    return events.Device(
        index=device.index,
        kind=device.kind,
        name=device.name,
        memory_nbytes=device.memory_nbytes,
        architecture=device.architecture,
    )


def _load_from_wire(load: pb.DeviceLoad) -> observations.DeviceLoad:
    return observations.DeviceLoad(
        index=load.index,
        used_nbytes=load.used_nbytes,
        busy_percent=load.busy_percent,
        session_count=load.session_count,
    )


def _sessions_from_wire(
    request: pb.HeartbeatRequest,
) -> Sequence[observations.SessionReport]:
    sessions = request.sessions
    # A request that is kept is kept with all that stands in it.
    if request.ByteSize() > MAX_KEPT_NBYTES:
        return tuple(map(_session_from_wire, sessions))
    heads = tuple(
        [
            SessionHead(
                one.lease_id,
                one.epoch,
                one.state,
                one.allocated_nbytes,
                one.refusal,
                one.slice_number,
            )
            for one in sessions
        ]
    )
    return LateReports(sessions, heads, _session_from_wire)


def _session_from_wire(session: pb.SessionReport) -> observations.SessionReport:
    return observations.SessionReport(
        lease_id=session.lease_id,
        epoch=session.epoch,
        state=session.state,
        executed_ops=session.executed_ops,
        allocated_nbytes=session.allocated_nbytes,
        received_nbytes=session.received_nbytes,
        share_percent=session.share_percent,
        memory_nbytes=session.memory_nbytes,
        mode=session.mode,
        priority=session.priority,
        refusal=session.refusal,
        slice_number=session.slice_number,
        device_ns=session.device_ns,
        waiting_ns=session.waiting_ns,
        held_ns=session.held_ns,
        sent_nbytes=session.sent_nbytes,
        longest_hold_ns=session.longest_hold_ns,
        got_percent=session.got_percent,
        overhead_nbytes=session.overhead_nbytes,
    )


def _usage_from_wire(
    request: pb.HeartbeatRequest, charged_s: Callable[[str], int]
) -> Iterator[tuple[str, tuple[Second, ...]]]:
    """Of each session the seconds that are new, and its last one in any case.

    Nodes tell them again until they are stored; most have been charged before.
    """
    last = [one.last for one in request.ended if one.HasField("last")]
    for session in (*request.sessions, *last):
        usage = session.usage
        first = len(usage) - 1
        if first < 0:
            continue
        lease_id = session.lease_id
        if not first:
            yield lease_id, (_second_from_wire(usage[0]),)
            continue
        charged = charged_s(lease_id)
        while first > 0 and usage[first - 1].at_s > charged:
            first -= 1
        yield lease_id, tuple(map(_second_from_wire, usage[first:]))


def _second_from_wire(one: pb.UsageSecond) -> Second:
    return Second(  # by place: there are ten thousand in a second
        one.at_s,
        one.device_ns,
        one.waiting_ns,
        one.executed_ops,
        one.received_nbytes,
        one.sent_nbytes,
        one.allocated_nbytes,
    )


def _ended_from_wire(ended: pb.EndedLease) -> commands.EndedByNode:
    return commands.EndedByNode(
        lease_id=ended.lease_id, epoch=ended.epoch, reason=ended.reason
    )


def _wire_from_lease(held: HeldLease) -> pb.Lease:
    lease = held.lease
    return pb.Lease(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        token=held.token,
        node_name=lease.node_name,
        address=held.node.address,
        device_index=lease.device_index,
        device_kind=held.device.kind,
        device_name=held.device.name,
        share_percent=lease.share_percent,
        memory_nbytes=lease.memory_nbytes,
        mode=lease.mode,
        ttl_ms=held.ttl_ms,
        expires_in_ms=held.expires_in_ms,
        group_id=lease.group_id,
        priority=lease.priority,
        limit_ms=lease.limit_ms,
        notice=held.notice,
        leaves_in_ms=held.leaves_in_ms,
    )


def _wire_from_held(held: HeldLease) -> pb.LeaseInfo:
    return pb.LeaseInfo(
        lease=_wire_from_lease(held),
        tenant=held.lease.tenant,
        client=held.lease.client,
        granted_at_s=held.lease.at_s,
        session=_wire_from_session(held.session) if held.session else None,
    )


def _wire_from_session(session: observations.SessionReport) -> pb.SessionReport:
    return pb.SessionReport(
        lease_id=session.lease_id,
        epoch=session.epoch,
        state=session.state,
        executed_ops=session.executed_ops,
        allocated_nbytes=session.allocated_nbytes,
        received_nbytes=session.received_nbytes,
        share_percent=session.share_percent,
        memory_nbytes=session.memory_nbytes,
        mode=session.mode,
        priority=session.priority,
        refusal=session.refusal,
        slice_number=session.slice_number,
        device_ns=session.device_ns,
        waiting_ns=session.waiting_ns,
        held_ns=session.held_ns,
        sent_nbytes=session.sent_nbytes,
        longest_hold_ns=session.longest_hold_ns,
        got_percent=session.got_percent,
        overhead_nbytes=session.overhead_nbytes,
    )


def _wire_from_node(view: NodeView) -> pb.NodeInfo:
    return pb.NodeInfo(
        node_name=view.node.node_name,
        boot_id=view.node.boot_id,
        address=view.node.address,
        version=view.node.version,
        alive=view.is_alive,
        heard_ms_ago=view.silence_ms,
        device_count=len(view.node.devices),
        lease_count=view.lease_count,
        closed=view.closed,
    )


def _wire_from_device(view: DeviceView) -> pb.DeviceInfo:
    device, load = view.device, view.load
    return pb.DeviceInfo(
        node_name=view.offer.node_name,
        device=pb.Device(
            index=device.index,
            kind=device.kind,
            name=device.name,
            memory_nbytes=device.memory_nbytes,
        ),
        alive=view.offer.silence_ms is None,
        free_share_percent=view.offer.free_share_percent,
        free_memory_nbytes=view.offer.free_nbytes,
        lease_count=view.lease_count,
        load=pb.DeviceLoad(
            index=load.index,
            used_nbytes=load.used_nbytes,
            busy_percent=load.busy_percent,
            session_count=load.session_count,
        )
        if load
        else None,
    )
