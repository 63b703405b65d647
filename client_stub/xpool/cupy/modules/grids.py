"""``r_``, ``c_``, ``mgrid``, ``ogrid``: what stands between brackets becomes arrays."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.finder import module
from xpool.cupy.functions import call
from xpool.cupy.ndarray import ndarray


class _Grid:
    """``mgrid`` and ``ogrid``: NumPy makes them here, small as they are described."""

    def __init__(self, host: Any, is_sparse: bool) -> None:
        self._host, self.sparse = host, is_sparse

    def __getitem__(self, key: Any) -> Any:
        found = self._host[_host_key(key)]
        if isinstance(found, tuple | list):
            return type(found)(transfer.as_array(one) for one in found)
        return transfer.as_array(found)


def _host_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_host_key(one) for one in key)
    if isinstance(key, slice):
        return slice(*(_host_number(one) for one in (key.start, key.stop, key.step)))
    return _host_number(key)


def _host_number(value: Any) -> Any:
    if not isinstance(value, ndarray):
        return value
    return value.get() if value.ndim else value.item()


class AxisConcatenator:
    """``r_`` and ``c_``: slices and arrays, one behind the other."""

    def __init__(
        self, axis: int = 0, matrix: bool = False, ndmin: int = 1, trans1d: int = -1
    ) -> None:
        """Join along an axis."""
        self.axis, self.matrix, self.ndmin = axis, matrix, ndmin
        self.trans1d = trans1d

    def __len__(self) -> int:
        return 0

    def __getitem__(self, key: Any) -> Any:
        parts = list(key) if isinstance(key, tuple) else [key]
        axis, ndmin, trans1d = self.axis, self.ndmin, self.trans1d
        if parts and isinstance(parts[0], str):
            axis, ndmin, trans1d = _directions(parts.pop(0), axis, ndmin, trans1d)
        if any(isinstance(one, str) for one in parts):
            raise NotImplementedError("special directives must be the first entry.")
        given = [_part(one) for one in parts]
        arrays = [one for one in given if isinstance(one, ndarray)]
        dtype = _common_dtype(arrays, [g for g in given if not isinstance(g, ndarray)])
        shaped = [_shaped(one, ndmin, trans1d, dtype) for one in given]
        return call("cupy.concatenate", (shaped,), {"axis": axis})


def _common_dtype(arrays: list[Any], scalars: list[Any]) -> Any:
    if not scalars:
        return None
    return np.result_type(*(one.dtype for one in arrays), *scalars)


def _directions(text: str, axis: int, ndmin: int, trans1d: int) -> Any:
    if text in ("r", "c"):
        raise NotImplementedError("matrix mode is not supported")
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        raise ValueError(f"unknown special directive {text!r}") from None
    axis = numbers[0]
    if len(numbers) > 1:
        ndmin = numbers[1]
    if len(numbers) > 2:
        trans1d = numbers[2]
    return axis, ndmin, trans1d


def _part(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value
    if isinstance(value, slice):
        return transfer.as_array(np.r_[_host_key(value)])
    if isinstance(value, int | float | complex | np.generic):
        return value
    return transfer.as_array(value)


def _shaped(value: Any, ndmin: int, trans1d: int, dtype: Any) -> Any:
    if not isinstance(value, ndarray):
        return transfer.as_array(value, dtype, ndmin=ndmin)
    ndim = value.ndim
    made = transfer.as_array(value, None, ndmin=ndmin)
    if trans1d != -1 and ndim < ndmin:
        extra = ndmin - ndim
        k = trans1d if trans1d >= 0 else trans1d + extra + 1
        order = list(range(ndmin))
        axes = order[:k] + order[extra:] + order[k:extra]
        made = made.transpose(axes)
    return made


@module("cupy")
def fill(m: ModuleType) -> None:
    """The four of them."""
    m.mgrid = _Grid(np.mgrid, is_sparse=False)  # type: ignore[attr-defined]
    m.ogrid = _Grid(np.ogrid, is_sparse=True)  # type: ignore[attr-defined]
    m.r_ = AxisConcatenator()  # type: ignore[attr-defined]
    m.c_ = AxisConcatenator(-1, ndmin=2, trans1d=0)  # type: ignore[attr-defined]
