"""Faults from the server as the exceptions a local device would have raised."""

from __future__ import annotations

from typing import NoReturn

import torch
from xpool_protocol.errors import PoolError

from xpool.session import RemoteFault

_EXCEPTIONS: dict[str, type[Exception]] = {
    "RuntimeError": RuntimeError,
    "IndexError": IndexError,
    "ValueError": ValueError,
    "TypeError": TypeError,
    "NotImplementedError": NotImplementedError,
    "ZeroDivisionError": ZeroDivisionError,
    "OutOfMemoryError": torch.OutOfMemoryError,
    "LinAlgError": torch._C._LinAlgError,  # type: ignore[attr-defined]
}


def raise_local(error: PoolError | RemoteFault) -> NoReturn:
    """Raise what a program written for a local device expects to see."""
    if isinstance(error, RemoteFault):
        kind = _EXCEPTIONS.get(error.fault.exception, RuntimeError)
        raise kind(str(error)) from None
    raise RuntimeError(f"xpool: {error}") from error
