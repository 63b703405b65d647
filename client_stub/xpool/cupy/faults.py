"""Faults from the server as the exceptions that CuPy raises."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from xpool_protocol.errors import PoolError

from xpool.session import RemoteFault


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``: the slice's quota does not hold it."""


OutOfMemoryError.__module__ = "cupy.cuda.memory"

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
