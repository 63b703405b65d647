"""A node's heartbeats, over one stream for as long as that lasts.

gRPC's streams of synchronous code know no time limit for a single answer, so a thread
reads them here. Whatever fails ends the stream, and the next heartbeat opens another.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Final

import grpc

from xpool_protocol.control import registry_pb2 as pb

END_S: Final = 2.0
"""A stream that is cancelled ends at once; this is for a machine that stands still."""

Attempt = Callable[[str, Any, float], Any]


class Told:
    """Which seconds of use the other end of one stream has heard.

    A node tells a second until it is stored, which takes some. What the same registry
    has heard on the same stream it need not hear again: it has charged it, and stores
    it, or it dies, and the stream with it.
    """

    def __init__(self) -> None:
        self._until_s: dict[str, int] = {}

    def news(self, request: pb.HeartbeatRequest) -> pb.HeartbeatRequest:
        """A heartbeat without what it has heard.

        The last second of each session stays: so it is told up to which it is stored.
        """
        cuts = []
        for at, session in enumerate(request.sessions):
            until_s, usage = self._until_s.get(session.lease_id, -1), session.usage
            first = max(len(usage) - 1, 0)
            while first and usage[first - 1].at_s > until_s:
                first -= 1
            if first:
                cuts.append((at, first))
        if not cuts:
            return request
        shorter = pb.HeartbeatRequest()
        shorter.CopyFrom(request)
        for at, first in cuts:
            del shorter.sessions[at].usage[:first]
        return shorter

    def note(self, request: pb.HeartbeatRequest, reply: pb.HeartbeatReply) -> None:
        """It has answered: it has heard all of it, unless it does not know the node."""
        self._until_s = {
            session.lease_id: session.usage[-1].at_s
            for session in request.sessions
            if session.usage and not reply.must_rejoin
        }


class HeartbeatLine:
    """Sends heartbeats, one at a time."""

    def __init__(
        self,
        use_stream: Callable[[Attempt, float], Any],
        call: Callable[[pb.HeartbeatRequest, float], pb.HeartbeatReply],
    ) -> None:
        """Open nothing yet.

        Args:
            use_stream: makes attempts to use a stream within so many seconds; see
                ``channels.RoutedChannel.stream_stream``.
            call: the same by a call, for a registry that has no such streams.
        """
        self._use_stream = use_stream
        self._call = call
        self._stream: _Stream | None = None
        self._may_stream = True
        self._is_closed = False
        self._lock = threading.Lock()

    def send(self, request: pb.HeartbeatRequest, timeout: float) -> pb.HeartbeatReply:
        """Report, and return the answer.

        Raises:
            grpc.RpcError: it was not answered within ``timeout`` seconds.
            ValueError: the line was closed.
        """
        with self._lock:
            if self._is_closed:
                raise ValueError("the line to the registry was closed")
            if self._may_stream:
                try:
                    return self._over_stream(request, timeout)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                        raise
                    self._may_stream = False
        return self._call(request, timeout)

    def close(self) -> None:
        """End the stream, if one is open; later heartbeats are refused."""
        self._is_closed = True
        self._end_stream()

    def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _over_stream(
        self, request: pb.HeartbeatRequest, timeout_s: float
    ) -> pb.HeartbeatReply:
        def attempt(address: str, begin: Any, left_s: float) -> pb.HeartbeatReply:
            stream = self._stream
            if stream is None or stream.address != address:
                self._end_stream()
                self._stream = stream = _Stream(address, begin)
            try:
                return stream.ask(request, left_s)
            except grpc.RpcError:
                self._end_stream()
                raise

        reply: pb.HeartbeatReply = self._use_stream(attempt, timeout_s)
        return reply


class _Stream:
    """One that is open."""

    def __init__(self, address: str, begin: Callable[[Any], Any]) -> None:
        self.address = address
        self._told = Told()
        self._requests: queue.SimpleQueue[pb.HeartbeatRequest | None] = (
            queue.SimpleQueue()
        )
        self._answers: queue.SimpleQueue[pb.HeartbeatReply | grpc.RpcError] = (
            queue.SimpleQueue()
        )
        self._call = begin(iter(self._requests.get, None))
        self._thread = threading.Thread(
            target=self._read, name="heartbeats", daemon=True
        )
        self._thread.start()

    def ask(self, request: pb.HeartbeatRequest, timeout_s: float) -> pb.HeartbeatReply:
        """The answer, or the ``grpc.RpcError`` that ended the stream."""
        self._requests.put(self._told.news(request))
        try:
            answer = self._answers.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise _Ended(grpc.StatusCode.DEADLINE_EXCEEDED) from None
        if isinstance(answer, grpc.RpcError):
            raise answer
        self._told.note(request, answer)
        return answer

    def close(self) -> None:
        """End it; no thread is left in gRPC, which could crash at Python's end."""
        self._requests.put(None)
        self._call.cancel()
        self._thread.join(END_S)

    def _read(self) -> None:
        try:
            for reply in self._call:
                self._answers.put(reply)
        except grpc.RpcError as error:
            self._answers.put(error)
        else:  # in good order, which no registry does while it is asked
            self._answers.put(_Ended(grpc.StatusCode.UNAVAILABLE))


class _Ended(grpc.RpcError):  # type: ignore[misc]  # it has no types
    """A stream's end that gRPC did not see as an error."""

    def __init__(self, code: Any) -> None:
        super().__init__()
        self._code = code

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return "the stream of heartbeats has ended"

    def trailing_metadata(self) -> tuple[()]:
        return ()
