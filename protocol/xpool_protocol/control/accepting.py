"""Takes many calls of a method at once from gRPC.

``grpc.aio`` asks its core for one call of each method at a time, and for the next one
some rounds of its event loop later. In a busy registry a round takes milliseconds, so
requests and renewals stood in a line that was served a hundred times a second, while
heartbeats, whose streams are open, were answered in each round. And each time it looks
anew at all methods, which was a quarter of what a call costs.

Here more calls are asked for beside gRPC's own loop, by what that loop itself calls.
Those names are not public: a gRPC that lacks them serves as before (``may_accept``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from grpc._cython import cygrpc as _cygrpc

_core: Any = _cygrpc

AT_ONCE: Final = 32
"""Calls of one method that may come between two looks."""

_OF_SERVER: Final = ("_make_request_call_future", "_request_registered_call")
_OF_MODULE: Final = (
    *("_MethodResolver", "_RequestCallError"),
    *("_handle_rpc", "_schedule_rpc_coro"),
)


def may_accept() -> bool:
    """Whether this gRPC has what is needed.

    Its resolver of methods came with the arguments that are passed here.
    """
    return all(hasattr(_core, name) for name in _OF_MODULE) and all(
        hasattr(_core.AioServer, name) for name in _OF_SERVER
    )


class Registering:
    """In the place of a ``grpc.aio`` server where generated code adds its methods."""

    def __init__(self, server: Any) -> None:
        self._server = server
        #: By path: ``/package.Service/Method``.
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """As of the server."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, Any]
    ) -> None:
        """As of the server; they are noted."""
        self._server.add_registered_method_handlers(service, handlers)
        for name, handler in handlers.items():
            self.handlers[f"/{service}/{name}"] = handler


class Accepting:
    """Accepts calls of a server that has started, until that is stopped."""

    def __init__(self, server: Any) -> None:
        """Accept nothing yet.

        Args:
            server: a ``grpc.aio`` one, started in the loop that runs.
        """
        self._server = server._server
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Calls that came this way.
        self.count = 0

    def accept(self, path: str, handler: Any) -> None:
        """From now on ``AT_ONCE`` calls of one method may come at once."""
        for _ in range(AT_ONCE):
            self._keep(self._accept(path, handler))

    async def _accept(self, path: str, handler: Any) -> None:
        resolver, method = _Resolver(handler), path.encode()
        while self._server.is_running():
            try:
                state = await self._server._request_registered_call(method)
            except _core._RequestCallError:
                continue
            self.count += 1
            call = _core._handle_rpc(path, resolver, (), state, self._loop, False)
            self._keep(_core._schedule_rpc_coro(call, state, self._loop, path))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """A loop holds its tasks weakly."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Resolver:
    """Finds the one method that it is for."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def resolve_handler(self, _: Any) -> Any:
        return self._handler
