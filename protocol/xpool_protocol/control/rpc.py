"""Calls to the registry, and errors on their way through gRPC.

Two translations happen here and nowhere else: a ``PoolError`` becomes a gRPC
status (``status_from_error``), and a failed call becomes a ``PoolError`` again
(``error_from_rpc``). gRPC publishes no types, so its ``Any`` stays in this file
and in ``serving.py``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import grpc

from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control import registry_pb2_grpc
from xpool_protocol.control.credentials import Credentials, from_environment
from xpool_protocol.control.routing import PAUSE_S, Route, addresses_from_text
from xpool_protocol.errors import (
    ClosedError,
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NameTaken,
    NoCapacity,
    NotLeader,
    PeerError,
    PoolError,
    RegistryUnreachable,
    TokenInvalid,
    UsageError,
)

Reply = TypeVar("Reply")

DEFAULT_ADDRESS = "127.0.0.1:7700"
CODE_KEY = "xpool-code"
LEADER_KEY = "xpool-leader"
"""Where a registry that does not lead tells who does."""

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
    ("grpc.max_reconnect_backoff_ms", 1000),
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
    (NotLeader, grpc.StatusCode.UNAVAILABLE),
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
    metadata = [(CODE_KEY, str(error.code))]
    if isinstance(error, NotLeader) and error.leader:
        metadata.append((LEADER_KEY, error.leader))
    return Status(code, details, tuple(metadata))


def error_from_rpc(error: Any, address: str) -> PoolError:
    """The ``PoolError`` behind a ``grpc.RpcError`` raised by a call to ``address``."""
    details = str(error.details() or "")
    told = {
        key: value
        for key, value in error.trailing_metadata() or ()
        if isinstance(value, str)
    }
    if told.get(CODE_KEY, "").isdecimal():
        known = PoolError.from_wire(int(told[CODE_KEY][:9]), details)
        if isinstance(known, NotLeader):
            known.leader = told.get(LEADER_KEY, "")
        return known
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
    if status is grpc.StatusCode.CANCELLED:  # not by us: we only close
        return RegistryUnreachable(
            f"the registry at {address} dropped the call: more calls wait there than it"
            " can keep; try again"
        )
    return PeerError(f"the registry at {address} broke the call: {status}, {details}")


def channel_to(address: str, credentials: Credentials) -> Any:
    """A ``grpc.Channel``, encrypted if an authority is known."""
    if credentials.ca_pem is None:
        return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    secure = grpc.ssl_channel_credentials(root_certificates=credentials.ca_pem)
    return grpc.secure_channel(address, secure, options=CHANNEL_OPTIONS)


class _RoutedChannel:
    """Looks like a ``grpc.Channel``; each call goes to the registry that leads."""

    def __init__(self, addresses: list[str], credentials: Credentials) -> None:
        self._credentials = credentials
        self._route = Route(addresses)
        self._channels: dict[str, Any] = {}
        self._methods: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def address(self) -> str:
        """Where the next attempt goes."""
        return self._route.current

    def unary_unary(self, path: str, *arguments: Any, **named: Any) -> Any:
        """A method of the service, for the generated stub."""

        def method_of(channel: Any) -> Any:
            return channel.unary_unary(path, *arguments, **named)

        def call(request: object, timeout: float) -> Any:
            deadline_s = time.monotonic() + timeout
            while True:
                address, method = self._current(path, method_of)
                try:
                    reply = method(
                        request,
                        timeout=deadline_s - time.monotonic(),
                        metadata=self._credentials.metadata(address),
                    )
                except grpc.RpcError as error:
                    if not self._goes_on(address, error, deadline_s):
                        raise
                else:
                    self._route.answered()
                    return reply

        return call

    def close(self) -> None:
        """Close all; later calls raise ``ValueError``, as gRPC's do."""
        with self._lock:
            self._is_closed = True
            channels = list(self._channels.values())
            self._channels.clear()
            self._methods.clear()
        for channel in channels:
            channel.close()

    def _current(self, path: str, method_of: Callable[[Any], Any]) -> tuple[str, Any]:
        with self._lock:
            if self._is_closed:
                raise ValueError("the connection to the registry was closed")
            address = self._route.current
            if address not in self._channels:
                self._channels[address] = channel_to(address, self._credentials)
            key = (address, path)
            if key not in self._methods:
                self._methods[key] = method_of(self._channels[address])
            return address, self._methods[key]

    def _goes_on(self, address: str, error: Any, deadline_s: float) -> bool:
        with self._lock:
            if self._route.current != address:
                return time.monotonic() < deadline_s  # another thread has turned
            meaning = error_from_rpc(error, address)
            if not self._route.may_go_on_after(meaning):
                return False
            should_pause = self._route.should_pause
        left_s = deadline_s - time.monotonic()
        if should_pause and left_s > PAUSE_S:
            time.sleep(PAUSE_S)
        return left_s > PAUSE_S


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
        self._channel: Any = _RoutedChannel(
            addresses_from_text(address), credentials or from_environment()
        )
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
