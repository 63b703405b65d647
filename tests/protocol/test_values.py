"""Values: they survive, have one encoding, and hostile ones are cheap to refuse."""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import WIRE_VALUES, mutated
from xpool_protocol import limits, values
from xpool_protocol.errors import PeerError
from xpool_protocol.values import (
    HostTensor,
    SparseTensor,
    Tensor,
    Value,
    read_value,
    row_major_strides,
    span_items,
    write_value,
)
from xpool_protocol.wire import Reader, Writer


def encoded(value: Any) -> bytes:
    writer = Writer()
    write_value(writer, value)
    return bytes(writer.buffer)


def decoded(data: bytes) -> Value:
    """The one value that these bytes are."""
    reader = Reader(data)
    value = read_value(reader)
    if not reader.is_exhausted:
        raise PeerError("bytes are left over")
    return value


def varints(*numbers: int) -> bytes:
    writer = Writer()
    for number in numbers:
        writer.uvarint(number)
    return bytes(writer.buffer)


@given(WIRE_VALUES)
def test_a_value_survives(value: Value) -> None:
    data = encoded(value)
    found = decoded(data)
    assert found == value
    assert type(found) is type(value)
    assert encoded(found) == data


@given(mutated(WIRE_VALUES.map(encoded)))
def test_what_is_read_is_written_the_same(data: bytes) -> None:
    try:
        value = decoded(data)
    except PeerError:
        return
    assert encoded(value) == data


@given(st.binary(max_size=64))
def test_garbage_is_a_value_or_a_peer_error(data: bytes) -> None:
    try:
        value = decoded(data)
    except PeerError:
        return
    assert encoded(value) == data


def test_a_nan_keeps_its_bits() -> None:
    data = bytes([values.TAG_FLOAT]) + struct.pack("<Q", 0x7FF0_0000_0000_0001)
    assert math.isnan(decoded(data))  # type: ignore[arg-type]
    assert encoded(decoded(data)) == data


def test_booleans_and_integers_are_told_apart() -> None:
    assert encoded([True, 1]).hex() == "07020203" + "02"
    assert encoded([1, 2]).hex() == "08020204"


class Colour(IntEnum):
    RED = 1


def test_a_kind_of_integer_is_an_integer() -> None:
    assert decoded(encoded([Colour.RED, 2])) == [1, 2]
    assert encoded([Colour.RED]) == encoded([1])


def test_a_tuple_travels_as_a_list() -> None:
    assert decoded(encoded((1, (2, "x")))) == [1, [2, "x"]]


# ---- what has another form


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes([values.TAG_LIST, 1, values.TAG_INT, 2]), "packed"),
        (bytes([values.TAG_INTS, 0]), "packed"),
        (bytes([values.TAG_TENSOR, 1, 6, 0, 0, 1, 4, 1]), "as a flag"),
        (bytes([values.TAG_TENSOR, 1, 6, 8, 0, 0]), "flags"),
        (bytes([values.TAG_TENSOR, 1, 12, 4, 0, 0]), "dtype"),
        (bytes([values.TAG_HOST_TENSOR, 6, 2, 0]), "flags"),
        (bytes([values.TAG_HOST_TENSOR, 6, 1, 1, 1]) + bytes(4), "wrapped"),
        (bytes([values.TAG_HOST_TENSOR, 12, 0, 0]), "dtype"),
        (bytes([values.TAG_DTYPE, 12]), "dtype"),
        (bytes([values.TAG_DEVICE, 64]), "out of range"),
        (bytes([values.TAG_LAYOUT, 64]), "out of range"),
        (bytes([values.TAG_MEMORY_FORMAT, 255]), "out of range"),
        (bytes([values.TAG_SPARSE, 3, 0, 0, 0]), "sparse layout 3"),
        (bytes([values.TAG_SPARSE, 1, 2, 0, 0]), "sparse tensor flags"),
        (bytes([values.TAG_SPARSE, 2, 1, 0, 0]), "sparse tensor flags"),
        (bytes([values.TAG_SPARSE, 1, 0, 2, 1, 4]), "can't be dense"),
        (bytes([values.TAG_SPARSE, 1, 0, 65, 0]), "dense dimensions"),
        (bytes([values.TAG_SPARSE, 1, 0, 0, 1, 4, 1, 4, 4, 0, 0]), "cut short"),
        (bytes([17]), "tag 17 is unknown"),
        (bytes([255]), "tag 255 is unknown"),
        (b"", "cut short"),
    ],
)
def test_other_forms_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        decoded(data)


