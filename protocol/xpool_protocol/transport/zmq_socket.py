"""One ZeroMQ socket with what both ends need around it.

Holds everything libzmq wants to be told (options, context, monitor) and the
only place where its errors are read. Knows sockets, not links: who may call
what, and when a path counts as lost, is in ``zmq.py``.

Theory of the options:

* No high-water mark. It counts messages, not bytes, and a full one blocks or
  drops; the credits above bound what is queued, in bytes.
* ``RECONNECT_IVL`` of a day, that is never. Automatic reconnection would hand
  queued messages to a new connection behind a gap that nobody sees. It is not
  -1, because then libzmq discards what had arrived before the break.
* A ZAP domain, though nothing handles it: with one, libzmq refuses peers that
  speak ZMTP 1 or 2. Any bytes at all pass for ZMTP 1, even an HTTP request.
* Heartbeats are answered by libzmq's own thread: a busy process is not silent,
  a stopped one is.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import zmq

from xpool_protocol.errors import BrokenError, PoolError, UsageError
from xpool_protocol.transport.address import Address
from xpool_protocol.transport.base import (
    MAX_FRAMES,
    Buffer,
    NativeSockets,
    TransportOptions,
)
from xpool_protocol.transport.guard import Doorbell
from xpool_protocol.transport.tally import deadline_after, patience_ms
from xpool_protocol.transport.zmq_native import zmq_functions

BY_REFERENCE_NBYTES: Final = 65_536
"""Frames from this size on are sent from the caller's memory. Below it pyzmq's
bookkeeping costs more than the copy (its own COPY_THRESHOLD)."""

# As plain numbers: arithmetic on pyzmq's enumerations costs microseconds a call.
_READABLE: Final = int(zmq.POLLIN)
_LAST: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

_NEVER_MS: Final = 86_400_000
_EVENT: Final = struct.Struct("=HI")  # event, value: zmq_socket_monitor(3)

# What the address, and not the path, is to blame for.
_MISUSE: Final = {
    errno.EINVAL: "it is not a usable address",
    errno.EADDRNOTAVAIL: "no network interface of this machine has it",
    errno.ENODEV: "no network interface of this machine has it",
    errno.ENAMETOOLONG: "the path is too long for a socket",
    errno.EPROTONOSUPPORT: "this build of ZeroMQ can not use it",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOENT: "there is no such folder",
    errno.ENOTDIR: "there is no such folder",
    errno.EROFS: "the file system is read-only",
}

# One context per process, made when first needed. A child keeps its parent's
# here untouched: collecting it would close what is not its own.
_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}
_monitor_numbers = itertools.count(1)


def is_small(frame: Buffer) -> bool:
    """Whether the frame is copied when it is sent."""
    nbytes = frame.nbytes if isinstance(frame, memoryview) else len(frame)
    return nbytes < BY_REFERENCE_NBYTES


def _context() -> zmq.Context[zmq.Socket[bytes]]:
    context = _contexts.get(os.getpid())
    if context is None:
        context = _contexts.setdefault(os.getpid(), zmq.Context())
    return context


def pool_error(error: zmq.ZMQError, uri: str) -> PoolError:
    """Ours for theirs; raise it ``from`` the one it replaces."""
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"address {uri} is already in use: stop the other server or choose another"
        )
    reason = _MISUSE.get(error.errno or 0)
    if reason is not None:
        return UsageError(f"address {uri} can not be used: {reason}")
    return BrokenError(f"the connection at {uri} failed: {error.strerror}")


class ZmqSocket:
    """A DEALER or ROUTER socket, its monitor, and the poller that waits for it."""

    def __init__(
        self, kind: zmq.SocketType, address: Address, options: TransportOptions
    ) -> None:
        self.uri = address.uri
        self.bell = Doorbell()
        self._rung = False
        self._linger_s = options.linger_s
        self._trackers: deque[zmq.MessageTracker] = deque()
        self._socket = _context().socket(kind)
        self._configure(kind, address, options)
        self._monitor = self._open_monitor(kind)
        self._monitor_fd = self._number(self._monitor, zmq.FD)
        self._socket_fd = self._number(self._socket, zmq.FD)
        # The descriptors themselves, as zmq.Poller asks each socket twice and
        # costs a call some 15 us more. A ZeroMQ descriptor only says "look":
        # whether there is a message is asked before every wait.
        self._poll = select.poll()
        for fileno in (self._socket_fd, self._monitor_fd, self.bell.fileno()):
            self._poll.register(fileno, select.POLLIN)

    def _configure(
        self, kind: zmq.SocketType, address: Address, options: TransportOptions
    ) -> None:
        socket = self._socket
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.RECONNECT_IVL, _NEVER_MS)
        socket.set(zmq.MAXMSGSIZE, options.max_message_nbytes)
        socket.set(zmq.HEARTBEAT_IVL, round(options.heartbeat_interval_s * 1000))
        socket.set(zmq.HEARTBEAT_TIMEOUT, round(options.heartbeat_timeout_s * 1000))
        socket.set(zmq.IPV6, int(address.is_ipv6))
        socket.set(zmq.ZAP_DOMAIN, b"xpool")
        if kind == zmq.ROUTER:
            socket.set(zmq.ROUTER_MANDATORY, 1)
            socket.set(zmq.ROUTER_HANDOVER, 0)

    def _open_monitor(self, kind: zmq.SocketType) -> zmq.Socket[bytes]:
        events = zmq.EVENT_MONITOR_STOPPED
        if kind == zmq.DEALER:
            events |= zmq.EVENT_HANDSHAKE_SUCCEEDED
            events |= zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
        name = f"inproc://xpool-monitor-{next(_monitor_numbers)}"
        self._socket.monitor(name, events)
        monitor = _context().socket(zmq.PAIR)
        monitor.set(zmq.LINGER, 0)
        monitor.connect(name)
        # libzmq signals a descriptor only for whoever has looked before.
        monitor.poll(0)
        return monitor

    def native(self, max_message_nbytes: int) -> NativeSockets | None:
        """Both sockets for native code; None where it can't use them."""
        functions = zmq_functions()
        if functions is None:
            return None
        return NativeSockets(
            int(self._socket.underlying),
            int(self._monitor.underlying),
            self._socket_fd,
            self._monitor_fd,
            max_message_nbytes,
            functions,
        )

    def bind(self) -> str:
        """Listen; returns the address with the port that was chosen."""
        try:
            self._socket.bind(self.uri)
        except zmq.ZMQError as error:
            raise pool_error(error, self.uri) from error
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def dial(self) -> None:
        """Begin one attempt to connect; the monitor tells how it ends."""
        try:
            self._socket.connect(self.uri)
        except zmq.ZMQError as error:
            raise pool_error(error, self.uri) from error

    def hang_up(self) -> None:
        """Give up the attempt under way, if there is one, and what waits for it."""
        # Or what the dead attempt has queued would delay ``close``, which sets
        # its own linger.
        self._socket.set(zmq.LINGER, 0)
        try:
            self._socket.disconnect(self.uri)
        except zmq.ZMQError as error:
            # libzmq forgets an attempt by itself when the peer spoke nonsense.
            if error.errno != errno.ENOENT:
                raise pool_error(error, self.uri) from error

    def watch(self, fileno: int) -> None:
        """Wait for this descriptor too."""
        self._poll.register(fileno, select.POLLIN)

    def wait(self, deadline: float) -> tuple[bool, bool, bool]:
        """Wait for anything; whether the socket, the monitor, others are readable.

        A socket that seems readable may have no message after all. What interrupted
        stays so until ``acknowledge``.
        """
        readable = self._has_message()
        monitored = interrupted = False
        for fileno, _ in self._poll.poll(0 if readable else patience_ms(deadline)):
            if fileno == self._socket_fd:
                readable = True  # or only a sign of something else: reading tells
            elif fileno == self._monitor_fd:
                monitored = True
            else:
                interrupted = True
                self._rung = self._rung or fileno == self.bell.fileno()
        return readable, monitored, interrupted

    def acknowledge(self) -> None:
        """The interruption is passed on: wait for the next."""
        if self._rung:
            self._rung = False
            self.bell.silence()

    def _has_message(self) -> bool:
        return bool(self._number(self._socket, zmq.EVENTS) & _READABLE)

    def _number(self, socket: zmq.Socket[bytes], option: zmq.SocketOption) -> int:
        try:
            number = socket.get(option)
        except zmq.ZMQError as error:
            raise pool_error(error, self.uri) from error
        assert isinstance(number, int), option
        return int(number)

    def events(self) -> Iterator[int]:
        """What the monitor has seen since the last time."""
        while self._monitor.poll(0):
            head, _ = self._monitor.recv_multipart()
            yield _EVENT.unpack(head)[0]

    def wait_for_event(self, deadline: float) -> bool:
        """Wait for the monitor alone."""
        return bool(self._monitor.poll(patience_ms(deadline)))

    def send(self, frames: Sequence[Buffer], *, peer: bytes | None = None) -> bool:
        """Queue one message; False when the peer is gone."""
        last = len(frames) - 1
        try:
            if peer is not None:
                self._socket.send(peer, _MORE)
            for index, frame in enumerate(frames):
                self._send_frame(frame, _LAST if index == last else _MORE)
        except zmq.ZMQError as error:
            # Without a high-water mark EAGAIN can only mean that nobody is there.
            if error.errno in (errno.EAGAIN, errno.EHOSTUNREACH):
                return False
            raise pool_error(error, self.uri) from error
        return True

    def _send_frame(self, frame: Buffer, flags: int) -> None:
        if is_small(frame):
            self._socket.send(frame, flags)
            return
        tracker = self._socket.send(frame, flags, copy=False, track=True)
        while self._trackers and self._trackers[0].done:
            self._trackers.popleft()
        self._trackers.append(tracker)

    def unsent(self) -> int:
        """Large frames that libzmq still reads from their senders' memory."""
        return sum(not tracker.done for tracker in self._trackers)

    def receive(self) -> tuple[list[memoryview], int] | None:
        """One message that has arrived: its frames, and how many there were.

        At most ``MAX_FRAMES`` and one (a ROUTER adds the peer's name) are kept;
        the rest is thrown away. None if there was no message after all.
        """
        frames: list[memoryview] = []
        count = 0
        try:
            while True:
                frame = self._socket.recv(_LAST, copy=False)
                count += 1
                if count <= MAX_FRAMES + 1:
                    frames.append(frame.buffer)
                if not frame.more:
                    return frames, count
        except zmq.Again:
            return None
        except zmq.ZMQError as error:
            raise pool_error(error, self.uri) from error

    def close(self, linger_s: float | None = None) -> None:
        """Flush for at most this long (default: as configured) and release all."""
        linger_s = self._linger_s if linger_s is None else linger_s
        self._socket.close(linger=round(linger_s * 1000))
        # The monitor stops when libzmq has let go of the socket: everything was
        # flushed (or linger is over), ports and buffers are free again. Half a
        # second more than that only covers a machine that is very busy.
        deadline = deadline_after(linger_s + 0.5)
        while self.wait_for_event(deadline):
            if zmq.EVENT_MONITOR_STOPPED in self.events():
                break
        # libzmq has dropped the large frames; a thread of pyzmq takes note of it.
        with contextlib.suppress(zmq.NotDone):
            for tracker in self._trackers:
                tracker.wait(patience_ms(deadline) / 1000)
        self._monitor.close()
        self.bell.close()
