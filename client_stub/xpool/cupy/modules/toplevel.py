"""The module ``cupy`` itself: what makes arrays, and what needs no device."""

from __future__ import annotations

import types
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing
from xpool_protocol.arrays.api import api, cupy_version

from xpool.cupy import described, interop, methods, transfer
from xpool.cupy.device import device
from xpool.cupy.finder import module
from xpool.cupy.functions import call, own
from xpool.cupy.geometry import check_dtype
from xpool.cupy.ndarray import as_size, ndarray
from xpool.cupy.operators import add_operators
from xpool.cupy.ufunc import ufunc


@own("cupy.array")
def array(
    obj: Any,
    dtype: Any = None,
    copy: Any = True,
    order: Any = "K",
    subok: Any = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> Any:
    """An array on the device with the items of another object."""
    return transfer.as_array(obj, dtype, copy, order, ndmin)


@own("cupy.asarray", "cupy.asanyarray")
def asarray(
    a: Any,
    dtype: Any = None,
    order: Any = None,
    *,
    copy: Any = None,
    blocking: bool = False,
) -> Any:
    """The object itself where it is an array of this kind, or a new array."""
    return transfer.as_array(a, dtype, copy, order)


@own("cupy.ascontiguousarray")
def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    """A C-contiguous array of at least one dimension."""
    return transfer.as_array(a, dtype, order="C", ndmin=1)


@own("cupy.asfortranarray")
def asfortranarray(a: Any, dtype: Any = None) -> Any:
    """A Fortran-contiguous array."""
    return transfer.as_array(a, dtype, order="F", ndmin=1)


@own("cupy.asnumpy")
def asnumpy(
    a: Any,
    stream: Any = None,
    order: Any = "C",
    out: Any = None,
    *,
    blocking: bool = True,
) -> Any:
    """A copy in host memory."""
    if isinstance(a, ndarray):
        return a.get(order=order, out=out)
    a = transfer.unwrapped(a)
    if transfer.has_remote(a):
        return transfer.as_array(a).get(order=order, out=out)
    host = np.asarray(a, order=order)
    if out is not None:
        np.copyto(out, host)
        return out
    return host


@own("cupy.get_array_module")
def get_array_module(*args: Any) -> Any:
    """``cupy`` if one argument lives on the device, otherwise ``numpy``."""
    import sys

    if any(
        hasattr(type(one), "_number") or hasattr(one, "_xpool_array") for one in args
    ):
        return sys.modules["cupy"]
    return np


@own("cupy.is_available")
def is_available() -> bool:
    """Whether there is a device."""
    return True


@own("cupy.result_type")
def result_type(*args: Any) -> Any:
    """The dtype that an operation on these would have."""
    return np.result_type(
        *(one.dtype if isinstance(one, ndarray) else one for one in args)
    )


@own("cupy.can_cast")
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    """Whether a cast is allowed by a rule."""
    given = from_.dtype if isinstance(from_, ndarray) else from_
    return np.can_cast(given, to, casting)


@own("cupy.min_scalar_type")
def min_scalar_type(a: Any) -> Any:
    """The least dtype that holds a scalar; of an array its own."""
    found = transfer.unwrapped(a)
    if isinstance(found, ndarray):
        return found.dtype
    if transfer.has_remote(found):
        return np.result_type(*_dtypes_within(found))
    return np.min_scalar_type(found)


def _dtypes_within(value: Any) -> list[Any]:
    """The dtypes of all that lies in nested lists."""
    if isinstance(value, list | tuple):
        return [dtype for one in value for dtype in _dtypes_within(one)]
    return [value.dtype if isinstance(value, ndarray) else np.asarray(value).dtype]


@own("cupy.common_type")
def common_type(*args: Any) -> Any:
    """The inexact dtype that holds all of these."""
    return np.common_type(*(np.empty(0, one.dtype) for one in args))


@own("cupy.isscalar")
def isscalar(element: Any) -> bool:
    """Whether it is a scalar."""
    return np.isscalar(element)


@own("cupy.shape")
def shape(a: Any) -> Any:
    """Lengths of the axes."""
    return a.shape if isinstance(a, ndarray) else np.shape(a)


@own("cupy.ndim")
def ndim(a: Any) -> int:
    """How many axes there are."""
    return a.ndim if isinstance(a, ndarray) else np.ndim(a)


@own("cupy.size")
def size(a: Any, axis: Any = None) -> int:
    """How many items there are."""
    if not isinstance(a, ndarray):
        return np.size(a, axis)
    return np.size(np.broadcast_to(np.int8(0), a.shape), axis)


@own("cupy.iscomplexobj")
def iscomplexobj(x: Any) -> bool:
    """Whether the dtype is complex."""
    return x.dtype.kind == "c" if isinstance(x, ndarray) else np.iscomplexobj(x)


@own("cupy.isrealobj")
def isrealobj(x: Any) -> bool:
    """Whether the dtype is not complex."""
    return not iscomplexobj(x)


def _like(name: str) -> Any:
    def made(
        a: Any,
        dtype: Any = None,
        order: Any = "K",
        subok: Any = None,
        shape: Any = None,
    ) -> Any:
        if subok is not None:
            raise TypeError("subok is not supported yet")
        if not isinstance(a, ndarray):
            a = np.asarray(a)
            dtype = a.dtype if dtype is None else dtype
            shape = a.shape if shape is None else shape
            is_fortran = order == "F" or (order in "AK" and a.flags.fnc)
            new_order = "F" if is_fortran else "C"
            return call(f"cupy.{name}", (shape, check_dtype(dtype), new_order), {})
        keywords = {} if shape is None else {"shape": as_size(shape)}
        wanted = a.dtype if dtype is None else check_dtype(dtype)
        return call(f"cupy.{name}_like", (a, wanted, order or "K"), keywords)

    made.__doc__ = "An array like another."
    return made


empty_like = own("cupy.empty_like")(_like("empty"))
zeros_like = own("cupy.zeros_like")(_like("zeros"))
ones_like = own("cupy.ones_like")(_like("ones"))


@own("cupy.ones")
def ones(shape: Any, dtype: Any = float, order: Any = "C") -> Any:
    """An array of ones."""
    found = np.dtype(float if dtype is None else dtype)
    if found.char == "V":
        described.check_computed(check_dtype(found))
    return call("cupy.ones", (shape, found, order), {})


@own("cupy.make_aligned_dtype")
def make_aligned_dtype(dtype: Any, *, alignment: int = -1, recurse: bool = True) -> Any:
    """A dtype with its fields laid out as a GPU wants them."""
    return described.make_aligned(dtype, alignment=alignment, recurse=recurse)


@own("cupy.full")
def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C") -> Any:
    """An array of one value."""
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, ndarray) else None
        if dtype is None:
            dtype = np.array(fill_value).dtype
    made = call("cupy.empty", (shape, check_dtype(dtype), order), {})
    made[...] = fill_value
    return made


