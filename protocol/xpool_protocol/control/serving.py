"""Listens for gRPC calls and hands each, typed, to a ``RegistryHandler``.

The handler is plain Python: a request in, a reply out, a ``PoolError`` for a
refusal. Sockets, threads and status codes stay on this side.

One thread with an event loop serves everybody. What servers and clients ask is decided
in it, one call after the other, without any hand-over between threads; an answer then
waits, without holding anything up, until what was decided is kept (``Answering``).
What admins ask may look at all of a pool, and runs in a few threads beside.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import grpc
import grpc.aio

from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control import admin_pb2_grpc, registry_pb2_grpc
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.credentials import token_of_metadata
from xpool_protocol.control.rpc import MESSAGE_OPTIONS, status_from_error
from xpool_protocol.errors import PoolError, UsageError

# For admins' calls, which look at much and change little.
_THREADS = 4

# Called by every server each second and by every client of a pool: decided in the
# event loop. All others take longer, and are rare.
_QUICK = frozenset(
    {
        *("join", "heartbeat", "acquire", "acquire_group", "cancel"),
        *("renew", "release", "resize"),
    }
)

T = TypeVar("T")

MAX_PENDING: Final = 16_384
"""Calls that have come and are not read yet. gRPC's own limit is 1,000, and beyond it
calls end as cancelled: a thousand servers reach that while it pauses for a second."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
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


class Answering(Protocol):
    """One call's answer on its way out."""

    def settled(self) -> Future[None] | None:
        """What must be over before the answer may go out; None: nothing.

        Called once the call is decided, whether it was refused or not.

        Raises:
            PoolError: what was decided is void; the caller gets this instead.
        """


class _AtOnce:
    def settled(self) -> None:
        return None


AT_ONCE: Answering = _AtOnce()
"""Of a handler that keeps nothing."""


class RegistryHandler(Protocol):
    """What a registry answers; lists from several threads at once, all else from one.

    None of them may wait for anything but a lock.
    """

    def begin(self) -> Answering:
        """A call comes in: called before ``admit``."""

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


Behaviour = Callable[[Any, Any], Coroutine[Any, Any, Any]]


class _AdminServicer:
    """gRPC's view of an admin handler."""

    def __init__(
        self, handler: AdminHandler, adapt: Callable[[Callable[[Any], Any]], Behaviour]
    ) -> None:
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

    def __init__(
        self,
        handler: RegistryHandler,
        adapt: Callable[[Callable[[Any], Any]], Behaviour],
    ) -> None:
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


class _Adapter:
    """Makes gRPC's methods of a handler's."""

    def __init__(self, handler: RegistryHandler, pool: ThreadPoolExecutor) -> None:
        self._handler = handler
        self._pool = pool
        self._awaited: Future[None] | None = None
        self._waiting: asyncio.Future[None] | None = None

    def adapt(self, method: Callable[[Any], Any]) -> Behaviour:
        """A method of gRPC's, which runs in the event loop."""
        is_quick = method.__name__ in _QUICK
        name = "".join(part.title() for part in method.__name__.split("_"))
        admit, handler = self._handler.admit, self._handler

        def decide(call: Call) -> Any:
            return method(admit(call))

        async def behave(request: Any, context: Any) -> Any:
            try:
                token = token_of_metadata(dict(context.invocation_metadata() or ()))
                asked = Call(name, request, token, context.peer())
                answering = handler.begin()
                try:
                    if is_quick:
                        return decide(asked)
                    return await self._in_thread(decide, asked)
                finally:  # a refusal, too, may follow from what is not kept yet
                    await self._settle(answering)
            except PoolError as error:
                code, details, metadata = status_from_error(error)
            except Exception as error:  # noqa: BLE001  a bug must not end the registry
                handler.unexpected(error)
                code, metadata = grpc.StatusCode.INTERNAL, ()
                details = "the registry failed inside: its log has the details"
            return await context.abort(code, details, trailing_metadata=metadata)

        return behave

    def _in_thread(self, decide: Callable[[Call], Any], call: Call) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, decide, call)

    async def _settle(self, answering: Answering) -> None:
        """Wait for what the answer depends on; many calls wait for the same."""
        awaited = answering.settled()
        if awaited is None:
            return
        if self._waiting is None or awaited is not self._awaited:
            self._awaited = awaited
            self._waiting = asyncio.wrap_future(awaited)
        # Who gives up must not end it for the others.
        await asyncio.shield(self._waiting)


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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="registry-calls", daemon=True
        )
        self._thread.start()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="registry-admin")
        try:
            self.port = self._run(self._bind(f"{host}:{port}", tls))
        except RuntimeError as error:
            self._end_loop()
            raise UsageError(
                f"cannot listen on {host}:{port}: the address is in use or is not one"
                " of this machine's; choose another with --listen"
            ) from error

    def start(
        self, handler: RegistryHandler, admin_handler: AdminHandler | None = None
    ) -> None:
        """Answer calls from now on; without an admin's handler not those of admins."""
        self._run(self._start(handler, admin_handler))

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, let running ones end within ``grace_s``, then close."""
        self._run(self._server.stop(grace_s))
        self._end_loop()
        self._pool.shutdown()

    async def _bind(self, address: str, tls: TlsFiles | None) -> int:
        self._server: Any = grpc.aio.server(options=_OPTIONS)
        if tls is None:
            return int(self._server.add_insecure_port(address))
        pair = (tls.key_pem, tls.certificate_pem)
        return int(
            self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        )

    async def _start(
        self, handler: RegistryHandler, admin_handler: AdminHandler | None
    ) -> None:
        adapt = _Adapter(handler, self._pool).adapt
        if admin_handler is not None:
            admin_pb2_grpc.add_PoolAdminServicer_to_server(  # type: ignore[no-untyped-call]
                _AdminServicer(admin_handler, adapt), self._server
            )
        registry_pb2_grpc.add_PoolRegistryServicer_to_server(  # type: ignore[no-untyped-call]
            _Servicer(handler, adapt), self._server
        )
        await self._server.start()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
