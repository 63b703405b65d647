"""Functions that move items or join arrays, and ``where``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpool.cupy.axes import normalized_axes, normalized_axis
from xpool.cupy.functions import rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import as_shape, as_size, ndarray
from xpool.cupy.operands import operand_dtype, result_shape


def _arrays(given: Any) -> list[ndarray]:
    if not isinstance(given, list | tuple) or not given:
        raise NoRule
    if any(type(one) is not ndarray for one in given):
        raise NoRule
    return list(given)


@rule("cupy.concatenate", "cupy.concat")
def concatenate(
    tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = None
) -> Geometry:
    """Arrays one behind the other."""
    given = _arrays(tup)
    if out is not None or dtype is not None or axis is None or casting is not None:
        raise NoRule
    first = given[0]._geo.shape
    at = normalized_axis(axis, len(first))
    around = (first[:at], first[at + 1 :])
    for one in given:
        shape = one._geo.shape
        if len(shape) != len(first) or (shape[:at], shape[at + 1 :]) != around:
            raise NoRule
    total = sum(one._geo.shape[at] for one in given)
    dtypes = [one._geo.dtype for one in given]
    return geometry((*around[0], total, *around[1]), np.result_type(*dtypes))


@rule("cupy.stack")
def stack(
    tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = None
) -> Geometry:
    """Arrays along a new axis."""
    given = _arrays(tup)
    if out is not None or dtype is not None or casting is not None:
        raise NoRule
    shape = given[0]._geo.shape
    if any(one._geo.shape != shape for one in given):
        raise NoRule
    at = normalized_axis(axis, len(shape) + 1)
    dtypes = [one._geo.dtype for one in given]
    return geometry((*shape[:at], len(given), *shape[at:]), np.result_type(*dtypes))


@rule("cupy.where")
def where(condition: Any, x: Any = None, y: Any = None) -> Geometry:
    """Items of one array or another."""
    if x is None or y is None or type(condition) is not ndarray:
        raise NoRule
    given = [one for one in (condition, x, y) if type(one) is ndarray]
    kinds = [operand_dtype(one) for one in (x, y)]
    weak = [isinstance(one, type) for one in kinds]
    if any(weak):
        if all(weak):
            dtype = _of_numbers(x, y)
        elif holds(*((y, x) if weak[0] else (x, y))):
            dtype = kinds[1] if weak[0] else kinds[0]
        else:
            raise NoRule
    else:
        dtype = np.result_type(*kinds)
    return geometry(result_shape([one._geo.shape for one in given]), dtype)


def _of_numbers(*numbers: Any) -> np.dtype[Any]:
    """The dtype of Python's numbers where no array is beside them."""
    for one in numbers:
        if type(one) is int and not -(1 << 63) <= one < 1 << 63:
            raise NoRule
    return np.result_type(*[np.asarray(one).dtype for one in numbers])


def holds(array: Any, number: Any) -> bool:
    """Whether a Python number beside an array leaves the dtype as it is."""
    if type(array) is not ndarray:
        return False
    kind = array._geo.dtype.kind
    if type(number) is int:
        if kind in "iu":
            info = np.iinfo(array._geo.dtype)
            return bool(info.min <= number <= info.max)
        return kind in "fc" and -(1 << 63) <= number < 1 << 63
    return type(number) is float and kind in "fc"


@rule("cupy.broadcast_to", is_view=True)
def broadcast_to(array: Any, shape: Any) -> Geometry:
    """A view of a larger shape."""
    if type(array) is not ndarray:
        raise NoRule
    new = as_size(shape)
    if result_shape([array._geo.shape, new]) != new:
        raise NoRule
    if math.prod(new) * array._geo.dtype.itemsize >= 1 << 63:
        raise ValueError("broadcast dimensions too large.")
    return geometry(new, array._geo.dtype)


@rule("cupy.expand_dims", is_view=True)
def expand_dims(a: Any, axis: Any) -> Geometry:
    """A view with further axes of length one."""
    if type(a) is not ndarray:
        raise NoRule
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    ndim = a._geo.ndim + len(axes)
    over = normalized_axes(axes, ndim)
    rest = iter(a._geo.shape)
    new = [1 if at in over else next(rest) for at in range(ndim)]
    return geometry(tuple(new), a._geo.dtype)


def _axes(given: Any) -> Sequence[Any]:
    """One axis or several, which may be the numbers of a host array."""
    if isinstance(given, np.ndarray) and given.ndim:
        given = given.tolist()
    return given if isinstance(given, tuple | list) else (given,)


