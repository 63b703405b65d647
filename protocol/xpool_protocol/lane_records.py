"""Records of large uploads and downloads, which move beside the log's messages.

Bytes that travel do so over the bulk lane; bytes that the server still has from an
earlier session need not travel: ``UploadKnown`` names them by their digest. SPEC.md
sections 5 and 13 are the authority.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Payload
from xpool_protocol.wire import Reader, Writer

OPEN_LANE: Final = 35
UPLOAD: Final = 36
DOWNLOAD: Final = 37
LIST_KNOWN: Final = 38
UPLOAD_KNOWN: Final = 39

DIGEST_NBYTES: Final = 32
"""Of BLAKE3."""

_KNOWN: Final = struct.Struct(f"<Q{DIGEST_NBYTES}s")


class OpenLane(msgspec.Struct, frozen=True, gc=False):
    """Answer with where the bulk lane can be reached, and its token."""

    request: int


class Upload(msgspec.Struct, frozen=True, gc=False):
    """Fill a range of a storage with bytes that come over the bulk lane."""

    storage: int
    offset: int
    """In bytes."""
    nbytes: int


class Download(msgspec.Struct, frozen=True, gc=False):
    """Send a range of a storage over the bulk lane, then answer."""

    request: int
    storage: int
    offset: int
    nbytes: int


class ListKnown(msgspec.Struct, frozen=True, gc=False):
    """Answer with the contents that ``UploadKnown`` may name in this session."""

    request: int


class UploadKnown(msgspec.Struct, frozen=True, gc=False):
    """Fill a range of a storage with bytes that the server has already."""

    storage: int
    offset: int
    nbytes: int
    digest: bytes
    """BLAKE3 of the bytes."""


LaneRecord: TypeAlias = OpenLane | Upload | Download | ListKnown | UploadKnown


class Known(NamedTuple):
    """A content that the server has."""

    nbytes: int
    digest: bytes


def payload_of_known(contents: Sequence[Known]) -> bytes:
    """The payload of the answer to a ``ListKnown``."""
    return b"".join(_KNOWN.pack(one.nbytes, one.digest) for one in contents)


def known_from(payloads: Sequence[Payload]) -> list[Known]:
    """What the answer to a ``ListKnown`` says.

    Raises:
        PeerError: it is malformed.

    >>> known_from([payload_of_known([Known(7, bytes(32))])]) == [Known(7, bytes(32))]
    True
    """
    data = b"".join(bytes(payload) for payload in payloads[:1])
    if len(payloads) > 1 or len(data) % _KNOWN.size:
        raise PeerError("the server's list of what it has is malformed")
    if len(data) > limits.MAX_KNOWN * _KNOWN.size:
        raise PeerError("the server says that it has more than it may")
    return [Known(*fields) for fields in _KNOWN.iter_unpack(data)]


def write_lane_record(writer: Writer, record: LaneRecord) -> None:
    """Append one record in its canonical form.

    Raises:
        ValueError: a digest of another length.
    """
    match record:
        case OpenLane():
            writer.uint8(OPEN_LANE)
            writer.uvarint(record.request)
        case ListKnown():
            writer.uint8(LIST_KNOWN)
            writer.uvarint(record.request)
        case Download():
            writer.uint8(DOWNLOAD)
            writer.uvarint(record.request)
            _write_range(writer, record)
        case Upload():
            writer.uint8(UPLOAD)
            _write_range(writer, record)
        case UploadKnown():
            if len(record.digest) != DIGEST_NBYTES:
                raise ValueError(f"a digest has {DIGEST_NBYTES} bytes")
            writer.uint8(UPLOAD_KNOWN)
            _write_range(writer, record)
            writer.raw(record.digest)


def _write_range(writer: Writer, record: Upload | Download | UploadKnown) -> None:
    writer.uvarint(record.storage)
    writer.uvarint(record.offset)
    writer.uvarint(record.nbytes)


def read_upload(reader: Reader) -> Upload:
    """The fields of an ``Upload``, or ``PeerError``."""
    return Upload(*_range(reader))


def read_download(reader: Reader, request: int) -> Download:
    """The fields of a ``Download`` behind its request, or ``PeerError``."""
    return Download(request, *_range(reader))


def read_upload_known(reader: Reader) -> UploadKnown:
    """The fields of an ``UploadKnown``, or ``PeerError``."""
    return UploadKnown(*_range(reader), bytes(reader.raw(DIGEST_NBYTES, "digest")))


def _range(reader: Reader) -> tuple[int, int, int]:
    return (
        reader.uvarint(limits.MAX_STORAGE_ID, "storage id"),
        reader.uvarint(limits.MAX_STORAGE_NBYTES, "number of bytes"),
        reader.uvarint(limits.MAX_STORAGE_NBYTES, "number of bytes"),
    )
