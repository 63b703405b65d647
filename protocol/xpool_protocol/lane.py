"""The bulk lane: one stream beside a session's calls, for large ranges of storages.

Pure: what stands on the stream, as SPEC.md section 13 says. The client opens it with a
greeting. Then each direction is a list of transfers, a header and its bytes, in the
order of the log's ``Upload`` and ``Download`` records.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from xpool_protocol.errors import PeerError

MAGIC: Final = b"XPLANE01"
TOKEN_NBYTES: Final = 32
GREETING_NBYTES: Final = len(MAGIC) + TOKEN_NBYTES
ACCEPTED: Final = b"+"
"""The server's answer to a greeting; to anything else it closes the stream."""

FAILED: Final = (1 << 64) - 1
"""In the place of a length: no bytes follow, the record's answer says why."""

_HEADER: Final = struct.Struct("<QQ")
HEADER_NBYTES: Final = _HEADER.size


class Header(NamedTuple):
    """What stands before the bytes of a transfer."""

    number: int
    """Of an upload the operation number of its record, of a download its request."""

    nbytes: int
    """Of a download also ``FAILED``."""


def greeting(token: bytes) -> bytes:
    """The first bytes on a lane.

    Raises:
        PeerError: no token of ours has this length.
    """
    if len(token) != TOKEN_NBYTES:
        raise PeerError(f"a lane's token has {TOKEN_NBYTES} bytes, not {len(token)}")
    return MAGIC + token


def token_of(data: bytes) -> bytes:
    """The token that a greeting shows.

    Raises:
        PeerError: it is no greeting.
    """
    if len(data) != GREETING_NBYTES or not data.startswith(MAGIC):
        raise PeerError("what came over the bulk lane is no greeting")
    return data[len(MAGIC) :]


def header_bytes(header: Header) -> bytes:
    """A header as it stands on the stream."""
    return _HEADER.pack(header.number, header.nbytes)


def header_from(data: bytes | bytearray) -> Header:
    """A header from the stream; its length is only a claim.

    >>> header_from(header_bytes(Header(7, 1 << 20)))
    Header(number=7, nbytes=1048576)
    """
    return Header(*_HEADER.unpack(data))
