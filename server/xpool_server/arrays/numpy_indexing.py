"""Items by arrays of integers: out of bounds they wrap around, as in CuPy's kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _wrapped(array: Any, key: Any) -> Any:
    """An index whose integers are taken modulo the axis, as CuPy's kernels do."""
    parts = list(key) if isinstance(key, tuple) else [key]
    used = sum(_axes_of(one) for one in parts)
    if Ellipsis not in [one for one in parts if not isinstance(one, np.ndarray)]:
        parts.append(Ellipsis)
    axis, found = 0, []
    for one in parts:
        if one is Ellipsis:
            axis += array.ndim - used
        elif isinstance(one, np.ndarray) and one.dtype.kind in "iu":
            size = array.shape[axis]
            one = one % size if size else one
            axis += 1
        else:
            axis += _axes_of(one)
        found.append(one)
    return tuple(found)


def _axes_of(one: Any) -> int:
    if one is None or one is Ellipsis:
        return 0
    if isinstance(one, np.ndarray) and one.dtype.kind == "b":
        return one.ndim
    return 0 if isinstance(one, bool | np.bool) else 1


def _has_integers(key: Any) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return any(isinstance(one, np.ndarray) and one.dtype.kind in "iu" for one in parts)


def get_item(array: Any, key: Any) -> Any:
    """``array[key]``; index arrays out of bounds wrap around."""
    try:
        return array[key]
    except IndexError:
        if not _has_integers(key):
            raise
        return array[_wrapped(array, key)]


def set_item(array: Any, key: Any, value: Any) -> None:
    """``array[key] = value``; index arrays out of bounds wrap around.

    An item takes an array of one item, however many axes that has.
    """
    try:
        array[key] = value
    except IndexError:
        if not _has_integers(key):
            raise
        array[_wrapped(array, key)] = value
    except (TypeError, ValueError):
        if not isinstance(value, np.ndarray) or value.size != 1 or not value.ndim:
            raise
        array[key] = value.reshape(())


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    """Items by number; numbers out of bounds wrap around."""
    if not isinstance(indices, np.ndarray):
        indices = np.asarray(indices, dtype=int)
    return np.take(a, indices, axis, out, "wrap")


def take_along_axis(a: Any, indices: Any, axis: Any) -> Any:
    """Items along an axis, by a number for each; numbers out of bounds wrap around.

    Raises:
        IndexError: the numbers are no integers.
    """
    return np.take_along_axis(a, _along(a, indices, axis), axis)


def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    """Set items along an axis, by a number for each; they wrap around, too.

    Raises:
        IndexError: the numbers are no integers.
    """
    np.put_along_axis(arr, _along(arr, indices, axis), values, axis)


def _along(a: Any, indices: Any, axis: Any) -> Any:
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    size = a.size if axis is None else a.shape[axis]
    return indices % size if size else indices


def put(a: Any, ind: Any, v: Any, mode: Any = "wrap") -> None:
    """``a.flat[ind] = v``; numbers out of bounds wrap around unless told otherwise.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError("clipmode not understood")
    np.put(a, ind, v, mode)


def at(function: np.ufunc) -> Callable[..., None]:
    """A ufunc's ``at``: index after index, and those out of bounds wrap around."""

    def run(a: Any, indices: Any, *operands: Any) -> None:
        if _has_integers(indices):
            indices = _wrapped(a, indices)
        function.at(a, indices, *operands)

    return run
