"""Storage methods that torch implements for each device type in turn.

``torch.save``, ``torch.load`` and ``copy.deepcopy`` move storages, not tensors; for
a remote device that goes through a byte tensor over the storage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from xpool.native.library import NativeLibrary


def bytes_of(storage: Any) -> torch.Tensor:
    """A byte tensor, shape ``(nbytes,)``, over a storage of any device."""
    tensor = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return tensor.set_(storage, 0, (storage.nbytes(),), (1,))


def patch_storage_methods(device_type: str) -> None:
    """Teach storages to move to and from ``device_type``."""
    storage_module: Any = torch.storage
    base: Any = storage_module._StorageBase
    host_to: Callable[..., Any] = storage_module._to
    host_clone, host_cpu = base.clone, base.cpu
    host_copy = base.copy_

    def to(self: Any, device: Any, non_blocking: bool = False) -> Any:
        device = torch.device(device)
        if device.type != device_type and self.device.type != device_type:
            return host_to(self, device, non_blocking)
        if device == self.device:
            return self
        return bytes_of(self).to(device, copy=True).untyped_storage()

    def clone(self: Any) -> Any:
        if self.device.type != device_type:
            return host_clone(self)
        return bytes_of(self).clone().untyped_storage()

    def cpu(self: Any) -> Any:
        if self.device.type != device_type:
            return host_cpu(self)
        return bytes_of(self).cpu().untyped_storage()

    def copy_(self: Any, source: Any, non_blocking: Any = None) -> Any:
        if device_type not in (self.device.type, source.device.type):
            return host_copy(self, source, non_blocking)
        bytes_of(self).copy_(bytes_of(source))
        return self

    storage_module._to = to
    for name, method in (("clone", clone), ("cpu", cpu), ("copy_", copy_)):
        setattr(base, name, method)


def patch_untyped_storage(library: NativeLibrary) -> None:
    """Make and resize storages of the device ``cuda`` by hand."""
    untyped: Any = torch.UntypedStorage
    host_resize = untyped.resize_

    def __new__(cls: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N807
        device = torch.device(named.get("device") or "cpu")
        if device.type != "cuda":
            return super(untyped, cls).__new__(cls, *arguments, **named)
        if arguments and not isinstance(arguments[0], int):
            values = torch.tensor(arguments[0], dtype=torch.uint8)
            return values.to(device).untyped_storage()
        count = arguments[0] if arguments else named.get("size", 0)
        return torch.empty(count, dtype=torch.uint8, device=device).untyped_storage()

    def resize_(self: Any, size: int) -> Any:
        if self.device.type != "cuda":
            return host_resize(self, size)
        library.resize_storage(self._cdata, size)
        return self

    untyped.__new__, untyped.resize_ = __new__, resize_
