"""The loop of a session worker: sockets, time, and the end of the session.

One loop: an operation runs to its end before the next message is read. Other threads
are the bulk lane's, which receives into storages that nobody uses meanwhile, and those
that move bytes to and from other workers (``peers.py``).
What a message means is decided in ``session``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Final

from xpool_protocol.codec import Frames, decode
from xpool_protocol.errors import BrokenError, PeerError, PoolError, UsageError
from xpool_protocol.messages import Hello
from xpool_protocol.transport import Listener, PeerId

from xpool_server import control
from xpool_server.arbiter.turn import Turn
from xpool_server.devices.base import Backend
from xpool_server.executor import Executor
from xpool_server.known_uploads import (
    KnownUploads,
    NoKnownUploads,
    SessionUploads,
    UploadFolder,
)
from xpool_server.lane import SocketLane
from xpool_server.native_executor import MakeExecutor
from xpool_server.native_serving import NativeLoop, native_loop
from xpool_server.peers import Peers
from xpool_server.processors import leave_lowest_class
from xpool_server.session import (
    Session,
    framework,
    quota_beside_context,
    refusal,
)

STATISTICS_INTERVAL_S: Final = 1.0

MAX_UNSENT: Final = 8
"""Messages with large frames on their way at once: 128 MiB of replies at most."""
UNSENT_TIMEOUT_S: Final = 60.0
"""A client that takes none of its replies for so long is not there any more."""


class ControlPipe:
    """The worker's end of the socket pair to its node: lines in, lines out."""

    def __init__(self, fileno: int) -> None:
        self._socket = socket.socket(fileno=fileno)
        self._buffer = bytearray()
        self.is_closed = False
        """The node is gone."""

    def fileno(self) -> int:
        """For the listener to watch."""
        return self._socket.fileno()

    def receive(self) -> list[control.ToWorker]:
        """Whole lines that have arrived; never blocks."""
        while not self.is_closed:
            try:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.is_closed = not data
            self._buffer += data
            if len(self._buffer) > control.MAX_LINE_NBYTES:
                self.is_closed = True
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        return [control.to_worker(bytes(line)) for line in lines]

    def send(self, message: control.FromWorker) -> None:
        """One line to the node; a node that is gone is noticed by ``receive``."""
        try:
            self._socket.sendall(control.line_from(message))
        except OSError:
            self.is_closed = True


