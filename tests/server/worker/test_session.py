"""The session without a socket: who owns it, what it answers, how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.executor_desk import Desk, make_executor
from support.worker_client import lease
from xpool_protocol import limits
from xpool_protocol.codec import Frames, decode, encode
from xpool_protocol.connection import ClientConnection
from xpool_protocol.errors import BrokenError, LeaseExpired, PeerError, TokenInvalid
from xpool_protocol.messages import (
    Ack,
    Batch,
    Bye,
    Failure,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Reply,
    Resized,
    Welcome,
)
from xpool_protocol.records import (
    Allocate,
    Fence,
    Free,
    Read,
    Record,
    Write,
    write_record,
)
from xpool_protocol.transport import PeerId
from xpool_protocol.wire import Writer
from xpool_server.allowed import known_names, refusal
from xpool_server.arbiter.turn import Turn
from xpool_server.control import ResizeSession, SessionResized
from xpool_server.session import CLIENT_LEFT, Session

OWNER = PeerId(b"owner")
STRANGER = PeerId(b"stranger")
KEY = lease().session_key


def hello(key: str = KEY, versions: tuple[int, int] = (1, 1)) -> Frames:
    return encode(Hello(*versions, "token", key))


def records(*items: Record) -> bytes:
    writer = Writer()
    for item in items:
        write_record(writer, item)
    return bytes(writer.buffer)


class Stage:
    """A session and everything it sent, by peer."""

    def __init__(self) -> None:
        self.sent: list[tuple[PeerId, Message]] = []
        self.executor = make_executor(Desk.default_kind, 1 << 20)
        self.session = Session(lease(), self.executor, self.take)

    def take(self, peer: PeerId, frames: Frames) -> None:
        self.sent.append((peer, decode(frames)))

    def say(self, frames: Frames, peer: PeerId = OWNER) -> list[Message]:
        """What a message makes the session send, all of it to the same peer."""
        self.sent.clear()
        self.session.receive(peer, frames)
        assert all(one == peer for one, _ in self.sent)
        return [message for _, message in self.sent]

    def batch(self, sequence: int, first: int, *items: Record) -> list[Message]:
        return self.say(encode(Batch(sequence, first, records(*items))))


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def opened(stage: Stage) -> Stage:
    (welcome,) = stage.say(hello())
    assert isinstance(welcome, Welcome)
    return stage


def test_the_key_opens(stage: Stage) -> None:
    (welcome,) = stage.say(hello())
    assert isinstance(welcome, Welcome)
    assert stage.session.is_owned
    assert (welcome.share_percent, welcome.memory_nbytes) == (50, 1 << 28)
    assert welcome.window_nbytes == 64 << 20
    assert welcome.properties.keys() == {
        *("name", "major", "minor", "total_memory", "multi_processor_count"),
    }


def test_a_slice_below_the_context_is_refused_with_the_figures(stage: Stage) -> None:
    """A device whose processes take 1 GiB each; the slice is 256 MiB."""
    stage.executor.backend.context_nbytes = 1 << 30
    stage.session = Session(lease(), stage.executor, stage.take)
    (told,) = stage.say(hello())
    assert isinstance(told, Goodbye)
    assert "256 MiB" in told.text
    assert "1 GiB" in told.text
    assert stage.session.ended is not None


def test_the_context_is_part_of_the_quota(stage: Stage) -> None:
    stage.executor.backend.context_nbytes = 1 << 27
    (welcome,) = stage.say(hello())
    assert isinstance(welcome, Welcome)
    assert welcome.memory_nbytes == 1 << 27
    assert stage.executor.backend.overhead_nbytes == 1 << 27


def test_a_quota_grows_shrinks_and_stops_at_what_is_in_use(opened: Stage) -> None:
    opened.batch(1, 0, Allocate(1, 1 << 19))
    opened.sent.clear()
    answer = opened.session.resize(ResizeSession(60, 1 << 21))
    assert answer == SessionResized(1 << 21)
    assert [message for _, message in opened.sent] == [Resized(60, 1 << 21)]
    assert opened.batch(2, 1, Allocate(2, 1 << 20)) == [Ack(2, 64 << 20)]
    opened.sent.clear()
    in_use = (1 << 19) + (1 << 20)
    answer = opened.session.resize(ResizeSession(60, in_use - 1))
    assert f"({in_use} bytes) are in use" in answer.refusal
    assert answer.memory_nbytes == 1 << 21
    assert not opened.sent
    assert opened.session.resize(ResizeSession(60, in_use)).refusal == ""
    (failure, _) = opened.batch(3, 2, Allocate(3, 1))
    assert isinstance(failure, Failure)


def test_an_allocation_of_2_to_the_62_bytes_is_refused(opened: Stage) -> None:
    """No client of ours asks for so much: its quota refuses that. The session ends."""
    (told,) = opened.batch(1, 0, Allocate(1, 1 << 62))
    assert isinstance(told, Goodbye)
    assert opened.executor.storages.allocated_nbytes == 0


def test_the_welcome_names_what_a_cpu_lacks(stage: Stage) -> None:
    (welcome,) = stage.say(hello())
    assert isinstance(welcome, Welcome)
    lacking = welcome.lacking
    assert len(lacking) < limits.MAX_LACKING
    assert len(set(lacking)) == len(lacking)
    assert {"aten::_cudnn_rnn", "aten::_thnn_fused_lstm_cell"} < set(lacking)
    assert "aten::_softmax?half_to_float" in lacking
    names = {one for one in lacking if "?" not in one}
    assert names <= known_names()
    assert not names & {"aten::add.Tensor", "aten::mm", "aten::nonzero"}
    assert all(refusal(name) is None for name in names)


@pytest.mark.parametrize("key", ["", "x", KEY + " ", KEY[:-1], "é", "\x00"])
def test_a_wrong_key_is_refused_and_the_session_waits_on(
    stage: Stage, key: str
) -> None:
    (refusal,) = stage.say(hello(key), STRANGER)
    assert isinstance(refusal, Goodbye)
    assert refusal.code == TokenInvalid.code
    assert not stage.session.is_owned
    assert isinstance(stage.say(hello())[0], Welcome)


def test_the_key_works_once(opened: Stage) -> None:
    (refusal,) = opened.say(hello(), STRANGER)
    assert isinstance(refusal, Goodbye)
    assert refusal.code == TokenInvalid.code
    assert isinstance(opened.say(encode(Ping(3)))[0], Pong)


def test_versions_that_do_not_meet(stage: Stage) -> None:
    (refusal,) = stage.say(hello(versions=(50, 60)))
    assert isinstance(refusal, Goodbye)
    assert refusal.code == 201
    assert not stage.session.is_owned


GARBAGE = [
    [b""],
    [b"GET / HTTP/1.1\r\n\r\n"],
    [bytes(16)],
    [b"XP\x01\x02" + bytes(12), b"payload"],
    encode(Welcome(1, "l", 1, "s", "f", "cpu", "n", 1, 1, 1)),
    encode(Ack(1, 1)),
    [bytes(hello()[0])[:-3]],
]


@pytest.mark.parametrize("frames", GARBAGE)
def test_garbage_of_strangers_is_counted_and_ignored(
    opened: Stage, frames: Frames
) -> None:
    assert opened.say(frames, STRANGER) == []
    assert opened.session.ignored_messages == 1
    assert opened.session.ended is None
    assert isinstance(opened.batch(1, 0, Fence(1))[0], Reply)


def test_batches_of_strangers_are_not_executed(opened: Stage) -> None:
    batch = encode(Batch(1, 0, records(Allocate(1, 8))))
    assert opened.say(batch, STRANGER) == []
    assert opened.executor.storages.live_count == 0


@pytest.mark.parametrize(
    "frames",
    [
        *GARBAGE[:6],
        hello(),
        encode(Batch(2, 0, b"")),
        encode(Batch(1, 7, b"")),
        encode(Batch(1, 0, b"\xff")),
        encode(Batch(1, 0, b"\x04\x01")),
    ],
)
def test_garbage_of_the_owner_ends_the_session(opened: Stage, frames: Frames) -> None:
    (goodbye,) = opened.say(frames)
    assert isinstance(goodbye, Goodbye)
    assert goodbye.code == PeerError.code
    assert opened.session.ended is not None
    assert opened.session.ended.startswith("the client broke the protocol: ")


def test_records_before_garbage_are_executed_and_not_acknowledged(
    opened: Stage,
) -> None:
    bad = encode(Batch(1, 0, records(Allocate(1, 8), Fence(7)) + b"\xff"))
    reply, goodbye = opened.say(bad)
    assert isinstance(reply, Reply)
    assert isinstance(goodbye, Goodbye)


def test_one_acknowledgement_per_batch_after_its_answers(opened: Stage) -> None:
    messages = opened.batch(1, 0, Allocate(1, 8), Read(5, 1, 0, 8), Free(9), Fence(6))
    kinds = [type(message) for message in messages]
    assert kinds == [Reply, Failure, Failure, Ack]
    assert messages[-1] == Ack(1, 64 << 20)
    messages = opened.batch(2, 4)
    assert messages == [Ack(2, 64 << 20)]


def test_a_batch_that_was_executed_is_not_executed_again(opened: Stage) -> None:
    first = encode(Batch(1, 0, records(Allocate(1, 8))))
    assert opened.say(first) == [Ack(1, 64 << 20)]
    assert opened.say(first) == [Ack(1, 64 << 20)]
    assert opened.executor.storages.live_count == 1
    assert opened.executor.operation_count == 1


def test_large_writes_and_reads_travel_as_payload(opened: Stage) -> None:
    nbytes = (1 << 17) + 3
    data = bytes(i % 251 for i in range(nbytes))
    written = records(Allocate(1, nbytes), Write(1, 0, nbytes, 1))
    assert opened.say(encode(Batch(1, 0, written, (data,)))) == [Ack(1, 64 << 20)]
    reply, _ = opened.batch(2, 2, Read(1, 1, 0, nbytes))
    assert isinstance(reply, Reply)
    assert b"".join(bytes(one) for one in reply.payloads) == data


def test_counters_count_the_owners_frames(opened: Stage) -> None:
    counters = opened.session.counters()
    opened.say(hello("wrong"), STRANGER)
    assert opened.session.counters() == counters
    ping = encode(Ping(1))
    opened.say(ping)
    after = opened.session.counters()
    assert after["received_nbytes"] == counters["received_nbytes"] + len(ping[0])
    assert after["sent_nbytes"] == counters["sent_nbytes"] + 16


def test_the_client_leaves(opened: Stage) -> None:
    assert opened.say(encode(Bye("done"))) == []
    assert opened.session.ended == CLIENT_LEFT


def test_the_node_ends_it(opened: Stage) -> None:
    opened.sent.clear()
    opened.session.end(LeaseExpired("the lease ran out"))
    assert opened.sent == [(OWNER, Goodbye(400, "the lease ran out"))]
    assert opened.session.ended == "the lease ran out"


def test_the_node_ends_it_before_anybody_came(stage: Stage) -> None:
    stage.session.end(LeaseExpired("the lease ran out"))
    assert stage.sent == []
    assert stage.session.ended == "the lease ran out"


def test_a_client_that_takes_no_replies_is_let_go() -> None:
    """Its replies are refused by the driver; the session ends with that as reason."""
    sent: list[Message] = []

    def take(_: PeerId, frames: Frames) -> None:
        if len(frames) > 1:
            raise BrokenError("the client has not taken its replies")
        sent.append(decode(frames))

    session = Session(lease(), make_executor(Desk.default_kind, 1 << 20), take)
    client = ClientConnection()
    session.receive(OWNER, client.hello("t", KEY, "a", "f"))
    batch = encode(Batch(1, 0, records(Allocate(1, 8), Read(1, 1, 0, 8))))
    session.receive(OWNER, batch)
    assert session.ended == "the client has not taken its replies"
    assert isinstance(sent[-1], Goodbye)


def flips(frames: Frames) -> Iterator[Frames]:
    """Every message that differs in one bit."""
    data = bytes(frames[0])
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            yield [changed, *frames[1:]]


def test_every_flipped_bit_of_a_batch_is_survived() -> None:
    batch = encode(
        Batch(1, 0, records(Allocate(1, 8), Write(1, 0, 4, 0, b"abcd"), Fence(3)))
    )
    for frames in flips(batch):
        stage = Stage()
        stage.say(hello())
        for message in stage.say(frames):
            assert isinstance(message, Reply | Failure | Ack | Goodbye | Pong)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_any_frames_of_anybody(frames: list[bytes]) -> None:
    stage = Stage()
    stage.say(list(frames), STRANGER)
    stage.say(hello())
    stage.say(list(frames), STRANGER)
    assert stage.session.ended is None
    stage.say(list(frames))


@given(st.binary(max_size=200))
def test_any_records_of_the_owner(data: bytes) -> None:
    stage = Stage()
    stage.say(hello())
    for message in stage.say(encode(Batch(1, 0, data))):
        assert isinstance(message, Reply | Failure | Ack | Goodbye)
    stage.executor.storages.validate()


class CalledTurn(Turn):
    """The node calls while we wait for the device, or between two records."""

    def __init__(self, grants: list[bool], checks: list[bool]) -> None:
        self.grants, self.checks = grants, checks

    def begin(self, *, heeds_calls: bool = False) -> bool:
        assert heeds_calls
        return self.grants.pop(0) if self.grants else True

    def check(self, *, heeds_calls: bool = False) -> bool:
        assert heeds_calls
        return self.checks.pop(0) if self.checks else True


def test_a_call_during_the_wait_for_a_turn_is_heard_first(opened: Stage) -> None:
    """What is queued waits, nothing of it runs, and the resize takes place."""
    opened.executor.take_turns(CalledTurn([False, True], []))
    assert opened.batch(1, 0, Allocate(1, 1 << 19)) == []
    assert opened.executor.storages.live_count == 0
    assert isinstance(opened.session.resize(ResizeSession(60, 1 << 21)), SessionResized)
    opened.sent.clear()
    opened.session.go_on()
    assert [message for _, message in opened.sent] == [Ack(1, 64 << 20)]
    assert opened.executor.storages.live_count == 1


def test_a_call_between_two_records_loses_none(opened: Stage) -> None:
    opened.executor.take_turns(CalledTurn([], [False, True, False, True]))
    messages = opened.batch(1, 0, Allocate(1, 8), Allocate(2, 8), Read(5, 1, 0, 0))
    for _ in range(4):
        opened.session.go_on()
    messages = [message for _, message in opened.sent]
    assert isinstance(messages[-1], Ack)
    assert [type(one) for one in messages] == [Reply, Ack]
    assert opened.executor.storages.live_count == 2
