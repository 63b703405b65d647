"""What other libraries take from ``cupy._core``: plain functions about shapes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from xpool.cupy.axes import normalized_axes, normalized_axis
from xpool.cupy.finder import module
from xpool.cupy.flags import Flags
from xpool.cupy.ndarray import ndarray
from xpool.cupy.ufunc import ufunc


def get_size(value: Any) -> tuple[Any, ...]:
    """A shape that is given as a number or a sequence.

    Raises:
        TypeError: it is, or holds, a bool.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    found = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,)
    if any(isinstance(one, bool) or _is_numpy_bool(one) for one in found):
        raise TypeError("bool is no length of an axis")
    return found


def _is_numpy_bool(value: Any) -> bool:
    return isinstance(value, np.generic | np.ndarray) and value.dtype.kind == "b"


def vector_equal(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two sequences hold the same."""
    return list(first) == list(second)


def get_contiguous_strides(
    shape: Sequence[int], itemsize: int, is_c_contiguous: bool = True
) -> tuple[int, ...]:
    """Strides in bytes of an array without gaps."""
    strides: list[int] = []
    for size in reversed(shape) if is_c_contiguous else shape:
        strides.append(itemsize)
        itemsize *= size
    return tuple(reversed(strides)) if is_c_contiguous else tuple(strides)


def get_c_contiguity(
    shape: Sequence[int], strides: Sequence[int], itemsize: int
) -> bool:
    """Whether such an array has its items in row-major order without gaps."""
    if 0 in shape:
        return True
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != itemsize:
            return False
        itemsize *= size
    return True


def infer_unknown_dimension(shape: Sequence[int], size: int) -> list[int]:
    """The shape with its -1 filled in.

    Raises:
        ValueError: more than one is unknown.
    """
    if sum(one < 0 for one in shape) > 1:
        raise ValueError("can only specify only one unknown dimension")
    known = math.prod([one for one in shape if one >= 0])
    return [size // known if one < 0 else one for one in shape]


def complete_slice(key: slice, size: int) -> slice:
    """A slice of an axis with all its parts, which runs no way but forward.

    >>> complete_slice(slice(2, 1), 10)
    slice(2, 2, 1)
    """
    start, stop, step = key.indices(size)
    return slice(start, max(start, stop) if step > 0 else min(start, stop), step)


def clp2(value: int) -> int:
    """The least power of two that is not less; 0 for 0."""
    return 1 << (value - 1).bit_length() if value > 0 else 0


@module("cupy._core.internal")
def fill_internal(m: ModuleType) -> None:
    """Functions about shapes."""
    for function in (
        *(get_size, vector_equal, get_contiguous_strides, get_c_contiguity),
        *(infer_unknown_dimension, complete_slice, clp2),
    ):
        setattr(m, function.__name__, function)
    m.prod = m.prod_sequence = math.prod  # type: ignore[attr-defined]
    m._normalize_axis_index = normalized_axis  # type: ignore[attr-defined]
    m._normalize_axis_indices = _axes  # type: ignore[attr-defined]


def _axes(axes: Any, ndim: int, sort_axes: bool = True) -> tuple[int, ...]:
    """Axes counted from the front; None: all."""
    if axes is None:
        return tuple(range(ndim))
    given = axes if isinstance(axes, tuple | list) else (axes,)
    found = normalized_axes(given, ndim)
    return tuple(sorted(found) if sort_axes else found)


@module("cupy._core.flags")
def fill_flags(m: ModuleType) -> None:
    """The class of ``ndarray.flags``."""
    m.Flags = Flags  # type: ignore[attr-defined]


@module("cupy._core.core")
def fill_core_core(m: ModuleType) -> None:
    """The classes, where CuPy defines them."""
    m.ndarray, m.ufunc = ndarray, ufunc  # type: ignore[attr-defined]


@module("cupy._core")
def fill_core(m: ModuleType) -> None:
    """Its modules, and the classes."""
    m.ndarray, m.ufunc = ndarray, ufunc  # type: ignore[attr-defined]
    for name in ("core", "flags", "internal"):
        setattr(m, name, importlib.import_module(f"cupy._core.{name}"))


@module("cupy")
def fill_top(m: ModuleType) -> None:
    """It is there without an import of its own."""
    m._core = importlib.import_module("cupy._core")  # type: ignore[attr-defined]
