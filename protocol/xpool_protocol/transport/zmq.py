"""Links and listeners over ZeroMQ: DEALER to ROUTER, by ``tcp://`` and ``ipc://``.

A link dials until its peer answers for the first time, and keeps what is sent
meanwhile: libzmq forgets its queue with every attempt that fails. From then on
the first disconnection, which libzmq's monitor reports at once, is the end of
the link.

A listener names its peers itself; a peer that comes with a name of its own
choice might pretend to be another one, and is not heard.
"""

# ruff: noqa: D102  the interface in base.py documents the methods

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Sequence
from typing import Final

import zmq
import zmq.utils.garbage  # it has an exit handler, which must be older than ours

from xpool_protocol.errors import PeerError, PoolError, UsageError
from xpool_protocol.transport.address import Address
from xpool_protocol.transport.base import (
    MAX_FRAMES,
    Buffer,
    Link,
    LinkStatistics,
    Listener,
    ListenerStatistics,
    NativeSockets,
    PeerId,
    TransportOptions,
    message_nbytes,
)
from xpool_protocol.transport.failures import (
    lost,
    nobody,
    too_large,
    too_many_frames,
)
from xpool_protocol.transport.guard import Guard
from xpool_protocol.transport.tally import Tally, deadline_after
from xpool_protocol.transport.zmq_socket import ZmqSocket, is_small

REDIAL_S: Final = 0.05
"""Between two attempts to connect: a server that is just starting is found soon,
and one that is down is not bothered much."""

_PEER_ID_NBYTES: Final = 5  # a zero and 32 bits: how a ROUTER names its peers


