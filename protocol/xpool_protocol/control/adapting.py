"""Makes gRPC's methods of a handler's: calls, and streams of heartbeats.

All of it runs in the server's event loop; see ``serving.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.credentials import token_of_metadata
from xpool_protocol.control.handlers import Answering, Call, RegistryHandler
from xpool_protocol.control.rpc import status_from_error
from xpool_protocol.control.turns import Turns
from xpool_protocol.errors import PoolError

Behaviour = Callable[[Any, Any], Coroutine[Any, Any, Any]]

# Called by every server each second and by every client of a pool: decided in the
# event loop. All others take longer, and are rare.
_QUICK: Final = frozenset(
    {
        *("join", "heartbeat", "acquire", "acquire_group", "cancel"),
        *("renew", "release", "resize"),
    }
)

MAX_STREAMS: Final = 8192
"""Of heartbeats, open at once: twice as many as a pool has nodes. A node that finds no
room is told to make calls."""


class Adapter:
    """Makes gRPC's methods of one handler's."""

    def __init__(self, handler: RegistryHandler, pool: ThreadPoolExecutor) -> None:
        """Nothing is called yet.

        Args:
            handler: answers.
            pool: threads for what is not quick.
        """
        self._handler = handler
        self._pool = pool
        self._awaited: Future[None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._streams: set[asyncio.Task[Any]] = set()
        #: Of heartbeats: calls go before them.
        self._turns = Turns()
        self._is_ending = False

    def adapt(self, method: Callable[[Any], Any]) -> Behaviour:
        """A call."""
        is_quick = method.__name__ in _QUICK
        name = "".join(part.title() for part in method.__name__.split("_"))
        admit, handler = self._handler.admit, self._handler

        def decide(call: Call) -> Any:
            return method(admit(call))

        async def behave(request: Any, context: Any) -> Any:
            try:
                token, peer = _caller_of(context)
                asked = Call(name, request, token, peer)
                answering = handler.begin()
                try:
                    if is_quick:
                        return decide(asked)
                    return await self._in_thread(decide, asked)
                finally:  # a refusal, too, may follow from what is not kept yet
                    await self._settle(answering)
            except Exception as error:  # noqa: BLE001  a bug must not end the registry
                return await self._refuse(context, error)

        return behave

    def adapt_heartbeats(
        self, method: Callable[[pb.HeartbeatRequest], pb.HeartbeatReply]
    ) -> Behaviour:
        """A stream of them: each is a call of its own, but for what a call costs."""

        async def serve(_: Any, context: Any) -> None:
            if len(self._streams) >= MAX_STREAMS:
                sentence = "too many streams are open here: call Heartbeat"
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, sentence)
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            try:
                await self._answer_all(method, context)
            except asyncio.CancelledError:
                if not self._is_ending:
                    raise  # the node is gone
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the registry ends")
            except grpc.aio.BaseError:
                return  # the node was gone before its answer
            except Exception as error:  # noqa: BLE001  as of a call
                await self._refuse(context, error)
            finally:
                self._streams.discard(task)

        return serve

    @property
    def stream_count(self) -> int:
        """How many are open."""
        return len(self._streams)

    def end_streams(self) -> None:
        """Those that are open end, as if nobody answered any more."""
        self._is_ending = True
        for task in self._streams:
            task.cancel()

    async def _answer_all(
        self,
        method: Callable[[pb.HeartbeatRequest], pb.HeartbeatReply],
        context: Any,
    ) -> None:
        handler, (token, peer) = self._handler, _caller_of(context)
        while True:
            request = await context.read()
            if request is grpc.aio.EOF:
                return
            await self._turns.take()
            answering = handler.begin()
            reply: pb.HeartbeatReply | None = None
            try:
                reply = method(handler.admit(Call("Heartbeat", request, token, peer)))
            finally:
                if reply is None or tells_of_decisions(request, reply):
                    await self._settle(answering)
            await context.write(reply)

    async def _refuse(self, context: Any, error: Exception) -> Any:
        if isinstance(error, PoolError):
            code, details, metadata = status_from_error(error)
        else:
            self._handler.unexpected(error)
            code, metadata = grpc.StatusCode.INTERNAL, ()
            details = "the registry failed inside: its log has the details"
        return await context.abort(code, details, trailing_metadata=metadata)

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


def tells_of_decisions(request: pb.HeartbeatRequest, reply: pb.HeartbeatReply) -> bool:
    """Whether an answer says anything that must be kept before it is said.

    >>> tells_of_decisions(pb.HeartbeatRequest(), pb.HeartbeatReply())
    False
    """
    return bool(request.ended or reply.end_leases or reply.slices or reply.must_rejoin)


class _Caller(NamedTuple):
    token: str
    peer: str


def _caller_of(context: Any) -> _Caller:
    metadata = dict(context.invocation_metadata() or ())
    return _Caller(token_of_metadata(metadata), context.peer())
