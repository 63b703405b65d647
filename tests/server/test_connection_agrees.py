"""The worker's native connection and ``ServerConnection``, given the same facts, agree.

The Python class is the oracle. The native one knows by itself the very next batch and
leaves all else to Python: it must take what Python takes as that, with the same
records, and nothing that Python refuses, skips, or counts otherwise.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.connection_pair import WELCOME
from support.probes import built_probe
from support.strategies import MESSAGE_KINDS, messages_of, mutated
from xpool_protocol import limits
from xpool_protocol.codec import encode
from xpool_protocol.connection import ServerConnection
from xpool_protocol.errors import PeerError, UsageError
from xpool_protocol.messages import Batch, Hello, Reply
from xpool_protocol.version import MAX_VERSION
from xpool_server.native.build import LIBRARY

ACK_NBYTES: Final = 1 << 20
HELLO: Final = Hello(1, MAX_VERSION, "token", "key", "agent", "framework")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = Path(__file__).with_name("connection_probe.cpp")
    folder = tmp_path_factory.mktemp("probe")
    library = built_probe(LIBRARY, source, folder, "connection.cpp")
    pointer, uint64 = ctypes.c_void_p, ctypes.c_uint64
    library.probe_new.argtypes = [ctypes.c_uint8, uint64]
    library.probe_new.restype = pointer
    library.probe_delete.argtypes = [pointer]
    library.probe_stand_at.argtypes = [pointer, uint64, uint64]
    library.probe_next_batch.argtypes = [pointer, ctypes.c_char_p, uint64, uint64]
    library.probe_next_batch.restype = ctypes.c_int64
    library.probe_note_executed.argtypes = [pointer, uint64, uint64]
    library.probe_owes_ack.argtypes = [pointer]
    library.probe_must_ack.argtypes = [pointer]
    library.probe_ack.argtypes = [pointer, ctypes.c_char_p]
    library.probe_ack.restype = uint64
    library.probe_read_reply.argtypes = [pointer, uint64, ctypes.c_char_p]
    library.probe_read_reply.restype = uint64
    return library


class Twins:
    """Both, at the same place."""

    def __init__(self, probe: Any) -> None:
        self.python = ServerConnection()
        self.python.receive(encode(HELLO))
        self.python.welcome(WELCOME)
        self.probe = probe
        self.native = probe.probe_new(MAX_VERSION, self.python.window_nbytes)
        self.sequence = self.operation = 0

    def taken(self, frame: bytes, payload_count: int = 0) -> bytes | None:
        """The next batch's records if the native one takes it."""
        at = self.probe.probe_next_batch(
            *(self.native, frame, len(frame), 1 + payload_count)
        )
        return None if at < 0 else frame[at:]

    def expected(self, frame: bytes, payload_count: int = 0) -> bytes | None:
        """The same of Python, which stays as it was."""
        try:
            message = copy.deepcopy(self.python).receive(
                [frame, *[b"payload"] * payload_count]
            )
        except PeerError:
            return None
        is_next = (
            isinstance(message, Batch) and message.first_operation == self.operation
        )
        return message.records if is_next and isinstance(message, Batch) else None

    def execute(self, frame: bytes, record_count: int) -> None:
        self.python.receive([frame])
        self.probe.probe_note_executed(self.native, len(frame), record_count)
        self.sequence += 1
        self.operation += record_count

    def ack(self) -> bytes:
        to = ctypes.create_string_buffer(64)
        nbytes = self.probe.probe_ack(self.native, to)
        return to.raw[:nbytes]


@pytest.fixture
def twins(probe: Any) -> Iterator[Twins]:
    made = Twins(probe)
    yield made
    probe.probe_delete(made.native)


def batch_frame(
    sequence: int, first: int, records: bytes, payload_count: int = 0
) -> bytes:
    payloads = (b"payload",) * payload_count
    return bytes(encode(Batch(sequence, first, records, payloads))[0])


