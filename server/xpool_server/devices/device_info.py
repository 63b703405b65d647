"""What is known of a device before anybody opens it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """One device as the registry learns of it."""

    index: int
    """Position among the node's devices, from 0."""
    kind: str
    """``cpu``, ``cuda`` or another device type of torch, for instance ``npu``."""
    name: str
    memory_nbytes: int
    torch_device: str
    """What a worker is started with: ``cpu``, ``cuda:1``."""
    visible: str = ""
    """``CUDA_VISIBLE_DEVICES`` of its workers: an instance of a divided GPU."""
    cores: tuple[int, ...] = ()
    """Processors that operations are held to; empty: any."""
    architecture: str = ""
    """As its vendor counts: ``sm_90``, ``x86_64``."""
    vendor: str = ""
    """``nvidia``, ``huawei``; empty: nobody knows, or it is the CPU."""
