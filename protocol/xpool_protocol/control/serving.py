"""Listens for gRPC calls and hands each, typed, to a ``RegistryHandler``.

The handler is plain Python: a request in, a reply out, a ``PoolError`` for a
refusal. Sockets, threads and status codes stay on this side.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import grpc

from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control import admin_pb2_grpc, registry_pb2_grpc
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.credentials import token_of_metadata
from xpool_protocol.control.rpc import MESSAGE_OPTIONS, status_from_error
from xpool_protocol.errors import PoolError, UsageError

# A call holds a thread for as long as one write to disk; the handler takes them one
# at a time anyway.
_THREADS = 16

_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    # Otherwise Linux lets two registries share one port, each with half the calls.
    ("grpc.so_reuseport", 0),
)


class Call(NamedTuple):
    """What somebody asks, before it is answered."""

    method: str
    request: Any
    token: str
    """As it was shown; empty: none."""

    peer: str
    """gRPC's word for where it comes from."""


class RegistryHandler(Protocol):
    """What a registry answers. Called from several threads at once."""

    def admit(self, call: Call) -> Any:
        """The request as its caller may make it, or a ``PoolError``."""

    def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """A node offers its devices."""

    def heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatReply:
        """A node is alive."""

    def acquire(self, request: pb.AcquireRequest) -> pb.Lease:
        """A client asks for a slice."""

    def acquire_group(self, request: pb.AcquireGroupRequest) -> pb.LeaseGroup:
        """A client asks for slices of several devices."""

    def cancel(self, request: pb.CancelRequest) -> pb.CancelReply:
        """A client leaves the queue."""

    def renew(self, request: pb.RenewRequest) -> pb.Lease:
        """A lease's holder is alive."""

    def release(self, request: pb.ReleaseRequest) -> pb.ReleaseReply:
        """A lease's holder is done."""

    def list_nodes(self, request: pb.ListNodesRequest) -> pb.ListNodesReply:
        """All nodes."""

    def list_devices(self, request: pb.ListDevicesRequest) -> pb.ListDevicesReply:
        """All devices."""

    def list_leases(self, request: pb.ListLeasesRequest) -> pb.ListLeasesReply:
        """All live leases."""

    def resize(self, request: pb.ResizeRequest) -> pb.ResizeReply:
        """An admin changes a running job's slice."""

    def unexpected(self, error: Exception) -> None:
        """A call failed for a reason that is a bug: log it, with its traceback."""


class AdminHandler(Protocol):
    """What a registry answers admins. Called from several threads at once."""

    def list_queue(self, request: admin.ListQueueRequest) -> admin.ListQueueReply:
        """All that wait."""

    def list_tenants(self, request: admin.ListTenantsRequest) -> admin.ListTenantsReply:
        """All that hold something, wait or are known."""

    def set_tenant(self, request: admin.Tenant) -> admin.SetTenantReply:
        """Decide on a tenant."""

    def remove_tenant(
        self, request: admin.RemoveTenantRequest
    ) -> admin.RemoveTenantReply:
        """Forget what was decided."""

    def cordon(self, request: admin.CordonRequest) -> admin.CordonReply:
        """No new leases for a node."""

    def uncordon(self, request: admin.UncordonRequest) -> admin.CordonReply:
        """New leases again."""

    def evict(self, request: admin.EvictRequest) -> admin.EvictReply:
        """Take a lease from its holder."""

    def explain(self, request: admin.ExplainRequest) -> admin.Explanation:
        """Why a lease is where it is, or why a request waits."""

    def what_if(self, request: pb.AcquireGroupRequest) -> admin.Explanation:
        """What a request would get."""

    def list_events(self, request: admin.ListEventsRequest) -> admin.ListEventsReply:
        """What has happened."""

    def list_usage(self, request: admin.ListUsageRequest) -> admin.ListUsageReply:
        """Who has used how much."""

    def create_token(self, request: admin.CreateTokenRequest) -> admin.CreateTokenReply:
        """Make a token."""

    def list_tokens(self, request: admin.ListTokensRequest) -> admin.ListTokensReply:
        """Those that are not revoked."""

    def revoke_token(self, request: admin.RevokeTokenRequest) -> admin.RevokeTokenReply:
        """Good for nothing from now on."""