@st.composite
def near_misses(draw: st.DrawFn, sequence: int, operation: int) -> bytes:
    """Frames that are the next batch, or nearly, or something else."""
    records = draw(st.binary(max_size=40))
    payload_count = draw(st.sampled_from((0, 0, 1, 3)))
    near = st.sampled_from((-2, -1, 0, 0, 0, 0, 1, 2, 1 << 40))
    frame = batch_frame(
        *(max(0, sequence + 1 + draw(near)), max(0, operation + draw(near))),
        *(records, payload_count),
    )
    kind = draw(st.sampled_from(("as it is", "as it is", "mutated", "cut", "other")))
    if kind == "mutated":
        return draw(mutated(st.just(frame)))
    if kind == "cut":
        return frame[: draw(st.integers(0, len(frame)))]
    if kind == "other":
        message = draw(st.sampled_from(MESSAGE_KINDS).flatmap(messages_of))
        return bytes(encode(message)[0])
    return frame


@given(st.data())
def test_both_take_the_same_batches(probe: Any, data: st.DataObject) -> None:
    twins = Twins(probe)
    for _ in range(data.draw(st.integers(1, 12))):
        frame = data.draw(near_misses(twins.sequence, twins.operation))
        for payload_count in (1, 3):
            taken = twins.taken(frame, payload_count)
            assert taken == twins.expected(frame, payload_count)
        records = twins.taken(frame)
        assert records == twins.expected(frame)
        if records is not None:
            twins.execute(frame, data.draw(st.integers(0, len(records) // 2)))
        assert probe.probe_owes_ack(twins.native) == (
            twins.python.executed < twins.sequence
        )
        if twins.python.held_nbytes and data.draw(st.booleans()):
            assert [twins.ack()] == twins.python.ack(twins.sequence)
    probe.probe_delete(twins.native)


@given(st.binary(max_size=64))
def test_garbage_is_pythons(probe: Any, garbage: bytes) -> None:
    twins = Twins(probe)
    assert twins.taken(garbage) == twins.expected(garbage)
    probe.probe_delete(twins.native)


def test_a_body_over_the_limit_is_pythons(twins: Twins) -> None:
    head = batch_frame(1, 0, b"")
    for nbytes in (limits.MAX_BODY_NBYTES, limits.MAX_BODY_NBYTES + 1):
        frame = head + bytes(nbytes - len(head))
        assert twins.taken(frame) == twins.expected(frame)
        assert (twins.taken(frame) is None) == (nbytes > limits.MAX_BODY_NBYTES)


def test_an_ack_is_due_long_before_the_window_is_full(twins: Twins) -> None:
    assert ACK_NBYTES + limits.MAX_BODY_NBYTES < limits.MIN_WINDOW_NBYTES
    half = ACK_NBYTES // 2
    for sequence, is_due in ((1, False), (2, True)):
        twins.probe.probe_note_executed(twins.native, half, 1)
        assert bool(twins.probe.probe_must_ack(twins.native)) == is_due
        assert twins.probe.probe_owes_ack(twins.native)
        assert twins.sequence < sequence
    twins.ack()
    assert not twins.probe.probe_must_ack(twins.native)
    assert not twins.probe.probe_owes_ack(twins.native)


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62))
def test_both_go_on_from_the_same_place(
    probe: Any, sequence: int, operation: int
) -> None:
    twins = Twins(probe)
    twins.python.advance(sequence, operation)
    probe.probe_stand_at(twins.native, sequence, operation)
    twins.sequence, twins.operation = sequence, operation
    assert not probe.probe_owes_ack(twins.native)
    frame = batch_frame(sequence + 1, operation, b"\x05\x01")
    assert twins.taken(frame) == twins.expected(frame) == b"\x05\x01"
    twins.execute(frame, 1)
    assert [twins.ack()] == twins.python.ack(sequence + 1)
    probe.probe_delete(twins.native)


@given(st.integers(0, 1 << 62))
def test_a_reads_answer_has_the_same_head(probe: Any, number: int) -> None:
    native = probe.probe_new(MAX_VERSION, limits.WINDOW_NBYTES)
    to = ctypes.create_string_buffer(64)
    nbytes = probe.probe_read_reply(native, number, to)
    probe.probe_delete(native)
    head, payload = encode(Reply(number, b"\x00", (b"payload",)))
    assert to.raw[:nbytes] == head
    assert payload == b"payload"


def test_nothing_is_passed_over_what_is_held(twins: Twins) -> None:
    twins.python.receive([batch_frame(1, 0, b"\x05\x01")])
    with pytest.raises(UsageError, match="1 batches are held"):
        twins.python.advance(2, 1)
    twins.python.ack(1)
    with pytest.raises(UsageError, match="1 is the last"):
        twins.python.advance(0, 0)
    twins.python.advance(1, 1)
