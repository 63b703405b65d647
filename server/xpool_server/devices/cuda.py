"""A CUDA device through torch: what it tells beyond other accelerators."""

# ruff: noqa: D102  the interface in base.py documents the methods

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import torch

from xpool_server.devices.accelerator import AcceleratorBackend

_FURTHER_PROPERTIES: Final = (
    "warp_size",
    "max_threads_per_block",
    "max_threads_per_multi_processor",
    "regs_per_multiprocessor",
    "shared_memory_per_block",
    "shared_memory_per_block_optin",
    "shared_memory_per_multiprocessor",
    "L2_cache_size",
)
"""What compilers of kernels ask for; torch's names, where this torch has them."""


class CudaBackend(AcceleratorBackend):
    """The driver tells what a process holds of the device beside its storages."""

    def __init__(self, index: int) -> None:
        super().__init__(torch.device("cuda", index), torch.cuda)
        self.context_nbytes = _context_nbytes(self.device)

    def properties(self, quota_nbytes: int) -> Mapping[str, str | int | float]:
        device = torch.cuda.get_device_properties(self.device)
        return {
            **super().properties(quota_nbytes),
            **{
                name: getattr(device, name)
                for name in _FURTHER_PROPERTIES
                if hasattr(device, name)
            },
        }


def _context_nbytes(device: torch.device) -> int:
    """What the driver holds for this process beside the allocator's memory.

    0 where the driver's library does not tell (it does not within a container).
    """
    with suppress(ImportError, RuntimeError):
        import pynvml  # type: ignore[import-not-found]

        return context_of_process(pynvml, device.index or 0, os.getpid()) or 0
    return 0


def context_of_process(nvml: Any, index: int, pid: int) -> int | None:
    """A process's memory on a device, less what torch's allocator has reserved.

    Args:
        nvml: the module ``pynvml``.
        index: of the device, as torch counts.
        pid: which process.

    Returns:
        None if the driver does not name the process.
    """
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    for process in processes:
        if process.pid == pid and process.usedGpuMemory is not None:
            reserved = torch.cuda.memory_reserved(index)
            return max(0, int(process.usedGpuMemory) - reserved)
    return None
