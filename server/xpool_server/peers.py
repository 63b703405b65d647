"""Bytes between the workers of one job: a door for others, and lines to them.

Each worker listens beside its data plane (SPEC.md section 14). A line goes to one
other worker: it fetches what that one keeps for us, and its end is how we learn that
the other one is gone. All of it runs in threads of its own, so that a worker that
waits still hears its node; ``wake_fileno`` tells the worker's loop that there is news.

The threads touch host memory only. The device is the loop's business.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
from xpool_protocol import limits
from xpool_protocol.errors import PeerError, UsageError
from xpool_protocol.messages import Fault
from xpool_protocol.peer_records import TICKET_NBYTES

from xpool_server.processors import start_helper
from xpool_server.vouching import Vouching

HELLO: Final = b"XPPEER01"
ANSWER: Final = struct.Struct("<BI")
"""What comes, and how many bytes it has."""
BYTES, FAULT = range(2)

MAX_FAULT_NBYTES: Final = 64 << 10
MAX_GUESTS: Final = 128
"""Connections to the door at once: two for each peer, and some for strangers."""
HELLO_TIMEOUT_S: Final = 5.0
"""For a guest to show the key; strangers do not keep a place for longer."""
CONNECT_TIMEOUT_S: Final = 10.0
MAX_HELD_NBYTES: Final = 64 << 20
"""Kept for peers that have not fetched yet; beyond it a source waits for them."""

_STACK_NBYTES: Final = 256 << 10
"""Of each thread: many of them count against the process's own limit otherwise."""
_starting = threading.Lock()

Parcel = bytes | Fault


class Fetch:
    """One piece on its way here."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.is_over = False
        self.parcel: Parcel | bytearray | None = None
        """What came; None while under way, and after a failure."""
        self.failure = ""
        """Why nothing came."""


class Line:
    """To one peer; asks for one piece at a time."""

    def __init__(
        self, address: str, key: str, name: str, on_news: Callable[[], None]
    ) -> None:
        self.name = name
        self.failure = ""
        """Why the line is dead; empty while it is not."""
        self._address, self._key, self._on_news = address, key, on_news
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ticket = b""
        self._fetch: Fetch | None = None
        start_thread(self._run, f"peer-line {name}")

    def fetch(self, ticket: bytes, nbytes: int) -> Fetch:
        """Ask for a piece; the answer is in the object when it is over."""
        fetch = Fetch(nbytes)
        with self._lock:
            if self.failure:
                fetch.failure, fetch.is_over = self.failure, True
                return fetch
            self._ticket, self._fetch = ticket, fetch
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the reader notices it as well
                    self._socket.sendall(ticket)
        return fetch

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            with connected(self._address) as connection:
                key = self._key.encode()
                connection.sendall(HELLO + bytes([len(key)]) + key)
                with self._lock:
                    self._socket = connection
                    if self._fetch is not None:
                        connection.sendall(self._ticket)
                while True:
                    self._read_answer(connection)
        except (OSError, PeerError) as error:
            why = f"the worker of {self.name} is gone ({error})"
        with self._lock:
            self._socket, self.failure = None, why
            fetch, self._fetch = self._fetch, None
        if fetch is not None:
            fetch.failure, fetch.is_over = why, True
        self._on_news()

    def _read_answer(self, connection: socket.socket) -> None:
        kind, nbytes = ANSWER.unpack(received(connection, ANSWER.size))
        with self._lock:
            fetch = self._fetch
        if fetch is None:
            raise PeerError("it spoke without having been asked")
        if kind == BYTES and nbytes == fetch.nbytes:
            fetch.parcel = received(connection, nbytes)
        elif kind == FAULT and nbytes <= MAX_FAULT_NBYTES:
            fetch.parcel = fault_from(bytes(received(connection, nbytes)))
        else:
            raise PeerError(f"it sent {nbytes} bytes of kind {kind}")
        with self._lock:
            self._fetch = None
        fetch.is_over = True
        self._on_news()


class Peers:
    """This worker's door, what lies ready behind it, and the lines to others."""

    def __init__(
        self,
        listener: socket.socket,
        address: str,
        host: str,
        vouching: Vouching | None = None,
    ) -> None:
        """Serve other workers on a listening socket.

        Args:
            listener: bound and listening; closed by ``close``.
            address: where, as ``peer_listener`` says it.
            host: on which this worker listens, empty for all.
            vouching: for the door's address, and of those that may be dialled.
        """
        self.host = host
        self.vouching = vouching or Vouching()
        self.wake_fileno = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = listener
        if address.startswith("tcp://:"):
            address = f"tcp://{self.vouching.host}:{address.rpartition(':')[2]}"
        self._address = self.vouching.sealed(address)
        self._key = secrets.token_urlsafe(24)
        self._changed = threading.Condition()
        self._parcels: dict[bytes, tuple[int, Parcel]] = {}
        self._held_nbytes = 0
        self._guests: set[socket.socket] = set()
        self._lines: dict[int, Line] = {}
        self._is_closed = False
        start_thread(self._accept, "peer-door")

    def properties(self) -> dict[str, str]:
        """How the client tells others of this door, as ``Welcome.properties``."""
        return {"peer_address": self._address, "peer_key": self._key}

    def define(self, peer: int, address: str, key: str, name: str) -> None:
        """Open a line to a peer.

        Raises:
            UsageError: it has one.
            ArgumentInvalid: nobody vouches for the address.
        """
        if peer in self._lines:
            raise UsageError(f"peer {peer} is defined already")
        address = self.vouching.opened(address)
        self._lines[peer] = Line(address, key, name, lambda: self._news_of(peer))

    def line(self, peer: int) -> Line:
        """The line to a peer.

        Raises:
            UsageError: there is none.
        """
        try:
            return self._lines[peer]
        except KeyError:
            raise UsageError(f"peer {peer} was never defined") from None

    @property
    def has_room(self) -> bool:
        """Whether another piece may be kept now; one may overdraw."""
        return self._held_nbytes < MAX_HELD_NBYTES

    def keep(self, peer: int, ticket: bytes, parcel: Parcel) -> None:
        """Keep a piece until that peer fetches it, or is gone."""
        if self.line(peer).failure:
            return
        with self._changed:
            if ticket in self._parcels:
                raise UsageError("a ticket is good for one copy")
            self._parcels[ticket] = (peer, parcel)
            self._held_nbytes += _nbytes_of(parcel)
            self._changed.notify_all()
        if self.line(peer).failure:  # it died meanwhile
            self._drop(peer)

    def clear_news(self) -> None:
        """The loop has seen it."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_fileno)

    def close(self) -> None:
        """Close door and lines; threads end by themselves."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for guest in self._guests:
                with contextlib.suppress(OSError):
                    guest.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._lines.values():
            line.close()

    def news(self) -> None:
        """Wake the loop; for whoever works in another thread on its behalf."""
        os.eventfd_write(self.wake_fileno, 1)

    def _news_of(self, peer: int) -> None:
        line = self._lines.get(peer)
        if line is not None and line.failure:
            self._drop(peer)
        self.news()

    def _drop(self, peer: int) -> None:
        """Nobody will fetch what is kept for that peer."""
        with self._changed:
            for ticket, (whose, parcel) in list(self._parcels.items()):
                if whose == peer:
                    del self._parcels[ticket]
                    self._held_nbytes -= _nbytes_of(parcel)

    # ---- the door

    def _accept(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:  # closed
                return
            with self._changed:
                is_welcome = len(self._guests) < MAX_GUESTS and not self._is_closed
                if is_welcome:
                    self._guests.add(guest)
            if is_welcome:
                start_thread(partial(self._host, guest), "peer-guest")
            else:
                guest.close()

    def _host(self, guest: socket.socket) -> None:
        try:
            with guest:
                guest.settimeout(HELLO_TIMEOUT_S)
                if self._is_let_in(guest):
                    guest.settimeout(None)
                    keep_alive(guest)
                    self._serve(guest)
        except (OSError, PeerError):
            pass  # a stranger, or a peer that has ended: its own session says so
        finally:
            with self._changed:
                self._guests.discard(guest)

    def _is_let_in(self, guest: socket.socket) -> bool:
        head = received(guest, len(HELLO) + 1)
        if not head.startswith(HELLO):
            return False
        key = bytes(received(guest, head[-1]))
        return hmac.compare_digest(key, self._key.encode())

    def _serve(self, guest: socket.socket) -> None:
        while True:
            ticket = bytes(received(guest, TICKET_NBYTES))
            with self._changed:
                while ticket not in self._parcels:
                    if self._is_closed:
                        return
                    self._changed.wait()
                _, parcel = self._parcels.pop(ticket)
            try:
                if isinstance(parcel, Fault):
                    data = msgspec.msgpack.encode(parcel)
                    guest.sendall(ANSWER.pack(FAULT, len(data)) + data)
                else:
                    guest.sendall(ANSWER.pack(BYTES, len(parcel)))
                    guest.sendall(parcel)
            finally:
                with self._changed:
                    self._held_nbytes -= _nbytes_of(parcel)
                self.news()


def _nbytes_of(parcel: Parcel) -> int:
    return 0 if isinstance(parcel, Fault) else len(parcel)


def fault_from(data: bytes) -> Fault:
    """A fault as another worker sent it.

    Raises:
        PeerError: it is none.
    """
    try:
        return _FAULT.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"a fault is malformed: {error}") from error


