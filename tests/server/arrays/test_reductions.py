"""Reductions that go another way than NumPy's give what NumPy gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xpool_server.arrays import numpy_reductions
from xpool_server.arrays.numpy_reductions import OWN

SHAPES = ((128, 2), (127, 2), (640, 10), (400, 11), (5, 7, 9, 3), (20_000, 4), (3, 1))
DTYPES = ("f2", "f4", "f8", "i1", "u2", "i4", "i8", "u8", "?", "c8")


def items(shape: tuple[int, ...], dtype: str) -> Any:
    found = np.random.default_rng(3).integers(-90, 90, shape).astype(dtype)
    if found.dtype.kind in "fc":
        found.reshape(-1)[::7] = np.nan
        found.reshape(-1)[1::11] = np.inf
    return found


@pytest.mark.parametrize("name", ["min", "max", "amin", "amax"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_of_short_rows(name: str, dtype: str) -> None:
    ours, theirs = OWN[f"cupy.{name}"], getattr(np, name)
    for shape in SHAPES:
        a = items(shape, dtype)
        for one in (a, a[::2], np.asfortranarray(a)):
            for axis in (None, -1, len(shape) - 1, 0, (0, -1)):
                for keepdims in (False, True):
                    found = ours(one, axis, keepdims=keepdims)
                    expected = theirs(one, axis=axis, keepdims=keepdims)
                    assert found.dtype == expected.dtype
                    np.testing.assert_array_equal(found, expected, strict=True)


def test_many_short_rows_go_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """And their result has its own memory, in row-major order."""
    taken: list[tuple[int, ...]] = []
    by_columns = numpy_reductions._by_columns

    def noted(ufunc: np.ufunc, a: Any, keepdims: bool) -> Any:
        taken.append(a.shape)
        return by_columns(ufunc, a, keepdims)

    monkeypatch.setattr(numpy_reductions, "_by_columns", noted)
    a = np.arange(4_000.0).reshape(20, 50, 4)
    for keepdims in (False, True):
        found = OWN["cupy.max"](a, -1, keepdims=keepdims)
        assert found.flags.owndata
        assert found.flags.c_contiguous
    out = np.empty((20, 50))
    assert OWN["cupy.max"](a, 2, out) is out
    OWN["cupy.max"](a[:, :, ::2], 2)
    OWN["cupy.max"](a.reshape(80, 50), 1)
    assert taken == [a.shape, a.shape]
