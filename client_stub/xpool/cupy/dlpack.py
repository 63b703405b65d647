"""DLPack: capsules within one session share the server's memory.

A capsule is torch's, of a remote tensor over the array's memory, so torch takes it as
one of its own. An array is made of a capsule by the same way back. To the host a
capsule carries a copy.

More is taken than CuPy takes: ``copy=True`` and ``device=``, for which the array API
asks, and host memory, which is uploaded.
"""

from __future__ import annotations

import ctypes
import warnings
from typing import Any, Final

import numpy as np

from xpool.cupy import ndarray as arrays
from xpool.cupy import transfer
from xpool.cupy.device import device
from xpool.cupy.interop import from_tensor, native_device, to_tensor

CPU: Final = 1
CUDA: Final = 2
"""Kinds of device: what DLPack calls kDLCPU and kDLCUDA."""

LEGACY_STREAM: Final = 1
MAX_VERSION: Final = (1, 0)
NAMES: Final = (b"dltensor", b"dltensor_versioned")
"""Of capsules that nobody has consumed."""

_is_valid: Any = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_is_valid.restype = ctypes.c_int


def warn_of_capsules(name: str) -> None:
    """Say that capsules in a program's own hands are going out of use."""
    warnings.warn(
        f"This function {name} is deprecated and will be removed in a future release."
        " Use the cupy.from_dlpack() array constructor instead.",
        np.exceptions.VisibleDeprecationWarning,
        stacklevel=3,
    )


def capsule(
    array: Any, stream: Any, max_version: Any, dl_device: Any, copy: bool | None
) -> Any:
    """What ``__dlpack__`` returns.

    Args:
        array: the array.
        stream: the consumer's; there is one order, so it only has to be one.
        max_version: of DLPack, that the consumer knows; None: 0.
        dl_device: kind and number; None: where the array is.
        copy: True: a copy; False: none; None: one if there must be.

    Raises:
        BufferError: a device that can't be reached.
        ValueError: no such stream, or the host without a copy.
    """
    device = None if dl_device is None else tuple(map(int, dl_device))
    if device == (CPU, 0):
        if copy is False:
            raise ValueError("GPU memory cannot be exported to CPU without copy.")
        return array.get().__dlpack__(max_version=max_version)
    if device not in (None, array.__dlpack_device__()):
        raise BufferError(f"unsupported device requested: there is no {device} here")
    _check_stream(stream)
    if native_device() is None:
        raise BufferError(
            "xpool: a capsule needs torch beside the arrays; without it, ask for the"
            " host: __dlpack__(dl_device=(1, 0))"
        )
    tensor = to_tensor(array.copy() if copy else array)
    return tensor.__dlpack__(max_version=max_version)


def _check_stream(stream: Any) -> None:
    if not isinstance(stream, int):
        return
    if stream < -1:
        raise ValueError(
            "On CUDA, the valid stream for the DLPack protocol is -1, 1, 2, or any"
            f" larger value, but {stream} was provided"
        )
    if stream == 0:
        warnings.warn(
            "Stream 0 is passed from a library that you are converting to; CuPy assumes"
            " 0 as a legacy default stream. Please report this problem to the library"
            " as this violates the DLPack protocol.",
            stacklevel=4,
        )


def consume(dltensor: Any) -> Any:
    """An array of a capsule, over the same memory.

    Raises:
        ValueError: it is no capsule, or somebody has taken what it holds.
        BufferError: torch is not beside the arrays, or the memory is not the session's.
    """
    if not any(_is_valid(dltensor, name) for name in NAMES):
        raise ValueError(
            "A DLPack tensor object cannot be consumed multiple times, and this is no"
            " capsule of one, or has been consumed"
        )
    if native_device() is None:
        raise BufferError("xpool: a capsule needs torch beside the arrays")
    import torch

    try:
        tensor = torch.utils.dlpack.from_dlpack(dltensor)
    except RuntimeError as error:  # it is of another pool, or of a local device
        raise BufferError(str(error)) from None
    return from_tensor(tensor)


def from_dlpack(x: Any, where: Any = None, copy: bool | None = None) -> Any:
    """An array of an object that has ``__dlpack__``, or of a capsule.

    Raises:
        BufferError: it lies on a device that is not the session's.
        ValueError: a capsule that has been consumed; another device is asked for.
    """
    if where is not None:
        return on_device(from_dlpack(x, None, copy), where)
    if isinstance(x, arrays.ndarray):
        return x.copy() if copy else x.view(arrays.ndarray)
    found = from_tensor(x)
    if found is not None:
        return found.copy() if copy else found
    if not hasattr(x, "__dlpack_device__"):
        return consume(x)
    kind = int(x.__dlpack_device__()[0])
    if kind == CUDA:
        return _of_cuda(x, copy)
    if kind != CPU:
        raise TypeError(f"Unsupported array type: {kind}")
    if copy is False:
        raise BufferError("xpool: host memory can't be used without a copy")
    return transfer.upload(np.from_dlpack(x))


def _of_cuda(x: Any, copy: bool | None) -> Any:
    """Of an object that says it is on a device: a holder of one of our capsules."""
    try:
        made = x.__dlpack__(stream=LEGACY_STREAM, max_version=MAX_VERSION, copy=copy)
    except TypeError:  # it knows an older protocol
        if copy is not None:
            raise
        made = x.__dlpack__(stream=LEGACY_STREAM)
    return consume(made)


def on_device(array: Any, wanted: Any) -> Any:
    """The array on a device: itself, or a copy if it is on another one.

    Raises:
        ValueError: there is no such device.
    """
    index = getattr(wanted, "id", wanted)
    where = device()
    if type(index) is not int or not 0 <= index < len(where.members):
        raise ValueError(f"Unsupported device {wanted!r}")
    with where.on(index):
        return where.brought(array)
