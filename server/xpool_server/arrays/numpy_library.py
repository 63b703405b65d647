"""CuPy's names on a CPU: NumPy and SciPy, with CuPy's ways where they differ."""

# ruff: noqa: D102  the interface in library.py documents the methods

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
import torch
from xpool_protocol.arrays.api import api
from xpool_protocol.errors import ArgumentInvalid

from xpool_server.arrays import (
    kernel_calls,
    numpy_gone,
    numpy_linalg,
    numpy_random,
    numpy_reductions,
    numpy_signal,
    numpy_sparse,
    numpy_special,
    scipy_filters,
    scipy_functions,
    sparse_solvers,
)
from xpool_server.arrays.library import (
    ArrayLibrary,
    check_linalg,
    lacks,
    overridden,
)
from xpool_server.arrays.numpy_functions import OWN, RETURNS_PYTHON, adapted, power
from xpool_server.arrays.numpy_indexing import at
from xpool_server.arrays.table import owner_of

_NUMBERS = (bool, int, float, complex)
_SCALARS = (np.generic, np.matrix)
_OWN: Final[dict[str, Callable[..., Any]]] = {
    **OWN,
    **numpy_reductions.OWN,
    **numpy_linalg.OWN,
    **numpy_random.OWN,
    **numpy_signal.OWN,
    **numpy_sparse.OWN,
    **numpy_special.OWN,
    **scipy_filters.OWN,
    **scipy_functions.OWN,
    **sparse_solvers.OWN,
    **numpy_gone.OWN,
    **kernel_calls.OWN,
}
for _name, _function in _OWN.items():
    if "<locals>" in getattr(_function, "__qualname__", ""):
        # What a TypeError calls it: "max() got an unexpected keyword argument".
        _function.__qualname__ = _name.rpartition(".")[2]
_TYPE_NAMES: Final = {"cKDTree": "KDTree"}
_LIBRARY = f"NumPy {np.__version__}"


class NumpyLibrary(ArrayLibrary):
    """Arrays are ``numpy.ndarray`` objects in this process's memory."""

    array_type: ClassVar[type[Any]] = np.ndarray
    reuses_memory: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        # As on a GPU: no warning for a division by zero.
        np.seterr(all="ignore")

    def _look_up(self, name: str) -> Callable[..., Any]:
        if name == "xpool.raising":
            return self._raising
        if name.startswith("cupy.linalg."):
            found = self._linalg(name)
            last = name.removeprefix("cupy.linalg.")
            return numpy_linalg.ignoring(found) if last in numpy_linalg.NAMES else found
        own = _OWN.get(name)
        if own is not None:
            return own
        if name.startswith("ndarray."):
            return _method(name.removeprefix("ndarray."))
        owner, _, last = name.rpartition(".")
        if owner in api():
            return adapted(name, _member(_module(owner, name), last, name))
        outer, _, middle = owner.rpartition(".")
        found = _member(_module(outer, name), middle, name)
        if last == "at" and isinstance(found, np.ufunc):
            return at(found)
        return overridden(found, last, _member(found, last, name))

    def _linalg(self, name: str) -> Callable[..., Any]:
        own = _OWN.get(name)
        owner, _, last = name.rpartition(".")
        if own is not None or owner not in api():
            return own or _member(_module(owner, name), last, name)
        return adapted(name, _member(_module(owner, name), last, name))

    def _raising(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of ``numpy.linalg`` that raises for a singular matrix."""
        check_linalg(name)
        self.operation(name)  # whether it is allowed, and there
        return self.as_arrays(name, self._linalg(name)(*args, **kwargs))

    def as_result(self, found: Any) -> Any:
        if type(found) is np.ndarray:
            return found
        if isinstance(found, _SCALARS):
            return np.asarray(found)
        numpy_sparse.check_format(found)
        return found

    def is_elementwise(self, function: Callable[..., Any]) -> bool:
        return function is power or (
            isinstance(function, np.ufunc)
            and function.nout == 1
            and function.signature is None
        )

    def as_arrays(self, name: str, found: Any) -> Any:
        if type(found) in _NUMBERS and name.startswith(("cupy.", "ndarray.")):
            return found if name in RETURNS_PYTHON else np.asarray(found)
        if name.startswith("cupyx.") and isinstance(found, np.ndarray):
            # SciPy's arrays of arrays are lists in CuPy.
            return found.tolist() if found.dtype == np.object_ else found
        return found

    def from_bytes(
        self, dtype: np.dtype[Any], sizes: tuple[int, ...], order: str, data: bytes
    ) -> Any:
        flat = np.frombuffer(data, dtype)
        # A copy, so that the array owns its memory as any other.
        return np.array(flat.reshape(sizes, order=order), order="K", copy=True)  # type: ignore[call-overload]

    def to_bytes(self, array: Any) -> bytes:
        if array.dtype.kind == "V":
            return bytes(array.tobytes())
        return bytes(np.ascontiguousarray(array).data) if array.size else b""

    def over(self, tensor: torch.Tensor) -> Any:
        return tensor.resolve_conj().resolve_neg().numpy()

    def storage_over(self, array: Any) -> torch.UntypedStorage:
        if not array.flags.c_contiguous:
            raise ArgumentInvalid("only a contiguous array can be a storage")
        flat = array.reshape(-1).view(np.uint8)
        return torch.from_numpy(flat).untyped_storage()

    def extent(self, array: Any) -> tuple[int, int]:
        low, high = np.lib.array_utils.byte_bounds(owner_of(array))
        return low - array.ctypes.data, high - array.ctypes.data

    def type_name(self, found: Any) -> str:
        return _TYPE_NAMES.get(type(found).__name__, type(found).__name__)

    def attribute(self, found: Any, name: str) -> Any:
        value = getattr(found, name)
        if name in numpy_sparse.INDICES and numpy_sparse.is_sparse(found):
            return value.copy()
        return _seen(value)

    def set_attribute(self, found: Any, name: str, value: Any) -> None:
        if numpy_sparse.is_sparse(found):
            numpy_sparse.set_attribute(found, name, value)
        else:
            super().set_attribute(found, name, value)

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def argument(
        self, dtype: np.dtype[Any], sizes: tuple[int, ...], data: bytes
    ) -> Any:
        flat = np.frombuffer(bytearray(data), dtype)
        return flat.reshape(sizes) if sizes else flat[0]


def _seen(value: Any) -> Any:
    """Arrays of an object as views: a client may change the shape of what it has."""
    if type(value) is tuple:
        return tuple([_seen(one) for one in value])
    return value.view() if isinstance(value, np.ndarray) else value


def _method(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] | None = getattr(np.ndarray, name, None)
    if function is None or not callable(function):
        raise lacks(f"ndarray.{name}", _LIBRARY)
    return function


@functools.cache
def _module_named(name: str) -> Any:
    return importlib.import_module(name)


def _module(name: str, whole: str) -> Any:
    """NumPy's or SciPy's module for one of CuPy's."""
    if name == "cupy" or name.startswith("cupy."):
        theirs = "numpy" + name.removeprefix("cupy")
    elif name.startswith("cupyx.scipy"):
        theirs = "scipy" + name.removeprefix("cupyx.scipy")
    else:
        raise lacks(whole, _LIBRARY)
    try:
        return _module_named(theirs)
    except ImportError:
        raise lacks(whole, _LIBRARY) from None


def _member(owner: Any, last: str, whole: str) -> Any:
    found = getattr(owner, last, None)
    if found is None or not callable(found):
        raise lacks(whole, _LIBRARY)
    return found
