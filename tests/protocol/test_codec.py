"""Messages: they survive, older and newer peers agree, damage is a ``PeerError``."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import (
    BY_HAND,
    MESSAGE_KINDS,
    WIRE_MESSAGES,
    messages_of,
    mutated,
)
from xpool_protocol import limits
from xpool_protocol.codec import HEADER, MAGIC, decode, encode
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
    Ping,
    Pong,
    Redirect,
    Reply,
    Resized,
    Welcome,
)
from xpool_protocol.version import MAX_VERSION

PACKED = [kind for kind in MESSAGE_KINDS if kind not in BY_HAND]


def framed(
    kind: int,
    body: bytes = b"",
    *,
    version: int = 1,
    flags: int = 0,
    frame_count: int = 1,
    number: int = 0,
) -> list[bytes]:
    """A message by hand, with any field wrong."""
    return [HEADER.pack(MAGIC, version, kind, flags, frame_count, number) + body]


def as_bytes(message: Message, version: int = MAX_VERSION) -> list[bytes]:
    return [bytes(frame) for frame in encode(message, version)]


@pytest.mark.parametrize("kind", MESSAGE_KINDS)
def test_a_message_survives(kind: type[Message]) -> None:
    @given(messages_of(kind))
    def check(message: Message) -> None:
        frames = as_bytes(message)
        found = decode(frames)
        assert found == message
        assert type(found) is kind
        assert as_bytes(found) == frames

    check()


def test_every_message_has_its_own_kind() -> None:
    kinds = [kind.kind for kind in MESSAGE_KINDS]
    assert len(set(kinds)) == len(kinds)
    # The upper half is the server's: a message says who may have sent it.
    from_server = {Welcome, Redirect, Ack, Reply, Failure, Goodbye, Pong, Resized}
    assert {kind for kind in MESSAGE_KINDS if kind.kind & 0x40} == from_server


def test_payload_frames_are_not_copied() -> None:
    payload = memoryview(bytearray(b"payload"))
    frames = encode(Batch(1, 0, b"", (payload,)))
    assert frames[1] is payload
    found = decode(frames)
    assert isinstance(found, Batch)
    assert found.payloads[0] is payload


# ---- damage


def check_damaged(frames: list[bytes]) -> None:
    try:
        found = decode(frames)
    except PeerError:
        return
    version = frames[0][2]
    if type(found) in BY_HAND and type(found) is not Failure:
        assert as_bytes(found, version) == frames
    else:  # msgpack has several forms of one thing; all mean the same message
        again = as_bytes(found, version)
        assert as_bytes(decode(again), version) == again


@settings(max_examples=300)
@given(mutated(WIRE_MESSAGES.map(lambda message: as_bytes(message)[0])))
def test_a_damaged_message_is_a_message_or_a_peer_error(data: bytes) -> None:
    check_damaged([data])


@settings(max_examples=300)
@given(st.sampled_from([kind.kind for kind in MESSAGE_KINDS]), st.binary(max_size=60))
def test_a_garbage_body_is_a_message_or_a_peer_error(kind: int, body: bytes) -> None:
    check_damaged(framed(kind, body))


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_garbage_frames_are_a_peer_error(frames: list[bytes]) -> None:
    if frames and frames[0][:2] == MAGIC:
        return
    with pytest.raises(PeerError):
        decode(frames)


@given(WIRE_MESSAGES)
def test_every_bit_of_a_message_may_flip(message: Message) -> None:
    frames = as_bytes(message)
    for at in range(min(len(frames[0]), 64)):
        for bit in range(8):
            flipped = bytearray(frames[0])
            flipped[at] ^= 1 << bit
            check_damaged([bytes(flipped), *frames[1:]])


@given(WIRE_MESSAGES)
def test_a_message_may_be_cut_anywhere(message: Message) -> None:
    frames = as_bytes(message)
    for end in range(min(len(frames[0]), 200)):
        check_damaged([frames[0][:end], *frames[1:]])
    for count in range(len(frames)):
        with pytest.raises(PeerError):
            decode(frames[:count])


REFUSED: list[tuple[list[bytes], str]] = [
    ([], "1 to 256 frames"),
    ([b""] * 257, "1 to 256 frames"),
    ([b""], "shorter than its header"),
    ([b"XP\x01\x03"], "shorter than its header"),
    ([b"GET / HTTP/1.1\r\n\r\n"], "no xpool message"),
    (framed(Batch.kind, b"\0", version=0), "version 0"),
    (framed(Batch.kind, b"\0", version=MAX_VERSION + 1), "upgrade xpool here"),
    (framed(Welcome.kind, b"\x90", version=MAX_VERSION + 1), "upgrade xpool here"),
    (framed(Ping.kind, flags=1), "flags"),
    (framed(Ping.kind, frame_count=0), "frames are missing"),
    (framed(Ping.kind, frame_count=2), "frames are missing"),
    ([*framed(Ping.kind, frame_count=2), b""], "no payload"),
    (framed(Ping.kind, b"\0"), "unknown or has no body"),
    (framed(0x7F), "kind 0x7f is unknown"),
    (framed(0), "kind 0x0 is unknown"),
    (framed(Bye.kind, b"\x90", number=1), "no number"),
    (framed(Batch.kind), "operation number is missing"),
    (framed(Batch.kind, b"\x80\x00"), "shortest"),
    (framed(Ack.kind), "window is missing"),
    (framed(Ack.kind, b"\0\0"), "left over"),
    (framed(Hello.kind), "Hello is malformed"),
    (framed(Hello.kind, b"\x90"), "Hello is malformed"),
    (framed(Hello.kind, b"\x93\x01\x01\xa1\xff"), "Hello is malformed"),
    (framed(Bye.kind, b"\x90\x00"), "trailing"),
    (framed(Bye.kind, b"\x92\xa0" + b"\x91" * 100_000), "Bye is malformed"),
    (framed(Bye.kind, b"\x92\xa0" + b"\x81" * 100_000), "Bye is malformed"),
    (framed(Failure.kind, b"\x91\x00"), "Fault is malformed"),
]


@pytest.mark.parametrize(("frames", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_is_no_message_is_refused(frames: list[bytes], why: str) -> None:
    with pytest.raises(PeerError, match=why):
        decode(frames)


OVER_BOUND: list[tuple[Message, str]] = [
    (Hello(1, 1, "x" * (limits.MAX_TOKEN_NBYTES + 1)), "length"),
    (Hello(1, 1, "", "x" * (limits.MAX_NAME_NBYTES + 1)), "length"),
    (Hello(1, 1, "", "", "x" * (limits.MAX_TEXT_NBYTES + 1)), "length"),
    (Hello(-1, 1, ""), ">= 0"),
    (Hello(1, 256, ""), "<= 255"),
    (Bye("x" * (limits.MAX_TEXT_NBYTES + 1)), "length"),
    (Inquiry("", "x" * (limits.MAX_NAME_NBYTES + 1)), "length"),
    (Redirect("x" * (limits.MAX_TEXT_NBYTES + 1), ""), "length"),
    (Goodbye(-1, ""), ">= 0"),
    (Failure(1, Fault(500, "x" * (limits.MAX_TEXT_NBYTES + 1))), "length"),
    (
        Welcome(
            *(1, "", 1, "", "", "", "", 1, 1, 1, 0),
            properties={str(i): i for i in range(limits.MAX_PROPERTIES + 1)},
        ),
        "length",
    ),
    (
        Welcome(
            *(1, "", 1, "", "", "", "", 1, 1, 1, 0),
            lacking=("aten::x",) * (limits.MAX_LACKING + 1),
        ),
        "length",
    ),
    (
        Welcome(
            *(1, "", 1, "", "", "", "", 1, 1, 1, 0),
            lacking=("x" * (limits.MAX_NAME_NBYTES + 1),),
        ),
        "length",
    ),
]


@pytest.mark.parametrize(("message", "why"), OVER_BOUND)
def test_packed_fields_are_bounded(message: Message, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        decode(encode(message))


def test_frames_are_bounded() -> None:
    body = framed(Batch.kind, b"\0")[0]
    with pytest.raises(PeerError, match="body of"):
        decode([body + bytes(limits.MAX_BODY_NBYTES)])
    large = memoryview(bytes(limits.MAX_FRAME_NBYTES + 1))
    with pytest.raises(PeerError, match="payload frame"):
        decode([*framed(Batch.kind, b"\0", frame_count=2), large])
    with pytest.raises(PeerError, match="together"):
        decode([*framed(Batch.kind, b"\0", frame_count=7), *[large[1:]] * 6])


def test_more_frames_than_a_message_may_have_are_not_sent() -> None:
    assert len(encode(Batch(1, 0, b"", (b"",) * 255))) == limits.MAX_FRAMES
    with pytest.raises(ValueError, match="257 frames"):
        encode(Batch(1, 0, b"", (b"",) * 256))


# ---- versions


@pytest.mark.parametrize("kind", PACKED)
def test_fields_of_a_newer_peer_are_ignored(kind: type[Message]) -> None:
    @given(messages_of(kind), st.lists(st.integers() | st.text(), min_size=1))
    def check(message: Any, more: list[Any]) -> None:
        fields = [*msgspec.structs.astuple(message), *map(str, more), {"x": [None]}]
        body = msgspec.msgpack.encode(fields)
        assert decode(framed(kind.kind, body)) == message

    check()


@pytest.mark.parametrize("kind", [*PACKED, Fault])
def test_fields_that_an_older_peer_lacks_get_their_defaults(kind: Any) -> None:
    fields = msgspec.structs.fields(kind)
    samples = {int: 1, str: "x", dict: {}, tuple: ()}
    held = [samples[_plain(field.type)] for field in fields]
    required = sum(field.required for field in fields)
    for count in range(len(fields) + 1):
        body = msgspec.msgpack.encode(held[:count])
        frames = framed(Failure.kind if kind is Fault else kind.kind, body)
        if count < required:
            with pytest.raises(PeerError, match="at least length"):
                decode(frames)
        else:
            found: Any = decode(frames)
            expected = kind(*held[:count])
            assert (found.fault if kind is Fault else found) == expected


def _plain(kind: Any) -> Any:
    """int for Annotated[int, …], dict for Annotated[dict[…], …]."""
    inner = kind.__origin__
    return getattr(inner, "__origin__", inner)


@pytest.mark.parametrize(
    "message",
    [
        Hello(2, 3, "token"),
        Inquiry("token", "key"),
        Redirect("tcp://a:1", "key"),
        Goodbye(201, "upgrade"),
        Ping(1),
        Pong(1),
    ],
)
@pytest.mark.parametrize("version", [0, 1, 2, 255])
def test_the_opening_is_understood_in_any_version(
    message: Message, version: int
) -> None:
    assert decode(encode(message, version)) == message


@pytest.mark.parametrize("message", [Batch(1, 0, b""), Ack(1, 1), Reply(1, b"\0")])
def test_the_rest_is_read_in_known_versions_only(message: Message) -> None:
    assert decode(encode(message, MAX_VERSION)) == message
    with pytest.raises(PeerError, match="upgrade xpool here"):
        decode(encode(message, MAX_VERSION + 1))
