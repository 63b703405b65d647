"""A kernel's arguments: their Numba types, and the parameters that they become.

An array is passed as Numba's own launcher does it: two pointers that kernels do not
use, the number of items, the size of one, the address, lengths and strides. Whoever
launches compares the parameters with those of the compiled kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from xpool_protocol.kernel_records import (
    ArrayArgument,
    BytesArgument,
    KernelArgument,
    NullArgument,
    StorageArgument,
)

from xpool.cupy.ndarray import ndarray

_WORD: Final = np.dtype(np.int64)


class In:
    """A host array that is copied to the device before a launch."""

    brings, fetches = True, False

    def __init__(self, value: Any) -> None:
        self.value = value


class Out(In):
    """A host array that is copied back after a launch."""

    brings, fetches = False, True


class InOut(In):
    """A host array that is copied there and back."""

    brings, fetches = True, True


class Passed(NamedTuple):
    """One argument of a call."""

    kind: Any
    """Its Numba type."""

    value: Any
    """A plain value, an array that is on the device, or a tuple of ``Passed``."""


def passed(value: Any, after: list[Callable[[], None]]) -> Passed:
    """An argument as kernels take it; host arrays are uploaded.

    Args:
        value: what the program passed.
        after: is given what has to be done behind the launch.

    Raises:
        TypeError: kernels take nothing of this type.
    """
    import numba
    from numba import types

    if isinstance(value, np.ndarray):
        value = InOut(value)
    if isinstance(value, In):
        return passed(_brought(value, after), after)
    if isinstance(value, ndarray):
        flags = value.flags
        return _array(value, flags.c_contiguous, flags.f_contiguous)
    if _is_tensor(value):
        is_dense = value.is_contiguous()
        return _array(
            value,
            is_dense,
            value.t().is_contiguous()
            if value.ndim == 2
            else is_dense and value.ndim < 2,
        )
    if isinstance(value, tuple):
        items = tuple(passed(one, after) for one in value)
        return Passed(types.Tuple([one.kind for one in items]), items)
    if isinstance(value, bool | int | float | complex | np.generic):
        return Passed(numba.typeof(value), value)
    raise TypeError(f"xpool: a kernel of numba.cuda takes no {type(value).__name__}")


def _brought(hint: In, after: list[Callable[[], None]]) -> Any:
    """The array on the device that stands for one of the host's."""
    import cupy

    host = hint.value
    if not isinstance(host, np.ndarray):
        return host
    there = cupy.asarray(host) if hint.brings else cupy.empty(host.shape, host.dtype)
    if hint.fetches:

        def fetch() -> None:
            host[...] = there.get()

        after.append(fetch)
    return there


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _array(value: Any, is_c: bool, is_f: bool) -> Passed:
    from numba import from_dtype, types

    name = str(value.dtype).removeprefix("torch.")
    layout = "C" if is_c else "F" if is_f else "A"
    return Passed(types.Array(from_dtype(np.dtype(name)), value.ndim, layout), value)


def parameters(kind: Any, one: Passed) -> list[KernelArgument]:
    """What an argument becomes.

    Args:
        kind: the type that the kernel was compiled for.
        one: the argument.

    Raises:
        TypeError: it can't be converted to that type.
    """
    if isinstance(one.value, ndarray):
        encoded: KernelArgument = ArrayArgument(one.value._number)
        strides: Sequence[int] = one.value.strides
    elif _is_tensor(one.value):
        from xpool.cupy.interop import locate, native_device

        native = native_device()
        if native is None:
            raise TypeError("xpool: kernels take tensors of device 'cuda' alone")
        encoded = StorageArgument(*locate(native, one.value))
        size = one.value.element_size()
        strides = [stride * size for stride in one.value.stride()]
    elif isinstance(one.value, tuple):
        pairs = zip(tuple(kind), one.value, strict=True)
        return [each for inner, item in pairs for each in parameters(inner, item)]
    else:
        return _number(kind, one.value)
    shape = tuple(one.value.shape)
    itemsize = np.dtype(str(one.kind.dtype)).itemsize
    count = int(np.prod(shape, dtype=np.int64))
    words = [*shape, *strides]
    return [
        *(NullArgument(), NullArgument(), _word(count), _word(itemsize), encoded),
        *map(_word, words),
    ]


def _word(value: int) -> BytesArgument:
    return BytesArgument(_WORD.type(value).tobytes())


def _number(kind: Any, value: Any) -> list[KernelArgument]:
    name = str(kind)
    dtype = np.dtype("bool" if name == "boolean" else name)
    if dtype.kind in "biuf" and isinstance(value, complex | np.complexfloating):
        raise TypeError(f"can't convert complex to {name}")
    if dtype.kind in "iu" and float(value) != int(value):
        raise TypeError(f"can't convert {value!r} to {name}")
    if dtype.kind in "iu" and isinstance(value, int):
        bits = 8 * dtype.itemsize
        value = np.uint64(value & (1 << bits) - 1).astype(dtype)
    scalar = np.asarray(value).astype(dtype)[()]
    if dtype.kind == "c":
        return [BytesArgument(one.tobytes()) for one in (scalar.real, scalar.imag)]
    return [BytesArgument(scalar.tobytes())]
