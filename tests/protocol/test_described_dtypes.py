"""Dtypes with fields: what is described, what is refused, and NumPy's way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from support.array_strategies import DESCRIPTIONS
from xpool_protocol import limits
from xpool_protocol.arrays.described import (
    Description,
    DtypeField,
    FieldsDtype,
    count_fields,
    item_nbytes,
    read_description,
    write_description,
)
from xpool_protocol.arrays.numpy_dtypes import describe, dtype_of
from xpool_protocol.arrays.records import DefineArrayDtype
from xpool_protocol.errors import PeerError
from xpool_protocol.records import read_record, write_record
from xpool_protocol.wire import Reader, Writer

DTYPES = [
    np.dtype("V8"),
    np.dtype("i,f8", align=True),
    np.dtype([(("a title", "a"), "i4"), ("b", "S3"), ("c", ">f4", (3, 2))]),
    np.dtype([("when", "M8[us]"), ("who", "U3"), ("in", [("x", "i4"), ("y", "V3")])]),
    np.dtype("i,f,i")[["f2", "f0"]],
    np.dtype([("void", "V3", (2,)), ("none", "f4", (0,))]),
]


def written(description: Description) -> bytes:
    writer = Writer()
    write_description(writer, description)
    return bytes(writer.buffer)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_dtypes_come_back(dtype: np.dtype[np.void]) -> None:
    reader = Reader(written(describe(dtype)))
    found = dtype_of(read_description(reader), np.dtype)
    assert reader.is_exhausted
    assert found == dtype
    assert found.isalignedstruct == dtype.isalignedstruct


@given(DESCRIPTIONS)
def test_numpy_takes_a_description_as_it_is_or_says_why(what: Description) -> None:
    try:
        found = dtype_of(what, np.dtype)
    except ValueError:
        return
    assert describe(found) == what
    assert found.itemsize == item_nbytes(what)
    assert not found.hasobject


@given(DESCRIPTIONS)
def test_garbage_is_refused_or_is_another_description(what: Description) -> None:
    good = written(what)
    for at in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[at] ^= 1 << bit
            reader = Reader(bytes(flipped))
            try:
                found = read_description(reader)
            except PeerError:
                continue
            assert written(found) == bytes(flipped)[: reader.position]
    for at in range(len(good)):
        with pytest.raises(PeerError):
            read_description(Reader(good[:at]))


@pytest.mark.parametrize(
    "text", ["|O8", "|V0", "=i4", "<i4[us]", "<M8[us", "<f8x", "", "|S9999999999"]
)
def test_no_dtype_of_a_field(text: str) -> None:
    data = text.encode()
    with pytest.raises(PeerError):
        read_description(Reader(bytes((0, len(data))) + data))


def test_a_field_ends_within_the_item() -> None:
    field = DtypeField("a", "", 4, (), "<f8")
    with pytest.raises(PeerError, match="ends at byte 12 of 8"):
        read_description(Reader(written(FieldsDtype(8, False, (field,)))))


def test_bounds() -> None:
    deep: Description = "<i4"
    for _ in range(limits.MAX_DTYPE_DEPTH):
        deep = FieldsDtype(4, False, (DtypeField("a", "", 0, (), deep),))
    with pytest.raises(ValueError, match="too deep"):
        written(deep)
    one = DtypeField("a", "", 0, (), "|u1")
    wide = FieldsDtype(1, False, (one,) * (limits.MAX_DTYPE_FIELDS + 1))
    assert count_fields(wide) == limits.MAX_DTYPE_FIELDS + 1
    with pytest.raises(ValueError, match="fields"):
        written(wide)
    # Twice half of them within two fields: counted together.
    half = FieldsDtype(1, False, (one,) * (limits.MAX_DTYPE_FIELDS // 2))
    inner = DtypeField("b", "", 0, (), half)
    body = written(half)
    head = bytes((1, 1, 0, 2))
    field = bytes((1, 98, 0, 0, 0))
    assert written(FieldsDtype(1, False, (inner,))) == head[:3] + b"\x01" + field + body
    with pytest.raises(PeerError, match="fields"):
        read_description(Reader(head + field + body + field + body))


def test_only_bytes_are_described_without_fields() -> None:
    writer = Writer()
    write_record(writer, DefineArrayDtype(128, "<f8"))
    with pytest.raises(PeerError, match="needs no description"):
        read_record(Reader(bytes(writer.buffer)))


def test_objects_are_not_described() -> None:
    with pytest.raises(ValueError, match="objects"):
        describe(np.dtype("i,O"))
