"""The bulk lane: one stream beside a session's calls, for large ranges of storages.

Pure: what stands on the stream, as SPEC.md section 13 says. The client opens it with a
greeting. Then each direction is a list of transfers, a header and its bytes, in the
order of the log's ``Upload`` and ``Download`` records. On one host the bytes may lie
in memory that both share; then the stream says how many the next slot holds.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from xpool_protocol.errors import PeerError

MAGIC: Final = b"XPLANE01"
SHARED_MAGIC: Final = b"XPLANEM1"
"""With it come two file descriptors: the memory, and a socket for ``FREED``."""

TOKEN_NBYTES: Final = 32
GREETING_NBYTES: Final = len(MAGIC) + TOKEN_NBYTES
ACCEPTED: Final = b"+"
"""The server's answer to a greeting; to anything else it closes the stream."""

FAILED: Final = (1 << 64) - 1
"""In the place of a length: no bytes follow, the record's answer says why."""

SLOT_NBYTES: Final = 1 << 20
"""Large enough that a system call costs nothing beside it, small enough for a cache."""

SLOTS: Final = 4
"""Of one direction: while one is filled another is emptied."""

DOWNLOAD_SLOTS_AT: Final = SLOTS * SLOT_NBYTES
"""Where the server's slots begin; the client's stand before them."""

MEMORY_NBYTES: Final = 2 * SLOTS * SLOT_NBYTES
FREED: Final = b"."
"""One slot was emptied and may be filled again."""

_HEADER: Final = struct.Struct("<QQ")
HEADER_NBYTES: Final = _HEADER.size
_COUNT: Final = struct.Struct("<I")
COUNT_NBYTES: Final = _COUNT.size


class Header(NamedTuple):
    """What stands before the bytes of a transfer."""

    number: int
    """Of an upload the operation number of its record, of a download its request."""

    nbytes: int
    """Of a download also ``FAILED``."""


def greeting(token: bytes, *, is_shared: bool = False) -> bytes:
    """The first bytes on a lane.

    Args:
        token: 32 bytes.
        is_shared: descriptors of shared memory come with it.

    Raises:
        PeerError: no token of ours has this length.
    """
    if len(token) != TOKEN_NBYTES:
        raise PeerError(f"a lane's token has {TOKEN_NBYTES} bytes, not {len(token)}")
    return (SHARED_MAGIC if is_shared else MAGIC) + token


def token_of(data: bytes) -> bytes:
    """The token that a greeting shows.

    Raises:
        PeerError: it is no greeting.
    """
    if len(data) != GREETING_NBYTES or data[: len(MAGIC)] not in (MAGIC, SHARED_MAGIC):
        raise PeerError("what came over the bulk lane is no greeting")
    return data[len(MAGIC) :]


def is_shared_greeting(data: bytes) -> bool:
    """Whether descriptors of shared memory belong to a greeting."""
    return data.startswith(SHARED_MAGIC)


def slot_at(number: int) -> int:
    """Where a direction's slot begins, counted from that direction's first.

    >>> [slot_at(number) >> 20 for number in range(6)]
    [0, 1, 2, 3, 0, 1]
    """
    return number % SLOTS * SLOT_NBYTES


def count_bytes(nbytes: int) -> bytes:
    """How many bytes the next slot holds, as it stands on the stream."""
    return _COUNT.pack(nbytes)


def count_from(data: bytes | bytearray) -> int:
    """How many bytes the next slot holds.

    Raises:
        PeerError: none, or more than fit.
    """
    (nbytes,) = _COUNT.unpack(data)
    if not 0 < nbytes <= SLOT_NBYTES:
        raise PeerError(f"a lane's slot can't hold {nbytes} bytes")
    return int(nbytes)


def header_bytes(header: Header) -> bytes:
    """A header as it stands on the stream."""
    return _HEADER.pack(header.number, header.nbytes)


def header_from(data: bytes | bytearray) -> Header:
    """A header from the stream; its length is only a claim.

    >>> header_from(header_bytes(Header(7, 1 << 20)))
    Header(number=7, nbytes=1048576)
    """
    return Header(*_HEADER.unpack(data))