@rule("cupy.moveaxis", is_view=True)
def moveaxis(a: Any, source: Any, destination: Any) -> Geometry:
    """A view with axes moved."""
    if type(a) is not ndarray:
        raise NoRule
    ndim = a._geo.ndim
    from_ = normalized_axes(_axes(source), ndim)
    to = normalized_axes(_axes(destination), ndim)
    if len(from_) != len(to):
        raise NoRule
    order = [at for at in range(ndim) if at not in from_]
    for where_to, where_from in sorted(zip(to, from_, strict=True)):
        order.insert(where_to, where_from)
    return geometry(tuple([a._geo.shape[at] for at in order]), a._geo.dtype)


@rule("cupy.fliplr", is_view=True)
def fliplr(m: Any) -> Geometry:
    """A view with the second axis reversed."""
    if type(m) is not ndarray or m._geo.ndim < 2:
        raise NoRule
    return m._geo


@rule("cupy.flip", "cupy.flipud", is_view=True)
def flip(m: Any, axis: Any = None) -> Geometry:
    """A view with axes reversed."""
    if type(m) is not ndarray or m._geo.ndim < 1:
        raise NoRule
    if axis is not None:
        normalized_axes(axis if isinstance(axis, tuple) else (axis,), m._geo.ndim)
    return m._geo


@rule("cupy.roll")
def roll(a: Any, shift: Any, axis: Any = None) -> Geometry:
    """Items moved round."""
    if type(a) is not ndarray:
        raise NoRule
    if type(shift) is tuple and type(axis) is tuple and len(shift) == len(axis):
        if not all(type(one) is int for one in shift):
            raise NoRule
        for one in axis:
            normalized_axis(one, a._geo.ndim)
        return a._geo
    if type(shift) is not int:
        raise NoRule
    for one in axis if type(axis) is tuple else () if axis is None else (axis,):
        normalized_axis(one, a._geo.ndim)
    return a._geo


@rule("cupy.meshgrid")
def meshgrid(
    *xi: Any, indexing: Any = "xy", sparse: Any = False, copy: Any = True
) -> list[Geometry]:
    """A grid's coordinates, along each axis."""
    if indexing not in ("xy", "ij") or sparse is not False or copy is not True:
        raise NoRule
    if len(xi) < 2:
        raise NoRule
    if any(type(one) is not ndarray or one._geo.ndim != 1 for one in xi):
        raise NoRule
    shape = [one._geo.size for one in xi]
    if indexing == "xy":
        shape[:2] = shape[1::-1]
    return [geometry(tuple(shape), one._geo.dtype) for one in xi]


@rule("cupy.take_along_axis")
def take_along_axis(a: Any, indices: Any, axis: Any) -> Geometry:
    """As many items as numbers; those out of bounds wrap around."""
    if type(a) is not ndarray or type(indices) is not ndarray:
        raise NoRule
    given, numbers = a._geo, indices._geo
    at = normalized_axis(axis, given.ndim)
    if numbers.dtype.char not in "bhilqBHI" or numbers.ndim != given.ndim:
        raise NoRule
    if not given.shape[at] or not numbers.size:
        raise NoRule
    pairs = enumerate(zip(given.shape, numbers.shape, strict=True))
    if any(size != count for place, (size, count) in pairs if place != at):
        raise NoRule
    return geometry(numbers.shape, given.dtype)


@rule("cupy.tile")
def tile(A: Any, reps: Any) -> Geometry:  # noqa: N803  CuPy's name
    """An array repeated."""
    if type(A) is not ndarray:
        raise NoRule
    times = as_shape(reps)
    if min(times, default=0) < 0:
        raise NoRule
    ndim = max(len(times), A._geo.ndim)
    shape = (1,) * (ndim - A._geo.ndim) + A._geo.shape
    times = (1,) * (ndim - len(times)) + times
    new = [one * many for one, many in zip(shape, times, strict=True)]
    return geometry(tuple(new), A._geo.dtype)


@rule("cupy.tril", "cupy.triu")
def triangle(m: Any, k: Any = 0) -> Geometry:
    """A triangle of a matrix."""
    if type(m) is not ndarray or m._geo.ndim < 2 or type(k) is not int:
        raise NoRule
    return m._geo


@rule("cupy.sort")
def sort(a: Any, axis: Any = -1, kind: Any = None) -> Geometry:
    """Items in order."""
    if type(a) is not ndarray or axis is None or kind is not None or not a._geo.shape:
        raise NoRule
    normalized_axis(axis, a._geo.ndim)
    return a._geo
