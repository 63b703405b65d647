"""The worker's loop in C++ and the one in Python, told the same: the same answers.

Real sockets on loopback, one thread: the client says everything, then the loop runs
until it has answered a ping or ended the session.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.array_cases import CASES, all_once, tables
from support.executor_desk import bytes_from, library, make_executor
from support.random_records import LIVE, QUOTA_NBYTES, opening, streams
from support.worker_client import lease
from xpool_protocol import limits, transport
from xpool_protocol.codec import Frames, decode, encode
from xpool_protocol.errors import PeerError
from xpool_protocol.group_records import Collective, DefineGroup, OpenMeeting
from xpool_protocol.messages import (
    Ack,
    Batch,
    Failure,
    Goodbye,
    Hello,
    Message,
    Payload,
    Ping,
    Pong,
    Reply,
    Welcome,
)
from xpool_protocol.native_build import compiler
from xpool_protocol.records import (
    STATISTICS_FIELDS,
    Allocate,
    Free,
    Read,
    Write,
    read_records,
)
from xpool_protocol.transport import Link, PeerId
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader
from xpool_server.devices.cpu import CpuBackend
from xpool_server.native.serving import NativeServing, Why
from xpool_server.native_executor import NativeExecutor
from xpool_server.native_serving import NativeLoop, native_loop
from xpool_server.session import Session

M_PERTURB: Final = -6
"""Of glibc's ``mallopt``: what a record leaves undefined is the same for both."""
LAST_PING: Final = 2**40
TIMEOUT_S: Final = 20.0


@pytest.fixture(autouse=True, scope="module")
def executor_kind() -> Iterator[None]:
    """Both at once: the module runs one time, and only where there is a compiler."""
    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    library()
    libc = ctypes.CDLL(None)
    assert libc.mallopt(M_PERTURB, 0x5A)
    yield
    assert libc.mallopt(M_PERTURB, 0)


class WithoutClock(CpuBackend):
    """Whose time does not tell one run from another."""

    @property
    def busy_ns(self) -> int:
        return 0


@dataclass
class Seen:
    """What a client sees of a worker, and what the node is told."""

    messages: list[object] = field(default_factory=list)
    acknowledged: int = 0
    acks: list[int] = field(default_factory=list, compare=False)
    ended: str | None = None
    counters: dict[str, int] = field(default_factory=dict)
    arrays: dict[int, Any] = field(default_factory=dict)


def plain(message: Message) -> object:
    """A message as it compares: views as bytes, and no count of the Acks' bytes."""
    if not isinstance(message, Reply):
        return message
    with contextlib.suppress(PeerError):
        value = read_value(Reader(bytes(message.value)))
        if isinstance(value, list) and len(value) == len(STATISTICS_FIELDS):
            value[STATISTICS_FIELDS.index("sent_nbytes")] = 0
            return message.request, value
    return message.request, bytes(message.value), [*map(bytes, message.payloads)]


class Stage:
    """A session behind a socket, and its client."""

    def __init__(self, kind: str, quota_nbytes: int = QUOTA_NBYTES) -> None:
        self.is_native = kind == "native"
        self.listener = transport.listen("tcp://127.0.0.1:0")
        self.executor = make_executor(kind, quota_nbytes, WithoutClock())
        # Ports and other workers are never twice the same; test_groups.py has them.
        for among_workers in (OpenMeeting, DefineGroup, Collective):
            self.executor._handlers[among_workers] = lambda record: ()
        self.session = Session(lease(), self.executor, self.send)
        self.has_ponged = False
        self.loop: NativeLoop | None = None
        self.served = 0
        """How often the native loop had the turn."""

    def send(self, peer: PeerId, frames: Frames) -> None:
        self.has_ponged = self.has_ponged or decode(frames) == Pong(LAST_PING)
        self.listener.send(peer, frames)

    def run(self) -> None:
        """Serve until the last ping is answered, or the session is over."""
        while not self.has_ponged and self.session.ended is None:
            if self.loop is None and self.is_native and self.session.is_owned:
                made = native_loop(self.session, self.executor, self.listener, ())
                assert made is not None
                self.loop = made
            if self.loop is not None and self.loop.serve(TIMEOUT_S):
                self.served += 1
                continue
            received = self.listener.receive(TIMEOUT_S)
            assert received is not None
            self.session.receive(*received)

    def close(self) -> None:
        self.listener.close()


