"""What programs ask of a device before they use it: its figures, by CUDA's names.

The server tells some figures of its device. What CUDA fixes for every device is given
as it is there; a figure that nobody told is 0, as CUDA answers where it knows none.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.api import api, cupy_version

from xpool.cupy import cuda, memory
from xpool.cupy.device import device
from xpool.cupy.finder import module
from xpool.cupy.functions import own

_PREFIX: Final = "cudaDevAttr"
_TOLD: Final[dict[str, tuple[str, int]]] = {
    "ComputeCapabilityMajor": ("major", 0),
    "ComputeCapabilityMinor": ("minor", 0),
    "L2CacheSize": ("L2_cache_size", 0),
    "MaxRegistersPerMultiprocessor": ("regs_per_multiprocessor", 65536),
    "MaxSharedMemoryPerBlock": ("shared_memory_per_block", 48 << 10),
    "MaxSharedMemoryPerBlockOptin": ("shared_memory_per_block_optin", 48 << 10),
    "MaxSharedMemoryPerMultiprocessor": ("shared_memory_per_multiprocessor", 48 << 10),
    "MaxThreadsPerBlock": ("max_threads_per_block", 1024),
    "MaxThreadsPerMultiProcessor": ("max_threads_per_multi_processor", 1024),
    "MultiProcessorCount": ("multi_processor_count", 1),
    "WarpSize": ("warp_size", 32),
}
"""Attributes that the server may tell: torch's name, and what stands in its place."""

_FIXED: Final = {
    "ConcurrentKernels": 1,
    "MaxBlockDimX": 1024,
    "MaxBlockDimY": 1024,
    "MaxBlockDimZ": 64,
    "MaxGridDimX": (1 << 31) - 1,
    "MaxGridDimY": 65535,
    "MaxGridDimZ": 65535,
    "MaxPitch": (1 << 31) - 1,
    "MaxRegistersPerBlock": 65536,
    "StreamPrioritiesSupported": 1,
    "SurfaceAlignment": 512,
    "TextureAlignment": 512,
    "TexturePitchAlignment": 32,
    "TotalConstantMemory": 64 << 10,
    "UnifiedAddressing": 1,
}
"""The same on every device that CUDA 13 knows."""

_PROPERTIES: Final = {
    "ECCEnabled": "EccEnabled",
    "asyncEngineCount": "AsyncEngineCount",
    "clockRate": "ClockRate",
    "computeMode": "ComputeMode",
    "concurrentKernels": "ConcurrentKernels",
    "cooperativeLaunch": "CooperativeLaunch",
    "integrated": "Integrated",
    "kernelExecTimeoutEnabled": "KernelExecTimeout",
    "l2CacheSize": "L2CacheSize",
    "major": "ComputeCapabilityMajor",
    "managedMemory": "ManagedMemory",
    "maxThreadsPerBlock": "MaxThreadsPerBlock",
    "maxThreadsPerMultiProcessor": "MaxThreadsPerMultiProcessor",
    "memPitch": "MaxPitch",
    "memoryBusWidth": "GlobalMemoryBusWidth",
    "memoryClockRate": "MemoryClockRate",
    "minor": "ComputeCapabilityMinor",
    "multiProcessorCount": "MultiProcessorCount",
    "pciBusID": "PciBusId",
    "pciDeviceID": "PciDeviceId",
    "pciDomainID": "PciDomainId",
    "regsPerBlock": "MaxRegistersPerBlock",
    "regsPerMultiprocessor": "MaxRegistersPerMultiprocessor",
    "sharedMemPerBlock": "MaxSharedMemoryPerBlock",
    "sharedMemPerBlockOptin": "MaxSharedMemoryPerBlockOptin",
    "sharedMemPerMultiprocessor": "MaxSharedMemoryPerMultiprocessor",
    "streamPrioritiesSupported": "StreamPrioritiesSupported",
    "textureAlignment": "TextureAlignment",
    "totalConstMem": "TotalConstantMemory",
    "unifiedAddressing": "UnifiedAddressing",
    "warpSize": "WarpSize",
}
"""Keys of ``getDeviceProperties``, and the attributes that they repeat."""


