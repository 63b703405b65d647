"""Writes into an array that are queued, because they can't fail on the server.

An index array wraps around there, so that its items don't matter. Each function says
whether it has queued the write; otherwise the caller asks the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from xpool.cupy.array_items import assigned_shape
from xpool.cupy.device import device, encode_arguments
from xpool.cupy.indexing import NoRule, assignment_fits, view_shape
from xpool.cupy.ndarray import ndarray

_ATOMIC: Final = "iIfd"
"""Dtypes of which CuPy's kernels and NumPy add and compare items in place."""
_NUMBERS: Final = "bhilqBHILQfd"


def post_write(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Queue a call without a result."""
    where = device()
    where.post(where.head(name, 0) + encode_arguments(args, kwargs))


def post_at(name: str, a: Any, key: Any, value: Any) -> bool:
    """What computes in place with the items at an index."""
    if type(a) is not ndarray or a._geo.dtype.char not in _ATOMIC:
        return False
    if not a._geo.ndim or not a._geo.size or not _is_of(a, value):
        return False
    if a._geo.dtype.char == "I" and type(value) is int:
        return False  # NumPy casts no int64 to it
    given = value._geo.shape if type(value) is ndarray else ()
    try:
        try:
            shape = view_shape(a._geo.shape, key)
        except NoRule:
            shape = assigned_shape(a, key)
    except (NoRule, IndexError):
        return False
    if not assignment_fits(a._geo.dtype, shape, value, given):
        return False
    post_write(name, (a, key, value), {})
    return True


def post_put(name: str, a: Any, indices: Any, values: Any, mode: Any) -> bool:
    """``put``: items by number, of as many values in turn as there are."""
    if type(a) is not ndarray or a._geo.dtype.char not in _NUMBERS or not a._geo.size:
        return False
    if type(indices) is not ndarray or indices._geo.dtype.kind not in "iu":
        return False
    if mode not in ("wrap", "clip") or not _is_of(a, values):
        return False
    if type(values) is ndarray and not values._geo.size:
        return False
    if type(values) is int and not assignment_fits(a._geo.dtype, (), values, ()):
        return False
    post_write(name, (a, indices, values), {"mode": mode})
    return True


def post_sort(a: Any, axis: Any) -> bool:
    """``sort`` in place."""
    if type(a) is not ndarray or a._geo.dtype.char not in "?" + _NUMBERS:
        return False
    if type(axis) is not int or not -a._geo.ndim <= axis < a._geo.ndim:
        return False
    post_write("ndarray.sort", (a, axis), {})
    return True


def _is_of(a: ndarray, value: Any) -> bool:
    """Whether it is an array of the same dtype, or a number that such a one holds."""
    if type(value) is ndarray:
        return value._geo.dtype == a._geo.dtype
    return type(value) is int or (type(value) is float and a._geo.dtype.kind == "f")
