"""The worker's end of the bulk lane: a socket, and the thread that reads it.

The executor says what it expects and what to send; the thread receives each upload
straight into its storage. The two meet in ``Transfer``. SPEC.md section 13.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeAlias

from xpool_protocol import lane as wire
from xpool_protocol import limits
from xpool_protocol.errors import ArgumentInvalid, BrokenError, PeerError
from xpool_protocol.messages import Payload

from xpool_server.addresses import PortRange
from xpool_server.lane_door import LaneDoor
from xpool_server.processors import start_helper
from xpool_server.shared_ring import SharedRing
from xpool_server.stream_reading import fill_from

PART_NBYTES: Final = 4 << 20
"""One system call's worth: large enough that Python costs nothing beside it."""


class Destination(Protocol):
    """Where an upload's bytes go."""

    def room(self, at: int, nbytes: int) -> memoryview:
        """Memory to receive the bytes ``at`` and up to ``nbytes`` more into."""

    def filled(self, at: int, nbytes: int) -> None:
        """So many bytes of ``room`` hold what came."""

    def close(self) -> None:
        """No more will come; what came is in its place when this returns."""


class Keeping(Protocol):
    """Takes a second copy of what an upload brings."""

    def add(self, part: memoryview) -> None:
        """The next bytes; the view is good during the call."""

    def end(self, *, is_whole: bool) -> None:
        """All bytes were added, or no more will come."""


Keep: TypeAlias = Callable[[int], Keeping | None]
"""Asked with an upload's length: who wants a copy of it."""


class Transfer:
    """One upload under way."""

    __slots__ = ("_done", "destination", "error", "nbytes", "number")

    def __init__(
        self, number: int, nbytes: int, destination: Destination | None
    ) -> None:
        self.number = number
        """Operation number of its record."""
        self.nbytes = nbytes
        self.destination = destination
        """None: the bytes are dropped."""
        self.error: Exception | None = None
        """Why the bytes did not arrive, once ``wait`` has returned."""
        self._done = threading.Event()

    def wait(self) -> None:
        """Block until all bytes are there, or will never be."""
        self._done.wait()

    @property
    def is_over(self) -> bool:
        """``wait`` would not block."""
        return self._done.is_set()

    def end(self, error: Exception | None = None) -> None:
        """All bytes are there, or an error says why not."""
        self.error = error
        self.destination = None
        self._done.set()


class Lane(Protocol):
    """What the executor asks of a lane."""

    def open(self) -> tuple[bytes, list[str]]:
        """Wait for a client from now on; its token and where it may come."""

    def expect(
        self, number: int, nbytes: int, destination: Destination | None
    ) -> Transfer:
        """The next upload on the stream belongs there; raises ``ArgumentInvalid``."""

    def send(self, number: int, nbytes: int, parts: Iterable[Payload]) -> None:
        """Send a download; raises ``BrokenError``."""

    def send_failure(self, number: int) -> None:
        """A download's bytes will not come; a broken lane is no further failure."""

    @property
    def is_busy(self) -> bool:
        """``wait_for_uploads`` would block."""

    def wait_for_uploads(self) -> None:
        """Block until nothing is under way."""


class NoLane:
    """For workers without one, and for tests."""

    is_busy = False

    def open(self) -> tuple[bytes, list[str]]:
        """There is no address."""
        return bytes(wire.TOKEN_NBYTES), []

    def expect(
        self, number: int, nbytes: int, destination: Destination | None
    ) -> Transfer:
        """Never works."""
        raise ArgumentInvalid("this session has no bulk lane")

    def send(self, number: int, nbytes: int, parts: Iterable[Payload]) -> None:
        """Never works."""
        raise BrokenError("this session has no bulk lane")

    def send_failure(self, number: int) -> None:
        """Nobody would hear it."""

    def wait_for_uploads(self) -> None:
        """Nothing is ever under way."""


