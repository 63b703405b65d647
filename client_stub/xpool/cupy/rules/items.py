"""Functions of single items, sums along an axis, and items chosen by number."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from xpool.cupy.axes import normalized_axis
from xpool.cupy.functions import RULES, rule
from xpool.cupy.geometry import Geometry, check_dtype, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import as_size, ndarray
from xpool.cupy.operands import operand_dtype, result_shape
from xpool.cupy.rules.reductions import reduced, result_dtype
from xpool.cupy.rules.shapes import holds

_BOOL: Final = np.dtype(np.bool)
_INT64: Final = np.dtype(np.int64)
_FLOAT64: Final = np.dtype(np.float64)


def _array(a: Any, kinds: str = "biufc") -> Geometry:
    if type(a) is not ndarray or a._geo.dtype.kind not in kinds:
        raise NoRule
    return a._geo


def _shape_of(*values: Any) -> tuple[int, ...]:
    """What arrays and numbers are broadcast to."""
    for one in values:
        if type(one) not in (ndarray, int, float, complex, bool):
            raise NoRule
    return result_shape([one._geo.shape for one in values if type(one) is ndarray])


@rule("cupy.clip")
def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None) -> Geometry:
    """Items within bounds."""
    found = _array(a, "iuf").dtype
    bounds = [one for one in (a_min, a_max) if one is not None]
    if out is not None or not bounds:
        raise NoRule
    for one in bounds:
        if type(one) is int and found.kind in "iu":
            info = np.iinfo(found)
            if not info.min <= one <= info.max:
                raise NoRule
        kind = operand_dtype(one)
        if kind in (bool, complex, _BOOL):
            raise NoRule
        found = np.maximum.resolve_dtypes((found, kind, None))[-1]
    arrays = [one for one in bounds if not isinstance(one, np.generic)]
    return geometry(_shape_of(a, *arrays), check_dtype(found))


@rule("cupy.around", "cupy.round")
def around(a: Any, decimals: Any = 0, out: Any = None) -> Geometry:
    """Items rounded."""
    if out is not None or type(decimals) is not int:
        raise NoRule
    return _array(a, "iufc")


@rule("cupy.nan_to_num")
def nan_to_num(x: Any, copy: Any = True, nan: Any = 0.0) -> Geometry:
    """Items, numbers in the place of those that are none."""
    if copy is not True or type(nan) not in (int, float):
        raise NoRule
    return _array(x, "fc")


@rule("cupy.isclose")
def isclose(
    a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: Any = False
) -> Geometry:
    """Which items are nearly equal."""
    _numbers(rtol, atol)
    return geometry(_shape_of(a, b), _BOOL)


@rule("cupy.allclose")
def allclose(
    a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: Any = False
) -> Geometry:
    """Whether all items are nearly equal."""
    _numbers(rtol, atol)
    _shape_of(a, b)
    return geometry((), _BOOL)


@rule("cupy.array_equal")
def array_equal(a1: Any, a2: Any, equal_nan: Any = False) -> Geometry:
    """Whether shapes and all items are equal."""
    _array(a1), _array(a2)
    return geometry((), _BOOL)


def _numbers(*values: Any) -> None:
    if any(type(one) not in (int, float) for one in values):
        raise NoRule


@rule("cupy.diff")
def diff(
    a: Any, n: Any = 1, axis: Any = -1, prepend: Any = None, append: Any = None
) -> Geometry:
    """Differences of neighbours."""
    geo = _array(a)
    if type(n) is not int or n < 1 or prepend is not None or append is not None:
        raise NoRule
    at = normalized_axis(axis, geo.ndim)
    length = max(geo.shape[at] - n, 0)
    return geometry((*geo.shape[:at], length, *geo.shape[at + 1 :]), geo.dtype)


def _cumulative(name: str) -> Any:
    def predict(
        a: Any, axis: Any = None, dtype: Any = None, out: Any = None
    ) -> Geometry:
        geo = _array(a)
        if out is not None:
            raise NoRule
        found = result_dtype(name, geo.dtype, dtype)
        if axis is None:
            return geometry((geo.size,), found)
        normalized_axis(axis, geo.ndim)
        return geometry(geo.shape, found)

    return predict


for _name in ("cumsum", "cumprod"):
    RULES[f"cupy.{_name}"] = _cumulative(_name)


@rule("cupy.nanmean")
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False
) -> Geometry:
    """The mean of what are numbers."""
    _array(a, "f")
    if out is not None or dtype is not None:
        raise NoRule
    return reduced("nanmean", a, axis, None, keepdims)


@rule("cupy.nanstd", "cupy.nanvar")
def nanstd(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
) -> Geometry:
    """How far apart what are numbers lie."""
    if type(ddof) is not int:
        raise NoRule
    return nanmean(a, axis, dtype, out, keepdims)


@rule("cupy.count_nonzero")
def count_nonzero(a: Any, axis: Any = None) -> Geometry:
    """How many items are not zero."""
    _array(a)
    geo = reduced("any", a, axis)
    return geometry(geo.shape, _INT64)


@rule("cupy.argsort")
def argsort(a: Any, axis: Any = -1, kind: Any = None) -> Geometry:
    """The order of the items."""
    geo = _array(a)
    if kind is not None or not geo.ndim:
        raise NoRule
    if axis is None:
        return geometry((geo.size,), _INT64)
    normalized_axis(axis, geo.ndim)
    return geometry(geo.shape, _INT64)


@rule("cupy.searchsorted")
def searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Geometry:
    """Where items belong in what is in order."""
    if _array(a, "iuf").ndim != 1 or side not in ("left", "right"):
        raise NoRule
    if sorter is not None:
        raise NoRule
    return geometry(_array(v, "iuf").shape, _INT64)


@rule("cupy.take")
def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Geometry:
    """Items by number; numbers wrap around."""
    geo = _array(a)
    if out is not None:
        raise NoRule
    chosen = () if type(indices) is int else _array(indices, "iu").shape
    shape = (geo.size,) if axis is None else geo.shape
    at = 0 if axis is None else normalized_axis(axis, geo.ndim)
    length = shape[at]
    if not length:
        raise NoRule
    return geometry((*shape[:at], *chosen, *shape[at + 1 :]), geo.dtype)


@rule("cupy.repeat")
def repeat(a: Any, repeats: Any, axis: Any = None) -> Geometry:
    """Each item so many times."""
    geo = _array(a)
    if type(repeats) is not int or repeats < 0:
        raise NoRule
    if axis is None:
        return geometry((geo.size * repeats,), geo.dtype)
    at = normalized_axis(axis, geo.ndim)
    length = geo.shape[at] * repeats
    return geometry((*geo.shape[:at], length, *geo.shape[at + 1 :]), geo.dtype)


@rule("cupy.diagonal", is_view=True)
def diagonal(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1) -> Geometry:
    """A view of a diagonal, the last axis."""
    geo = _array(a)
    first, second = normalized_axis(axis1, geo.ndim), normalized_axis(axis2, geo.ndim)
    if first == second or not isinstance(offset, int | np.integer):
        raise NoRule
    rows, columns = geo.shape[first], geo.shape[second]
    length = min(rows + min(int(offset), 0), columns - max(int(offset), 0))
    rest = [size for at, size in enumerate(geo.shape) if at not in (first, second)]
    return geometry((*rest, max(length, 0)), geo.dtype)


@rule("cupy.diag")
def diag(v: Any, k: Any = 0) -> Geometry:
    """A matrix with a vector as its diagonal."""
    geo = _array(v)
    if geo.ndim != 1 or type(k) is not int:
        raise NoRule
    length = geo.size + abs(k)
    return geometry((length, length), geo.dtype)


@rule("cupy.angle")
def angle(z: Any, deg: Any = False) -> Geometry:
    """Angles of complex numbers."""
    geo = _array(z, "c")
    return geometry(geo.shape, np.dtype(geo.dtype.char.lower()))


@rule("cupy.pad")
def pad(
    array: Any, pad_width: Any, mode: Any = "constant", constant_values: Any = None
) -> Geometry:
    """An array with items around it."""
    geo = _array(array)
    if mode not in _PADDINGS or not geo.size or not geo.ndim:
        raise NoRule
    is_filled = constant_values is not None
    if is_filled and not (mode == "constant" and holds(array, constant_values)):
        raise NoRule
    widths = np.asarray(pad_width)
    if widths.dtype.kind not in "iu" or widths.min(initial=0) < 0:
        raise NoRule
    around = np.broadcast_to(widths, (geo.ndim, 2)).sum(axis=1).tolist()
    shape = [size + more for size, more in zip(geo.shape, around, strict=True)]
    return geometry(tuple(shape), geo.dtype)


_PADDINGS: Final = ("constant", "edge", "reflect", "symmetric", "wrap")


@rule("cupy.lib.stride_tricks.sliding_window_view", is_view=True)
def sliding_window_view(x: Any, window_shape: Any, axis: Any = None) -> Geometry:
    """A view of all windows of some lengths."""
    geo = _array(x)
    windows = window_shape if type(window_shape) is tuple else (window_shape,)
    axes = range(geo.ndim) if axis is None else axis if type(axis) is tuple else (axis,)
    if len(windows) != len(axes) or any(type(one) is not int for one in windows):
        raise NoRule
    shape = list(geo.shape)
    for window, at in zip(windows, axes, strict=True):
        place = normalized_axis(at, geo.ndim)
        if not 0 <= window <= shape[place]:
            raise NoRule
        shape[place] -= window - 1
    return geometry((*shape, *windows), geo.dtype)


@rule("cupy.tri")
def tri(N: Any, M: Any = None, k: Any = 0, dtype: Any = float) -> Geometry:  # noqa: N803  CuPy's names
    """Ones on and below a diagonal."""
    columns = N if M is None else M
    if type(N) is not int or type(columns) is not int or min(N, columns) < 0:
        raise NoRule
    if type(k) is not int:
        raise NoRule
    return geometry((N, columns), check_dtype(float if dtype is None else dtype))


@rule("cupy.indices")
def indices(dimensions: Any, dtype: Any = int) -> Geometry:
    """The number of each item along each axis."""
    shape = as_size(dimensions)
    if min(shape, default=0) < 0 or not shape or dtype is None:
        raise NoRule
    found = check_dtype(dtype)
    if found.kind == "b":
        raise NoRule
    return geometry((len(shape), *shape), found)


@rule("cupy.linspace")
def linspace(
    start: Any,
    stop: Any,
    num: Any = 50,
    endpoint: Any = True,
    retstep: Any = False,
    dtype: Any = None,
    axis: Any = 0,
) -> Geometry:
    """Evenly spaced values, so many of them."""
    _numbers(start, stop)
    if type(num) is not int or num < 0 or retstep is not False or axis != 0:
        raise NoRule
    found = _FLOAT64 if dtype is None else check_dtype(dtype)
    if found.kind not in "iuf":
        raise NoRule
    return geometry((num,), found)
