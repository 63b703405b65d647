"""The two ends of a session: who may say what, when, and what is refused."""

from __future__ import annotations

from typing import get_args

import pytest
from support.connection_pair import RECORD, WELCOME, ConnectionPair, pair_in
from xpool_protocol import limits
from xpool_protocol.codec import decode, encode
from xpool_protocol.connection import (
    MIN_RECORD_NBYTES,
    ClientConnection,
    ServerConnection,
    State,
    goodbye,
    redirect,
)
from xpool_protocol.errors import (
    LeaseExpired,
    PeerError,
    UsageError,
    VersionUnsupported,
    WorkerLost,
)
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
from xpool_protocol.version import MAX_VERSION, MIN_VERSION

SAMPLES: dict[type[Message], Message] = {
    Hello: Hello(MIN_VERSION, MAX_VERSION, "token"),
    Batch: Batch(1, 0, RECORD),
    Ping: Ping(7),
    Bye: Bye("done"),
    Inquiry: Inquiry("token", "key"),
    Welcome: WELCOME,
    Redirect: Redirect("tcp://127.0.0.1:1", "key"),
    Ack: Ack(0, limits.WINDOW_NBYTES),
    Reply: Reply(1, b"\x00"),
    Failure: Failure(0, Fault(500, "failed")),
    Goodbye: Goodbye(400, "over"),
    Pong: Pong(7),
    Resized: Resized(60, 1 << 30),
}

# Written out a second time, so that a change of the rules is a change of two tables.
# What a message leads to; a message that is not here is refused.
SERVER_RULES: dict[State, dict[type[Message], State]] = {
    State.NEW: {Hello: State.GREETED, Inquiry: State.NEW},
    State.GREETED: {Ping: State.GREETED, Bye: State.CLOSED},
    State.OPEN: {Batch: State.OPEN, Ping: State.OPEN, Bye: State.CLOSED},
    State.CLOSED: {},
}
CLIENT_RULES: dict[State, dict[type[Message], State]] = {
    State.NEW: {},
    State.GREETED: {
        Welcome: State.OPEN,
        Redirect: State.NEW,
        Pong: State.GREETED,
        Goodbye: State.CLOSED,
    },
    State.OPEN: {
        Ack: State.OPEN,
        Reply: State.OPEN,
        Failure: State.OPEN,
        Pong: State.OPEN,
        Resized: State.OPEN,
        Goodbye: State.CLOSED,
    },
    State.CLOSED: {},
}
KINDS: tuple[type[Message], ...] = get_args(Message)


def states(*ends: ClientConnection | ServerConnection) -> set[State]:
    """Where these ends stand, all of them."""
    return {end.state for end in ends}


def test_there_is_a_sample_of_every_message() -> None:
    assert SAMPLES.keys() == set(KINDS)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_server_may_be_told(state: State, kind: type[Message]) -> None:
    server = pair_in(state).server
    expected = SERVER_RULES[state].get(kind)
    if expected is None:
        with pytest.raises(
            PeerError, match=f"{kind.__name__} is not legal while {state.name.lower()}"
        ):
            server.receive(encode(SAMPLES[kind]))
        assert server.state is state
    else:
        assert server.receive(encode(SAMPLES[kind])) == SAMPLES[kind]
        assert server.state is expected


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_client_may_be_told(state: State, kind: type[Message]) -> None:
    client = pair_in(state).client
    expected = CLIENT_RULES[state].get(kind)
    if expected is None:
        with pytest.raises(
            PeerError, match=f"{kind.__name__} is not legal while {state.name.lower()}"
        ):
            client.receive(encode(SAMPLES[kind]))
        assert client.state is state
    else:
        assert client.receive(encode(SAMPLES[kind])) == SAMPLES[kind]
        assert client.state is expected


@pytest.mark.parametrize("state", State)
def test_garbage_is_refused_in_every_state(state: State) -> None:
    pair = pair_in(state)
    for end in (pair.client, pair.server):
        with pytest.raises(PeerError, match="no xpool message"):
            end.receive([b"GET / HTTP/1.1\r\n\r\n"])
        assert end.state is state


# ---- the opening


def test_node_then_worker() -> None:
    """1 Hello to the node, 2 Redirect, 3 Hello to the worker, 4 Welcome."""
    client, node, worker = ClientConnection(), ServerConnection(), ServerConnection()

    asked = node.receive(client.hello("token", "", "test", "torch"))
    assert asked == Hello(MIN_VERSION, MAX_VERSION, "token", "", "test", "torch")
    told = client.receive(redirect("tcp://127.0.0.1:9", "key"))
    assert isinstance(told, Redirect)
    assert states(client) == {State.NEW}

    greeted = worker.receive(client.hello("token", told.session_key, "test", "torch"))
    assert isinstance(greeted, Hello)
    assert greeted.session_key == "key"
    assert client.receive(worker.welcome(WELCOME)) == WELCOME
    assert states(client, worker) == {State.OPEN}
    assert client.room_nbytes == client.window_nbytes == WELCOME.window_nbytes


