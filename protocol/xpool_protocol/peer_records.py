"""Records by which the devices of one job exchange bytes among their workers.

A copy from one device to another is a ``Send`` in the log of the source and a
``Receive`` in the log of the target. Both name a ticket; the target's worker fetches
the bytes from the source's. SPEC.md sections 5 and 13 are the authority.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.wire import Reader, Writer

DEFINE_PEER: Final = 15
SEND: Final = 16
RECEIVE: Final = 17

TICKET_NBYTES: Final = 16


class DefinePeer(msgspec.Struct, frozen=True, gc=False):
    """Names the worker of another device of the job once; records use its number."""

    peer: int
    address: str
    """Where it serves other workers: ``tcp://HOST:PORT`` or ``ipc://PATH``."""
    key: str
    """What it lets another worker in by."""
    name: str
    """For people."""


class Send(msgspec.Struct, frozen=True, gc=False):
    """Keep a copy of these bytes for a peer, which will fetch them."""

    storage: int
    offset: int
    nbytes: int
    ticket: bytes
    peer: int


class Receive(msgspec.Struct, frozen=True, gc=False):
    """Fetch bytes from a peer and put them here; later records wait."""

    storage: int
    offset: int
    nbytes: int
    ticket: bytes
    peer: int


PeerRecord: TypeAlias = DefinePeer | Send | Receive


def write_peer_record(writer: Writer, record: PeerRecord) -> None:
    """Append one record in its canonical form.

    Raises:
        ValueError: a ticket of another length.
    """
    match record:
        case DefinePeer():
            writer.uint8(DEFINE_PEER)
            writer.uvarint(record.peer)
            writer.text(record.address)
            writer.text(record.key)
            writer.text(record.name)
        case Send() | Receive():
            if len(record.ticket) != TICKET_NBYTES:
                raise ValueError(f"a ticket has {TICKET_NBYTES} bytes")
            writer.uint8(SEND if isinstance(record, Send) else RECEIVE)
            writer.uvarint(record.storage)
            writer.uvarint(record.offset)
            writer.uvarint(record.nbytes)
            writer.raw(record.ticket)
            writer.uvarint(record.peer)


def read_define_peer(reader: Reader) -> DefinePeer:
    """The fields of a ``DefinePeer``, or ``PeerError``."""
    return DefinePeer(
        _peer(reader),
        reader.text(limits.MAX_NAME_NBYTES, "peer address"),
        reader.text(limits.MAX_NAME_NBYTES, "peer key"),
        reader.text(limits.MAX_NAME_NBYTES, "peer name"),
    )


def read_send(reader: Reader) -> Send:
    """The fields of a ``Send``, or ``PeerError``."""
    return Send(*_range(reader), _ticket(reader), _peer(reader))


def read_receive(reader: Reader) -> Receive:
    """The fields of a ``Receive``, or ``PeerError``."""
    return Receive(*_range(reader), _ticket(reader), _peer(reader))


def _range(reader: Reader) -> tuple[int, int, int]:
    return (
        reader.uvarint(limits.MAX_STORAGE_ID, "storage id"),
        reader.uvarint(limits.MAX_STORAGE_NBYTES, "offset"),
        reader.uvarint(limits.TRANSFER_NBYTES, "number of bytes"),
    )


def _ticket(reader: Reader) -> bytes:
    return bytes(reader.raw(TICKET_NBYTES, "ticket"))


def _peer(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_PEERS - 1, "peer")
