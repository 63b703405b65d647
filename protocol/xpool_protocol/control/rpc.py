"""Calls to the registry.

Errors come as the registry meant them (``statuses``), from the registry that leads
(``channels``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control import registry_pb2_grpc
from xpool_protocol.control.channels import CHANNEL_OPTIONS as CHANNEL_OPTIONS
from xpool_protocol.control.channels import MESSAGE_OPTIONS as MESSAGE_OPTIONS
from xpool_protocol.control.channels import RoutedChannel
from xpool_protocol.control.credentials import Credentials, from_environment
from xpool_protocol.control.heartbeats import HeartbeatLine
from xpool_protocol.control.routing import addresses_from_text
from xpool_protocol.control.statuses import MAX_DETAIL_CHARS as MAX_DETAIL_CHARS
from xpool_protocol.control.statuses import error_from_rpc
from xpool_protocol.control.statuses import status_from_error as status_from_error
from xpool_protocol.errors import ClosedError, UsageError

Reply = TypeVar("Reply")

DEFAULT_ADDRESS = "127.0.0.1:7700"


class RegistryClient:
    """A connection to a pool's registry; safe to share between threads.

    Nothing is sent before the first call. Each call blocks for at most ``timeout_s``.
    With one address it is tried once: whoever calls knows whether to try again. With
    several it goes to the one that leads, and round while they elect one.

    Every method raises ``RegistryUnreachable`` if nobody answers, ``UsageError``
    for a value out of range, and the errors it names.
    """

    def __init__(
        self,
        address: str,
        timeout_s: float = 5.0,
        credentials: Credentials | None = None,
    ) -> None:
        """Connect at the first call.

        Args:
            address: ``HOST:PORT``, or several with commas between.
            timeout_s: for a call.
            credentials: None: what the environment says.

        Raises:
            UsageError: no address.
        """
        self.address = address
        self._timeout_s = timeout_s
        self._channel: Any = RoutedChannel(
            addresses_from_text(address), credentials or from_environment()
        )
        self._stub: Any = registry_pb2_grpc.PoolRegistryStub(self._channel)  # type: ignore[no-untyped-call]
        self._line = HeartbeatLine(self._stub.Heartbeats, self._stub.Heartbeat)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; calls under way end as unreachable."""
        self._line.close()
        self._channel.close()

    def join(
        self,
        *,
        node_name: str,
        boot_id: str,
        address: str,
        devices: Sequence[pb.Device],
        version: str,
        labels: Mapping[str, str] | None = None,
    ) -> pb.JoinReply:
        """Offer a node's devices; the same ``boot_id`` twice is the same as once.

        Raises:
            NameTaken: another live server has joined under ``node_name``.
        """
        request = pb.JoinRequest(
            node_name=node_name,
            boot_id=boot_id,
            address=address,
            devices=devices,
            version=version,
            labels=labels or {},
        )
        return self._call(pb.JoinReply, self._stub.Join, request)

    def heartbeat(
        self,
        *,
        node_name: str,
        boot_id: str,
        loads: Sequence[pb.DeviceLoad] = (),
        sessions: Sequence[pb.SessionReport] = (),
        ended: Sequence[pb.EndedLease] = (),
    ) -> pb.HeartbeatReply:
        """Report life and load; learn which sessions have no lease any more.

        Over a stream that stays open, so from one thread at a time.
        ``ended`` may be sent again if the reply was lost.
        """
        request = pb.HeartbeatRequest(
            node_name=node_name,
            boot_id=boot_id,
            loads=loads,
            sessions=sessions,
            ended=ended,
        )
        return self._call(pb.HeartbeatReply, self._line.send, request)

    def acquire(
        self,
        *,
        tenant: str,
        share_percent: int,
        memory_nbytes: int = 0,
        ttl_ms: int = 0,
        mode: str = "elastic",
        client: str = "",
    ) -> pb.Lease:
        """Ask for a slice; 0 leaves memory and TTL to the registry.

        Raises:
            NoCapacity: no device has that much free; the text lists what is free.
        """
        request = pb.AcquireRequest(
            tenant=tenant,
            share_percent=_unsigned("share_percent", share_percent, 32),
            memory_nbytes=_unsigned("memory_nbytes", memory_nbytes, 64),
            ttl_ms=_unsigned("ttl_ms", ttl_ms, 64),
            mode=mode,
            client=client,
        )
        return self._call(pb.Lease, self._stub.Acquire, request)

    def acquire_group(
        self,
        *,
        tenant: str,
        share_percent: int,
        device_count: int,
        memory_nbytes: int = 0,
        ttl_ms: int = 0,
        mode: str = "elastic",
        client: str = "",
    ) -> list[pb.Lease]:
        """Ask for a slice of each of several different devices: all or none.

        Raises:
            NoCapacity: there are not so many devices with that much free.
        """
        wish = pb.AcquireRequest(
            tenant=tenant,
            share_percent=_unsigned("share_percent", share_percent, 32),
            memory_nbytes=_unsigned("memory_nbytes", memory_nbytes, 64),
            ttl_ms=_unsigned("ttl_ms", ttl_ms, 64),
            mode=mode,
            client=client,
        )
        request = pb.AcquireGroupRequest(
            slice=wish, device_count=_unsigned("device_count", device_count, 32)
        )
        return list(self._call(pb.LeaseGroup, self._stub.AcquireGroup, request).leases)

    def ask(self, request: pb.AcquireGroupRequest) -> pb.LeaseGroup:
        """As ``acquire_group``, but may wait: then the reply has a place in the queue.

        Ask again with the same ticket after ``queue.ask_again_ms``.

        Raises:
            NoCapacity: it may not wait, or waiting would never help.
            LeaseExpired: it left the queue, or its leases are over.
        """
        return self._call(pb.LeaseGroup, self._stub.AcquireGroup, request)

    def cancel(self, ticket: str) -> bool:
        """Leave the queue; gives back what was granted. True if there was any."""
        request = pb.CancelRequest(ticket=ticket)
        return self._call(pb.CancelReply, self._stub.Cancel, request).was_live

    def renew(self, lease_id: str, epoch: int) -> pb.Lease:
        """One more TTL, and a fresh token.

        Raises:
            LeaseExpired: it has ended; the text says why.
            LeaseUnknown: the registry never gave it.
            EpochStale: a newer epoch of the lease exists.
        """
        request = pb.RenewRequest(
            lease_id=lease_id, epoch=_unsigned("epoch", epoch, 64)
        )
        return self._call(pb.Lease, self._stub.Renew, request)

    def release(self, lease_id: str, epoch: int, reason: str = "") -> bool:
        """Give the slice back; true if the lease was live until now.

        Raises:
            LeaseUnknown: the registry never gave it.
            EpochStale: a newer epoch of the lease exists.
        """
        request = pb.ReleaseRequest(
            lease_id=lease_id, epoch=_unsigned("epoch", epoch, 64), reason=reason
        )
        return self._call(pb.ReleaseReply, self._stub.Release, request).was_live

    def list_nodes(self) -> list[pb.NodeInfo]:
        """Every node that ever joined, sorted by name."""
        request = pb.ListNodesRequest()
        return list(self._call(pb.ListNodesReply, self._stub.ListNodes, request).nodes)

    def list_devices(self) -> list[pb.DeviceInfo]:
        """Every device with what is free on it, sorted by node and index."""
        request = pb.ListDevicesRequest()
        return list(
            self._call(pb.ListDevicesReply, self._stub.ListDevices, request).devices
        )

    def list_leases(self) -> list[pb.LeaseInfo]:
        """Every live lease, oldest first, without tokens."""
        request = pb.ListLeasesRequest()
        return list(
            self._call(pb.ListLeasesReply, self._stub.ListLeases, request).leases
        )

    def resize(
        self,
        lease_id: str,
        *,
        share_percent: int = 0,
        memory_nbytes: int = 0,
        mode: str = "",
        priority: str = "",
    ) -> pb.ResizeReply:
        """Change a running job's slice; 0 and empty leave a part as it is.

        ``SessionReport.slice_number`` of ``list_leases`` is the reply's number once
        the job's server has followed, or said in ``refusal`` why it could not.

        Raises:
            LeaseUnknown: no such lease is live.
            NoCapacity: it does not fit, or more memory is in use.
        """
        request = pb.ResizeRequest(
            lease_id=lease_id,
            share_percent=_unsigned("share_percent", share_percent, 32),
            memory_nbytes=_unsigned("memory_nbytes", memory_nbytes, 64),
            mode=mode,
            priority=priority,
        )
        return self._call(pb.ResizeReply, self._stub.Resize, request)

    def _call(self, kind: type[Reply], method: Any, request: object) -> Reply:
        try:
            reply: Reply = method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._channel.address) from error
        except ValueError as error:
            raise ClosedError(
                f"the connection to the registry at {self.address} was closed"
            ) from error
        return reply


def _unsigned(name: str, value: int, bits: int) -> int:
    """The field's own range, said better than protobuf says it."""
    if not 0 <= value < 1 << bits:
        raise UsageError(f"{name} is {value}, which is negative or too large")
    return value
