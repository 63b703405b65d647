"""Opens the client's end of a bulk lane (SPEC.md section 13)."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from xpool_protocol import lane as wire
from xpool_protocol.errors import UsageError

CONNECT_TIMEOUT_S: Final = 3.0
"""A firewall that swallows packets costs this once; then all bytes go the other way."""

MAX_ADDRESSES: Final = 8
LANE_VARIABLE: Final = "XPOOL_LANE"


_WAYS: Final[dict[str, tuple[str, ...]]] = {
    "auto": ("memory", "unix", "tcp"),
    "unix": ("unix", "tcp"),
    "tcp": ("tcp",),
    "off": (),
}
"""Kinds of addresses to be tried, by what the user has said."""


def wanted_kinds() -> tuple[str, ...]:
    """Kinds of addresses that the user lets a lane lead to; none: go without.

    Raises:
        UsageError: an unknown value.
    """
    chosen = os.environ.get(LANE_VARIABLE) or "auto"
    if chosen not in _WAYS:
        raise UsageError(f"{LANE_VARIABLE} is {chosen!r}: write auto, unix, tcp or off")
    return _WAYS[chosen]


def is_wanted() -> bool:
    """Whether the user has left lanes on."""
    return bool(wanted_kinds())


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """What a client on the server's own host gives the server to copy through."""

    memory: int
    """Descriptor of ``MEMORY_NBYTES`` bytes."""
    freed: socket.socket
    """Where each end tells the other that a slot is free again."""

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.memory)
        self.freed.close()


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """An accepted lane; its descriptors belong to whoever has it."""

    stream: socket.socket
    shared: SharedMemory | None = None

    @property
    def is_local(self) -> bool:
        """Whether it leads to a server on this very host."""
        return self.stream.family == socket.AF_UNIX


def digest_of(data: memoryview) -> bytes:
    """What names a content, as in ``UploadKnown``."""
    return blake3(data, max_threads=blake3.AUTO).digest()


def lane_to(addresses: Sequence[object], host: str, token: str) -> LaneEnd | None:
    """A lane to the first address that takes the token; blocking.

    Args:
        addresses: as the server told them, the best one first.
        host: where the session's own connection leads.
        token: 64 hexadecimal digits.

    Returns:
        None where no address can be reached.
    """
    try:
        secret = bytes.fromhex(token)
        wire.greeting(secret)
    except ValueError:
        return None
    wanted = wanted_kinds()
    for address in addresses[:MAX_ADDRESSES]:
        kind, _, where = str(address).partition(":")
        if kind in wanted:
            end = _lane_by(kind, where, host, secret)
            if end is not None:
                return end
    return None


def _lane_by(kind: str, where: str, host: str, secret: bytes) -> LaneEnd | None:
    stream = _connected(kind, where, host)
    if stream is None:
        return None
    shared = None
    try:
        if kind == "memory":
            shared, theirs = _shared_memory()
            with theirs:
                _greet_with(
                    stream, wire.greeting(secret, is_shared=True), shared, theirs
                )
        else:
            stream.sendall(wire.greeting(secret))
        if stream.recv(1) == wire.ACCEPTED:
            stream.settimeout(None)
            return LaneEnd(stream, shared)
    except OSError:
        pass  # closed on us: it is somebody else's socket, or taken
    stream.close()
    if shared is not None:
        shared.close()
    return None


def _greet_with(
    stream: socket.socket,
    greeting: bytes,
    shared: SharedMemory,
    theirs: socket.socket,
) -> None:
    sent = socket.send_fds(stream, [greeting], [shared.memory, theirs.fileno()])
    stream.sendall(greeting[sent:])


def _shared_memory() -> tuple[SharedMemory, socket.socket]:
    """Memory to share, and the server's end of its socket; raises ``OSError``."""
    memory = os.memfd_create("xpool-lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, wire.MEMORY_NBYTES)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        ours, theirs = socket.socketpair()
    except BaseException:
        os.close(memory)
        raise
    return SharedMemory(memory, ours), theirs


def _connected(kind: str, where: str, host: str) -> socket.socket | None:
    try:
        if kind in ("memory", "unix") and where.startswith("@"):
            return _local(where[1:])
        if kind == "tcp" and where.isdecimal() and host:
            stream = socket.create_connection((host, int(where)), CONNECT_TIMEOUT_S)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return stream
    except (OSError, OverflowError):
        pass  # not reachable from here: the next one may be
    return None


def _local(name: str) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(CONNECT_TIMEOUT_S)
    try:
        stream.connect(f"\0{name}")
    except OSError:
        stream.close()
        raise
    return stream