def received(link: Link, seen: Seen) -> None:
    """Everything until the last pong, or a goodbye."""
    while True:
        frames = link.receive(TIMEOUT_S)
        assert frames is not None, "the worker says nothing"
        message = decode(frames)
        if isinstance(message, Ack):
            assert message.sequence >= seen.acknowledged
            seen.acknowledged = message.sequence
            seen.acks.append(message.sequence)
        elif message == Pong(LAST_PING):
            return
        elif not isinstance(message, Welcome):
            seen.messages.append(plain(message))
            if isinstance(message, Goodbye):
                return


def seen_of(
    kind: str,
    messages: Sequence[Sequence[Payload]],
    quota_nbytes: int = QUOTA_NBYTES,
) -> tuple[Seen, int]:
    """What a worker makes of messages, and how often its native loop had the turn."""
    torch.manual_seed(0)
    stage, seen = Stage(kind, quota_nbytes), Seen()
    with transport.connect(stage.listener.uri) as link:
        link.send(encode(Hello(1, 1, "token", lease().session_key)))
        for frames in (*messages, encode(Ping(LAST_PING))):
            link.send(list(frames))
        stage.run()
        received(link, seen)
    seen.ended = stage.session.ended
    seen.counters = stage.session.counters()
    seen.counters["operations"] = stage.executor.operation_count
    del seen.counters["sent_nbytes"]
    stage.executor.storages.validate()
    if stage.executor.arrays.is_open:
        seen.arrays = tables(stage.executor)
    stage.close()
    return seen, stage.served


def compare(
    messages: Sequence[Sequence[Payload]], quota_nbytes: int = QUOTA_NBYTES
) -> tuple[Seen, Seen]:
    """Both, which must be equal: first what the loop in Python has shown."""
    python, _ = seen_of("python", messages, quota_nbytes)
    native, served = seen_of("native", messages, quota_nbytes)
    assert native == python
    assert served, "the native loop never had the turn"
    return python, native


class Script:
    """A client's messages, numbered."""

    def __init__(self) -> None:
        self.messages: list[list[Payload]] = []
        self.sequence = self.operation = 0
        self.batch(opening())

    def batch(self, records: bytes, payloads: tuple[bytes, ...] = ()) -> None:
        self.sequence += 1
        batch = Batch(self.sequence, self.operation, records, payloads)
        self.messages.append(encode(batch))
        with contextlib.suppress(PeerError):  # then no batch after it counts
            self.operation += len(list(read_records(records)))


@st.composite
def scripts(draw: st.DrawFn, kinds: Sequence[str]) -> list[list[Payload]]:
    script = Script()
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(kinds))
        if kind == "batch":
            script.batch(draw(streams))
        elif kind == "payload":
            script.batch(draw(streams), (b"1234", b"56"))
        elif kind == "again":
            script.messages.append(draw(st.sampled_from(script.messages)))
        elif kind == "ping":
            script.messages.append(encode(Ping(draw(st.integers(0, 99)))))
        elif kind == "gap":
            script.sequence += draw(st.integers(0, 2))
            script.operation += draw(st.integers(0, 2))
        elif kind == "garbage":
            script.messages.append([draw(st.binary(min_size=1, max_size=40))])
        else:
            script.batch(draw(streams))
            frame = bytearray(script.messages.pop()[0])
            for _ in range(draw(st.integers(1, 3))):
                position = draw(st.integers(0, len(frame) - 1))
                frame[position] ^= 1 << draw(st.integers(0, 7))
            script.messages.append([bytes(frame)])
    return script.messages


@settings(max_examples=60, deadline=None)
@given(scripts(("batch", "batch", "payload", "again", "ping")))
def test_what_an_honest_client_sends(messages: list[list[Payload]]) -> None:
    python, native = compare(messages)
    assert python.ended is native.ended is None