def test_the_welcome_tells_the_connections_own_version_and_window() -> None:
    pair = ConnectionPair(limits.MIN_WINDOW_NBYTES)
    pair.hello()
    pair.server_hears()
    pair.welcome()
    told = pair.client_hears()
    assert isinstance(told, Welcome)
    assert (told.version, told.window_nbytes) == (1, limits.MIN_WINDOW_NBYTES)
    assert pair.client.window_nbytes == pair.server.window_nbytes


def test_an_inquiry_is_answered_by_where_or_why() -> None:
    client, node = ClientConnection(), ServerConnection()
    assert node.receive(client.inquiry("token", "key")) == Inquiry("token", "key")
    told = client.receive(goodbye(WorkerLost("the worker ended with signal 9")))
    assert told == Goodbye(406, "the worker ended with signal 9")

    client = ClientConnection()
    client.inquiry("token", "key")
    client.receive(redirect("tcp://127.0.0.1:9", "key"))
    client.hello("token", "key", "test", "torch")
    client.receive(encode(WELCOME))
    assert client.state is State.OPEN


def test_a_welcome_is_no_answer_to_an_inquiry() -> None:
    client = ClientConnection()
    client.inquiry("token", "key")
    with pytest.raises(PeerError, match="no answer to an Inquiry"):
        client.receive(encode(WELCOME))
    assert client.state is State.GREETED


def test_versions_that_do_not_meet_are_told_to_any_client() -> None:
    server = ServerConnection()
    with pytest.raises(VersionUnsupported, match="upgrade xpool") as caught:
        server.receive(encode(Hello(MAX_VERSION + 1, MAX_VERSION + 2, "token")))
    assert states(server) == {State.NEW}
    told = decode(server.goodbye(caught.value))
    assert isinstance(told, Goodbye)
    assert told.code == VersionUnsupported.code
    assert states(server) == {State.CLOSED}


@pytest.mark.parametrize("version", [MIN_VERSION - 1, MAX_VERSION + 1])
def test_a_server_may_not_choose_what_the_client_did_not_offer(version: int) -> None:
    client = pair_in(State.GREETED).client
    fields = {**{f: getattr(WELCOME, f) for f in WELCOME.__struct_fields__}}
    with pytest.raises(PeerError, match=f"chose version {version}"):
        client.receive(encode(Welcome(**{**fields, "version": version})))
    assert client.state is State.GREETED


# ---- what this side must not do itself


@pytest.mark.parametrize("state", [State.GREETED, State.OPEN, State.CLOSED])
def test_a_conversation_is_opened_once(state: State) -> None:
    client = pair_in(state).client
    with pytest.raises(UsageError, match="Hello is said while new"):
        client.hello("token", "", "", "")
    with pytest.raises(UsageError, match="Inquiry is said while new"):
        client.inquiry("token", "key")


@pytest.mark.parametrize("state", [State.NEW, State.GREETED, State.CLOSED])
def test_batches_need_an_open_session(state: State) -> None:
    with pytest.raises(UsageError, match="Batch is said while open"):
        pair_in(state).client.batch(RECORD, 1)


@pytest.mark.parametrize("state", [State.NEW, State.OPEN, State.CLOSED])
def test_a_welcome_answers_a_hello(state: State) -> None:
    with pytest.raises(UsageError, match="Welcome is said while greeted"):
        pair_in(state).server.welcome(WELCOME)


# ---- the end


@pytest.mark.parametrize("state", State)
def test_a_server_may_end_it_in_every_state(state: State) -> None:
    pair = pair_in(state)
    frames = pair.server.goodbye(LeaseExpired("lease lease-1 is over"))
    assert pair.server.state is State.CLOSED
    if Goodbye in CLIENT_RULES[state]:
        told = pair.client.receive(frames)
        assert told == Goodbye(400, "lease lease-1 is over")
        assert pair.client.state is State.CLOSED


def test_a_client_may_leave_while_it_waits() -> None:
    pair = pair_in(State.GREETED)
    assert pair.server.receive(pair.client.bye("tired")) == Bye("tired")
    assert pair.client.state is pair.server.state is State.CLOSED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 20_000, "x" * limits.MAX_TEXT_NBYTES),
        ("ä" * 20_000, "ä" * (limits.MAX_TEXT_NBYTES // 2)),
        ("file \udcff", "file ?"),
    ],
)
def test_a_long_or_broken_text_still_arrives(text: str, expected: str) -> None:
    pair = pair_in(State.OPEN)
    told = pair.client.receive(pair.server.failure(3, Fault(500, text)))
    assert told == Failure(3, Fault(500, expected))
    told = pair.client.receive(pair.server.goodbye(LeaseExpired(text)))
    assert told == Goodbye(400, expected)