@pytest.mark.parametrize("bottom", [[1], [], ["x"]])
def test_lists_nest_four_deep_and_no_deeper(bottom: list[Value]) -> None:
    value: list[Value] = bottom
    for _ in range(limits.MAX_DEPTH - 1):
        value = [value]
    data = encoded(value)
    assert decoded(data) == value
    with pytest.raises(PeerError, match="deep"):
        decoded(bytes([values.TAG_LIST, 1]) + data)
    with pytest.raises(ValueError, match="deep"):
        encoded([value])


def test_a_list_within_itself_is_refused() -> None:
    endless: list[Value] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="deep"):
        encoded(endless)


# ---- geometry


def tensor_bytes(sizes: list[int], strides: list[int] | None = None) -> bytes:
    flags = values.FLAG_ROW_MAJOR if strides is None else 0
    head = bytes([values.TAG_TENSOR, 1, 6, flags, 0])
    return head + varints(len(sizes), *sizes, *(strides or []))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tensor_bytes([limits.MAX_EXTENT + 1]), "size is"),
        (tensor_bytes([2, 2], [limits.MAX_EXTENT + 1, 1]), "stride is"),
        (tensor_bytes([1] * 65), "dimensions"),
        (tensor_bytes([1 << 32, 1 << 31]), "items"),
        (tensor_bytes([limits.MAX_EXTENT] * 64), "items"),
        (tensor_bytes([0, 1 << 46, 1 << 46]), "items"),
        (tensor_bytes([1 << 46, 1 << 46, 0], [1, 0, 2]), "items"),
    ],
)
def test_geometry_is_bounded(data: bytes, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        decoded(data)


def test_the_largest_geometry_is_read() -> None:
    assert decoded(tensor_bytes([1 << 31, 1 << 31])) == Tensor(
        1, 6, (1 << 31, 1 << 31), (1 << 31, 1)
    )


@given(st.lists(st.integers(1, 50), max_size=5).map(tuple))
def test_a_row_major_tensor_touches_each_item_once(sizes: tuple[int, ...]) -> None:
    assert span_items(sizes, row_major_strides(sizes)) == math.prod(sizes)


def test_an_empty_tensor_touches_nothing() -> None:
    assert row_major_strides((2, 0, 3)) == (3, 3, 1)
    assert span_items((2, 0, 3), (100, 100, 100)) == 0


# ---- what the writer refuses, so that its own peer need not


@pytest.mark.parametrize(
    "value",
    [
        1 << 63,
        [1 << 63],
        "x" * (limits.MAX_STRING_NBYTES + 1),
        [None] * (limits.MAX_LIST + 1),
        HostTensor(6, (2,), bytes(7)),
        HostTensor(0, (limits.MAX_HOST_TENSOR_NBYTES + 1,), b""),
        SparseTensor(1, (4,), 0, (Tensor(1, 4, (1, 0), (0, 1)),)),
        SparseTensor(3, (4,), 0, ()),
    ],
    ids=[
        *("int", "ints", "text", "list", "host tensor", "large host tensor"),
        *("one part", "no layout"),
    ],
)
def test_the_writer_refuses_what_the_reader_would(value: Value) -> None:
    with pytest.raises(ValueError, match=r"."):
        encoded(value)


@pytest.mark.parametrize("value", [b"x", {1: 2}, object()])
def test_what_is_no_value_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="no place on the wire"):
        encoded(value)


def test_the_longest_text_and_list_survive() -> None:
    text = "x" * limits.MAX_STRING_NBYTES
    assert decoded(encoded(text)) == text
    items: list[Value] = [None] * limits.MAX_LIST
    assert decoded(encoded(items)) == items
