"""Faults from the server as the exceptions that CuPy raises."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from xpool_protocol.errors import PoolError

from xpool.session import RemoteFault


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``: the slice's quota does not hold it."""


OutOfMemoryError.__module__ = "cupy.cuda.memory"


class CUDARuntimeError(RuntimeError):
    """``cupy.cuda.runtime.CUDARuntimeError``: an error of CUDA's, by its number."""

    def __init__(self, status: int, text: str = "") -> None:
        """An error.

        Args:
            status: CUDA's number.
            text: name and explanation, as CuPy writes them.
        """
        self.status = status
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, *self.args)


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"


def invalid_device() -> CUDARuntimeError:
    """The error where there is no such device."""
    return CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")


EXCEPTIONS: dict[str, type[Exception]] = {
    "RuntimeError": RuntimeError,
    "IndexError": IndexError,
    "ValueError": ValueError,
    "TypeError": TypeError,
    "NotImplementedError": NotImplementedError,
    "ZeroDivisionError": ZeroDivisionError,
    "OutOfMemoryError": OutOfMemoryError,
    "LinAlgError": np.linalg.LinAlgError,
    "AttributeError": AttributeError,
    "AxisError": np.exceptions.AxisError,
    "KeyError": KeyError,
    "OverflowError": OverflowError,
    "StopIteration": StopIteration,
}


def raise_local(error: PoolError | RemoteFault) -> NoReturn:
    """Raise what a program written for CuPy expects to see."""
    if isinstance(error, RemoteFault):
        kind = EXCEPTIONS.get(error.fault.exception, RuntimeError)
        raise kind(str(error)) from None
    raise RuntimeError(f"xpool: {error}") from error