def attribute_names() -> dict[str, int]:
    """CUDA's attributes: their names, and the numbers that CUDA has for them."""
    return {
        name.removeprefix(_PREFIX): int(what[1])
        for name, what in api()["cupy.cuda.runtime"].items()
        if name.startswith(_PREFIX)
    } | {"ComputeCapabilityMajor": 75, "ComputeCapabilityMinor": 76}


def attributes_of(told: Mapping[str, Any]) -> dict[str, int]:
    """``Device.attributes`` of a device of which a server told these figures.

    >>> attributes_of({"multi_processor_count": 132})["MultiProcessorCount"]
    132
    """
    found = dict.fromkeys(attribute_names(), 0) | _FIXED
    for name, (theirs, instead) in _TOLD.items():
        found[name] = int(told.get(theirs, instead))
    return found


def properties_of(
    told: Mapping[str, Any], name: str, memory_nbytes: int
) -> dict[str, Any]:
    """What ``getDeviceProperties`` answers.

    Args:
        told: the server's figures.
        name: what the device is called.
        memory_nbytes: the slice's quota.
    """
    attributes = attributes_of(told)
    return {
        **{key: attributes[attribute] for key, attribute in _PROPERTIES.items()},
        "name": name.encode(),
        "totalGlobalMem": memory_nbytes,
        "maxThreadsDim": tuple(attributes[f"MaxBlockDim{axis}"] for axis in "XYZ"),
        "maxGridSize": tuple(attributes[f"MaxGridDim{axis}"] for axis in "XYZ"),
        "uuid": str(told.get("uuid", "")).encode(),
    }


def _one_attribute(attribute: int, device_id: int) -> int:
    where = cuda.Device(device_id)
    for name, number in attribute_names().items():
        if number == attribute:
            return int(where.attributes[name])
    raise RuntimeError("cudaErrorInvalidValue: invalid argument")


@module("cupy.cuda.runtime")
def fill(m: ModuleType) -> None:
    """Single facts."""
    answers: dict[str, Any] = {
        "deviceGetAttribute": _one_attribute,
        "deviceGetPCIBusId": lambda device_id: cuda.Device(device_id).pci_bus_id,
        "profilerStart": lambda: None,
        "profilerStop": lambda: None,
    }
    for name, answer in answers.items():
        answer.__name__ = name
        setattr(m, name, answer)


@module("cupy")
def fill_top(m: ModuleType) -> None:
    """The pools by their old names, which many programs use."""
    m._default_memory_pool = memory.get_default_memory_pool()  # type: ignore[attr-defined]
    m._default_pinned_memory_pool = memory.get_default_pinned_memory_pool()  # type: ignore[attr-defined]


@module("cupy.cuda.nccl")
def fill_nccl(m: ModuleType) -> None:
    """Not there, as where the library is not installed."""
    m.available = False  # type: ignore[attr-defined]


class RuntimeInfo:
    """What a session runs on; ``print`` shows it."""

    def __init__(self) -> None:
        welcome = device().session.welcome
        self.cupy_version = cupy_version()
        self.numpy_version = np.__version__
        self._rows = [
            ("OS", platform.platform()),
            ("Python Version", platform.python_version()),
            ("CuPy Version", f"{self.cupy_version} (names; xpool on {welcome.server})"),
            ("CuPy Platform", "xpool"),
            ("NumPy Version", self.numpy_version),
            ("Server's Framework", welcome.framework),
            ("Slice's Memory", f"{welcome.memory_nbytes >> 20} MiB"),
            ("Device 0 Name", f"xpool {welcome.device_name} on {welcome.server}"),
            ("Device 0 Compute Capability", cuda.Device(0).compute_capability),
        ]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self._rows) + 2
        return "".join(f"{name:{width}}: {value}\n" for name, value in self._rows)


@own("cupyx.get_runtime_info")
def get_runtime_info(*, full: bool = True) -> RuntimeInfo:
    """What the session is, for people."""
    return RuntimeInfo()


@own("cupy.show_config")
def show_config(*, _full: bool = False) -> None:
    """Print what the session is."""
    print(RuntimeInfo())  # noqa: T201  asked for
