"""The quick encoder writes what the protocol's own writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.array_strategies import NAMES
from xpool.cupy.device import encode_arguments
from xpool.cupy.encoding import encode, new_number, uvarint
from xpool.cupy.geometry import DTYPE_OF_CODE, geometry
from xpool_protocol import limits
from xpool_protocol.arrays.records import (
    ArrayCall,
    ArrayResult,
    read_array_call,
    write_array_record,
)
from xpool_protocol.arrays.values import read_array_value, write_array_value
from xpool_protocol.values import DType, HostTensor
from xpool_protocol.wire import INT64_MAX, Reader, Writer

DEEP: object = 1
for _ in range(12):
    DEEP = (DEEP,)

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-INT64_MAX, INT64_MAX),
    st.integers(-(1 << 300), 1 << 300),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.just(...),
    st.sampled_from([bool, int, float, complex]),
)


def _nested(depth: int) -> st.SearchStrategy[object]:
    if depth == 0:
        return PLAIN
    inner = _nested(depth - 1)
    items = st.lists(inner, max_size=3)
    return st.one_of(
        PLAIN,
        items,
        items.map(tuple),
        st.builds(slice, inner, inner, inner),
        st.dictionaries(NAMES, inner, max_size=2),
    )


def by_definition(value: object) -> bytes:
    writer = Writer()
    write_array_value(writer, value)
    return bytes(writer.buffer)


@given(_nested(3))
def test_both_encoders_agree(value: object) -> None:
    assert encode(value) == by_definition(value)


@given(st.sampled_from(sorted(DTYPE_OF_CODE)), st.lists(st.integers(0, 3), max_size=3))
def test_host_arrays_and_scalars(code: int, shape: list[int]) -> None:
    array = np.zeros(shape, DTYPE_OF_CODE[code])
    expected = HostTensor(code, tuple(shape), array.tobytes())
    assert encode(array) == by_definition(expected)
    scalar = array.dtype.type(1)
    data = np.asarray(scalar).tobytes()
    assert encode(scalar) == by_definition(HostTensor(code, (), data))
    assert encode(array.dtype) == by_definition(DType(code))


@given(st.integers(0, limits.MAX_STORAGE_ID))
def test_numbers(number: int) -> None:
    writer = Writer()
    writer.uvarint(number)
    assert uvarint(number) == bytes(writer.buffer)


def test_new_numbers_are_new_and_well_written() -> None:
    found = [new_number() for _ in range(40_000)]
    assert len({number for number, _ in found}) == len(found)
    assert all(uvarint(number) == wire for number, wire in found[::97])


@given(st.lists(PLAIN, max_size=3), st.dictionaries(NAMES, PLAIN, max_size=2))
def test_a_record_of_parts_is_the_record(
    args: list[object], kwargs: dict[str, object]
) -> None:
    geo = geometry((2, 300), np.dtype("f"))
    number, wire = new_number()
    parts = uvarint(7) + uvarint(1) + wire + geo.wire + encode_arguments(args, kwargs)
    result = ArrayResult(number, geo.code, geo.shape)
    record = ArrayCall(7, (result,), tuple(args), kwargs)
    writer = Writer()
    write_array_record(writer, record)
    assert bytes(writer.buffer[1:]) == parts
    assert read_array_call(Reader(parts)) == record


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (object(), TypeError, "Unsupported type"),
        (print, TypeError, "a function can't run where the arrays are"),
        (np.zeros(3, "M8[s]"), ValueError, "Unsupported dtype"),
        (np.zeros(1 << 20), ValueError, "too large"),
        (1 << 600, ValueError, "too large"),
        (tuple(range(70_000)), ValueError, "too many"),
        (DEEP, ValueError, "nested too deep"),
    ],
)
def test_what_has_no_place(value: object, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        encode(value)


def test_what_is_encoded_is_read() -> None:
    value = (1, [2.0, None], slice(None, 3), {"a": ...})
    assert read_array_value(Reader(encode(value))) == value
