"""From what went wrong to the ``Fault`` that tells the client."""

from __future__ import annotations

import re
from typing import Final

import torch
from xpool_protocol.errors import (
    OperationFailed,
    OperationUnknown,
    PoolError,
    QuotaExceeded,
)
from xpool_protocol.messages import EXCEPTIONS, Fault

MAX_TEXT_NBYTES: Final = 8 << 10
"""An error's text; torch's longest lists every backend of an operation."""

_NO_MEMORY: Final = re.compile(r"can't allocate memory|not enough memory|out of memory")
_NO_KERNEL: Final = re.compile(r"Could not run '([\w:.]+)' with arguments from the")


class Poisoned(Exception):  # noqa: N818  a state, as the field names it
    """An operation touched a storage that an earlier failure has poisoned."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


def fault_from(
    error: Exception, *, operation: int, name: str, device_kind: str
) -> Fault:
    """What the client is told of an exception that an operation raised."""
    code, exception, text = _explained(error, device_kind)
    return Fault(code, _cut(text), exception, operation, name)


def _explained(error: Exception, device_kind: str) -> tuple[int, str, str]:
    """Wire code, Python exception and text."""
    text = str(error)
    if isinstance(error, QuotaExceeded):
        return error.code, "OutOfMemoryError", text
    if isinstance(error, OperationUnknown):
        return error.code, "NotImplementedError", text
    if isinstance(error, PoolError):
        return error.code, "RuntimeError", text
    if _is_out_of_memory(error, text):
        return QuotaExceeded.code, "OutOfMemoryError", f"xpool: {text or 'no memory'}"
    missing = (
        _NO_KERNEL.search(text) if isinstance(error, NotImplementedError) else None
    )
    if missing is not None:
        return (
            OperationUnknown.code,
            "NotImplementedError",
            f"{missing[1]} has no kernel for {device_kind} on this server"
            f" (torch {torch.__version__})",
        )
    # torch's own class of this name has an underscore before it.
    names = [kind.__name__.removeprefix("_") for kind in type(error).__mro__]
    known = next((name for name in names if name in EXCEPTIONS), "RuntimeError")
    return OperationFailed.code, known, text or names[0]


def _is_out_of_memory(error: Exception, text: str) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(text) is not None


def _cut(text: str) -> str:
    data = text.encode(errors="replace")
    if len(data) <= MAX_TEXT_NBYTES:
        return data.decode()
    return data[: MAX_TEXT_NBYTES - 4].decode(errors="ignore") + " …"