class SocketLane:
    """A lane over TCP; to a client on the same host over memory or a unix socket."""

    def __init__(self, host: str, ports: PortRange | None = None) -> None:
        """Nothing is opened yet.

        Args:
            host: what the worker listens on; empty: no TCP.
            ports: which ports it may take; None: any free one.
        """
        self._door = LaneDoor(host, ports)
        self._stream: socket.socket | None = None
        self._ring: SharedRing | None = None
        """Where the bytes go if the client has shared memory with us."""
        self._changed = threading.Condition()
        self._expected: deque[Transfer] = deque()
        self._under_way = 0
        self._broken: Exception | None = None
        self._waker, self._wake_end = socket.socketpair()
        self.keep: Keep | None = None
        """Who wants copies of what comes from other hosts; set before the lane opens.
        On the same host sending again is as quick as looking whether it is there."""

    # ---- for the executor

    def open(self) -> tuple[bytes, list[str]]:
        """Wait for a client from now on; a second time: the same once more."""
        if not self._door.is_open:
            self._door.open()
            start_helper(self._run, "xpool-lane")
        return self._door.token, list(self._door.addresses)

    def expect(
        self, number: int, nbytes: int, destination: Destination | None
    ) -> Transfer:
        """The next upload on the stream belongs there.

        Raises:
            ArgumentInvalid: the lane was never opened, or is broken.
        """
        transfer = Transfer(number, nbytes, destination)
        with self._changed:
            if not self._door.is_open:
                raise ArgumentInvalid("an upload came before the bulk lane was opened")
            while self._under_way >= limits.MAX_UPLOADS and self._broken is None:
                self._changed.wait()
            if self._broken is not None:
                raise ArgumentInvalid(f"the bulk lane is broken: {self._broken}")
            self._expected.append(transfer)
            self._under_way += 1
            self._changed.notify_all()
        return transfer

    def send(self, number: int, nbytes: int, parts: Iterable[Payload]) -> None:
        """Send a download.

        Raises:
            BrokenError: there is no stream, or it takes nothing more.
        """
        stream = self._open_stream()
        try:
            stream.sendall(wire.header_bytes(wire.Header(number, nbytes)))
            for part in parts:
                if self._ring is not None:
                    self._ring.send(stream, part)
                else:
                    stream.sendall(part)
        except (OSError, EOFError) as error:
            self._break(error)
            raise BrokenError(f"the bulk lane broke off: {error}") from error

    def send_failure(self, number: int) -> None:
        """A download's bytes will not come; a broken lane is no further failure."""
        with contextlib.suppress(BrokenError):
            self.send(number, wire.FAILED, ())

    @property
    def is_busy(self) -> bool:
        """``wait_for_uploads`` would block."""
        return bool(self._under_way)

    def wait_for_uploads(self) -> None:
        """Block until nothing is under way."""
        with self._changed:
            while self._under_way:
                self._changed.wait()

    def close(self) -> None:
        """End the stream, the thread and everybody's waiting; idempotent."""
        self._break(BrokenError("the session is over"))
        if self._waker.fileno() < 0:
            return
        self._waker.close()
        if not self._door.is_open:  # no thread that would do it
            self._wake_end.close()
        with self._changed:
            if self._stream is not None:
                with contextlib.suppress(OSError):  # the client may be gone already
                    self._stream.shutdown(socket.SHUT_RDWR)

    def _open_stream(self) -> socket.socket:
        with self._changed:
            if self._stream is None or self._broken is not None:
                raise BrokenError(f"the bulk lane is not open: {self._broken or 'yet'}")
            return self._stream

    def _run(self) -> None:
        try:
            stream, self._ring = self._door.accept(self._wake_end)
            with stream:
                # The client may ask for bytes as soon as it is accepted.
                with self._changed:
                    self._stream = stream
                stream.sendall(wire.ACCEPTED)
                self._receive(stream)
        except Exception as error:  # noqa: BLE001  a device may raise anything
            self._break(error)
        finally:
            self._door.close()
            if self._ring is not None:
                self._ring.close()
            self._wake_end.close()

    # ---- receiving

    def _receive(self, stream: socket.socket) -> None:
        header = bytearray(wire.HEADER_NBYTES)
        while True:
            self._await_readable(stream)
            fill_from(stream, memoryview(header))
            number, nbytes = wire.header_from(header)
            transfer = self._next()
            if (number, nbytes) != (transfer.number, transfer.nbytes):
                raise PeerError(
                    f"the bulk lane brings {nbytes} bytes of operation {number}, not"
                    f" {transfer.nbytes} of operation {transfer.number}"
                )
            self._fill_destination(stream, transfer)
            with self._changed:
                self._expected.popleft()
                self._under_way -= 1
                transfer.end()
                self._changed.notify_all()

    def _await_readable(self, stream: socket.socket) -> None:
        """Between transfers a client may be silent for as long as it likes."""
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            selector.register(self._wake_end, selectors.EVENT_READ)
            selector.select()

    def _next(self) -> Transfer:
        """The upload that the stream has reached, once its record is executed."""
        with self._changed:
            while not self._expected:
                if self._broken is not None:
                    raise self._broken
                self._changed.wait()
            return self._expected[0]

    def _fill_destination(self, stream: socket.socket, transfer: Transfer) -> None:
        destination = transfer.destination or _Dropped()
        is_wanted = self.keep and transfer.destination and self._is_remote(stream)
        kept = self.keep(transfer.nbytes) if self.keep and is_wanted else None
        at = 0
        try:
            while at < transfer.nbytes:
                room = destination.room(at, min(PART_NBYTES, transfer.nbytes - at))
                if self._ring is not None:
                    self._ring.receive(stream, room, transfer.nbytes - at)
                else:
                    fill_from(stream, room)
                if kept is not None:
                    kept.add(room)
                destination.filled(at, len(room))
                at += len(room)
        finally:
            if kept is not None:
                kept.end(is_whole=at == transfer.nbytes)
            destination.close()

    def _is_remote(self, stream: socket.socket) -> bool:
        return stream.family != socket.AF_UNIX

    def _break(self, error: Exception) -> None:
        with self._changed:
            if self._broken is None:
                self._broken = error
            for transfer in self._expected:
                transfer.end(self._broken)
            self._expected.clear()
            self._under_way = 0
            self._changed.notify_all()


class _Dropped:
    """Takes bytes that belong nowhere."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(PART_NBYTES))

    def room(self, at: int, nbytes: int) -> memoryview:
        return self._buffer[:nbytes]

    def filled(self, at: int, nbytes: int) -> None:
        pass

    def close(self) -> None:
        pass
