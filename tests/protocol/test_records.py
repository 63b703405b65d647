"""Records: they survive, have one encoding, and every number in them is bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import (
    RECORD_KINDS,
    WIRE_RECORDS,
    encoded,
    mutated,
    records_of,
)
from xpool_protocol import limits, records
from xpool_protocol.errors import PeerError
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineOperation,
    Fence,
    Free,
    Read,
    Record,
    RequestCall,
    Write,
    WriteGenerator,
    read_records,
)


def decoded(data: bytes) -> list[Record]:
    return list(read_records(data))


@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_a_record_survives(kind: type[Record]) -> None:
    @given(records_of(kind))
    def check(record: Record) -> None:
        data = encoded([record])
        assert decoded(data) == [record]
        assert encoded(decoded(data)) == data

    check()


@given(st.lists(WIRE_RECORDS, max_size=5))
def test_records_follow_one_another(written: list[Record]) -> None:
    assert decoded(encoded(written)) == written


@given(mutated(st.lists(WIRE_RECORDS, min_size=1, max_size=3).map(encoded)))
def test_what_is_read_is_written_the_same(data: bytes) -> None:
    try:
        found = decoded(data)
    except PeerError:
        return
    assert encoded(found) == data


@given(st.binary(max_size=80))
def test_garbage_is_records_or_a_peer_error(data: bytes) -> None:
    try:
        found = decoded(data)
    except PeerError:
        return
    assert encoded(found) == data


@given(WIRE_RECORDS)
def test_a_truncated_record_is_refused(record: Record) -> None:
    data = encoded([record])
    for end in range(1, len(data)):
        with pytest.raises(PeerError):
            decoded(data[:end])


@given(WIRE_RECORDS, st.data())
def test_a_flipped_bit_is_another_record_or_a_peer_error(
    record: Record, draw: st.DataObject
) -> None:
    data = bytearray(encoded([record]))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        found = decoded(bytes(data))
    except PeerError:
        return
    assert encoded(found) == data


ARGUMENTS_OUT_OF_ORDER = ((1, None), (0, None))
ARGUMENT_TWICE = ((1, None), (1, None))

REFUSED: list[tuple[Callable[[], Record], str]] = [
    (lambda: Fence(0), "request id 0"),
    (lambda: Fence(limits.MAX_STORAGE_ID + 1), "request id"),
    (lambda: Free(limits.MAX_STORAGE_ID + 1), "storage id"),
    (lambda: Allocate(1, limits.MAX_STORAGE_NBYTES + 1), "number of bytes"),
    (lambda: Call(limits.MAX_OPERATIONS, (), ()), "operation"),
    (lambda: Call(0, ARGUMENTS_OUT_OF_ORDER, ()), "ascend"),
    (lambda: Call(0, ARGUMENT_TWICE, ()), "ascend"),
    (lambda: Call(0, ((limits.MAX_ARGUMENTS, None),), ()), "position"),
    (lambda: RequestCall(0, 1, 0, ()), "request id 0"),
    (lambda: RequestCall(1, 1, limits.MAX_OPERATIONS, ()), "operation"),
    (lambda: DefineOperation(limits.MAX_OPERATIONS, "x", ()), "operation"),
    (lambda: DefineOperation(0, "x" * 257, ()), "operation name"),
    (lambda: DefineOperation(0, "x", ("y" * 257,)), "name"),
    (lambda: DefineOperation(0, "x", ("y",) * 65), "number of arguments"),
    (lambda: Read(1, 1, 0, limits.TRANSFER_NBYTES + 1), "number of bytes"),
    (lambda: Read(1, 1, limits.MAX_STORAGE_NBYTES + 1, 0), "offset"),
    (lambda: Write(1, 0, limits.TRANSFER_NBYTES + 1, 1), "number of bytes"),
    (lambda: Write(1, 0, 8, limits.MAX_FRAMES), "payload frame"),
    (lambda: Write(1, 0, 65_537, 0, bytes(65_537)), "inside a record"),
    (lambda: WriteGenerator(1, bytes(16_385)), "generator state"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_a_number_over_its_bound_is_refused(
    make: Callable[[], Record], why: str
) -> None:
    with pytest.raises(PeerError, match=why):
        decoded(encoded([make()]))


@pytest.mark.parametrize("kind", [0, 40, 255])
def test_an_unknown_record_is_refused(kind: int) -> None:
    assert kind not in records._READERS
    with pytest.raises(PeerError, match=f"record kind {kind} is unknown"):
        decoded(bytes([kind, 0]))


def test_an_unknown_output_mark_is_refused() -> None:
    with pytest.raises(PeerError, match="output mark 2"):
        decoded(bytes([records.CALL, 0, 0, 1, 2]))


@pytest.mark.parametrize(
    "record", [Write(1, 0, 4, 0, b"abc"), Write(1, 0, 4, 1, b"abcd")]
)
def test_a_write_holds_as_many_bytes_as_it_says(record: Write) -> None:
    with pytest.raises(ValueError, match="Write of 4 bytes"):
        encoded([record])


def test_records_are_read_one_by_one() -> None:
    found = read_records(encoded([Free(1)]) + b"\xff")
    assert next(found) == Free(1)
    with pytest.raises(PeerError, match="record kind 255"):
        next(found)
