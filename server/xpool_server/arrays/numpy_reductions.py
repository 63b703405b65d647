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
    "min": _without_dtype("min", np.minimum),
    "amin": _without_dtype("amin", np.minimum),
    "max": _without_dtype("max", np.maximum),
    "amax": _without_dtype("amax", np.maximum),
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
