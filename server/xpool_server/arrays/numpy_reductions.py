"""Reductions straight by their ufuncs.

``numpy.sum`` and its kind ask first who else wants the call, and take it apart twice:
of a small array's sum that is three quarters. What is no plain array goes that way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np


def _with_dtype(name: str, ufunc: np.ufunc) -> Callable[..., Any]:
    whole: Callable[..., Any] = getattr(np, name)
    reduce: Callable[..., Any] = ufunc.reduce

    def found(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
    ) -> Any:
        if type(a) is np.ndarray:
            return reduce(a, axis, dtype, out, keepdims)
        return whole(a, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    return found


_FEW: Final = 10
"""Items of a row with which NumPy is busy less than with going from row to row."""
_BLOCK_ITEMS: Final = 1 << 15
"""So many are likely to stay in a core's cache from one column to the next."""


def _has_short_rows(a: Any, axis: Any) -> bool:
    """Whether an array is of many rows of few numbers, to be reduced along the rows."""
    shape = a.shape
    return (
        len(shape) > 1
        and type(axis) is int
        and axis in (-1, len(shape) - 1)
        and 2 <= shape[-1] <= _FEW
        and a.size >= 64 * shape[-1] ** 2
        and a.dtype.kind in "fiu"
        and a.flags.c_contiguous
    )


def _by_columns(ufunc: np.ufunc, a: Any, keepdims: bool) -> Any:
    """A reduction along the last axis that goes column by column.

    For what is the same in any order, bit by bit but for the sign of zeros.
    """
    few = a.shape[-1]
    found = np.empty(a.shape[:-1] + (1,) * keepdims, a.dtype)
    rows, results = a.reshape(-1, few), found.reshape(-1)
    step = _BLOCK_ITEMS // few
    for start in range(0, len(rows), step):
        block, result = rows[start : start + step], results[start : start + step]
        ufunc(block[:, 0], block[:, 1], out=result)
        for column in range(2, few):
            ufunc(result, block[:, column], out=result)
    return found


def _extreme(name: str, ufunc: np.ufunc) -> Callable[..., Any]:
    usual = _without_dtype(name, ufunc)

    def found(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if type(a) is np.ndarray and out is None and _has_short_rows(a, axis):
            return _by_columns(ufunc, a, bool(keepdims))
        return usual(a, axis, out, keepdims)

    return found


def _without_dtype(
    name: str, ufunc: np.ufunc, dtype: type | None = None
) -> Callable[..., Any]:
    whole: Callable[..., Any] = getattr(np, name)
    reduce: Callable[..., Any] = ufunc.reduce

    def found(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if type(a) is np.ndarray:
            return reduce(a, axis, dtype, out, keepdims)
        return whole(a, axis=axis, out=out, keepdims=keepdims)

    return found


def _argument_of_extreme(name: str) -> Callable[..., Any]:
    whole, method = getattr(np, name), getattr(np.ndarray, name)

    def found(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
    ) -> Any:
        function = method if type(a) is np.ndarray else whole
        result = function(a, axis, keepdims=keepdims)
        if dtype is not None:
            result = np.asarray(result).astype(dtype)
        if out is None:
            return result
        out[...] = result
        return out

    return found


_FUNCTIONS: Final = {
    "sum": _with_dtype("sum", np.add),
    "prod": _with_dtype("prod", np.multiply),
    "min": _extreme("min", np.minimum),
    "amin": _extreme("amin", np.minimum),
    "max": _extreme("max", np.maximum),
    "amax": _extreme("amax", np.maximum),
    "any": _without_dtype("any", np.logical_or, bool),
    "all": _without_dtype("all", np.logical_and, bool),
    "argmin": _argument_of_extreme("argmin"),
    "argmax": _argument_of_extreme("argmax"),
}
OWN: Final[dict[str, Callable[..., Any]]] = {
    **{f"cupy.{name}": function for name, function in _FUNCTIONS.items()},
    "ndarray.argmin": _FUNCTIONS["argmin"],
    "ndarray.argmax": _FUNCTIONS["argmax"],
}