class ZmqLink(Link):
    """A DEALER socket with one connection in its life."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self.uri = address.uri
        self._guard = Guard(address.uri)
        self._options = options
        self._tally = Tally()
        self._socket = ZmqSocket(zmq.DEALER, address, options)
        # Sent, but not yet known to have a connection that carries it.
        self._held: list[Sequence[Buffer]] = []
        self._failure: PoolError | None = None
        self._connected = False
        self._owes_none = False
        self._connect_deadline = deadline_after(options.connect_timeout_s)
        self._redial_at: float | None = None
        try:
            self._socket.dial()
        except PoolError:
            self._socket.close(0)
            raise

    def send(self, frames: Sequence[Buffer]) -> None:
        self._check()
        nbytes = message_nbytes(frames, self._options.max_message_nbytes)
        if not self._connected:
            frames = [_kept(frame) for frame in frames]
            self._held.append(frames)
        if not self._socket.send(frames) and self._connected:
            self._failure = lost(self.uri)
            self._check()
        self._tally.count_sent(nbytes)

    def receive(self, timeout_s: float | None) -> list[memoryview] | None:
        self._guard.check()
        if isinstance(self._failure, PeerError):
            self._check()
        deadline = deadline_after(timeout_s)
        while True:
            # What arrived before the break is given out before it is reported.
            failed = self._failure is not None
            first = 0.0 if failed else self._next_deadline(deadline)
            readable, monitored, interrupted = self._socket.wait(first)
            if monitored or not self._connected:
                self._advance()
            # Messages and interruptions take turns, so that neither starves.
            if readable and not (interrupted and self._owes_none):
                self._owes_none = interrupted
                frames = self._read()
                if frames is not None:
                    return frames
            elif failed and not readable:
                self._check()
            elif interrupted:
                self._owes_none = False
                self._socket.acknowledge()
                return None
            elif self._failure is None and time.monotonic() >= deadline:
                return None

    def _next_deadline(self, deadline: float) -> float:
        if self._connected:
            return deadline
        redial_at = self._connect_deadline
        if self._redial_at is not None:
            redial_at = min(redial_at, self._redial_at)
        return min(deadline, redial_at)

    def _advance(self) -> None:
        """Take in what the monitor saw, and keep dialling until it succeeds."""
        for event in self._socket.events():
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
                self._held.clear()
            elif not self._connected:
                self._redial_at = self._redial_at or time.monotonic() + REDIAL_S
            elif event == zmq.EVENT_DISCONNECTED:
                self._failure = self._failure or lost(self.uri)
        if self._connected or self._failure is not None:
            return
        now = time.monotonic()
        if now >= self._connect_deadline:
            self._failure = nobody(self.uri, self._options.connect_timeout_s)
        elif self._redial_at is not None and now >= self._redial_at:
            self._redial_at = None
            self._redial()

    def _redial(self) -> None:
        """Try again; what was queued for the failed attempt is queued anew."""
        self._socket.hang_up()
        self._socket.dial()
        for frames in self._held:
            self._socket.send(frames)

    def _read(self) -> list[memoryview] | None:
        received = self._socket.receive()
        if received is None:
            return None
        frames, count = received
        nbytes = sum(frame.nbytes for frame in frames)
        if count > MAX_FRAMES:
            self._failure = too_many_frames(self.uri, MAX_FRAMES)
        elif nbytes > self._options.max_message_nbytes:
            self._failure = too_large(self.uri, self._options.max_message_nbytes)
        if isinstance(self._failure, PeerError):
            self._check()
        self._tally.count_received(nbytes)
        return frames

    def _check(self) -> None:
        self._guard.check()
        if self._failure is not None:
            # A new one each time: an exception that is raised again grows.
            raise type(self._failure)(*self._failure.args)

    def watch(self, fileno: int) -> None:
        self._guard.check()
        self._socket.watch(fileno)

    def wake(self) -> None:
        self._guard.check_process()
        self._socket.bell.ring()

    def unsent(self) -> int:
        return len(self._held) + self._socket.unsent()

    def close(self) -> None:
        if not self._guard.close():
            return
        deadline = deadline_after(self._options.linger_s)
        while self._held and self._failure is None and time.monotonic() < deadline:
            self._socket.wait_for_event(self._next_deadline(deadline))
            self._advance()
        self._held.clear()
        self._socket.close(0 if self._failure else max(0, deadline - time.monotonic()))

    def statistics(self) -> LinkStatistics:
        return self._tally.of_link()

    def hand_over(self) -> NativeSockets | None:
        self._check()
        self._advance()
        if not self._connected:
            return None
        return self._socket.native(self._options.max_message_nbytes)

    def give_up(self) -> None:
        self._failure = self._failure or lost(self.uri)


class ZmqListener(Listener):
    """A ROUTER socket on one address."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        if address.scheme == "ipc":
            _clear_path(address)
        self._guard = Guard(address.uri)
        self._options = options
        self._tally = Tally()
        self._owes_none = False
        self._socket = ZmqSocket(zmq.ROUTER, address, options)
        try:
            self.uri = self._socket.bind()
        except PoolError:
            self._socket.close(0)
            raise
        self._file = _SocketFile(address)

    def receive(
        self, timeout_s: float | None
    ) -> tuple[PeerId, list[memoryview]] | None:
        self._guard.check()
        deadline = deadline_after(timeout_s)
        while True:
            readable, _, interrupted = self._socket.wait(deadline)
            # Messages and interruptions take turns, so that neither starves.
            if readable and not (interrupted and self._owes_none):
                self._owes_none = interrupted
                message = self._read()
                if message is not None:
                    return message
            if interrupted:
                self._owes_none = False
                self._socket.acknowledge()
                return None
            if time.monotonic() >= deadline:
                return None

    def _read(self) -> tuple[PeerId, list[memoryview]] | None:
        received = self._socket.receive()
        if received is None:
            return None
        (name, *frames), count = received
        peer = PeerId(bytes(name))
        nbytes = sum(frame.nbytes for frame in frames)
        if (
            count - 1 > MAX_FRAMES
            or nbytes > self._options.max_message_nbytes
            or len(peer) != _PEER_ID_NBYTES
            or peer[0] != 0
        ):
            self._tally.messages_refused += 1
            return None
        self._tally.count_received(nbytes)
        return peer, frames

    def send(self, peer: PeerId, frames: Sequence[Buffer]) -> None:
        self._guard.check()
        nbytes = message_nbytes(frames, self._options.max_message_nbytes)
        if self._socket.send(frames, peer=peer):
            self._tally.count_sent(nbytes)
        else:
            self._tally.messages_undeliverable += 1

    def watch(self, fileno: int) -> None:
        self._guard.check()
        self._socket.watch(fileno)

    def wake(self) -> None:
        self._guard.check_process()
        self._socket.bell.ring()

    def unsent(self) -> int:
        return self._socket.unsent()

    def close(self) -> None:
        if self._guard.close():
            self._file.remove()
            self._socket.close()

    def lend(self) -> NativeSockets | None:
        self._guard.check()
        return self._socket.native(self._options.max_message_nbytes)

    def statistics(self) -> ListenerStatistics:
        return self._tally.of_listener()


def _kept(frame: Buffer) -> Buffer:
    """A frame that has to wait: small ones are the caller's again at once."""
    if isinstance(frame, bytes):
        return frame
    return bytes(frame) if is_small(frame) else frame


class _SocketFile:
    """The file that an ``ipc://`` listener makes and libzmq leaves behind."""

    def __init__(self, address: Address) -> None:
        self._path = address.rest
        self._identity: tuple[int, int] | None = None
        if address.scheme == "ipc" and not self._path.startswith("@"):
            self._identity = self._look()

    def remove(self) -> None:
        """Remove it, unless another listener has put its own there.

        Before the listener closes: while it lives, nobody takes the path over.
        """
        if self._identity is not None and self._look() == self._identity:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino


def _clear_path(address: Address) -> None:
    """Make sure that binding replaces nothing but a dead server's socket.

    libzmq deletes whatever lies at the path. Two servers that start on one path
    within the same instant are not told apart.
    """
    path = address.rest
    if path.startswith("@"):
        return  # Linux's abstract names are no files; binding reports them in use
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # nothing there; or not allowed to look, which binding reports
    if not stat.S_ISSOCK(mode):
        raise UsageError(
            f"address {address.uri} can not be used: a file that is no socket is there"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise UsageError(
                f"address {address.uri} can not be used: {error.strerror}"
            ) from error
    raise UsageError(
        f"address {address.uri} is already in use: stop the other server or choose"
        " another"
    )