class Worker:
    """Drives one session: sockets, time and the end of the process."""

    def __init__(
        self,
        pipe: ControlPipe,
        listener: Listener,
        open_device: Callable[[control.OpenSession], Backend],
        lane: SocketLane,
        make_executor: MakeExecutor,
        open_door: Callable[[str, str], Peers],
        uploads: UploadFolder | None = None,
        take_turns: Callable[[int], Turn] = lambda _: Turn(),
    ) -> None:
        """A worker that waits for its one lease.

        Args:
            pipe: to the node.
            listener: where the client comes in.
            open_device: makes the device ready for a session.
            lane: where its bulk transfers come in.
            make_executor: from device, quota, lane and door.
            open_door: begins to listen for the workers of the job's other devices;
                from this host's name and the pool's key.
            uploads: where contents of uploads are kept, if they are.
            take_turns: makes a session's turns at the device, from its slot.
        """
        self._lane = lane
        self._pipe = pipe
        self._make_executor = make_executor
        self._listener = listener
        self._open_device = open_device
        self._backend: Backend | None = None
        self._open_door = open_door
        self._uploads = uploads
        self._take_turns = take_turns
        self._known: SessionUploads | None = None
        self._peers: Peers | None = None
        self._session: Session | None = None
        self._executor: Executor | None = None
        self._loop: NativeLoop | None = None
        """Once the session has an owner, if there is native code for it."""
        self._lease_id = ""
        self._was_owned = False
        self._told: dict[str, int] = {}
        self._told_at_s = 0.0
        listener.watch(pipe.fileno())

    def run(self) -> None:
        """Serve until the session ends or the node is gone."""
        self._pipe.send(
            control.WorkerReady(self._listener.uri, os.getpid(), framework())
        )
        while not self._pipe.is_closed:
            # None when the pipe can be read, in turn with messages.
            received = self._next()
            # A client may be faster than the order to expect it.
            is_turn = received is None or self._session is None
            if is_turn and self._executor is not None:
                self._executor.turn.heard()  # before: what comes later calls again
            if is_turn and any(map(self._obey, self._pipe.receive())):
                return
            if received is not None:
                self._take(*received)
            if self._session is not None and self._peers is not None:
                self._peers.clear_news()
                self._session.go_on()
            if self._session is not None:
                self._report(self._session)
                if self._session.ended is not None:
                    self._close(self._session.ended)
                    return

    def _next(self) -> tuple[PeerId, list[memoryview]] | None:
        """The next message that native code has not dealt with already.

        None if there is none and something else may have happened.
        """
        if self._executor is not None and self._executor.turn.is_called:
            return None
        if self._loop is not None and self._loop.serve(STATISTICS_INTERVAL_S):
            return None
        return self._listener.receive(STATISTICS_INTERVAL_S)

    def _obey(self, order: control.ToWorker) -> bool:
        """Carry out an order of the node; true if it was to end."""
        match order:
            case control.OpenSession():
                if self._session is not None:
                    raise UsageError("a worker serves one session")
                backend = self._backend = self._open_device(order)
                quota_nbytes = quota_beside_context(backend, order.memory_nbytes)
                backend.limit_memory(quota_nbytes)
                self._peers = self._open_door(order.host, order.door_key)
                self._listener.watch(self._peers.wake_fileno)
                self._executor = self._make_executor(
                    backend,
                    quota_nbytes,
                    self._lane,
                    self._peers,
                    self._known_uploads(order.tenant),
                )
                self._executor.take_turns(self._take_turns(order.slot))
                properties = self._peers.properties()
                self._session = Session(order, self._executor, self._send, properties)
                self._lease_id = order.lease_id
                return False
            case control.ResizeSession():
                assert self._session is not None
                self._pipe.send(self._session.resize(order))
                return False
            case control.EndSession(code, text):
                if self._session is not None:
                    self._session.end(PoolError.from_wire(code, text))
                self._close(text)
                return True

    def _known_uploads(self, tenant: str) -> KnownUploads:
        if self._uploads is None:
            return NoKnownUploads()
        self._known = self._uploads.of_tenant(tenant)
        self._lane.keep = self._known.keeping
        return self._known

    def _take(self, peer: PeerId, frames: list[memoryview]) -> None:
        if self._session is not None:
            self._session.receive(peer, frames)
        elif _is_hello(frames):
            self._send(peer, refusal())

    def _send(self, peer: PeerId, frames: Frames) -> None:
        """Queue one message, once there is room for large ones.

        Raises:
            BrokenError: the client takes nothing.
        """
        if len(frames) > 1:
            deadline = time.monotonic() + UNSENT_TIMEOUT_S
            while self._listener.unsent() >= MAX_UNSENT:
                if time.monotonic() > deadline:
                    raise BrokenError(
                        "the client has not taken its replies for"
                        f" {UNSENT_TIMEOUT_S:.0f} s"
                    )
                time.sleep(0.001)
        self._listener.send(peer, frames)

    def _report(self, session: Session) -> None:
        if not session.is_owned:
            return
        if not self._was_owned:
            self._was_owned = True
            self._loop = self._native_loop(session)
            self._pipe.send(control.SessionOpened(self._lease_id))
        now_s = time.monotonic()
        if now_s - self._told_at_s < STATISTICS_INTERVAL_S:
            return
        counters = session.counters()
        if counters != self._told:
            self._told, self._told_at_s = counters, now_s
            assert self._backend is not None
            overhead_nbytes = self._backend.overhead_nbytes
            self._pipe.send(control.SessionStatistics(counters, overhead_nbytes))

    def _native_loop(self, session: Session) -> NativeLoop | None:
        assert self._executor is not None
        assert self._peers is not None
        watched = self._pipe.fileno(), self._peers.wake_fileno
        return native_loop(session, self._executor, self._listener, watched)

    def _close(self, reason: str) -> None:
        leave_lowest_class(os.getpid())
        counters = self._session.counters() if self._session is not None else {}
        self._lane.close()
        if self._known is not None:
            self._known.close()
        if self._peers is not None:
            self._peers.close()
        self._listener.close()  # a last Goodbye leaves before we say that we are done
        self._pipe.send(control.SessionClosed(reason, counters))


def _is_hello(frames: list[memoryview]) -> bool:
    try:
        return isinstance(decode(frames), Hello)
    except PeerError:
        return False