@own("cupy.full_like")
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: Any = "K",
    subok: Any = None,
    shape: Any = None,
) -> Any:
    """An array of one value, like another."""
    made = empty_like(a, dtype, order, subok, shape)
    made[...] = fill_value
    return made


@own("cupy.array_repr")
def array_repr(
    arr: Any,
    max_line_width: Any = None,
    precision: Any = None,
    suppress_small: Any = None,
) -> str:
    """As ``repr``."""
    return np.array_repr(asnumpy(arr), max_line_width, precision, suppress_small)


@own("cupy.array_str")
def array_str(
    arr: Any,
    max_line_width: Any = None,
    precision: Any = None,
    suppress_small: Any = None,
) -> str:
    """As ``str``."""
    return np.array_str(asnumpy(arr), max_line_width, precision, suppress_small)


@own("cupy.array2string")
def array2string(a: Any, *args: Any, **kwargs: Any) -> str:
    """A text that shows the items."""
    return np.array2string(asnumpy(a), *args, **kwargs)


@own("cupy.byte_bounds", "cupy.may_share_memory_bounds")
def byte_bounds(a: Any) -> Any:
    """Refused: an array of the pool has no address here."""
    raise NotImplementedError("xpool: memory of the device has no address here")


@own("cupyx.synchronize")
def synchronize() -> None:
    """Wait until everything has run."""
    device().synchronize()


@module("cupy")
def fill(m: ModuleType) -> None:
    """What programs expect beside the table's names, and the operators of arrays."""
    m.__version__ = cupy_version()  # type: ignore[attr-defined]
    m.ndarray, m.ufunc = ndarray, ufunc  # type: ignore[attr-defined]
    ufuncs = {
        name: ufunc("cupy", name, what[1], what[2])
        for name, what in api()["cupy"].items()
        if what[0] == "ufunc"
    }
    for name, one in ufuncs.items():
        setattr(m, name, one)
    add_operators(ufuncs)
    methods.complete()
    device().complete()
    interop.patch_torch()


@module("cupyx")
def fill_cupyx(m: ModuleType) -> None:
    """The version is CuPy's."""
    m.__version__ = cupy_version()  # type: ignore[attr-defined]


@module("cupy.exceptions")
def fill_exceptions(m: ModuleType) -> None:
    """NumPy's classes."""
    for name in (
        "AxisError",
        "ComplexWarning",
        "ModuleDeprecationWarning",
        "RankWarning",
        "TooHardError",
        "VisibleDeprecationWarning",
    ):
        setattr(m, name, getattr(np.exceptions, name))


_Scalar = TypeVar("_Scalar", bound=np.generic, covariant=True)


@module("cupy.typing")
def fill_typing(m: ModuleType) -> None:
    """For annotations; ``NDArray[cupy.float32]``."""
    for name in ("ArrayLike", "DTypeLike", "NBitBase"):
        setattr(m, name, getattr(np.typing, name))
    m.NDArray = types.GenericAlias(ndarray, (Any, np.dtype[_Scalar]))  # type: ignore[attr-defined,valid-type]
