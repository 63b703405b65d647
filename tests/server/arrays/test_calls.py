"""Records about arrays: results under their numbers, poison, and one ledger."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.array_desk import FLOAT32, FLOAT64, QUOTA, Desk
from support.array_strategies import ARGUMENTS, KEYWORDS
from xpool_protocol import limits
from xpool_protocol.arrays.records import (
    ArrayCall,
    ArrayOverStorage,
    ArrayRequest,
    DefineArrayOperation,
    FreeArrays,
    StorageOverArray,
)
from xpool_protocol.arrays.values import ArrayMeta, Handle
from xpool_protocol.errors import ArgumentInvalid, PeerError
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.values import Tensor
from xpool_server.arrays.opening import library_opener


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.put(1, [1, 2, 3])
    return made


def test_a_call_puts_its_result_under_its_number(desk: Desk) -> None:
    assert not desk.call("cupy.add", [(2, FLOAT32, (3,))], Handle(1), 1.0)
    assert desk.items(2) == [2, 3, 4]


def test_a_view_is_a_view_and_is_charged_once(desk: Desk) -> None:
    before = desk.storages.allocated_nbytes
    key = slice(1, None, None)
    desk.call("ndarray.__getitem__", [(2, FLOAT32, (2,))], Handle(1), key)
    assert desk.storages.allocated_nbytes == before
    desk.call("ndarray.__setitem__", [], Handle(2), ..., 9.0)
    assert desk.items(1) == [1, 9, 9]
    desk.calls.free(FreeArrays((1,)))
    assert desk.storages.allocated_nbytes == before
    desk.calls.free(FreeArrays((2,)))
    assert desk.storages.allocated_nbytes == 0


def test_a_wrong_prediction_poisons_and_says_so(desk: Desk) -> None:
    (failure,) = desk.call("cupy.add", [(2, FLOAT64, (3,))], Handle(1), 1.0)
    assert "predicted shape (3,) and dtype float64" in failure.fault.text
    assert not desk.call("cupy.add", [(3, FLOAT32, (3,))], Handle(2), 1.0)
    assert desk.ask("xpool.get", Handle(3)) == failure.fault
    assert desk.items(1) == [1, 2, 3]


def test_a_call_that_fails_poisons_what_it_writes(desk: Desk) -> None:
    desk.call("ndarray.__getitem__", [(2, FLOAT32, (3,))], Handle(1), ...)
    desk.put(3, [1, 2])
    (failure,) = desk.call("cupy.add", [], Handle(3), 1.0, out=Handle(1))
    # Both names of the memory, for nobody knows what is in it.
    for number in (1, 2):
        assert desk.ask("xpool.get", Handle(number)) == failure.fault
    assert desk.items(3) == [1, 2]


def test_what_does_not_fit_is_not_begun(desk: Desk) -> None:
    (failure,) = desk.call("cupy.zeros", [(2, FLOAT64, (1 << 20,))], (1 << 20,))
    assert failure.fault.exception == "OutOfMemoryError"
    fault = desk.ask("cupy.zeros", (1 << 20,))
    assert fault.exception == "OutOfMemoryError"
    desk.calls.free(FreeArrays((1, 2)))
    assert desk.storages.allocated_nbytes == 0
    desk.calls.arrays.validate()


@pytest.mark.parametrize(
    "shape",
    [(limits.MAX_EXTENT + 1,), (1 << 31, (limits.MAX_ITEMS >> 31) + 1)],
    ids=["extent", "items"],
)
def test_an_array_that_no_record_can_describe_is_refused(
    desk: Desk, shape: tuple[int, ...]
) -> None:
    """A view takes no memory, so that only its description says no."""
    before = len(desk.calls.arrays)
    fault = desk.ask("cupy.broadcast_to", True, shape)
    assert fault.code == ArgumentInvalid.code
    assert "is too large" in fault.text
    assert len(desk.calls.arrays) == before
    assert desk.items(1) == [1, 2, 3]


def test_an_argument_that_is_returned_keeps_its_number(desk: Desk) -> None:
    found, _ = desk.ask("cupy.add", Handle(1), 1.0, out=Handle(1))
    assert isinstance(found, ArrayMeta)
    assert found.number == 1
    view, _ = desk.ask("cupy.reshape", Handle(1), (3, 1))
    assert (view.number, view.base) == (1 << 40, 1)


def test_small_arrays_are_read_beside_another(desk: Desk) -> None:
    desk.put(2, [4])
    desk.put(3, list(range(100)))
    desk.call("cupy.add", [(4, FLOAT64, (3,))], Handle(1), 1.0)  # a wrong prediction
    (first, others), _ = desk.ask("xpool.get", Handle(1), [2, 3, 4, 5, -1, 1.5])
    assert np.frombuffer(first.data, np.float32).tolist() == [1, 2, 3]
    assert np.frombuffer(others[0].data, np.float32).tolist() == [4]
    assert others[1:] == [None] * 5
    fault = desk.ask("xpool.get", Handle(1), [2] * 257)
    assert "too many arrays" in fault.text


def test_an_array_does_not_outlive_its_number(desk: Desk) -> None:
    desk.call("cupy.add", [(2, FLOAT32, (3,))], Handle(1), Handle(1))
    desk.items(1)
    found = weakref.ref(desk.calls.arrays.get(1))
    desk.calls.free(FreeArrays((1,)))
    assert found() is None


def sparse_of(desk: Desk, count: int) -> int:
    """A square matrix of ``count`` items; its number."""
    found, _ = desk.ask("cupyx.scipy.sparse.eye", count)
    return int(found.number)


def test_a_sparse_matrix_is_charged_for_its_arrays(desk: Desk) -> None:
    before = desk.storages.allocated_nbytes
    number = sparse_of(desk, 1000)
    held = desk.storages.allocated_nbytes - before
    assert held >= 1000 * 8  # its items alone, in double precision
    desk.calls.arrays.validate()
    desk.calls.free(FreeArrays((number,)))
    assert desk.storages.allocated_nbytes == before


def test_what_a_sparse_matrix_shares_is_charged_once(desk: Desk) -> None:
    number = sparse_of(desk, 1000)
    held = desk.storages.allocated_nbytes
    record = ArrayRequest(
        *(99, 1 << 41, desk.operation("xpool.object_attribute")),
        (Handle(number), "data"),
        {},
    )
    (answer,) = desk.calls.request(record)
    assert isinstance(answer, Reply)
    assert desk.storages.allocated_nbytes == held
    desk.calls.free(FreeArrays((number,)))
    # The items live on under the number of their own.
    assert 1000 * 8 <= desk.storages.allocated_nbytes < held
    desk.calls.arrays.validate()
    desk.calls.free(FreeArrays((1 << 41,)))
    assert desk.storages.allocated_nbytes == desk_of_three(desk)


def desk_of_three(desk: Desk) -> int:
    """What the array that every desk begins with takes."""
    before = desk.storages.allocated_nbytes
    desk.put(77, [1, 2, 3])
    taken = desk.storages.allocated_nbytes - before
    desk.calls.free(FreeArrays((77,)))
    return taken


def test_a_matrix_that_does_not_fit_leaves_nothing(desk: Desk) -> None:
    before = desk.storages.allocated_nbytes
    fault = desk.ask("cupyx.scipy.sparse.eye", QUOTA // 8)
    assert "out of memory on the slice" in fault.text
    assert desk.storages.allocated_nbytes == before
    assert len(desk.calls.arrays) == 1


def test_a_matrix_that_grows_is_charged_anew(desk: Desk) -> None:
    found, _ = desk.ask("cupyx.scipy.sparse.csr_matrix", (1000, 1000))
    before = desk.storages.allocated_nbytes
    name = "cupyx.scipy.sparse.csr_matrix.setdiag"
    assert not desk.call(name, [], Handle(found.number), 1.0)
    assert desk.storages.allocated_nbytes >= before + 1000 * 8
    desk.calls.arrays.validate()


@pytest.mark.parametrize(
    ("name", "value"),
    [("data", Handle(1)), ("indices", Handle(1)), ("__class__", 1), ("data", 3)],
)
def test_parts_of_a_matrix_stay_together(desk: Desk, name: str, value: Any) -> None:
    number = sparse_of(desk, 5)
    fault = desk.ask("xpool.set_attribute", Handle(number), name, value)
    assert fault.text


def test_bounds_are_told_within_one_memory_alone(desk: Desk) -> None:
    desk.put(2, [1.0, 2, 3, 4, 5])
    for number, key in ((3, slice(1, 3)), (4, slice(None, None, -2))):
        result = [(number, FLOAT32, (len(range(5)[key]),))]
        assert not desk.call("ndarray.__getitem__", result, Handle(2), key)
    others = tuple(Handle(number) for number in (2, 3, 4, 1))
    found, _ = desk.ask("xpool.bounds", Handle(3), others)
    assert found == ((0, 20), (4, 12), (0, 20), None)


@pytest.mark.parametrize(
    "others", [Handle(1), (1,), (Handle(1), None), [Handle(1)], None]
)
def test_only_arrays_have_bounds(desk: Desk, others: Any) -> None:
    fault = desk.ask("xpool.bounds", Handle(1), others)
    assert "only arrays have bounds" in fault.text


def test_warnings_are_told(desk: Desk) -> None:
    desk.put(2, [])
    _, said = desk.ask("cupy.mean", Handle(2))
    assert said[0][0] == "RuntimeWarning"


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "numpy.load", "cupy.__dict__", "cupy.add.__call__"),
        *("ndarray.__class__", "ndarray.tofile.x", "cupy.pi", "xpool.no_such", ""),
        *("cupy.testing.run_module_suite", "cupy.load"),
    ],
)
def test_names_outside_the_table(desk: Desk, name: str) -> None:
    fault = desk.ask(name, Handle(1))
    assert fault.code in (501, 500, 502), fault
    assert fault.exception in ("NotImplementedError", "TypeError", "AttributeError")


def test_an_operation_out_of_turn_ends_the_session(desk: Desk) -> None:
    with pytest.raises(PeerError, match="out of turn"):
        desk.calls.define(DefineArrayOperation(7, "cupy.add"))


def test_storage_and_array_are_the_same_bytes(desk: Desk) -> None:
    storage = torch.UntypedStorage(16)
    desk.storages.adopt(5, storage)
    wire = Tensor(5, FLOAT32, (4,), (1,))
    assert not desk.calls.over_storage(ArrayOverStorage(6, False, wire))
    desk.call("ndarray.__setitem__", [], Handle(6), ..., 2.0)
    assert desk.storages.tensor(wire).tolist() == [2, 2, 2, 2]
    assert not desk.calls.storage_over(StorageOverArray(7, 6))
    assert desk.storages.tensor(Tensor(7, FLOAT32, (4,), (1,))).tolist() == [2] * 4
    (failure,) = desk.calls.over_storage(
        ArrayOverStorage(8, False, Tensor(5, FLOAT32, (5,), (1,)))
    )
    assert "reaches outside" in failure.fault.text


def test_a_taken_storage_changes_hands(desk: Desk) -> None:
    before = desk.storages.allocated_nbytes
    desk.storages.adopt(5, torch.UntypedStorage(4096))
    wire = Tensor(5, FLOAT32, (1024,), (1,))
    assert not desk.calls.over_storage(ArrayOverStorage(6, True, wire))
    assert 5 not in desk.storages
    assert desk.storages.allocated_nbytes == before + 4096


@given(ARGUMENTS, KEYWORDS, st.sampled_from(["cupy.add", "cupy.where", "xpool.get"]))
def test_whatever_comes_the_outcome_is_an_answer(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> None:
    desk = Desk()
    desk.put(1, [1, 2, 3])
    for answers in (
        desk.calls.call(ArrayCall(desk.operation(name), (), args, kwargs)),
        desk.calls.request(
            ArrayRequest(1, 1 << 40, desk.operation(name), args, kwargs)
        ),
    ):
        assert all(isinstance(one, Reply | Failure) for one in answers)
    desk.calls.arrays.validate()


@pytest.mark.parametrize("char", "bBhHiIlLefdFD?")
@pytest.mark.parametrize("exponent", [2, 2.0, 3, 0.5, True])
def test_powers_are_those_of_numpys_power(char: str, exponent: Any) -> None:
    items = np.array([[0, 1, 2], [3, 5, 11]]).astype(char)
    run = library_opener("cpu")().operation("cupy.power")
    wanted, found = np.power(items, exponent), run(items, exponent)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-6 if char != "e" else 1e-3)
    out = np.empty_like(found)
    assert run(items, exponent, out=out) is out
    np.testing.assert_array_equal(out, found)
    both = run(items, np.asarray(exponent).astype(char))
    np.testing.assert_allclose(both, np.power(items, np.asarray(exponent).astype(char)))
