"""Bytes between host and device, and what becomes an array."""

from __future__ import annotations

import collections
import functools
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from xpool_protocol.arrays.records import (
    ARRAY_OVER_STORAGE,
    PUT_ARRAY,
    STORAGE_OVER_ARRAY,
)
from xpool_protocol.records import ALLOCATE, FREE
from xpool_protocol.values import Tensor, row_major_strides, write_tensor
from xpool_protocol.wire import Writer

from xpool.cupy import ndarray as arrays
from xpool.cupy.device import device
from xpool.cupy.encoding import uvarint
from xpool.cupy.geometry import check_dtype, geometry

if TYPE_CHECKING:
    from xpool.cupy.ndarray import ndarray

INLINE_NBYTES: Final = 32 << 10
"""Up to here an array's bytes stand in one record."""

BY_VALUE_NBYTES: Final = 256 << 10
"""Up to here a download is one answer."""

_ALLOCATE: Final = bytes((ALLOCATE,))
_ARRAY_OVER_STORAGE: Final = bytes((ARRAY_OVER_STORAGE,))


@functools.cache
def named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    """A class for a result whose items have names."""
    return collections.namedtuple(name, fields, rename=True)


def upload(host: np.ndarray[Any, Any]) -> ndarray:
    """An array on the device with a host array's items; Fortran order is kept."""
    if not host.dtype.isnative and host.dtype.char != "V":
        host = host.astype(host.dtype.newbyteorder("="))
    dtype = check_dtype(host.dtype)
    is_fortran = host.flags.f_contiguous and not host.flags.c_contiguous
    dense = host.T if is_fortran else np.ascontiguousarray(host).reshape(host.shape)
    geo = geometry(host.shape, dtype)
    where = device()
    if dtype.char == "V" and dense.nbytes > INLINE_NBYTES:
        # Its bytes, seen as what they are.
        flat = upload(_flat(dense)).view(dtype)
        found = flat.reshape(dense.shape)
        return found.transpose() if is_fortran else found
    array = arrays.made(geo, geo.charge_nbytes)
    number = array._ref[1:]
    if dense.nbytes <= INLINE_NBYTES:
        order = b"\x01" if is_fortran else b"\x00"
        data = dense.tobytes()
        record = number + geo.wire + order + uvarint(len(data)) + data
        where.post_new(bytes((PUT_ARRAY,)) + record)
        return array
    storage = where.log.next_storage()
    shape = host.shape[::-1] if is_fortran else host.shape
    strides = row_major_strides(shape)[:: -1 if is_fortran else 1]
    over = Writer()
    write_tensor(over, Tensor(storage, geo.code, host.shape, strides))
    where.post_filled(
        storage,
        _bytes_of(dense),
        _ALLOCATE + uvarint(storage) + uvarint(dense.nbytes),
        _ARRAY_OVER_STORAGE + number + b"\x01" + bytes(over.buffer),
    )
    return array


def _flat(dense: Any) -> Any:
    return dense.reshape(-1).view(np.uint8)


def _bytes_of(dense: Any) -> memoryview:
    return memoryview(_flat(dense))


