"""Array values: they survive, have one encoding, and nothing in them is unbounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.array_strategies import ARRAY_VALUES
from xpool_protocol.arrays.api import api, is_allowed
from xpool_protocol.arrays.values import read_array_value, write_array_value
from xpool_protocol.errors import PeerError
from xpool_protocol.wire import Reader, Writer


def encoded(value: object) -> bytes:
    writer = Writer()
    write_array_value(writer, value)
    return bytes(writer.buffer)


def decoded(data: bytes) -> object:
    reader = Reader(data)
    found = read_array_value(reader)
    if not reader.is_exhausted:
        raise PeerError("something follows the value")
    return found


@given(ARRAY_VALUES)
def test_a_value_survives(value: object) -> None:
    data = encoded(value)
    found = decoded(data)
    assert found == value
    assert encoded(found) == data


@given(st.binary(max_size=60))
def test_garbage_is_a_value_or_a_peer_error(data: bytes) -> None:
    try:
        found = decoded(data)
    except PeerError:
        return
    assert encoded(found) == data


@given(ARRAY_VALUES)
def test_a_truncated_value_is_refused(value: object) -> None:
    data = encoded(value)
    for end in range(len(data)):
        with pytest.raises(PeerError):
            decoded(data[:end])


@given(ARRAY_VALUES, st.data())
def test_a_flipped_bit_is_another_value_or_a_peer_error(
    value: object, draw: st.DataObject
) -> None:
    data = bytearray(encoded(value))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        found = decoded(bytes(data))
    except PeerError:
        return
    assert encoded(found) == bytes(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("2001" * 9 + "00", "too deep"),
        ("22" * 9, "too deep"),
        ("20ffff7f", "number of items"),
        ("240100", "shortest form"),
        ("24" + "41" + "00" * 65, "length of integer"),
        ("2602" + "0161" + "00" + "0161" + "00", "stands twice"),
        ("2701" + "0b" + "08", "layout bits"),
        ("2701" + "0f", "dtype code"),
        ("2a04", "scalar type"),
        ("0901", "tag 9"),
    ],
)
def test_what_is_refused(data: str, text: str) -> None:
    with pytest.raises(PeerError, match=text):
        decoded(bytes.fromhex(data))


def test_what_cannot_be_written() -> None:
    deep: object = ()
    for _ in range(9):
        deep = (deep,)
    for value in (deep, 1 << 600, bytes(65_537), [0] * 65_537):
        with pytest.raises(ValueError, match=r"wire|argument"):
            encoded(value)
    for stranger in (object(), print, str, {1, 2}):
        with pytest.raises(TypeError, match="no place on the wire"):
            encoded(stranger)


def test_private_and_foreign_names_are_not_allowed() -> None:
    for name in (
        "cupy._core",
        "cupy.__dict__",
        "cupy.add.__call__",
        "ndarray.__class__",
        "ndarray._x",
        "os.system",
        "numpy.add",
        "cupy.random.RandomState.__init__",
        "cupy.pi",
        "",
        ".",
        "cupy.",
        "xpool.get",
    ):
        assert not is_allowed(name), name


def test_the_table_has_what_it_should() -> None:
    assert len(api()["cupy"]) > 450
    assert api()["cupy"]["add"][0] == "ufunc"
    assert "ff->f" in api()["cupy"]["add"][1]
    assert is_allowed("cupyx.scipy.sparse.csr_matrix.dot")