_FAULT: Final = msgspec.msgpack.Decoder(Fault)


def received(connection: socket.socket, nbytes: int) -> bytearray:
    """Exactly so many bytes.

    Raises:
        ConnectionError: the other end has closed before.
    """
    buffer = bytearray(min(nbytes, limits.TRANSFER_NBYTES))
    view, got = memoryview(buffer), 0
    while got < len(buffer):
        count = connection.recv_into(view[got:])
        if count == 0:
            raise ConnectionResetError("the connection was closed")
        got += count
    return buffer


def connected(address: str) -> socket.socket:
    """A connection to another worker's door.

    Raises:
        OSError: nobody is there.
        PeerError: no such kind of address.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "ipc":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(rest.replace("@", "\0", 1))
        except OSError:
            connection.close()
            raise
    elif scheme == "tcp":
        host, _, port = rest.rpartition(":")
        if not port.isdecimal() or not 0 < int(port[:6]) < 65_536:
            raise PeerError(f"{address!r} names no port")
        where = (host.strip("[]"), int(port))
        connection = socket.create_connection(where, CONNECT_TIMEOUT_S)
        keep_alive(connection)
    else:
        raise PeerError(f"{address!r} is no address of a worker's door")
    connection.settimeout(None)
    return connection


def keep_alive(connection: socket.socket) -> None:
    """Notice within some ten seconds that the path is gone; small pieces go at once."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000)


def start_thread(
    run: Callable[[], None], name: str, stack_nbytes: int = _STACK_NBYTES
) -> None:
    """A daemon thread with a stack of its own size."""
    with _starting:
        before = threading.stack_size(stack_nbytes)
        try:
            start_helper(run, name)
        finally:
            threading.stack_size(before)