def download(
    array: ndarray, out: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """A copy in host memory, in row-major order.

    Args:
        array: whose items.
        out: where to, contiguous and of the same geometry; None: a new array.
    """
    geo, where = array._geo, device()
    if geo.nbytes <= BY_VALUE_NBYTES:
        value = where.items(array)
        flat = np.frombuffer(bytearray(value.data), geo.dtype)
        if out is None:
            return flat.reshape(geo.shape)
        out[...] = flat.reshape(geo.shape)
        return out
    dense: Any = array
    if not array.flags.c_contiguous:
        dense = arrays.posted("cupy.ascontiguousarray", geo, (array,))
    host = np.empty(geo.shape, geo.dtype) if out is None else out
    storage = where.log.next_storage()
    name = uvarint(storage)
    where.post(bytes((STORAGE_OVER_ARRAY,)) + name + dense._ref[1:])
    try:
        where.log.read(storage, _bytes_of(host))
    except RuntimeError:
        # The array's own error, if it has one, in its own class.
        where.request("xpool.describe", b"\x01\x20\x01" + dense._ref + b"\x00")
        raise
    finally:
        where.post(bytes((FREE,)) + name)
    return host


def has_remote(value: Any) -> bool:
    """Whether an array is somewhere in nested lists."""
    if isinstance(value, arrays.ndarray):
        return True
    return isinstance(value, list | tuple) and any(map(has_remote, value))


def host_array(value: Any, dtype: Any = None, order: str = "K", ndmin: int = 0) -> Any:
    """A NumPy array of what a program passes.

    Raises:
        ValueError: arrays can't have its dtype.
    """
    host = np.array(value, dtype=dtype, order=order, ndmin=ndmin, copy=None)  # type: ignore[call-overload]
    check_dtype(host.dtype if host.dtype.kind in "OVSUmM" else np.uint8)
    return host


def as_array(
    value: Any,
    dtype: Any = None,
    copy: Any = None,
    order: str | None = "K",
    ndmin: int = 0,
) -> ndarray:
    """An array of anything: another array, host data, lists of both."""
    order = "K" if order is None else str(order).upper()
    if order not in ("C", "F", "A", "K"):
        raise TypeError("order not understood")
    wanted = None if dtype is None else check_dtype(dtype)
    if not isinstance(value, arrays.ndarray):
        value = unwrapped(value)
    if isinstance(value, arrays.ndarray):
        return _of_array(_brought(value, copy), wanted, copy, order, ndmin)
    if has_remote(value):
        keywords = {} if wanted is None else {"dtype": wanted}
        found = device().call("cupy.array", (value,), {"ndmin": ndmin, **keywords})
        return _reordered(found, order)
    return upload(host_array(value, wanted, order, ndmin))


def _brought(value: ndarray, copy: Any) -> ndarray:
    """The array on the current device; where it is, if nothing may be copied."""
    return value if copy is False else device().brought(value)


FOREIGN: list[Any] = []
"""Functions that make an array of another library's object, or return None."""


def unwrapped(value: Any) -> Any:
    """An object that holds an array of ours, as that array; in lists too.

    Raises:
        NotImplementedError: it only tells an address of the device's memory.
    """
    kind = type(value)
    if kind in (list, tuple):
        return kind([unwrapped(one) for one in value])
    if kind in _PLAIN or isinstance(value, np.ndarray | np.generic):
        return value
    get = getattr(kind, "__cupy_get_ndarray__", None)
    if get is not None:
        return get(value)
    for convert in FOREIGN:
        found = convert(value)
        if found is not None:
            return found
    if hasattr(kind, "__cuda_array_interface__"):
        raise NotImplementedError("xpool: memory of the device has no address here")
    return value


_PLAIN: Final = frozenset({int, float, complex, bool, str, bytes, type(None)})


def _of_array(value: ndarray, dtype: Any, copy: Any, order: str, ndmin: int) -> ndarray:
    if copy is False and (
        (dtype is not None and dtype != value.dtype)
        or (order == "C" and not value.flags.c_contiguous)
        or (order == "F" and not value.flags.f_contiguous)
    ):
        raise ValueError("Unable to avoid copy while creating an array as requested.")
    changes = dtype is not None and dtype != value.dtype
    if ndmin > value.ndim:
        shape = (1,) * (ndmin - value.ndim) + value.shape
        made = value.copy(order=order) if copy is True and not changes else value
        return _of_array(made.reshape(shape), dtype, None, order, 0)
    if changes:
        return value.astype(dtype, order=order)
    if copy:
        return value.copy(order=order)
    return value if order in ("K", "A") else _reordered(value, order)


def _reordered(value: ndarray, order: str) -> ndarray:
    if order == "C" and not value.flags.c_contiguous:
        return value.copy(order="C")
    if order == "F" and not value.flags.f_contiguous:
        return value.copy(order="F")
    return value
