"""Index arrays wrap around on a CPU as they do in CuPy's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xpool_server.arrays.opening import library_opener

A = np.arange(6.0)
FAR = np.array([7, -8, 5, 6])
WRAPPED = FAR % 6


def operation(name: str) -> Any:
    return library_opener("cpu")().operation(name)


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("ndarray.__getitem__", ()),
        ("cupy.take", ()),
        ("ndarray.take", ()),
        ("cupy.take_along_axis", (0,)),
        ("cupy.take_along_axis", (None,)),
    ],
)
def test_reading(name: str, rest: Any) -> None:
    np.testing.assert_array_equal(operation(name)(A, FAR, *rest), A[WRAPPED])


@pytest.mark.parametrize("name", ["ndarray.__setitem__", "cupy.put", "ndarray.put"])
def test_writing(name: str) -> None:
    found, expected = A.copy(), A.copy()
    operation(name)(found, FAR, 9.0)
    expected[WRAPPED] = 9
    np.testing.assert_array_equal(found, expected)


def test_writing_along_an_axis() -> None:
    found = A.reshape(2, 3).copy()
    operation("cupy.put_along_axis")(found, np.array([[4], [-5]]), 9.0, 1)
    assert found.tolist() == [[0, 9, 2], [3, 9, 5]]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("cupy.add.at", np.add),
        ("cupy.subtract.at", np.subtract),
        ("cupyx.scatter_add", np.add),
        ("ndarray.scatter_max", np.maximum),
        ("cupyx.scatter_min", np.minimum),
    ],
)
@pytest.mark.parametrize("rows", [False, True])
def test_index_after_index(name: str, function: np.ufunc, rows: bool) -> None:
    found = A.reshape(3, 2).copy() if rows else A.copy()
    expected, size = found.copy(), len(found)
    far = np.array([7, 1, 1])
    key, wrapped = ((far, 1), (far % size, 1)) if rows else (far, far % size)
    operation(name)(found, key, 3.0)
    function.at(expected, wrapped, 3.0)
    np.testing.assert_array_equal(found, expected)


def test_other_modes_and_mistakes() -> None:
    found = A.copy()
    operation("cupy.put")(found, FAR, 9.0, mode="clip")
    assert found.tolist() == [9, 1, 2, 3, 4, 9]
    with pytest.raises(IndexError):
        operation("cupy.put")(found, FAR, 9.0, mode="raise")
    with pytest.raises(ValueError, match="clipmode"):
        operation("cupy.put")(found, FAR, 9.0, mode="no")
    with pytest.raises(IndexError, match="integer array"):
        operation("cupy.take_along_axis")(A, FAR * 1.0, 0)
    with pytest.raises(IndexError):
        operation("ndarray.__getitem__")(A, 7)
    empty = np.zeros(0)
    assert operation("cupy.take_along_axis")(empty, np.zeros(0, int), 0).size == 0
