"""What a CUDA build of torch needs besides the patches for every build.

The names that ``xpool.torch.cuda`` patches cover most of it: here is what only a CUDA
build has.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from xpool.torch.cuda_names import REFUSED, refusal

if TYPE_CHECKING:
    from xpool.native.library import NativeLibrary


def patch_cuda_build(library: NativeLibrary) -> None:
    """Close the ways around the dispatcher; once, after the other patches."""
    _name_storages(library)
    _watch_extensions(library)
    # torch compares the version with the device's capability before it tells.
    cudnn: Any = torch.backends.cudnn
    cudnn.version = lambda: torch._C._cudnn.getVersionInt()


def _name_storages(library: NativeLibrary) -> None:
    """Storages of torch's own CUDA allocator become remote ones too."""
    allocator = torch.cuda.memory.CUDAPluggableAllocator(
        str(library.path), "xpool_cuda_malloc", "xpool_cuda_free"
    )
    torch.cuda.memory.change_current_allocator(allocator)
    core: Any = torch._C
    for what, names in REFUSED.items():
        for name in names.split():
            setattr(core, name, refusal(what))


def _watch_extensions(library: NativeLibrary) -> None:
    """Kernels of an extension win over ours, unless they are replaced in turn."""
    operators: Any = torch.ops
    load_library = type(operators).load_library

    @functools.wraps(load_library)
    def load_and_take_over(self: Any, path: Any) -> Any:
        library.settle()
        loaded = load_library(self, path)
        library.take_over()
        return loaded

    type(operators).load_library = load_and_take_over
