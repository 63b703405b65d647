"""Where a worker waits for its client's bulk lane, and who may come in."""

from __future__ import annotations

import hmac
import os
import secrets
import selectors
import socket
from typing import Final

from xpool_protocol import lane as wire
from xpool_protocol.errors import PeerError

from xpool_server.addresses import PortRange, bound_socket
from xpool_server.shared_ring import SharedRing
from xpool_server.stream_reading import fill_from

GREETING_TIMEOUT_S: Final = 2.0
SEND_TIMEOUT_S: Final = 60.0
"""A client that takes nothing for so long is not there any more."""

SHARED_FDS: Final = 2
"""The memory, and the socket that tells of free slots."""


class LaneDoor:
    """Listens on this host and on the network until the one client has come."""

    def __init__(self, host: str, ports: PortRange | None) -> None:
        """Nothing is opened yet; see ``SocketLane``."""
        self._host = host
        self._ports = ports
        self._listeners: list[socket.socket] = []
        self.token = b""
        """What the client has to show; empty until the door opens."""
        self.addresses: list[str] = []
        """As ``OpenLane`` answers them, the best one first."""

    @property
    def is_open(self) -> bool:
        """It has been opened, and may be closed again since."""
        return bool(self.token)

    def open(self) -> None:
        """Listen."""
        self.token = secrets.token_bytes(wire.TOKEN_NBYTES)
        name = f"xpool-{secrets.token_hex(16)}"
        local = socket.socket(socket.AF_UNIX)
        self._listeners.append(local)
        local.bind(f"\0{name}")
        local.listen(4)
        self.addresses += [f"memory:@{name}", f"unix:@{name}"]
        if self._host:
            remote = bound_socket(self._host, self._ports)
            self._listeners.append(remote)
            self.addresses.append(f"tcp:{remote.getsockname()[1]}")

    def accept(
        self, wake_end: socket.socket
    ) -> tuple[socket.socket, SharedRing | None]:
        """Wait for the first stream that shows the token; nobody is let in after it.

        Args:
            wake_end: readable or closed when the waiting is to end.

        Raises:
            EOFError: the waiting ended before anybody came.
        """
        with selectors.DefaultSelector() as selector:
            for one in (*self._listeners, wake_end):
                selector.register(one, selectors.EVENT_READ)
            while True:
                ready = [key.fd for key, _ in selector.select()]
                if wake_end.fileno() in ready:
                    raise EOFError("the session ended before the bulk lane was used")
                for one in self._listeners:
                    if one.fileno() in ready:
                        stream, _ = one.accept()
                        try:
                            ring = self._greeted(stream)
                        except (OSError, EOFError, PeerError):
                            stream.close()
                            continue
                        self.close()
                        return stream, ring

    def close(self) -> None:
        """Listen no more; idempotent."""
        for one in self._listeners:
            one.close()

    def _greeted(self, stream: socket.socket) -> SharedRing | None:
        """The memory that came with a greeting, if any came."""
        stream.settimeout(GREETING_TIMEOUT_S)
        fds: list[int] = []
        try:
            greeting = _greeting_from(stream, fds)
            if not hmac.compare_digest(wire.token_of(greeting), self.token):
                raise PeerError("a stranger came to the bulk lane")
            is_shared = wire.is_shared_greeting(greeting)
            ring = _ring_from(fds) if is_shared else None
        finally:
            for fd in fds:
                os.close(fd)
        stream.settimeout(SEND_TIMEOUT_S)
        if stream.family != socket.AF_UNIX:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ring


def _greeting_from(stream: socket.socket, fds: list[int]) -> bytes:
    """The first bytes of a stream, and the descriptors that came with them.

    Args:
        stream: with a timeout.
        fds: takes the descriptors, whatever happens; the caller closes them.
    """
    greeting = bytearray(wire.GREETING_NBYTES)
    view = memoryview(greeting)
    if stream.family == socket.AF_UNIX:
        # Descriptors come with the first byte that they were sent with.
        first, came, _, _ = socket.recv_fds(stream, len(view), SHARED_FDS)
        fds += came
        view[: len(first)] = first
        if not first:
            raise EOFError("the bulk lane was closed")
        view = view[len(first) :]
    fill_from(stream, view)
    return bytes(greeting)


def _ring_from(fds: list[int]) -> SharedRing:
    """The client's ring; takes out of the list what it keeps."""
    if len(fds) != SHARED_FDS:
        raise PeerError("shared memory comes as two descriptors")
    freed = socket.socket(fileno=fds[1])
    del fds[1]
    try:
        freed.settimeout(SEND_TIMEOUT_S)
        return SharedRing(fds[0], freed)
    except BaseException:
        freed.close()
        raise
