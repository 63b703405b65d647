"""The session's link where native code sends and receives: ``pump.cpp`` from Python.

The pump answers requests without Python. What it leaves to Python, in order: messages
other than Ack, Reply and Pong, answers to marked requests, and the end of the path.
``link.SessionLink`` is its twin in Python and the definition of what it does.
"""

from __future__ import annotations

import ctypes
import os
import time
from enum import IntEnum
from typing import Any, Final, NamedTuple

from xpool_protocol.codec import decode
from xpool_protocol.connection import ClientConnection, State
from xpool_protocol.errors import BrokenError, ClosedError, PeerError, PoolError
from xpool_protocol.messages import Failure, Goodbye, Message, Reply, Resized
from xpool_protocol.transport import MAX_FRAMES, Link, NativeSockets
from xpool_protocol.transport.failures import lost, too_large, too_many_frames

from xpool.link import Mark, SessionLink
from xpool.outbox import Diagnose, Outbox
from xpool.stall import Stall

SIGNAL_BEHIND: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object)

_ANSWERED, _ASK_PYTHON, _SIGNAL = range(3)


class Kind(IntEnum):
    """What an event of the pump tells: ``Event::Kind`` in pump.h."""

    MESSAGE = 1
    MARK = 2
    BROKEN = 3
    REFUSED = 4
    TOO_MANY_FRAMES = 5
    TOO_LARGE = 6
    STOPPED = 7


class _Setup(ctypes.Structure):
    _fields_ = (
        ("functions", ctypes.c_void_p * 10),
        ("socket", ctypes.c_void_p),
        ("monitor", ctypes.c_void_p),
        ("socket_fileno", ctypes.c_int32),
        ("monitor_fileno", ctypes.c_int32),
        ("max_message_nbytes", ctypes.c_uint64),
        ("wake_fileno", ctypes.c_int32),
        ("version", ctypes.c_uint32),
        ("window_nbytes", ctypes.c_uint64),
        ("signal_behind", SIGNAL_BEHIND),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("number", ctypes.c_uint64),
        ("at_ns", ctypes.c_int64),
        ("text", ctypes.c_char_p),
        ("frames", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_uint64)),
        ("frame_count", ctypes.c_uint64),
    )


