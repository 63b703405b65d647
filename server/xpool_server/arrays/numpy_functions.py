"""Where CuPy's functions differ from NumPy's of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool_server.arrays.numpy_indexing import (
    at,
    get_item,
    put,
    put_along_axis,
    set_item,
    take,
    take_along_axis,
)
from xpool_server.arrays.numpy_power import power as any_power

RETURNS_ARRAY: Final = frozenset(
    {"cupy.allclose", "cupy.array_equal", "cupy.array_equiv", "cupy.count_nonzero"}
)
"""A bool or an int in NumPy."""


RETURNS_PYTHON: Final = frozenset(
    {"cupy.may_share_memory", "cupy.shares_memory", "cupy.iterable"}
)
"""Functions that return a Python number in CuPy, too."""


def _writable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Views that NumPy makes read-only can be written in CuPy."""

    def opened(found: Any, given: Any) -> Any:
        if isinstance(found, tuple | list):
            return type(found)(opened(one, given) for one in found)
        if found.flags.writeable:
            return found
        view = np.lib.stride_tricks.as_strided
        try:
            found.flags.writeable = True
        except ValueError:  # one item stands for many
            return view(given, found.shape, found.strides)
        return found

    def called(array: Any, *args: Any, **kwargs: Any) -> Any:
        return opened(function(array, *args, **kwargs), array)

    return called


def _broadcast_arrays(*arrays: Any) -> Any:
    broadcast = _writable(np.broadcast_to)
    shape = np.broadcast_shapes(*(one.shape for one in arrays))
    return tuple(broadcast(one, shape) for one in arrays)


def _bits(function: Callable[..., Any]) -> Callable[..., Any]:
    def found(a: Any, *args: Any, bitorder: Any = "big", **kwargs: Any) -> Any:
        if bitorder not in ("big", "little"):
            raise ValueError("bitorder must be either 'big' or 'little'")
        return function(a, *args, bitorder=bitorder, **kwargs)

    return found


def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    """``where=None`` means everywhere."""
    np.copyto(dst, src, casting=casting, where=True if where is None else where)


def make_array(
    shape: Any,
    dtype: Any = float,
    memptr: None = None,
    strides: Any = None,
    order: Any = "C",
) -> Any:
    """``cupy.ndarray(shape)``."""
    return np.ndarray(shape, dtype, strides=strides, order=order)


def power(x1: Any, x2: Any, *args: Any, **kwargs: Any) -> Any:
    """``x1 ** x2``; a square is a product, as in NumPy's operator: twice as fast."""
    if type(x1) is np.ndarray and (type(x2) in (int, float) and x2 == 2):
        kind = x1.dtype.kind
        if kind in "fc" or (kind in "iu" and type(x2) is int):
            if not kwargs:
                return np.square(x1, *args)
            if kwargs.keys() <= {"out"}:
                return np.square(x1, *args, **kwargs)
    return any_power(x1, x2, *args, **kwargs)


def rsqrt(x: Any, out: Any = None) -> Any:
    """One over the square root."""
    return np.divide(1, np.sqrt(x), out=out)


def _of_half(name: str) -> Callable[..., Any]:
    """Half precision computes in single, and the results are half again."""
    function = getattr(np.linalg, name)

    def found(a: Any, UPLO: str = "L") -> Any:  # noqa: N803  CuPy's name
        if a.dtype != np.float16:
            return function(a, UPLO)
        result = function(a.astype(np.float32), UPLO)
        if name == "eigvalsh":
            return result.astype(np.float16)
        return type(result)(*(one.astype(np.float16) for one in result))

    return found


def _complex_result(name: str) -> Callable[..., Any]:
    """Eigenvalues are complex, whatever they turn out to be."""
    function = getattr(np.linalg, name)

    def as_complex(found: Any) -> Any:
        return found.astype(np.result_type(found.dtype, np.complex64))

    def found(a: Any) -> Any:
        result = function(a)
        if a.size == 0:
            return result
        if isinstance(result, np.ndarray):
            return as_complex(result)
        return type(result)(*map(as_complex, result))

    return found


OWN: Final[dict[str, Callable[..., Any]]] = {
    "ndarray.__getitem__": get_item,
    "ndarray.__setitem__": set_item,
    "cupy.packbits": _bits(np.packbits),
    "cupy.unpackbits": _bits(np.unpackbits),
    "cupy.broadcast_to": _writable(np.broadcast_to),
    "cupy.broadcast_arrays": _broadcast_arrays,
    "cupy.diagonal": _writable(np.diagonal),
    "ndarray.diagonal": _writable(np.ndarray.diagonal),
    "cupy.copyto": copyto,
    "cupy.ndarray": make_array,
    "cupy.take": take,
    "ndarray.take": take,
    "cupy.take_along_axis": take_along_axis,
    "cupy.put_along_axis": put_along_axis,
    "cupy.put": put,
    "ndarray.put": put,
    "cupyx.rsqrt": rsqrt,
    "cupy.power": power,
    "cupy.linalg.eigh": _of_half("eigh"),
    "cupy.linalg.eigvalsh": _of_half("eigvalsh"),
    "cupy.linalg.eig": _complex_result("eig"),
    "cupy.linalg.eigvals": _complex_result("eigvals"),
    "cupyx.scatter_add": at(np.add),
    "cupyx.scatter_max": at(np.maximum),
    "cupyx.scatter_min": at(np.minimum),
    "ndarray.scatter_add": at(np.add),
    "ndarray.scatter_max": at(np.maximum),
    "ndarray.scatter_min": at(np.minimum),
}


def adapted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function with CuPy's arguments and results."""
    if name in RETURNS_ARRAY:
        return lambda *args, **kwargs: np.asarray(function(*args, **kwargs))
    return function
