"""DLPack within the pool, and no raw address to anybody else.

A capsule of a remote tensor can be made a tensor again in this process: it shares the
storage. Other libraries would take its address for one they can read; those that ask
for CUDA's array interface are told that there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import torch.utils.dlpack
from torch.utils.dlpack import DLDeviceType

if TYPE_CHECKING:
    from xpool.native.library import NativeLibrary

_FACTORIES: Final = ("_to_dlpack", "_to_dlpack_versioned")


def patch_dlpack(library: NativeLibrary) -> None:
    """Let capsules carry remote tensors."""
    core: Any = torch._C
    for name in _FACTORIES:
        setattr(core, name, _exporting(library, getattr(core, name)))
    made = core._from_dlpack

    def from_dlpack(capsule: Any, *arguments: Any, **named: Any) -> torch.Tensor:
        tensor: torch.Tensor = made(capsule, *arguments, **named)
        if tensor.is_cuda:
            library.import_tensor(tensor._cdata)
        return tensor

    core._from_dlpack = from_dlpack
    vars(torch.utils.dlpack)["to_dlpack"] = core._to_dlpack
    vars(torch)["to_dlpack"] = core._to_dlpack
    _patch_array_interface()


def _exporting(library: NativeLibrary, original: Any) -> Any:
    def to_dlpack(
        tensor: torch.Tensor, *, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """A capsule of a tensor, as torch's own function makes it."""
        if not tensor.is_cuda:
            return original(tensor, dl_device=dl_device, copy=copy)
        if dl_device is not None and int(dl_device[0]) != DLDeviceType.kDLCUDA:
            if copy is False or int(dl_device[0]) != DLDeviceType.kDLCPU:
                raise BufferError(
                    f"a tensor on {tensor.device} can't be exported to DLPack device"
                    f" {tuple(map(int, dl_device))} without a copy"
                )
            return original(tensor.cpu())
        if copy:
            tensor = tensor.clone()
        library.export_storage(tensor.untyped_storage()._cdata)
        return original(tensor)

    return to_dlpack


def _patch_array_interface() -> None:
    base: Any = torch.Tensor
    original = base.__cuda_array_interface__

    def interface(self: torch.Tensor) -> Any:
        if not self.is_cuda:
            return original.__get__(self)
        # AttributeError, so that hasattr says no and callers look for another way.
        raise AttributeError(
            "xpool: a remote tensor has no address that other libraries could use;"
            " copy it to the host with .cpu()"
        )

    base.__cuda_array_interface__ = property(interface)
