"""Opens the client's end of a bulk lane (SPEC.md section 13)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from blake3 import blake3
from xpool_protocol import lane as wire

CONNECT_TIMEOUT_S: Final = 3.0
"""A firewall that swallows packets costs this once; then all bytes go the other way."""

MAX_ADDRESSES: Final = 8
LANE_VARIABLE: Final = "XPOOL_LANE"


def is_wanted() -> bool:
    """Whether the user has left lanes on."""
    return os.environ.get(LANE_VARIABLE) != "off"


def _may_be_local() -> bool:
    """Whether a server on this very host may be reached without the network."""
    return os.environ.get(LANE_VARIABLE) != "tcp"


def digest_of(data: memoryview) -> bytes:
    """What names a content, as in ``UploadKnown``."""
    return blake3(data, max_threads=blake3.AUTO).digest()


def lane_to(addresses: Sequence[object], host: str, token: str) -> socket.socket | None:
    """A stream to the first address that takes the token; blocking.

    Args:
        addresses: as the server told them, the best one first.
        host: where the session's own connection leads.
        token: 64 hexadecimal digits.

    Returns:
        None where no address can be reached.
    """
    try:
        greeting = wire.greeting(bytes.fromhex(token))
    except ValueError:
        return None
    for address in addresses[:MAX_ADDRESSES]:
        stream = _connected(str(address), host)
        if stream is None:
            continue
        try:
            stream.sendall(greeting)
            if stream.recv(1) == wire.ACCEPTED:
                stream.settimeout(None)
                return stream
        except OSError:
            pass  # closed on us: it is somebody else's socket, or taken
        stream.close()
    return None


def _connected(address: str, host: str) -> socket.socket | None:
    kind, _, where = address.partition(":")
    try:
        if kind == "unix" and where.startswith("@") and _may_be_local():
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
