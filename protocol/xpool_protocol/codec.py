"""Turns one message into frames and back. Knows bytes, not sockets.

Frame 0 is a fixed 16-byte header and the body; frames 1.. are payload and are
never copied. Whatever a peer sends, ``decode`` returns a message or raises
``PeerError``; anything else is a bug in this file.

    offset  bytes  field
    0       2      magic ``XP``
    2       1      protocol version
    3       1      message kind
    4       2      flags, 0
    6       2      number of frames, this one included
    8       8      sequence number, request id or nonce, by kind
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import (
    Ack,
    Batch,
    Bye,
    Failure,
    Fault,
    Goodbye,
    Hello,
    Inquiry,
    Message,
    Payload,
    Ping,
    Pong,
    Redirect,
    Reply,
    Resized,
    Welcome,
)
from xpool_protocol.version import MAX_VERSION
from xpool_protocol.wire import UINT64_MAX, Reader, Writer

Frames: TypeAlias = list[Payload]

HEADER: Final = struct.Struct("<2sBBHHQ")
MAGIC: Final = b"XP"

_Packed: TypeAlias = Hello | Bye | Inquiry | Welcome | Redirect | Goodbye | Resized
_P = TypeVar("_P", Hello, Bye, Inquiry, Welcome, Redirect, Goodbye, Resized, Fault)
_ENCODER: Final = msgspec.msgpack.Encoder()

# These are said before a version is agreed, so the version in their header is not
# looked at; what they hold may grow at the end only.
_OF_ANY_VERSION: Final = frozenset(
    {Hello.kind, Inquiry.kind, Redirect.kind, Goodbye.kind, Ping.kind, Pong.kind}
)


def encode(message: Message, version: int = MAX_VERSION) -> Frames:
    """Frames of one message; payload frames are the caller's memory, not copies."""
    number = 0
    payloads: tuple[Payload, ...] = ()
    body: bytes | bytearray
    match message:
        case Batch():
            number, payloads = message.sequence, message.payloads
            writer = Writer()
            writer.uvarint(message.first_operation)
            writer.raw(message.records)
            body = writer.buffer
        case Ack():
            number = message.sequence
            writer = Writer()
            writer.uvarint(message.window_nbytes)
            body = writer.buffer
        case Reply():
            number, payloads, body = message.request, message.payloads, message.value
        case Failure():
            number, body = message.request, _ENCODER.encode(message.fault)
        case Ping() | Pong():
            number, body = message.nonce, b""
        case _:
            body = _packed(message)
    frame_count = 1 + len(payloads)
    if frame_count > limits.MAX_FRAMES:
        raise ValueError(f"{frame_count} frames are more than a message may have")
    head = HEADER.pack(MAGIC, version, message.kind, 0, frame_count, number)
    return [head + body, *payloads]


def _packed(message: _Packed) -> bytes:
    """The fields; the last one of Welcome is left out if there is nothing to tell."""
    if isinstance(message, Welcome) and not message.lacking:
        return _ENCODER.encode(msgspec.structs.astuple(message)[:-1])
    return _ENCODER.encode(message)


def _unpacker(kind: type[_P]) -> Callable[[bytes], _P]:
    decoder = msgspec.msgpack.Decoder(kind)

    def unpack(body: bytes) -> _P:
        try:
            return decoder.decode(body)
        # msgspec lets two through that are no DecodeError: a text that is not UTF-8,
        # and unknown trailing fields that are nested too deep.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerError(f"{kind.__name__} is malformed: {error}") from error

    return unpack


_UNPACK: Final[dict[int, Callable[[bytes], Message]]] = {
    Hello.kind: _unpacker(Hello),
    Bye.kind: _unpacker(Bye),
    Inquiry.kind: _unpacker(Inquiry),
    Welcome.kind: _unpacker(Welcome),
    Redirect.kind: _unpacker(Redirect),
    Goodbye.kind: _unpacker(Goodbye),
    Resized.kind: _unpacker(Resized),
}
_unpack_fault = _unpacker(Fault)


def _decode_batch(number: int, body: bytes, payloads: tuple[Payload, ...]) -> Batch:
    reader = Reader(body)
    first = reader.uvarint(UINT64_MAX, "operation number")
    return Batch(number, first, body[reader.position :], payloads)


def _decode_ack(number: int, body: bytes) -> Ack:
    reader = Reader(body)
    window = reader.uvarint(UINT64_MAX, "window")
    if not reader.is_exhausted:
        raise PeerError("Ack has bytes left over")
    return Ack(number, window)


def _header(frames: Sequence[Payload]) -> tuple[bytes, int, int]:
    """The first frame's bytes, the kind and the number, after checking the rest."""
    if not frames or len(frames) > limits.MAX_FRAMES:
        raise PeerError(f"a message has 1 to {limits.MAX_FRAMES} frames")
    if len(frames[0]) > limits.MAX_BODY_NBYTES:
        raise PeerError(f"a body of {len(frames[0])} bytes is over the limit")
    first = bytes(frames[0])
    if len(first) < HEADER.size:
        raise PeerError(f"a message of {len(first)} bytes is shorter than its header")
    magic, version, kind, flags, frame_count, number = HEADER.unpack_from(first)
    if magic != MAGIC:
        raise PeerError(f"this is no xpool message: it begins with {magic.hex()}")
    if not 1 <= version <= MAX_VERSION and kind not in _OF_ANY_VERSION:
        raise PeerError(
            f"message of protocol version {version}; this side speaks up to"
            f" {MAX_VERSION}: upgrade xpool here"
        )
    if flags or frame_count != len(frames):
        raise PeerError("flags are set or frames are missing")
    if any(len(frame) > limits.MAX_FRAME_NBYTES for frame in frames[1:]):
        raise PeerError("a payload frame is over the limit")
    if sum(map(len, frames)) > limits.MAX_MESSAGE_NBYTES:
        raise PeerError("the frames of a message are over the limit together")
    return first, kind, number


def decode(frames: Sequence[Payload]) -> Message:
    """The message that these frames are, or ``PeerError``."""
    first, kind, number = _header(frames)
    body = first[HEADER.size :]
    payloads = tuple(frames[1:])
    if kind == Batch.kind:
        return _decode_batch(number, body, payloads)
    if kind == Reply.kind:
        return Reply(number, body, payloads)
    if payloads:
        raise PeerError(f"a message of kind {kind:#x} has no payload")
    if kind == Ack.kind:
        return _decode_ack(number, body)
    if kind == Failure.kind:
        return Failure(number, _unpack_fault(body))
    unpack = _UNPACK.get(kind)
    if unpack is not None:
        if number:
            raise PeerError(f"a message of kind {kind:#x} has no number")
        return unpack(body)
    if body:
        raise PeerError(f"message kind {kind:#x} is unknown or has no body")
    if kind == Ping.kind:
        return Ping(number)
    if kind == Pong.kind:
        return Pong(number)
    raise PeerError(f"message kind {kind:#x} is unknown")