class _LentReply(ctypes.Structure):
    _fields_ = (
        ("reply", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("value_nbytes", ctypes.c_uint64),
        ("payload_count", ctypes.c_uint64),
    )


def declare(library: Any) -> None:
    """The types of the pump's functions."""
    pointer, uint64 = ctypes.c_void_p, ctypes.c_uint64
    library.xpool_pump_start.argtypes = [ctypes.c_int32, ctypes.POINTER(_Setup)]
    library.xpool_pump_start.restype = pointer
    library.xpool_pump_next.argtypes = [pointer, ctypes.POINTER(_Event)]
    library.xpool_pump_payload.argtypes = [pointer, uint64, ctypes.POINTER(pointer)]
    library.xpool_pump_payload.restype = uint64
    library.xpool_pump_wait.argtypes = [pointer, uint64, ctypes.POINTER(_LentReply)]
    library.xpool_pump_release.argtypes = [pointer]
    library.xpool_pump_wait_for_room.argtypes = [pointer]
    library.xpool_pump_mark.argtypes = [pointer, uint64]
    library.xpool_pump_mark.restype = ctypes.c_int64
    library.xpool_pump_ask_python.argtypes = [pointer, uint64]
    library.xpool_pump_forget.argtypes = [pointer, uint64]
    library.xpool_pump_leave.argtypes = [pointer, ctypes.c_char_p, uint64]
    library.xpool_pump_hold.argtypes = [pointer, ctypes.c_int32]
    library.xpool_pump_end.argtypes = [pointer, ctypes.c_char_p, uint64]
    library.xpool_pump_join.argtypes = [pointer]
    library.xpool_pump_sent_bytes.argtypes = [pointer]
    library.xpool_pump_sent_bytes.restype = uint64
    library.xpool_defer_signal.argtypes = [ctypes.c_int32]


class NativeEnd(NamedTuple):
    """What a pump is made of."""

    library: Any
    device: int
    signal_behind: Any
    sockets: NativeSockets


class NativeLink(SessionLink):
    """Drives one open connection through a pump."""

    def __init__(
        self,
        native: NativeEnd,
        link: Link,
        connection: ClientConnection,
        outbox: Outbox,
        diagnose: Diagnose,
    ) -> None:
        super().__init__(link, connection, outbox, diagnose)
        self._library = native.library
        self._native = native
        self._owner = os.getpid()
        self._pump: int | None = None

    def start(self) -> None:
        """Begin to send and receive."""
        sockets, connection = self._native.sockets, self._connection
        setup = _Setup(
            (ctypes.c_void_p * len(sockets.functions))(*sockets.functions),
            sockets.socket,
            sockets.monitor,
            sockets.socket_fileno,
            sockets.monitor_fileno,
            sockets.max_message_nbytes,
            self._outbox.wake_fileno,
            connection.version,
            connection.window_nbytes,
            self._native.signal_behind,
        )
        self._pump = self._library.xpool_pump_start(
            self._native.device, ctypes.byref(setup)
        )
        assert self._pump is not None, "a device has one session"
        self._thread.start()

    @property
    def sent_nbytes(self) -> int:
        """Bytes of all frames sent so far."""
        return int(self._library.xpool_pump_sent_bytes(self._pump))

    # ---- for the program's threads

    def wait_for_answer(self, request: int) -> Reply | Failure:
        """Block until the server has answered a request.

        Raises:
            PoolError: the session is over and the answer will not come.
        """
        lent = _LentReply()
        while True:
            outcome = self._library.xpool_pump_wait(
                self._pump, request, ctypes.byref(lent)
            )
            if outcome == _ANSWERED:
                value = ctypes.string_at(lent.value, lent.value_nbytes)
                payloads = tuple(
                    self._payload(lent, index) for index in range(lent.payload_count)
                )
                self._library.xpool_pump_release(lent.reply)
                return Reply(request, value, payloads)
            if outcome == _ASK_PYTHON:
                return self._answer_here(request)

    def _payload(self, lent: _LentReply, index: int) -> bytes:
        data = ctypes.c_void_p()
        nbytes = self._library.xpool_pump_payload(lent.reply, index, ctypes.byref(data))
        return ctypes.string_at(data, nbytes)

    def _answer_here(self, request: int) -> Failure:
        with self._changed:
            answer = self._answers.pop(request, None)
            if isinstance(answer, Failure):
                self._library.xpool_pump_forget(self._pump, request)
                self.faults.pop(answer.fault.operation, None)
                return answer
            assert self.over is not None, "the pump sends here for failures and ends"
            raise self.over

    def wait_for_room(self) -> None:
        """Block while more is queued than one transfer: the network is behind."""
        stall = Stall(self.sent_nbytes, time.monotonic_ns())
        # Python runs signal handlers between two calls.
        while self._library.xpool_pump_wait_for_room(self._pump) == _SIGNAL:
            stall.tell(
                self.sent_nbytes, self._outbox.queued_nbytes(), time.monotonic_ns()
            )

    def interrupt(self) -> None:
        """Nothing to do: a wait of the pump's looks after signals itself."""

    def add_mark(self, request: int) -> Mark:
        """A mark for a FENCE record that carries this request id."""
        mark = super().add_mark(request)
        at_ns = self._library.xpool_pump_mark(self._pump, request)
        if at_ns:
            self._reach_marked(request, at_ns)
        return mark

    def hold(self, is_held: bool) -> None:
        """Send nothing until let go, whatever is queued; for measurements."""
        self._library.xpool_pump_hold(self._pump, is_held)

    def end_with(self, error: PoolError) -> None:
        """End the session from outside: the keeper says that the lease is over."""
        bye = b""
        if self._connection.state is State.OPEN:
            (frame,) = self._connection.bye(str(error))
            bye = bytes(frame)
        super()._finish(error)
        self._library.xpool_pump_end(self._pump, bye, len(bye))

    def leave(self, reason: str, timeout_s: float) -> None:
        """Say goodbye and stop the threads; idempotent."""
        if os.getpid() != self._owner or not self._thread.is_alive():
            return
        if self._connection.state is State.OPEN:
            self._leaving = reason
            (bye,) = self._connection.bye(reason)
            self._library.xpool_pump_leave(self._pump, bytes(bye), len(bye))
        self._thread.join(timeout_s)

    # ---- the thread

    def _run(self) -> None:
        event = _Event()
        while event.kind != Kind.STOPPED:
            self._library.xpool_pump_next(self._pump, ctypes.byref(event))
            try:
                self._handle(event)
            except BrokenError as error:
                self._link.give_up()
                self._finish(self._diagnose(error))
            except PoolError as error:
                self._finish(error)
        if self.over is None:
            self._finish(ClosedError("the session was closed by this program"))
        self._library.xpool_pump_join(self._pump)
        self._link.close()

    def _handle(self, event: _Event) -> None:
        match event.kind:
            case Kind.MESSAGE:
                self._take_in(_legal(_frames(event)))
            case Kind.MARK:
                self._reach_marked(event.number, event.at_ns)
            case Kind.BROKEN:
                raise lost(self._link.uri)
            case Kind.REFUSED:
                raise PeerError(event.text.decode())
            case Kind.TOO_MANY_FRAMES:
                raise too_many_frames(self._link.uri, MAX_FRAMES)
            case Kind.TOO_LARGE:
                raise too_large(self._link.uri, self._native.sockets.max_message_nbytes)

    def _answer(self, request: int, answer: Reply | Failure) -> None:
        super()._answer(request, answer)
        self._library.xpool_pump_ask_python(self._pump, request)

    def _reach_marked(self, request: int, at_ns: int) -> None:
        with self._changed:
            mark = self._marks.pop(request, None)
        if mark is not None:
            mark.at_ns = at_ns
            mark.reached.set()

    def _finish(self, error: PoolError) -> None:
        super()._finish(error)
        self._library.xpool_pump_end(self._pump, b"", 0)


def _frames(event: _Event) -> list[bytes]:
    return [
        ctypes.string_at(event.frames[i], event.sizes[i])
        for i in range(event.frame_count)
    ]


def _legal(frames: list[bytes]) -> Message:
    """A message of an open session that the pump did not read itself.

    Raises:
        PeerError: none, or not one that is legal now.
    """
    # The pump reads Ack, Reply and Pong itself, if they are well formed.
    message = decode(frames)
    if not isinstance(message, Failure | Goodbye | Resized):
        raise PeerError(f"{type(message).__name__} is not legal while open")
    return message
