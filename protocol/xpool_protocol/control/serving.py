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
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

import grpc
import grpc.aio

from xpool_protocol.control import admin_pb2_grpc, registry_pb2_grpc
from xpool_protocol.control.accepting import Accepting, Registering, may_accept
from xpool_protocol.control.adapting import Adapter, Behaviour
from xpool_protocol.control.handlers import AT_ONCE as AT_ONCE
from xpool_protocol.control.handlers import AdminHandler, RegistryHandler
from xpool_protocol.control.handlers import Answering as Answering
from xpool_protocol.control.handlers import Call as Call
from xpool_protocol.control.rpc import MESSAGE_OPTIONS
from xpool_protocol.errors import UsageError

# For admins' calls, which look at much and change little.
_THREADS = 4

T = TypeVar("T")

_OFTEN: Final = ("Join", "Heartbeats", "AcquireGroup", "Renew", "Release")
"""What many ask at once."""

MAX_PENDING: Final = 16_384
"""Calls that have come and are not read yet. gRPC's own limit is 1,000, and beyond it
calls end as cancelled: a thousand servers reach that while it pauses for a second."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
    # A node that vanished without a word must not keep its stream for ever.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Otherwise Linux lets two registries share one port, each with half the calls.
    ("grpc.so_reuseport", 0),
)


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
        self.Forget = adapt(handler.forget)
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

    def __init__(self, handler: RegistryHandler, adapter: Adapter) -> None:
        adapt = adapter.adapt
        self.Join = adapt(handler.join)
        self.Heartbeat = adapt(handler.heartbeat)
        self.Heartbeats = adapter.adapt_heartbeats(handler.heartbeat)
        self.Acquire = adapt(handler.acquire)
        self.AcquireGroup = adapt(handler.acquire_group)
        self.Cancel = adapt(handler.cancel)
        self.Renew = adapt(handler.renew)
        self.Release = adapt(handler.release)
        self.ListNodes = adapt(handler.list_nodes)
        self.ListDevices = adapt(handler.list_devices)
        self.ListLeases = adapt(handler.list_leases)
        self.Resize = adapt(handler.resize)


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
        self._adapter: Adapter | None = None
        #: Takes calls beside gRPC's own loop, where that is possible.
        self.accepting: Accepting | None = None
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
        self._run(self._stop(grace_s))
        self._end_loop()
        self._pool.shutdown()

    def stream_count(self) -> int:
        """How many nodes have a stream open."""
        return self._adapter.stream_count if self._adapter is not None else 0

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
        self._adapter = adapter = Adapter(handler, self._pool)
        if admin_handler is not None:
            admin_pb2_grpc.add_PoolAdminServicer_to_server(  # type: ignore[no-untyped-call]
                _AdminServicer(admin_handler, adapter.adapt), self._server
            )
        registering = Registering(self._server)
        registry_pb2_grpc.add_PoolRegistryServicer_to_server(  # type: ignore[no-untyped-call]
            _Servicer(handler, adapter), registering
        )
        await self._server.start()
        if may_accept():
            self.accepting = accepting = Accepting(self._server)
            for path, method in registering.handlers.items():
                if path.rpartition("/")[2] in _OFTEN:
                    accepting.accept(path, method)

    async def _stop(self, grace_s: float) -> None:
        if self._adapter is not None:
            self._adapter.end_streams()
        await self._server.stop(grace_s)

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