@settings(max_examples=60, deadline=None)
@given(scripts(("batch", "again", "ping", "gap", "garbage", "flipped", "flipped")))
def test_what_a_broken_client_sends(messages: list[list[Payload]]) -> None:
    compare(messages)


def test_many_batches_are_acknowledged_at_once() -> None:
    script = Script()
    for _ in range(200):
        script.batch(bytes_from(Write(LIVE[0], 0, 4, 0, b"abcd")))
    python, native = compare(script.messages)
    assert python.acks == list(range(1, 202))
    assert native.acks[-1] == 201
    assert len(native.acks) < 100


LARGE: Final = limits.CHUNK_NBYTES + 4
CHUNKS: Final = (b"a" * limits.CHUNK_NBYTES, b"bcde")
PAIR: Final = (b"not this one", *CHUNKS)


@pytest.mark.parametrize(
    ("write", "payloads"),
    [
        (Write(LIVE[0], 0, 4, 1), (b"1234",)),
        (Write(LIVE[0], 0, 4, 2), (b"1234", b"5678")),
        (Write(LIVE[0], 1, 3, 1), (b"123",)),
        (Write(LIVE[0], 0, 0, 1), (b"1234",)),
        (Write(LIVE[0], 0, 4, 1), (b"123",)),
        (Write(LIVE[0], 0, 4, 1), (b"12345",)),
        (Write(LIVE[0], 0, 4, 2), (b"1234",)),
        (Write(LIVE[0], 0, 4, 1), ()),
        (Write(LIVE[0], 1 << 30, 4, 1), (b"1234",)),
        (Write(77, 0, 4, 1), (b"1234",)),
        (Write(99, 0, LARGE, 1), CHUNKS),
        (Write(99, 0, LARGE, 1), CHUNKS[:1]),
        (Write(99, 0, LARGE, 2), CHUNKS),
        (Write(99, 0, LARGE, 1), (CHUNKS[0], b"bcdef")),
        (Write(99, 0, LARGE, 1), (b"abcde", CHUNKS[0][1:])),
    ],
)
def test_bytes_from_payload_frames(write: Write, payloads: tuple[bytes, ...]) -> None:
    script = Script()
    before = Write(LIVE[0], 0, 4, 0, b"0000")
    reads = Read(1, LIVE[0], 0, 4), Read(2, 99, limits.CHUNK_NBYTES - 2, 6)
    script.batch(bytes_from(Allocate(99, LARGE), Write(99, LARGE - 8, 8, 0, bytes(8))))
    script.batch(bytes_from(before, write), payloads)
    script.batch(bytes_from(*reads))
    # What an earlier message has brought is not there for the next one.
    script.batch(bytes_from(write, *reads))
    python, _ = compare(script.messages, 4 * LARGE)
    assert any(isinstance(one, tuple) for one in python.messages)


def test_bytes_from_several_payload_frames_are_one_after_the_other() -> None:
    script = Script()
    script.batch(bytes_from(Allocate(99, LARGE), Write(99, 0, LARGE, 2)), PAIR)
    script.batch(bytes_from(Read(1, 99, limits.CHUNK_NBYTES - 2, 6)))
    python, _ = compare(script.messages, 4 * LARGE)
    assert python.messages == [(1, b"\x00", [b"aabcde"])]


def test_bytes_from_payload_frames_do_not_leave_the_loop() -> None:
    script = Script()
    for _ in range(20):
        script.batch(bytes_from(Write(LIVE[0], 0, 4, 1)), (b"abcd",))
    _, native = compare(script.messages)
    assert len(native.acks) < 10


def test_reads_are_answered_in_their_order() -> None:
    script = Script()
    for number in range(1, 50):
        data = bytes([number] * 4)
        script.batch(
            bytes_from(Write(LIVE[0], 0, 4, 0, data), Read(number, LIVE[0], 0, 4))
        )
    python, _ = compare(script.messages)
    assert python.messages == [
        (number, b"\x00", [bytes([number] * 4)]) for number in range(1, 50)
    ]


