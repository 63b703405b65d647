"""Reductions: dtypes and errors from NumPy on a dummy, shapes by formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool.cupy.axes import normalized_axes
from xpool.cupy.functions import RULES
from xpool.cupy.geometry import Geometry, check_dtype, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray

_dtypes: dict[tuple[Any, ...], np.dtype[Any]] = {}
NEEDS_ITEMS: Final = frozenset(
    {"min", "max", "amin", "amax", "nanmin", "nanmax", "argmin", "argmax", "ptp"}
)


def result_dtype(name: str, given: np.dtype[Any], dtype: Any) -> np.dtype[Any]:
    """The dtype that a reduction returns."""
    key = (name, given.char, None if dtype is None else check_dtype(dtype).char)
    found = _dtypes.get(key)
    if found is None:
        keywords = {} if dtype is None else {"dtype": dtype}
        found = getattr(np, name)(np.ones((1,), given), **keywords).dtype
        check_dtype(found)
        _dtypes[key] = found
    return found


def reduced(
    name: str, a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False
) -> Geometry:
    """The geometry of a reduction.

    Raises:
        NoRule: the server has to say.
    """
    if type(a) is not ndarray or type(keepdims) is not bool:
        raise NoRule
    shape = a._geo.shape
    if name in NEEDS_ITEMS and a._geo.size == 0:
        raise NoRule
    found = result_dtype(name, a._geo.dtype, dtype)
    if axis is None:
        return geometry((1,) * len(shape) if keepdims else (), found)
    over = normalized_axes(axis if type(axis) is tuple else (axis,), len(shape))
    new = [
        1 if at in over else size
        for at, size in enumerate(shape)
        if keepdims or at not in over
    ]
    return geometry(tuple(new), found)


def _with_dtype(name: str) -> Callable[..., Geometry]:
    def predict(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
    ) -> Geometry:
        if out is not None:
            raise NoRule
        return reduced(name, a, axis, dtype, keepdims)

    return predict


def _without_dtype(name: str) -> Callable[..., Geometry]:
    def predict(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = False
    ) -> Geometry:
        if out is not None:
            raise NoRule
        return reduced(name, a, axis, None, keepdims)

    return predict


def _argument(name: str) -> Callable[..., Geometry]:
    def predict(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
    ) -> Geometry:
        if out is not None or dtype is not None or type(axis) is tuple:
            raise NoRule
        return reduced(name, a, axis, None, keepdims)

    return predict


def _spread(name: str) -> Callable[..., Geometry]:
    def predict(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: Any = 0,
        keepdims: Any = False,
    ) -> Geometry:
        if out is not None or dtype is not None:
            raise NoRule
        return reduced(name, a, axis, None, keepdims)

    return predict


for _name in ("sum", "prod", "mean", "nansum", "nanprod"):
    RULES[f"cupy.{_name}"] = _with_dtype(_name)
for _name in ("min", "max", "amin", "amax", "all", "any"):
    RULES[f"cupy.{_name}"] = _without_dtype(_name)
for _name in ("argmin", "argmax"):
    RULES[f"cupy.{_name}"] = _argument(_name)
for _name in ("std", "var"):
    RULES[f"cupy.{_name}"] = _spread(_name)
