"""Calls to the registry, and errors on their way through gRPC.

Two translations happen here and nowhere else: a ``PoolError`` becomes a gRPC
status (``status_from_error``), and a failed call becomes a ``PoolError`` again
(``error_from_rpc``). gRPC publishes no types, so its ``Any`` stays in this file
and in ``serving.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import grpc

from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control import registry_pb2_grpc
from xpool_protocol.errors import (
    ClosedError,
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NameTaken,
    NoCapacity,
    PeerError,
    PoolError,
    RegistryUnreachable,
    TokenInvalid,
    UsageError,
)

Reply = TypeVar("Reply")

DEFAULT_ADDRESS = "127.0.0.1:7700"
CODE_KEY = "xpool-code"

# 4 MiB: some 10,000 leases in one list, and far more than any other message.
MAX_MESSAGE_NBYTES = 4 << 20

# gRPC puts the sentence into a trailer, and trailers are limited to 8 KiB after
# percent-encoding, which makes three characters of one.
MAX_DETAIL_CHARS = 2000

MESSAGE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_NBYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    # A pool lies inside one network: a proxy for the web would only break it.
    ("grpc.enable_http_proxy", 0),
    # A registry that comes back must be found well within the shortest usual TTL.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Otherwise a new client would wait out the backoff of an earlier one.
    ("grpc.use_local_subchannel_pool", 1),
)

_STATUS: tuple[tuple[type[PoolError], Any], ...] = (
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (NoCapacity, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TokenInvalid, grpc.StatusCode.UNAUTHENTICATED),
    (LeaseUnknown, grpc.StatusCode.NOT_FOUND),
    (LeaseExpired, grpc.StatusCode.FAILED_PRECONDITION),
    (EpochStale, grpc.StatusCode.ABORTED),
    (NameTaken, grpc.StatusCode.ALREADY_EXISTS),
    (PoolError, grpc.StatusCode.INTERNAL),
)


class Status(NamedTuple):
    """What a refused call ends with."""

    code: Any
    """A ``grpc.StatusCode``, for tools that know only gRPC."""

    details: str
    metadata: tuple[tuple[str, str], ...]


def status_from_error(error: PoolError) -> Status:
    """How ``error`` leaves the registry."""
    code = next(code for kind, code in _STATUS if isinstance(error, kind))
    details = str(error)
    if len(details) > MAX_DETAIL_CHARS:
        details = details[: MAX_DETAIL_CHARS - 3] + "..."
    return Status(code, details, ((CODE_KEY, str(error.code)),))


def error_from_rpc(error: Any, address: str) -> PoolError:
    """The ``PoolError`` behind a ``grpc.RpcError`` raised by a call to ``address``."""
    details = str(error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == CODE_KEY and isinstance(value, str) and value.isdecimal():
            return PoolError.from_wire(int(value[:9]), details)
    status = error.code()
    if status is grpc.StatusCode.UNAVAILABLE:
        return RegistryUnreachable(
            f"no registry answers at {address}:"
            ' start one with "xpool registry" or "xpool up", or name another address'
        )
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RegistryUnreachable(
            f"the registry at {address} did not answer in time: if it is not running,"
            ' start one with "xpool registry" or "xpool up"'
        )
    return PeerError(f"the registry at {address} broke the call: {status}, {details}")


class RegistryClient:
    """A connection to one registry; safe to share between threads.

    Nothing is sent before the first call. Each call blocks for at most
    ``timeout_s`` and is tried once: whoever calls knows whether to try again.

    Every method raises ``RegistryUnreachable`` if nobody answers, ``UsageError``
    for a value out of range, and the errors it names.
    """

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._channel: Any = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub: Any = registry_pb2_grpc.PoolRegistryStub(self._channel)  # type: ignore[no-untyped-call]

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
        self._channel.close()

    def join(
        self,
        *,
        node_name: str,
        boot_id: str,
        address: str,
        devices: Sequence[pb.Device],
        version: str,
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

        ``ended`` may be sent again if the reply was lost.
        """
        request = pb.HeartbeatRequest(
            node_name=node_name,
            boot_id=boot_id,
            loads=loads,
            sessions=sessions,
            ended=ended,
        )
        return self._call(pb.HeartbeatReply, self._stub.Heartbeat, request)

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

    def _call(self, kind: type[Reply], method: Any, request: object) -> Reply:
        try:
            reply: Reply = method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address) from error
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
