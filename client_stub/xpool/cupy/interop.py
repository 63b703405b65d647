"""Other libraries' arrays: torch's tensors of the same session share their memory.

A storage of torch's becomes an array by ``ArrayOverStorage``, an array's memory a
storage by ``StorageOverArray``: nothing is copied, and nothing travels.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from xpool_protocol.arrays.records import ARRAY_OVER_STORAGE, STORAGE_OVER_ARRAY
from xpool_protocol.values import Tensor, write_tensor
from xpool_protocol.wire import Writer

from xpool.cupy import ndarray as arrays
from xpool.cupy import transfer
from xpool.cupy.device import device
from xpool.cupy.encoding import device_of, uvarint
from xpool.cupy.geometry import check_dtype, geometry

if TYPE_CHECKING:
    from xpool.native.device import NativeDevice


def native_device() -> NativeDevice | None:
    """The native library's device behind the arrays, if torch is beside them."""
    from xpool.cupy.log import NativeArrayLog

    log = device().log
    return log._device if isinstance(log, NativeArrayLog) else None


def _dtype_of(tensor: Any) -> np.dtype[Any]:
    """The dtype of an array of a tensor's items.

    Raises:
        NotImplementedError: they are of bfloat16, as in CuPy without ml_dtypes.
        TypeError: they are of another type that no array has.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if name == "bfloat16":
        raise NotImplementedError(
            "xpool: arrays have no bfloat16; convert the tensor, as by tensor.float()"
        )
    try:
        return check_dtype(name)
    except (TypeError, ValueError):
        raise TypeError(f"xpool: {name} is not supported by arrays") from None


def from_tensor(value: Any) -> Any:
    """An array over a remote tensor's memory; None if it is no such thing.

    Raises:
        NotImplementedError: its items are of bfloat16, or torch has another device.
        TypeError: they are of another type that no array has.
        RuntimeError: it requires a gradient.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    dtype = _dtype_of(value)
    if value.device.type != "cuda":
        return transfer.upload(value.detach().resolve_conj().resolve_neg().numpy())
    native = native_device()
    if native is None:
        raise NotImplementedError(
            "xpool: tensors and arrays share memory only beside device 'cuda'"
        )
    if value.device.index != native.index:
        with device().on(value.device.index or 0):
            return from_tensor(value)
    if value.requires_grad:
        raise RuntimeError(
            "Can't export tensors that require gradient, use tensor.detach()"
        )
    value = value.resolve_conj().resolve_neg()
    storage, offset = locate(native, value)
    geo = geometry(tuple(value.shape), dtype)
    array = arrays.made(geo, 0)
    wire = Tensor(
        storage, geo.code, geo.shape, tuple(value.stride()), offset // dtype.itemsize
    )
    writer = Writer()
    write_tensor(writer, wire)
    device().is_shared = True
    device().post(
        bytes((ARRAY_OVER_STORAGE,)) + array._ref[1:] + b"\x00" + bytes(writer.buffer)
    )
    return array


def locate(native: NativeDevice, tensor: Any) -> tuple[int, int]:
    """Storage number and byte offset of a remote tensor.

    Raises:
        ValueError: it is on another device, or can't be named in the log now.
    """
    library = ctypes.PyDLL(str(native.process.path))
    find = library.xpool_kernel_argument
    find.argtypes = [ctypes.c_void_p, ctypes.c_uint64 * 3]
    find.restype = ctypes.c_char_p
    found = (ctypes.c_uint64 * 3)()
    error = find(tensor._cdata, found)
    if error is not None:
        raise ValueError(f"xpool: {error.decode(errors='replace')}")
    if found[0] != native.index:
        raise ValueError(
            f"xpool: arrays live on cuda:{native.index}, the tensor on cuda:{found[0]}"
        )
    return int(found[1]), int(found[2])


transfer.FOREIGN.append(from_tensor)


def to_tensor(array: Any) -> Any:
    """A remote torch tensor over an array's memory.

    Raises:
        BufferError: the array has gaps, or torch lacks its dtype.
    """
    import torch

    home = device_of(array._number)
    if home != device().current_index():
        with device().on(home):
            return to_tensor(array)
    native = native_device()
    if native is None:
        raise NotImplementedError(
            "xpool: tensors and arrays share memory only beside device 'cuda'"
        )
    dtype = getattr(torch, array.dtype.name, None)
    if dtype is None:
        raise BufferError(f"xpool: torch has no dtype {array.dtype}")
    if array.flags.c_contiguous:
        return _over(native, array, dtype)
    if array.flags.f_contiguous:
        return _over(native, array.T, dtype).permute(*range(array.ndim)[::-1])
    raise BufferError(
        "xpool: only a contiguous array can be shared with torch: call"
        " cupy.ascontiguousarray"
    )


def _over(native: NativeDevice, array: Any, dtype: Any) -> Any:
    import torch

    made: Any = torch.ops.xpool.storage_over_array
    tensor, storage = made(native.index, array.nbytes)
    device().is_shared = True
    device().post(bytes((STORAGE_OVER_ARRAY,)) + uvarint(storage) + array._ref[1:])
    return tensor.view(dtype).view(array.shape)


def patch_torch() -> None:
    """Let torch's functions that take other libraries' arrays take ours."""
    torch: Any = sys.modules.get("torch")
    if torch is None or native_device() is None:
        return
    for name in ("as_tensor", "asarray", "tensor", "from_dlpack"):
        setattr(torch, name, _taking_arrays(name, getattr(torch, name)))
    torch.utils.dlpack.from_dlpack = torch.from_dlpack


def _taking_arrays(name: str, original: Any) -> Any:
    @functools.wraps(original)
    def take(data: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(data, arrays.ndarray):
            return original(data, *args, **kwargs)
        tensor = to_tensor(data)
        if name == "from_dlpack":
            return tensor.clone() if kwargs.get("copy") else tensor
        if name == "tensor":
            tensor = tensor.clone()
        return original(tensor, *args, **kwargs) if args or kwargs else tensor

    return take
