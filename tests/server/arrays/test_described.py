"""Arrays of dtypes that a session has described: what is run, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.array_desk import FLOAT64, Desk
from xpool_protocol import limits
from xpool_protocol.arrays.described import Description, DtypeField, FieldsDtype
from xpool_protocol.arrays.numpy_dtypes import describe, dtype_of
from xpool_protocol.arrays.records import DefineArrayDtype, PutArray
from xpool_protocol.arrays.values import (
    ArrayMeta,
    DescribedDType,
    DescribedItems,
    Handle,
)
from xpool_protocol.errors import PeerError
from xpool_protocol.values import HostTensor

PAIR = np.dtype("i4,f8", align=True)
FIRST = limits.FIRST_ARRAY_DTYPE


def define(desk: Desk, code: int, description: Description) -> None:
    assert not desk.calls.define_dtype(DefineArrayDtype(code, description))


def put(desk: Desk, number: int, host: np.ndarray[Any, Any], code: int = FIRST) -> Any:
    return desk.calls.put(PutArray(number, code, 0, host.shape, host.tobytes()))


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    define(made, FIRST, describe(PAIR))
    assert not put(made, 1, np.array([(1, 2.5), (3, 4.5)], PAIR))
    return made


def items(desk: Desk, number: int) -> np.ndarray[Any, Any]:
    found, _ = desk.ask("xpool.get", Handle(number))
    assert isinstance(found, HostTensor)
    assert (found.dtype, found.sizes) == (0, (len(found.data),))
    return np.frombuffer(found.data, PAIR)


def test_items_come_back_as_bytes(desk: Desk) -> None:
    assert items(desk, 1).tolist() == [(1, 2.5), (3, 4.5)]


def test_a_field_is_a_view_without_a_charge(desk: Desk) -> None:
    before = desk.storages.allocated_nbytes
    assert not desk.call("ndarray.__getitem__", [(2, FLOAT64, (2,))], Handle(1), "f1")
    assert not desk.call("ndarray.__setitem__", [], Handle(2), ..., 9.0)
    assert items(desk, 1).tolist() == [(1, 9.0), (3, 9.0)]
    assert desk.storages.allocated_nbytes == before


def test_answers_describe_what_they_hold(desk: Desk) -> None:
    (found, _) = desk.ask("ndarray.__getitem__", Handle(1), ["f1"])
    assert isinstance(found, ArrayMeta)
    assert not isinstance(found.dtype, int)
    assert dtype_of(found.dtype, np.dtype) == PAIR[["f1"]]


def test_dtypes_and_scalars_by_their_codes(desk: Desk) -> None:
    one = np.array([(7, 8.0)], PAIR)
    value = DescribedItems(FIRST, (), one.tobytes())
    assert not desk.call("ndarray.__setitem__", [], Handle(1), 0, value)
    assert items(desk, 1).tolist() == [(7, 8.0), (3, 4.5)]
    made = [(2, FIRST, (3,))]
    assert not desk.call("cupy.zeros", made, (3,), DescribedDType(FIRST))
    assert items(desk, 2).tolist() == [(0, 0.0)] * 3


def test_comparisons(desk: Desk) -> None:
    put(desk, 2, np.array([(1, 2.5), (3, 0.0)], PAIR))
    found, _ = desk.ask("xpool.equal", Handle(1), Handle(2))
    assert isinstance(found, ArrayMeta)
    items_found, _ = desk.ask("xpool.get", Handle(found.number))
    assert items_found.data == b"\x01\x00"
    put(desk, 3, np.zeros(2, PAIR))
    desk.put(4, [1, 2])
    assert desk.ask("xpool.equal", Handle(3), Handle(4)).text


def test_a_wrong_length_is_refused(desk: Desk) -> None:
    (failure,) = desk.calls.put(PutArray(2, FIRST, 0, (2,), b"x" * 31))
    assert "an array of 32 bytes came with 31 bytes" in failure.fault.text
    value = DescribedItems(FIRST, (2,), b"")
    fault = desk.ask("ndarray.__setitem__", Handle(1), 0, value)
    assert "came with 0 bytes" in fault.text


def test_a_code_without_a_description_fails_where_it_is_used(desk: Desk) -> None:
    (failure,) = desk.call("cupy.zeros", [(2, FIRST + 7, (3,))], (3,))
    assert "dtype 135 was not described" in failure.fault.text
    assert "was not described" in desk.ask("cupy.zeros", 3, DescribedDType(999)).text


def test_what_numpy_refuses_fails_where_it_is_used(desk: Desk) -> None:
    twice = (DtypeField("a", "", 0, (), "<i4"),) * 2
    define(desk, FIRST + 1, FieldsDtype(4, False, twice))
    fault = desk.ask("cupy.zeros", 3, DescribedDType(FIRST + 1))
    assert "dtype 129" in fault.text
    define(desk, FIRST + 2, "|V3")
    assert not desk.call("cupy.zeros", [(2, FIRST + 2, (2,))], 2, DescribedDType(130))


def test_out_of_turn_and_too_many(desk: Desk) -> None:
    with pytest.raises(PeerError, match="out of turn"):
        define(desk, FIRST, "|V4")
    names = [str(at) for at in range(limits.MAX_DTYPE_FIELDS)]
    wide = describe(np.dtype([(one, "u1") for one in names]))
    count = limits.MAX_SESSION_FIELDS // limits.MAX_DTYPE_FIELDS
    for at in range(count - 1):
        define(desk, FIRST + 1 + at, wide)
    with pytest.raises(PeerError, match="too many dtypes"):
        define(desk, FIRST + count, wide)


def test_objects_stay_on_the_server(desk: Desk) -> None:
    assert "Unsupported dtype" in desk.ask("cupy.zeros", 3, "i,O").text
    assert "Unsupported dtype" in desk.ask("cupy.zeros", 3, "O").text
