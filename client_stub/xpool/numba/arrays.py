"""Numba's device arrays: CuPy's, with the names that Numba has for things."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np


class DeviceNDArray(cupy.ndarray):  # type: ignore[misc]
    """An array on the device, as ``numba.cuda.to_device`` returns one."""

    def copy_to_host(self, ary: Any = None, stream: Any = 0) -> Any:
        """A copy in host memory, or in the array that is given."""
        host = self.get()
        if ary is None:
            return host
        ary[...] = host.reshape(np.shape(ary))
        return ary

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        """Fill it from another array, of the host or the device."""
        self[...] = cupy.asarray(ary).reshape(self.shape)

    def is_c_contiguous(self) -> bool:
        """Whether it is in row-major order without gaps."""
        return bool(self.flags.c_contiguous)

    def is_f_contiguous(self) -> bool:
        """Whether it is in column-major order without gaps."""
        return bool(self.flags.f_contiguous)

    @property
    def alloc_size(self) -> int:
        """Bytes that it takes."""
        return int(self.nbytes)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found.get()[()] if found.ndim == 0 else found


def to_device(obj: Any, stream: Any = 0, copy: bool = True, to: Any = None) -> Any:
    """A copy of a host array on the device, or in ``to``, which is there."""
    if to is not None:
        if copy:
            to.copy_to_device(obj, stream)
        return to
    if isinstance(obj, DeviceNDArray):
        return obj
    if not copy:
        return device_array_like(np.asarray(obj))
    return cupy.asarray(obj).view(DeviceNDArray)


def device_array(
    shape: Any,
    dtype: Any = np.float64,
    strides: Any = None,
    order: str = "C",
    stream: Any = 0,
) -> Any:
    """An array of undefined items on the device.

    Raises:
        NotImplementedError: with strides.
    """
    if strides is not None:
        raise NotImplementedError("xpool: numba.cuda.device_array takes no strides")
    return cupy.empty(shape, dtype, order).view(DeviceNDArray)


def device_array_like(ary: Any, stream: Any = 0) -> Any:
    """An array of undefined items, of another one's shape and dtype."""
    order = "F" if ary.flags.f_contiguous and not ary.flags.c_contiguous else "C"
    return device_array(ary.shape, ary.dtype, order=order)


def pinned_array(
    shape: Any, dtype: Any = np.float64, strides: Any = None, order: Any = "C"
) -> Any:
    """Memory of this host: pages are pinned on the server."""
    return np.empty(shape, dtype, order)


def as_cuda_array(obj: Any, sync: bool = True) -> Any:
    """An array of CuPy's or a tensor as one of Numba's, over the same memory."""
    return cupy.asarray(obj).view(DeviceNDArray)


def is_cuda_array(obj: Any) -> bool:
    """Whether it is an array on the device."""
    return isinstance(obj, cupy.ndarray)
