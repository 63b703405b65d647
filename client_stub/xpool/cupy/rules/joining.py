"""Functions that join arrays side by side, and products over chosen axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpool.cupy.axes import normalized_axes
from xpool.cupy.functions import rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray

Shape = tuple[int, ...]


def _arrays(given: Any) -> list[ndarray]:
    if not isinstance(given, list | tuple) or not given:
        raise NoRule
    if any(type(one) is not ndarray for one in given):
        raise NoRule
    return list(given)


def _joined(shapes: Sequence[Shape], at: int, arrays: Sequence[ndarray]) -> Geometry:
    first = shapes[0]
    around = first[:at], first[at + 1 :]
    for one in shapes:
        if len(one) != len(first) or (one[:at], one[at + 1 :]) != around:
            raise NoRule
    shape = (*around[0], sum(one[at] for one in shapes), *around[1])
    return geometry(shape, np.result_type(*[one._geo.dtype for one in arrays]))


@rule("cupy.hstack")
def hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Geometry:
    """Side by side: along the second axis, or the only one."""
    arrays = _arrays(tup)
    if dtype is not None or casting != "same_kind":
        raise NoRule
    shapes = [one._geo.shape or (1,) for one in arrays]
    return _joined(shapes, 0 if len(shapes[0]) == 1 else 1, arrays)


@rule("cupy.vstack")
def vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Geometry:
    """One below the other; a vector is a row."""
    arrays = _arrays(tup)
    if dtype is not None or casting != "same_kind":
        raise NoRule
    shapes = [one._geo.shape for one in arrays]
    rows = [(1,) * (2 - len(one)) + one for one in shapes]
    return _joined(rows, 0, arrays)


@rule("cupy.dstack")
def dstack(tup: Any) -> Geometry:
    """One behind the other, along the third axis."""
    arrays = _arrays(tup)
    shapes = []
    for one in arrays:
        shape = one._geo.shape
        if len(shape) < 2:
            shape = (1, *(shape or (1,)))
        shapes.append(shape if len(shape) > 2 else (*shape, 1))
    return _joined(shapes, 2, arrays)


@rule("cupy.column_stack")
def column_stack(tup: Any) -> Geometry:
    """Vectors as columns, and matrices, side by side."""
    arrays = _arrays(tup)
    shapes = [one._geo.shape for one in arrays]
    if any(len(one) not in (1, 2) for one in shapes):
        raise NoRule
    return _joined([one if len(one) == 2 else (*one, 1) for one in shapes], 1, arrays)


@rule("cupy.append")
def append(arr: Any, values: Any, axis: Any = None) -> Geometry:
    """Items at the end: flat, unless an axis is named."""
    arrays = _arrays([arr, values])
    if axis is None:
        size = sum(one._geo.size for one in arrays)
        return geometry((size,), np.result_type(*[one._geo.dtype for one in arrays]))
    shapes = [one._geo.shape for one in arrays]
    (at,) = normalized_axes((axis,), len(shapes[0]))
    return _joined(shapes, at, arrays)


def _both(a: Any, b: Any) -> tuple[Geometry, Geometry, np.dtype[Any]]:
    if type(a) is not ndarray or type(b) is not ndarray:
        raise NoRule
    return a._geo, b._geo, np.promote_types(a._geo.dtype, b._geo.dtype)


@rule("cupy.inner")
def inner(a: Any, b: Any) -> Geometry:
    """Sums of products over the last axes."""
    first, second, dtype = _both(a, b)
    if not first.ndim or not second.ndim:
        return geometry(first.shape or second.shape, dtype)
    if first.shape[-1] != second.shape[-1]:
        raise NoRule
    return geometry((*first.shape[:-1], *second.shape[:-1]), dtype)


@rule("cupy.vdot")
def vdot(a: Any, b: Any) -> Geometry:
    """The sum of all products, the first conjugated."""
    first, second, dtype = _both(a, b)
    if first.size != second.size:
        raise NoRule
    return geometry((), dtype)


@rule("cupy.kron")
def kron(a: Any, b: Any) -> Geometry:
    """Kronecker's product."""
    first, second, dtype = _both(a, b)
    ndim = max(first.ndim, second.ndim)
    shapes = [(1,) * (ndim - one.ndim) + one.shape for one in (first, second)]
    return geometry(tuple([m * n for m, n in zip(*shapes, strict=True)]), dtype)


@rule("cupy.tensordot")
def tensordot(a: Any, b: Any, axes: Any = 2) -> Geometry:
    """Sums of products over axes of both."""
    first, second, dtype = _both(a, b)
    if type(axes) is int:
        if not 0 <= axes <= min(first.ndim, second.ndim):
            raise NoRule
        left = list(range(first.ndim - axes, first.ndim))
        right = list(range(axes))
    else:
        ours, theirs = axes
        left = normalized_axes(_listed(ours), first.ndim)
        right = normalized_axes(_listed(theirs), second.ndim)
    if len(set(left)) != len(left) or len(set(right)) != len(right):
        raise NoRule
    if [first.shape[at] for at in left] != [second.shape[at] for at in right]:
        raise NoRule
    rest = [size for at, size in enumerate(first.shape) if at not in left]
    rest += [size for at, size in enumerate(second.shape) if at not in right]
    return geometry(tuple(rest), dtype)


def _listed(axes: Any) -> Sequence[int]:
    return axes if isinstance(axes, tuple | list) else (axes,)
