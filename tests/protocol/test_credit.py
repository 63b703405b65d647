"""Byte credit: whatever happens in whatever order, no byte of it is lost or made."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.connection_pair import RECORD, ConnectionPair, pair_in
from xpool_protocol import limits
from xpool_protocol.codec import Frames, encode
from xpool_protocol.connection import State
from xpool_protocol.errors import PeerError, UsageError
from xpool_protocol.messages import Batch

# One memory for all payloads: only lengths matter here.
LARGE = memoryview(bytes(limits.MAX_FRAME_NBYTES))
MIB = 1 << 20


def nbytes_of(frames: Frames) -> int:
    return sum(len(frame) for frame in frames)


class CreditMachine(RuleBasedStateMachine):
    """Given = under way + held by the server + given back but not yet heard of."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: ConnectionPair = pair_in(State.OPEN)
        self.sizes: dict[int, int] = {}
        """Bytes of every batch ever sent, by sequence number."""
        self.sent = 0
        self.taken = 0
        self.last: Frames | None = None

    @precondition(lambda self: self.pair.client.room_nbytes > 0)
    @rule(
        record_count=st.integers(0, 50),
        payload_mib=st.lists(st.integers(0, 16), max_size=2),
    )
    def send(self, record_count: int, payload_mib: list[int]) -> None:
        self.pair.batch(record_count, [LARGE[: one * MIB] for one in payload_mib])
        self.sent += 1
        self.sizes[self.sent] = nbytes_of(self.pair.to_server[-1])

    @precondition(lambda self: self.pair.client.room_nbytes <= 0)
    @rule()
    def send_without_credit(self) -> None:
        with pytest.raises(UsageError, match="wait for an Ack"):
            self.pair.client.batch(RECORD, 1)

    @precondition(lambda self: self.pair.to_server)
    @rule()
    def deliver_batch(self) -> None:
        self.last = self.pair.to_server[0]
        batch = self.pair.server_takes_batch()
        self.taken += 1
        assert batch.sequence == self.taken

    @precondition(lambda self: self.last is not None)
    @rule()
    def deliver_again(self) -> None:
        assert self.last is not None
        assert self.pair.server.receive(self.last) is None

    @precondition(lambda self: self.taken > self.pair.server.executed)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        first = self.pair.server.executed + 1
        self.pair.ack(data.draw(st.integers(first, self.taken)))

    @rule()
    def acknowledge_again(self) -> None:
        self.pair.ack(self.pair.server.executed)

    @precondition(lambda self: self.pair.to_client)
    @rule()
    def deliver_ack(self) -> None:
        self.pair.client_hears()

    @rule(mib=st.integers(0, 8))
    def widen(self, mib: int) -> None:
        self.pair.server.window_nbytes += mib * MIB
        self.pair.ack(self.pair.server.executed)

    def _sum(self, after: int, until: int) -> int:
        return sum(self.sizes[one] for one in range(after + 1, until + 1))

    @invariant()
    def server_holds_what_it_took_and_did_not_execute(self) -> None:
        server = self.pair.server
        assert server.held_nbytes == self._sum(server.executed, self.taken)

    @invariant()
    def credit_is_conserved(self) -> None:
        client, server = self.pair.client, self.pair.server
        under_way = sum(nbytes_of(frames) for frames in self.pair.to_server)
        given_back = self._sum(client.acknowledged, server.executed)
        sent = under_way + server.held_nbytes + given_back
        assert client.in_flight_nbytes == sent
        assert client.room_nbytes + sent == client.window_nbytes

    @invariant()
    def at_most_one_batch_overdraws(self) -> None:
        client = self.pair.client
        overdraft = -client.room_nbytes
        assert overdraft < max(self.sizes.values(), default=1)
        assert client.window_nbytes <= self.pair.server.window_nbytes


CreditMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestCredit = CreditMachine.TestCase


def greedy_batch(sequence: int) -> Frames:
    """16 MiB that no ClientConnection asks leave for."""
    return encode(Batch(sequence, 0, b"", (LARGE,)))


def test_a_client_that_overdraws_twice_is_refused() -> None:
    server = pair_in(State.OPEN).server
    # Four fill the window of 64 MiB and their headers overdraw it a little.
    for sequence in range(1, 5):
        server.receive(greedy_batch(sequence))
    assert server.held_nbytes > server.window_nbytes
    with pytest.raises(PeerError, match="the window is 67108864"):
        server.receive(greedy_batch(5))


def test_no_credit_is_no_credit() -> None:
    """A batch of exactly the window leaves 0 bytes, and 0 bytes send nothing."""
    pair = pair_in(State.OPEN)
    overhead = nbytes_of(encode(Batch(1, 0, b"")))
    pair.batch(0, [LARGE, LARGE, LARGE, LARGE[overhead:]])
    assert pair.client.room_nbytes == 0
    with pytest.raises(UsageError, match="wait for an Ack"):
        pair.client.batch(RECORD, 1)
    pair.server_takes_batch()
    with pytest.raises(PeerError, match="are unacknowledged"):
        pair.server.receive(encode(Batch(2, 0, RECORD)))


def test_credit_that_came_back_can_be_spent_again() -> None:
    server = pair_in(State.OPEN).server
    for sequence in range(1, 20):
        server.receive(greedy_batch(sequence))
        if sequence >= 4:
            server.ack(sequence - 3)
    assert server.executed == 16


def test_the_last_byte_of_credit_carries_one_whole_batch() -> None:
    pair = pair_in(State.OPEN)
    while pair.client.room_nbytes > 0:
        pair.batch(0, [LARGE, LARGE[: 8 * MIB]])
    assert pair.client.room_nbytes < 0
    with pytest.raises(UsageError, match="wait for an Ack"):
        pair.batch()
    while pair.to_server:
        pair.server_takes_batch()
    pair.ack(1)
    pair.client_hears()
    assert pair.client.room_nbytes > 0
    pair.batch()
    pair.server_takes_batch()
