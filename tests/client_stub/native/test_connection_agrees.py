"""The native connection and ``ClientConnection``, given the same facts, agree.

The Python class is the oracle. The native one reads Ack, Reply and Pong itself and
leaves everything else to Python, so it must never take for one of these what Python
refuses, and must keep the same numbers and the same credit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.connection_pair import WELCOME
from support.probes import built_probe
from support.strategies import MESSAGE_KINDS, integers, messages_of, mutated
from xpool.native import build
from xpool_protocol import limits
from xpool_protocol.codec import HEADER, MAGIC, encode
from xpool_protocol.connection import ClientConnection, State
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Ack, Payload, Pong, Reply, Welcome
from xpool_protocol.version import MAX_VERSION
from xpool_protocol.wire import UINT64_MAX, Writer

pytestmark = pytest.mark.skipif(
    build.compiler() is None, reason="no native code without a C++ compiler"
)
ACK, REPLY, PONG, OTHER, REFUSED = range(5)
BY_ITSELF = {ACK: Ack, REPLY: Reply, PONG: Pong}


class Standing(ctypes.Structure):
    _fields_ = (
        ("in_flight", ctypes.c_uint64),
        ("acknowledged", ctypes.c_uint64),
        ("window", ctypes.c_uint64),
        ("has_room", ctypes.c_int32),
    )


class Outcome(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("number", ctypes.c_uint64),
        ("refusal", ctypes.c_char * 256),
    )


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = Path(__file__).with_name("connection_probe.cpp")
    folder = tmp_path_factory.mktemp("probe")
    library = built_probe(build.LIBRARY, source, folder, "connection.cpp")
    pointer, uint64 = ctypes.c_void_p, ctypes.c_uint64
    library.probe_new.argtypes = [ctypes.c_uint8, uint64]
    library.probe_new.restype = pointer
    library.probe_delete.argtypes = [pointer]
    library.probe_batch.argtypes = [pointer, uint64, uint64, uint64, ctypes.c_char_p]
    library.probe_batch.restype = uint64
    library.probe_receive.argtypes = [
        pointer,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(uint64),
        uint64,
        ctypes.POINTER(Outcome),
    ]
    library.probe_standing.argtypes = [pointer, ctypes.POINTER(Standing)]
    return library


class Twins:
    """Both connections, open, with one window; each fact is given to both."""

    def __init__(self, probe: Any, window_nbytes: int) -> None:
        self._probe = probe
        self.python = ClientConnection()
        self.python.hello("token", "key", "test", "none")
        fields = {name: getattr(WELCOME, name) for name in WELCOME.__struct_fields__}
        self.python.receive(
            encode(Welcome(**{**fields, "window_nbytes": window_nbytes}))
        )
        self.native = probe.probe_new(self.python.version, window_nbytes)

    def close(self) -> None:
        self._probe.probe_delete(self.native)

    def batch(self, records: bytes, count: int, payloads: Sequence[Payload]) -> None:
        frames = self.python.batch(records, count, payloads)
        nbytes = len(records) + sum(map(len, payloads))
        head = ctypes.create_string_buffer(64)
        length = self._probe.probe_batch(
            self.native, len(payloads), nbytes, count, head
        )
        assert head.raw[:length] + records == bytes(frames[0])
        assert list(frames[1:]) == list(payloads)
        self.compare()

    def receive(self, frames: Sequence[Payload]) -> bool:
        """False when the connection is over."""
        copies = [bytes(frame) for frame in frames]
        outcome = Outcome()
        self._probe.probe_receive(
            self.native,
            (ctypes.c_char_p * len(copies))(*copies),
            (ctypes.c_uint64 * len(copies))(*map(len, copies)),
            len(copies),
            ctypes.byref(outcome),
        )
        try:
            message = self.python.receive(copies)
        except PeerError as error:
            assert outcome.kind in (OTHER, REFUSED)
            if outcome.kind == REFUSED:
                assert outcome.refusal.decode() == str(error)
            return False
        expected = BY_ITSELF.get(outcome.kind)
        if expected is None:
            assert outcome.kind == OTHER
            assert not isinstance(message, tuple(BY_ITSELF.values()))
        else:
            assert type(message) is expected
            number = {Ack: "sequence", Reply: "request", Pong: "nonce"}[expected]
            assert outcome.number == getattr(message, number)
        self.compare()
        return self.python.state is State.OPEN

    def compare(self) -> None:
        standing = Standing()
        self._probe.probe_standing(self.native, ctypes.byref(standing))
        assert standing.in_flight == self.python.in_flight_nbytes
        assert standing.acknowledged == self.python.acknowledged
        assert standing.window == self.python.window_nbytes
        assert bool(standing.has_room) == (self.python.room_nbytes > 0)


@pytest.fixture
def twins_of(probe: Any) -> Iterator[Any]:
    made: list[Twins] = []

    def make(window_nbytes: int = limits.WINDOW_NBYTES) -> Twins:
        made.append(Twins(probe, window_nbytes))
        return made[-1]

    yield make
    for twins in made:
        twins.close()


WINDOWS = st.sampled_from(
    [limits.MIN_WINDOW_NBYTES, limits.WINDOW_NBYTES, UINT64_MAX - 1]
)
LARGE = bytes(limits.CHUNK_NBYTES)
BATCHES = st.tuples(
    st.just("batch"),
    st.binary(max_size=40),
    integers(0, 1 << 40),
    st.integers(0, 20) | st.just(255),
)
ACKS = st.tuples(st.just("ack"), st.integers(-2, 3), st.integers(-1, 1))
ACK_BYTES = st.builds(
    lambda number, body: [HEADER.pack(MAGIC, 1, Ack.kind, 0, 1, number) + body],
    integers(0, UINT64_MAX),
    st.binary(max_size=12),
)
MESSAGES = st.sampled_from(MESSAGE_KINDS).flatmap(messages_of).map(encode)


@st.composite
def broken_messages(draw: st.DrawFn) -> list[bytes]:
    """A whole message with something wrong, most often in its header."""
    frames = [bytes(frame) for frame in draw(MESSAGES)]
    where = draw(st.integers(0, len(frames) - 1))
    frames[where] = draw(mutated(st.just(frames[where])))
    if draw(st.booleans()):
        frames.append(b"more")
    return frames


FACTS = st.lists(
    BATCHES
    | ACKS
    | st.tuples(
        st.just("frames"),
        MESSAGES
        | broken_messages()
        | ACK_BYTES
        | st.lists(st.binary(max_size=40), max_size=3),
    ),
    max_size=25,
)


@settings(max_examples=400, deadline=None)
@given(window=WINDOWS, facts=FACTS)
def test_any_facts(probe: Any, window: int, facts: list[Any]) -> None:
    twins = Twins(probe, window)
    try:
        is_open = True
        for fact in facts:
            if not is_open:
                break
            match fact:
                case "batch", records, count, payloads if twins.python.room_nbytes > 0:
                    twins.batch(records, count, [LARGE] * payloads)
                case "ack", steps, change:
                    sequence = max(0, twins.python.acknowledged + steps)
                    window_nbytes = twins.python.window_nbytes + change * (change < 0)
                    is_open = twins.receive(encode(Ack(sequence, window_nbytes)))
                case "frames", frames:
                    is_open = twins.receive(frames)
    finally:
        twins.close()


def test_one_batch_may_overdraw_and_an_ack_gives_back(twins_of: Any) -> None:
    twins = twins_of(limits.MIN_WINDOW_NBYTES)
    twins.batch(b"\x08\x01", 1, [LARGE] * 31)
    twins.batch(b"\x08\x02", 1, [LARGE] * 16)
    assert twins.python.room_nbytes < 0
    assert twins.receive(encode(Ack(1, limits.MIN_WINDOW_NBYTES)))
    assert twins.python.room_nbytes > 0


def test_numbers_of_any_length(twins_of: Any) -> None:
    twins = twins_of()
    for count in (0x7F, 1, 0x4000, (1 << 62) - 0x4080):
        twins.batch(b"\x08\x01", count, [])


@pytest.mark.parametrize(
    "acks",
    [
        [Ack(3, limits.WINDOW_NBYTES)],
        [Ack(2, limits.WINDOW_NBYTES), Ack(1, limits.WINDOW_NBYTES)],
        [Ack(1, limits.WINDOW_NBYTES - 1)],
        [Ack(1, limits.MIN_WINDOW_NBYTES - 1)],
        [Ack(UINT64_MAX, UINT64_MAX)],
    ],
)
def test_an_ack_that_lies_is_refused_in_the_same_words(
    twins_of: Any, acks: list[Ack]
) -> None:
    twins = twins_of()
    twins.batch(b"\x08\x01", 1, [])
    twins.batch(b"\x08\x02", 1, [])
    *good, bad = acks
    for ack in good:
        assert twins.receive(encode(ack))
    assert not twins.receive(encode(bad))


def test_every_bit_of_an_ack_matters(probe: Any) -> None:
    whole = bytes(encode(Ack(1, limits.WINDOW_NBYTES))[0])
    for bit in range(8 * len(whole)):
        twins = Twins(probe, limits.WINDOW_NBYTES)
        twins.batch(b"\x08\x01", 1, [])
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        twins.receive([bytes(flipped)])
        twins.close()


@pytest.mark.parametrize(
    "sizes",
    [
        (limits.MAX_FRAME_NBYTES,),
        (limits.MAX_FRAME_NBYTES + 1,),
        (limits.MAX_FRAME_NBYTES,) * 6,
        (1,) * (limits.MAX_FRAMES - 1),
        (1,) * limits.MAX_FRAMES,
    ],
)
def test_a_reply_at_its_limits(twins_of: Any, sizes: tuple[int, ...]) -> None:
    count = min(1 + len(sizes), 0xFFFF)
    head = HEADER.pack(MAGIC, MAX_VERSION, Reply.kind, 0, count, 1)
    twins_of().receive([head + b"\x00", *map(bytes, sizes)])


def test_the_shortest_number_is_the_only_one(twins_of: Any) -> None:
    twins = twins_of()
    writer = Writer()
    writer.uvarint(limits.WINDOW_NBYTES)
    body = bytearray(writer.buffer)
    body[-1] |= 0x80
    head = HEADER.pack(MAGIC, MAX_VERSION, Ack.kind, 0, 1, 0)
    assert not twins.receive([head + bytes(body) + b"\x00"])
