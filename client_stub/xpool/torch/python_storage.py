"""Storages of the pure-Python device: torch's own, over addresses that are made up.

The storage is the handle: a ``Handle`` hangs on the storage's Python object, which
lives as long as the C++ storage, so its end is the exact moment to free. torch makes
tensors behind our back, so an attribute on a *tensor* would be lost.

A storage can't grow in place. ``Storages.grow`` makes a larger one that shares the
handle: whoever still views the old one sees the same bytes on the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch._C import DispatchKey
from xpool_protocol.records import Allocate, Free

from xpool.torch.python_log import PythonLog
from xpool.torch.python_memory import MemoryLedger, charged_nbytes

FIRST_ADDRESS: Final = 1 << 60
"""Not canonical on x86-64 or arm64: touching it faults at once."""

_aten: Any = torch.ops.aten
_construct: Any = torch._C._construct_storage_from_data_pointer
_shell: Any = torch._C._acc.create_empty_tensor
# The CPU kernel of set_ only edits a tensor's metadata, whatever its device.
_seat: Any = _aten.set_.source_Storage_storage_offset._op_dk
_CPU: Final = DispatchKey.CPU


class Handle:
    """A storage's name on the server. Its end only leaves a note."""

    __slots__ = ("_ledger", "_log", "is_recorded", "nbytes", "number")

    def __init__(
        self, log: PythonLog, ledger: MemoryLedger, number: int, nbytes: int
    ) -> None:
        self.number = number
        self.nbytes = nbytes
        self.is_recorded = False
        """The server knows it, or will; else there is nothing to free there."""
        self._log, self._ledger = log, ledger

    def __del__(self) -> None:
        if self._log.is_closed:  # nobody is left to tell, and modules may be gone
            return
        self._ledger.release(charged_nbytes(self.nbytes))
        if self.is_recorded:
            self._log.append_later(Free(self.number))

    def grown_to(self, nbytes: int) -> None:
        """The server has made it larger: an out= argument that it resized."""
        if nbytes > self.nbytes:
            self._ledger.charge(charged_nbytes(nbytes) - charged_nbytes(self.nbytes))
            self.nbytes = nbytes

    def swap(self, other: Handle) -> None:
        """Exchange what the two name."""
        self.number, other.number = other.number, self.number
        self.nbytes, other.nbytes = other.nbytes, self.nbytes
        flags = other.is_recorded, self.is_recorded
        self.is_recorded, other.is_recorded = flags


def span_items(sizes: Sequence[int], strides: Sequence[int]) -> int:
    """Items from the first to the last that a geometry touches; 0 if it is empty."""
    last = 1
    for size, stride in zip(sizes, strides, strict=True):
        if size == 0:
            return 0
        last += (size - 1) * stride
    return last


class Storages:
    """Makes storages and tensors over them."""

    def __init__(
        self, log: PythonLog, ledger: MemoryLedger, device: torch.device
    ) -> None:
        self.device = device
        self._log, self._ledger = log, ledger
        self._next_address = FIRST_ADDRESS

    def allocate(self, nbytes: int) -> torch.UntypedStorage:
        """A new storage of undefined bytes, recorded as ALLOCATE."""
        storage = self.unrecorded(nbytes)
        handle = self.handle_of(storage)
        self._log.append(Allocate(handle.number, nbytes))
        handle.is_recorded = True
        return storage

    def unrecorded(self, nbytes: int) -> torch.UntypedStorage:
        """A new storage that a call's outputs will define; then it is recorded."""
        self._ledger.charge(charged_nbytes(nbytes))
        number = self._log.next_storage()
        return self._over(Handle(self._log, self._ledger, number, nbytes), nbytes)

    def adopted(self, number: int, nbytes: int) -> torch.UntypedStorage:
        """A storage that the server has under this id.

        Raises:
            torch.OutOfMemoryError: the quota does not hold it.
        """
        self._ledger.charge(charged_nbytes(nbytes))
        handle = Handle(self._log, self._ledger, number, nbytes)
        handle.is_recorded = True
        return self._over(handle, nbytes)

    def handle_of(self, storage: torch.UntypedStorage) -> Handle:
        """What the storage is on the server; one that has no name yet gets one."""
        handle: Handle | None = getattr(storage, "_xpool_handle", None)
        if handle is None:
            number, nbytes = self._log.next_storage(), storage.nbytes()
            self._ledger.charge(charged_nbytes(nbytes))
            handle = Handle(self._log, self._ledger, number, nbytes)
            storage._xpool_handle = handle  # type: ignore[attr-defined]
            self._log.append(Allocate(number, nbytes))
            handle.is_recorded = True
        return handle

    def number_of(self, storage: torch.UntypedStorage) -> int:
        """The storage's id on the server."""
        return self.handle_of(storage).number

    def with_room(
        self, storage: torch.UntypedStorage, nbytes: int
    ) -> torch.UntypedStorage:
        """A storage over the same handle that torch knows to hold ``nbytes``."""
        if storage.nbytes() >= nbytes:
            return storage
        return self._over(self.handle_of(storage), nbytes)

    def _over(self, handle: Handle, nbytes: int) -> torch.UntypedStorage:
        address = self._next_address
        self._next_address = address + charged_nbytes(nbytes)
        storage: torch.UntypedStorage = _construct(address, self.device, nbytes)
        storage._xpool_handle = handle  # type: ignore[attr-defined]
        return storage


def tensor_over(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    sizes: Sequence[int],
    strides: Sequence[int],
    offset: int = 0,
) -> torch.Tensor:
    """A new tensor over a device storage; offset in items."""
    made: torch.Tensor = _seat(
        _CPU, _shell((0,), dtype), storage, offset, sizes, strides
    )
    return made


def seat(
    tensor: torch.Tensor,
    storage: torch.UntypedStorage,
    sizes: Sequence[int],
    strides: Sequence[int],
    offset: int,
) -> None:
    """Put a tensor over a storage that holds its geometry."""
    _seat(_CPU, tensor, storage, offset, sizes, strides)