def test_the_rest_of_a_batch_runs_after_what_failed() -> None:
    script = Script()
    script.batch(
        bytes_from(
            Write(LIVE[0], 0, 4, 0, b"1111"),
            Free(77),
            Write(LIVE[0], 0, 4, 0, b"2222"),
            Read(1, LIVE[0], 0, 4),
        )
    )
    script.batch(bytes_from(Read(2, LIVE[0], 0, 4)))
    python, _ = compare(script.messages)
    failure, *replies = python.messages
    assert isinstance(failure, Failure)
    assert failure.request == 0
    assert replies == [(1, b"\x00", [b"2222"]), (2, b"\x00", [b"2222"])]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_split", [False, True])
def test_rows_of_array_records(name: str, is_split: bool) -> None:
    script = Script()
    script.batch(bytes_from(*all_once()))
    write, read = Write(LIVE[0], 0, 4, 0, b"1111"), Read(1, LIVE[0], 0, 4)
    records = (write, *CASES[name], read)
    for batch in [(one,) for one in records] if is_split else [records]:
        script.batch(bytes_from(*batch))
    python, native = compare(script.messages)
    assert python.arrays
    assert (1, b"\x00", [b"1111"]) in python.messages
    assert native.ended is None


def test_a_batch_beyond_the_next_ends_the_session() -> None:
    script = Script()
    script.sequence += 1
    script.batch(bytes_from(Read(1, LIVE[0], 0, 4)))
    python, _ = compare(script.messages)
    assert python.ended is not None
    assert "batch 3 arrived after batch 1" in python.ended
    (goodbye,) = python.messages
    assert isinstance(goodbye, Goodbye)


def overwrite_what_is_free() -> None:
    """Memory of every size that was given back last has other bytes from now on."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    taken = [(libc.malloc(size), size) for size in range(16, 1025, 16)]
    for address, size in taken:
        ctypes.memset(address, 0xA5, size)
    for address, _ in taken:
        libc.free(ctypes.c_void_p(address))


def test_a_message_may_outlive_the_loop_that_it_came_to() -> None:
    """As in a failure's traceback, whose parts end in any order."""
    stage = Stage("native")
    sockets, session = stage.listener.lend(), stage.session
    assert sockets is not None
    assert isinstance(stage.executor, NativeExecutor)
    with transport.connect(stage.listener.uri) as link:
        link.send(encode(Hello(1, 1, "token", lease().session_key)))
        while not session.is_owned:
            received_one = stage.listener.receive(TIMEOUT_S)
            assert received_one is not None
            session.receive(*received_one)
        serving = NativeServing(
            *(stage.executor.native, sockets, session.owner, ()),
            version=session.version,
            window_nbytes=session.window_nbytes,
            note_work=None,
            is_settled=lambda: False,
        )
        link.send([b"x" * 1000])
        assert session.place is not None
        served = serving.serve(session.place, TIMEOUT_S)
        assert served.why is Why.MESSAGE
        del serving
        overwrite_what_is_free()
        assert [bytes(frame) for frame in served.frames] == [b"x" * 1000]
        del served
    stage.close()


def test_a_stranger_is_told_to_go_and_the_owner_goes_on() -> None:
    stage, seen, hers = Stage("native"), Seen(), Seen()
    script: Any = Script()
    with (
        transport.connect(stage.listener.uri) as link,
        transport.connect(stage.listener.uri) as stranger,
    ):
        link.send(encode(Hello(1, 1, "token", lease().session_key)))
        while not stage.session.is_owned:
            received_one = stage.listener.receive(TIMEOUT_S)
            assert received_one is not None
            stage.session.receive(*received_one)
        stranger.send(encode(Hello(1, 1, "token", "not the key")))
        link.send(script.messages[0])
        while not stage.session.ignored_messages:
            stage.loop = stage.loop or native_loop(
                stage.session, stage.executor, stage.listener, ()
            )
            assert stage.loop is not None
            assert stage.loop.serve(TIMEOUT_S)
        link.send(encode(Ping(LAST_PING)))
        stage.run()
        received(stranger, hers)
        received(link, seen)
    stage.close()
    assert [type(one) for one in hers.messages] == [Goodbye]
    assert seen.acknowledged == 1
