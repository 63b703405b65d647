"""Primitives: what they look like, and that each has one form only."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import integers
from xpool_protocol.errors import PeerError
from xpool_protocol.wire import INT64_MAX, INT64_MIN, UINT64_MAX, Reader, Writer


def uvarint(value: int) -> bytes:
    writer = Writer()
    writer.uvarint(value)
    return bytes(writer.buffer)


def svarint(value: int) -> bytes:
    writer = Writer()
    writer.svarint(value)
    return bytes(writer.buffer)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (1 << 63, "80808080808080808001"),
        (UINT64_MAX, "ffffffffffffffffff01"),
    ],
)
def test_unsigned_numbers(value: int, encoded: str) -> None:
    assert uvarint(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).uvarint() == value


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (-64, "7f"),
        (64, "8001"),
        (INT64_MAX, "feffffffffffffffff01"),
        (INT64_MIN, "ffffffffffffffffff01"),
    ],
)
def test_signed_numbers(value: int, encoded: str) -> None:
    assert svarint(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).svarint() == value


@given(integers(0, UINT64_MAX))
def test_an_unsigned_number_survives(value: int) -> None:
    reader = Reader(uvarint(value))
    assert reader.uvarint() == value
    assert reader.is_exhausted


@given(integers(INT64_MIN, INT64_MAX))
def test_a_signed_number_survives(value: int) -> None:
    assert Reader(svarint(value)).svarint() == value


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("", "missing"),
        ("80", "varint"),
        ("8000", "shortest"),
        ("ff00", "shortest"),
        ("ffffffffffffffffff02", "limit"),
        ("ffffffffffffffffff7f", "limit"),
        ("80808080808080808080", "varint"),
        ("8080808080808080808001", "varint"),
    ],
)
def test_other_forms_are_refused(encoded: str, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        Reader(bytes.fromhex(encoded)).uvarint()


@given(st.binary(max_size=12))
def test_a_number_that_is_read_is_written_the_same(data: bytes) -> None:
    reader = Reader(data)
    try:
        value = reader.uvarint()
    except PeerError:
        return
    assert uvarint(value) == data[: reader.position]


@pytest.mark.parametrize("value", [-1, UINT64_MAX + 1])
def test_the_writer_refuses_what_is_no_unsigned_number(value: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        uvarint(value)


@pytest.mark.parametrize("value", [INT64_MIN - 1, INT64_MAX + 1])
def test_the_writer_refuses_what_is_no_signed_number(value: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        svarint(value)


def test_a_limit_is_inclusive() -> None:
    assert Reader(uvarint(9)).uvarint(9) == 9
    with pytest.raises(PeerError, match="dose is 10, over the limit of 9"):
        Reader(uvarint(10)).uvarint(9, "dose")


@given(st.binary(min_size=8, max_size=8))
def test_a_float_keeps_its_bits(data: bytes) -> None:
    writer = Writer()
    writer.float64(Reader(data).float64())
    assert bytes(writer.buffer) == data


def test_fixed_numbers_are_little_endian() -> None:
    writer = Writer()
    writer.uint64(1)
    writer.float64(1.0)
    assert bytes(writer.buffer) == struct.pack("<Qd", 1, 1.0)


@given(st.text())
def test_a_text_survives(text: str) -> None:
    writer = Writer()
    writer.text(text)
    assert Reader(bytes(writer.buffer)).text(1 << 20, "text") == text


@pytest.mark.parametrize("data", [b"\x01\xff", b"\x02\xc0\x80", b"\x03\xed\xa0\x80"])
def test_a_text_is_utf8(data: bytes) -> None:
    with pytest.raises(PeerError, match="UTF-8"):
        Reader(data).text(10, "text")


def test_a_length_is_bounded_before_it_is_believed() -> None:
    with pytest.raises(PeerError, match="over the limit"):
        Reader(uvarint(1 << 40)).sized(100, "text")
    with pytest.raises(PeerError, match="cut short"):
        Reader(uvarint(100)).sized(100, "text")
