"""Protocols of arrays: NumPy's and DLPack.

As CuPy's they have no ``__array_namespace__``, by which libraries decide what they do.
"""

from __future__ import annotations

from typing import Any

from xpool.cupy.dispatch import by_numpy_function, by_numpy_ufunc
from xpool.cupy.dlpack import capsule, on_device, warn_of_capsules
from xpool.cupy.encoding import device_of
from xpool.cupy.ndarray import method, ndarray


@method("to_device")
def to_device(self: ndarray, device: Any, /, *, stream: Any = None) -> ndarray:
    """The array on a device: itself, or a copy if it is on another one."""
    return on_device(self, device)


@method("__dlpack_device__")
def dlpack_device_of(self: ndarray) -> tuple[int, int]:
    """Kind and number of the device."""
    return 2, device_of(self._number)


@method("__dlpack__")
def dlpack_of(
    self: ndarray,
    *,
    stream: Any = None,
    max_version: Any = None,
    dl_device: Any = None,
    copy: Any = None,
) -> Any:
    """A capsule of a remote tensor over the same memory.

    Raises:
        BufferError: torch is not beside the arrays, so that nobody can take it, or
            the device is another.
        ValueError: no such stream, or the host without a copy.
    """
    return capsule(self, stream, max_version, dl_device, copy)


@method("toDlpack")
def dlpack_deprecated(self: ndarray) -> Any:
    """As ``__dlpack__``; deprecated."""
    warn_of_capsules("cupy.ndarray.toDlpack")
    return self.__dlpack__()


@method("__array_ufunc__")
def by_ufunc(
    self: ndarray, function: Any, method: str, *args: Any, **kwargs: Any
) -> Any:
    """What a ufunc of NumPy's becomes."""
    return by_numpy_ufunc(function, method, args, kwargs)


@method("__array_function__")
def by_function(
    self: ndarray, function: Any, types: Any, args: Any, kwargs: Any
) -> Any:
    """What a function of NumPy's becomes."""
    return by_numpy_function(function, types, args, kwargs)