def test_answers_carry_their_request() -> None:
    pair = pair_in(State.OPEN)
    assert pair.client.receive(pair.server.reply(5, b"\0", [b"x"])) == Reply(
        5, b"\0", (b"x",)
    )
    assert pair.client.receive(pair.server.pong(Ping(9))) == Pong(9)


# ---- batches


def test_batches_and_operations_are_numbered() -> None:
    pair = pair_in(State.OPEN)
    for count in (3, 0, 2, 1):
        pair.batch(count)
    taken = [pair.server_takes_batch() for _ in range(4)]
    assert [(one.sequence, one.first_operation) for one in taken] == [
        *((1, 0), (2, 3), (3, 3), (4, 5)),
    ]


def test_a_batch_that_was_taken_is_skipped() -> None:
    pair = pair_in(State.OPEN)
    pair.batch()
    again = pair.to_server[0]
    pair.server_takes_batch()
    held = pair.server.held_nbytes
    assert pair.server.receive(again) is None
    assert pair.server.held_nbytes == held
    pair.batch()
    assert pair.server_takes_batch().sequence == 2
    assert pair.server.receive(again) is None


def test_a_gap_is_refused() -> None:
    pair = pair_in(State.OPEN)
    pair.batch()
    pair.batch()
    pair.to_server.popleft()
    with pytest.raises(PeerError, match="batch 2 arrived after batch 0"):
        pair.server_hears()


def test_there_is_no_batch_zero() -> None:
    with pytest.raises(PeerError, match="numbered from 1"):
        pair_in(State.OPEN).server.receive(encode(Batch(0, 0, RECORD)))


@pytest.mark.parametrize("operation", [1, 1 << 63])
def test_operations_are_numbered_from_0(operation: int) -> None:
    with pytest.raises(PeerError, match="batch 1 begins at operation"):
        pair_in(State.OPEN).server.receive(encode(Batch(1, operation, RECORD)))


@pytest.mark.parametrize(
    "operation", [4 + limits.MAX_EXPANDED_NBYTES // MIN_RECORD_NBYTES, 1 << 63]
)
def test_a_batch_holds_no_more_records_than_it_has_bytes_for(operation: int) -> None:
    """Its own, and those that runs of plans may stand for."""
    server = pair_in(State.OPEN).server
    server.receive(encode(Batch(1, 0, RECORD * 3)))
    with pytest.raises(PeerError, match="batch 2 begins at operation"):
        server.receive(encode(Batch(2, operation, RECORD)))


def test_operations_do_not_go_back() -> None:
    server = pair_in(State.OPEN).server
    server.receive(encode(Batch(1, 0, RECORD * 3)))
    server.receive(encode(Batch(2, 3, RECORD)))
    with pytest.raises(PeerError, match="batch 3 begins at operation 2"):
        server.receive(encode(Batch(3, 2, RECORD)))


# ---- acknowledgement and window


def test_an_ack_of_what_was_never_sent_is_refused() -> None:
    pair = pair_in(State.OPEN)
    pair.batch()
    with pytest.raises(PeerError, match=r"Ack of batch 2: .* up to 1 were sent"):
        pair.client.receive(encode(Ack(2, limits.WINDOW_NBYTES)))


def test_an_ack_that_goes_back_is_refused() -> None:
    pair = pair_in(State.OPEN)
    for sequence in (1, 2):
        pair.batch()
        pair.server_takes_batch()
        pair.ack(sequence)
        pair.client_hears()
    with pytest.raises(PeerError, match="up to 2 are acknowledged"):
        pair.client.receive(encode(Ack(1, limits.WINDOW_NBYTES)))


def test_a_server_acknowledges_what_it_has() -> None:
    pair = pair_in(State.OPEN)
    pair.batch()
    pair.server_takes_batch()
    with pytest.raises(UsageError, match="batch 2 can't be acknowledged"):
        pair.server.ack(2)
    pair.server.ack(1)
    with pytest.raises(UsageError, match="batch 0 can't be acknowledged"):
        pair.server.ack(0)


@pytest.mark.parametrize("nbytes", [0, limits.MIN_WINDOW_NBYTES - 1])
def test_a_window_too_small_is_refused(nbytes: int) -> None:
    with pytest.raises(UsageError, match="too small"):
        ServerConnection(nbytes)
    client = pair_in(State.GREETED).client
    fields = {f: getattr(WELCOME, f) for f in WELCOME.__struct_fields__}
    with pytest.raises(PeerError, match="cannot hold one batch"):
        client.receive(encode(Welcome(**{**fields, "window_nbytes": nbytes})))
    assert client.state is State.GREETED


def test_a_window_grows_and_never_shrinks() -> None:
    client = pair_in(State.OPEN).client
    client.receive(encode(Ack(0, 2 * limits.WINDOW_NBYTES)))
    assert client.room_nbytes == 2 * limits.WINDOW_NBYTES
    with pytest.raises(PeerError, match="shrank"):
        client.receive(encode(Ack(0, limits.WINDOW_NBYTES)))