class _AdminServicer:
    """gRPC's view of an admin handler."""

    def __init__(
        self,
        handler: AdminHandler,
        admit: Callable[[Call], Any],
        unexpected: Callable[[Exception], None],
    ) -> None:
        adapt = _adapter(admit, unexpected)
        self.ListQueue = adapt(handler.list_queue)
        self.ListTenants = adapt(handler.list_tenants)
        self.SetTenant = adapt(handler.set_tenant)
        self.RemoveTenant = adapt(handler.remove_tenant)
        self.Cordon = adapt(handler.cordon)
        self.Uncordon = adapt(handler.uncordon)
        self.Evict = adapt(handler.evict)
        self.Explain = adapt(handler.explain)
        self.WhatIf = adapt(handler.what_if)
        self.ListEvents = adapt(handler.list_events)
        self.ListUsage = adapt(handler.list_usage)
        self.CreateToken = adapt(handler.create_token)
        self.ListTokens = adapt(handler.list_tokens)
        self.RevokeToken = adapt(handler.revoke_token)


class _Servicer:
    """gRPC's view of a handler: same methods, other names and errors."""

    def __init__(self, handler: RegistryHandler) -> None:
        adapt = _adapter(handler.admit, handler.unexpected)
        self.Join = adapt(handler.join)
        self.Heartbeat = adapt(handler.heartbeat)
        self.Acquire = adapt(handler.acquire)
        self.AcquireGroup = adapt(handler.acquire_group)
        self.Cancel = adapt(handler.cancel)
        self.Renew = adapt(handler.renew)
        self.Release = adapt(handler.release)
        self.ListNodes = adapt(handler.list_nodes)
        self.ListDevices = adapt(handler.list_devices)
        self.ListLeases = adapt(handler.list_leases)
        self.Resize = adapt(handler.resize)


def _adapter(
    admit: Callable[[Call], Any], unexpected: Callable[[Exception], None]
) -> Callable[[Callable[[Any], Any]], Callable[[Any, Any], Any]]:
    def adapt(method: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        name = "".join(part.title() for part in method.__name__.split("_"))

        def call(request: Any, context: Any) -> Any:
            try:
                token = token_of_metadata(dict(context.invocation_metadata()))
                return method(admit(Call(name, request, token, context.peer())))
            except PoolError as error:
                status = status_from_error(error)
                context.set_trailing_metadata(status.metadata)
            except Exception as error:  # noqa: BLE001  a bug must not end the registry
                unexpected(error)
                return context.abort(
                    grpc.StatusCode.INTERNAL,
                    "the registry failed inside: its log has the details",
                )
            return context.abort(status.code, status.details)

        return call

    return adapt


class TlsFiles(NamedTuple):
    """What a registry shows its callers, in PEM form."""

    certificate_pem: bytes
    key_pem: bytes


class RegistryServer:
    """Holds its port from construction, answers from ``start`` until ``stop``.

    Attributes:
        port: the real one, also when 0 was asked for.
    """

    def __init__(self, host: str, port: int, tls: TlsFiles | None = None) -> None:
        """Take ``host:port``; port 0 is any free one.

        Args:
            host: to listen on.
            port: to listen on.
            tls: encrypts all calls; None: they go in clear.

        Raises:
            UsageError: nothing can listen there: in use, not ours, not allowed.
        """
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="registry-call")
        self._server: Any = grpc.server(pool, options=_OPTIONS)
        try:
            if tls is None:
                bound = self._server.add_insecure_port(f"{host}:{port}")
            else:
                pair = (tls.key_pem, tls.certificate_pem)
                bound = self._server.add_secure_port(
                    f"{host}:{port}", grpc.ssl_server_credentials([pair])
                )
            self.port = int(bound)
        except RuntimeError as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: the address is in use or is not one"
                " of this machine's; choose another with --listen"
            ) from error

    def start(
        self, handler: RegistryHandler, admin_handler: AdminHandler | None = None
    ) -> None:
        """Answer calls from now on; without an admin's handler not those of admins."""
        if admin_handler is not None:
            admin_pb2_grpc.add_PoolAdminServicer_to_server(  # type: ignore[no-untyped-call]
                _AdminServicer(admin_handler, handler.admit, handler.unexpected),
                self._server,
            )
        registry_pb2_grpc.add_PoolRegistryServicer_to_server(  # type: ignore[no-untyped-call]
            _Servicer(handler), self._server
        )
        self._server.start()

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, let running ones end within ``grace_s``, then close."""
        self._server.stop(grace_s).wait()
