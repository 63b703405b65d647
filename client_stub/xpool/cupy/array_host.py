"""Arrays' items in host memory: copies there and back, Python's scalars and text."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from xpool_protocol.arrays.values import LAYOUT_C, LAYOUT_F

from xpool.cupy import transfer
from xpool.cupy.ndarray import method, ndarray
from xpool.cupy.waiting import check_synchronize


@method("get")
def to_host(
    self: ndarray,
    stream: Any = None,
    order: str = "C",
    out: Any = None,
    blocking: bool = True,
) -> np.ndarray[Any, Any]:
    """A copy of the array in host memory.

    Raises:
        TypeError: ``out`` has another dtype, or is no NumPy array.
        ValueError: ``out`` has another shape.
    """
    check_synchronize()
    if order not in ("C", "F", "A"):
        raise ValueError(f"unsupported order: {order}")
    wanted = order
    if order == "A":
        flags = self._known_layout()[1]
        wanted = "F" if flags & LAYOUT_F and not flags & LAYOUT_C else "C"
    if out is not None:
        if not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out.dtype != self._geo.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype}")
        if out.shape != self._geo.shape:
            raise ValueError(
                f"Shape mismatch. Expected shape: {self.shape}, actual: {out.shape}"
            )
        if not (out.flags.c_contiguous or out.flags.f_contiguous):
            raise RuntimeError("`out` has gaps: only a contiguous array is filled")
    if out is not None and out.flags.c_contiguous:
        return transfer.download(self, out)
    host = transfer.download(self)
    if out is not None:
        out[...] = host
        return out
    return host if wanted == "C" else np.asfortranarray(host)


@method("set")
def set_from_host(self: ndarray, arr: Any, stream: Any = None) -> None:
    """Copy an array in host memory to this one."""
    if not isinstance(arr, np.ndarray):
        raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
    if self.dtype != arr.dtype:
        raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
    if self.shape != arr.shape:
        raise ValueError(
            f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}"
        )
    self[...] = transfer.upload(arr)


@method("item")
def item_of(self: ndarray, *args: Any) -> Any:
    """One element as a Python scalar."""
    return self.get().item(*args)


@method("tolist")
def list_of(self: ndarray) -> Any:
    """The array as a nested list."""
    return self.get().tolist()


@method("tobytes")
def bytes_of(self: ndarray, order: str = "C") -> bytes:
    """The items as bytes."""
    return self.get().tobytes(order)


@method("__bytes__")
def as_bytes(self: ndarray) -> bytes:
    """The items as bytes."""
    return bytes(self.get())


@method("tofile")
def to_file(self: ndarray, fid: Any, sep: str = "", format: str = "%s") -> None:  # noqa: A002
    """Write the array to a file."""
    self.get().tofile(fid, sep, format)


@method("dump")
def dump_to(self: ndarray, file: Any) -> None:
    """Write a pickle of the array to a file."""
    self.get().dump(file)


@method("dumps")
def dumped(self: ndarray) -> bytes:
    """A pickle of the array."""
    return self.get().dumps()


@method("__array__")
def refuse_conversion(self: ndarray, dtype: Any = None, copy: Any = None) -> NoReturn:
    """Refused, as in CuPy."""
    raise TypeError(
        "Implicit conversion to a NumPy array is not allowed."
        " Please use `.get()` to construct a NumPy array explicitly."
    )


@method("__reduce__")
def reduced(self: ndarray) -> tuple[Any, ...]:
    """A pickle's: the items are uploaded where it is read."""
    return transfer.upload, (self.get(order="A"),)


@method("__bool__")
def truth_of(self: ndarray) -> bool:
    """The truth value of the one item."""
    if self._geo.size == 0:
        import warnings

        warnings.warn(
            "The truth value of an empty array is ambiguous. Returning False, but"
            " in future this will result in an error. Use `array.size > 0` to check"
            " that an array is not empty.",
            DeprecationWarning,
            stacklevel=2,
        )
        return False
    if self._geo.size != 1:
        raise ValueError(
            "The truth value of an array with more than one element is ambiguous."
            " Use a.any() or a.all()"
        )
    return bool(self.get().item())


@method("__int__")
def int_of(self: ndarray) -> int:
    """The one item."""
    return int(self.get())


@method("__float__")
def float_of(self: ndarray) -> float:
    """The one item."""
    return float(self.get())


@method("__complex__")
def complex_of(self: ndarray) -> complex:
    """The one item."""
    return complex(self.get())


@method("__index__")
def index_value(self: ndarray) -> int:
    """The one item, of an integer."""
    return self.get().__index__()


@method("__repr__")
def repr_of(self: ndarray) -> str:
    """As NumPy's."""
    return repr(self.get())


@method("__str__")
def str_of(self: ndarray) -> str:
    """As NumPy's."""
    return str(self.get())


@method("__format__")
def formatted(self: ndarray, spec: str) -> str:
    """The one item, or the array, as text."""
    return format(self.get() if self._geo.shape else self.item(), spec)
