"""A vendor's extension: after ``import abacus_for_torch`` torch has ``abacus`` devices.

Named to ``xpool server`` with ``--accelerator abacus --accelerator-module
abacus_for_torch``; nothing of xpool's knows it. See ``abacus.cpp``.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch
from abacus_build import LIBRARY

KIND = "abacus"
COUNT = 2


def Event(*, enable_timing: bool = False) -> torch.Event:
    """A mark in a device's queue."""
    return torch.Event(KIND, enable_timing=enable_timing)


Stream = torch.Stream


def is_available() -> bool:
    return True


def is_initialized() -> bool:
    return True


def device_count() -> int:
    return COUNT


def current_device() -> int:
    return int(torch.ops.abacus.device())


def set_device(device: torch.device | int) -> None:
    torch.ops.abacus.set_device(_index(device))


def get_device_name(device: torch.device | int = 0) -> str:
    return "Abacus 910"


def get_device_properties(device: torch.device | int = 0) -> Any:
    return SimpleNamespace(
        name="Abacus 910",
        total_memory=torch.ops.abacus.memory_nbytes(),
        cube_core_num=24,
        architecture="abacus9",
    )


def mem_get_info(device: torch.device | int = 0) -> tuple[int, int]:
    total = torch.ops.abacus.memory_nbytes()
    return total - memory_allocated(device), total


def memory_allocated(device: torch.device | int = 0) -> int:
    return int(torch.ops.abacus.allocated(_index(device)))


def memory_reserved(device: torch.device | int = 0) -> int:
    """In whole pages of 2 MiB."""
    return -(-memory_allocated(device) >> 21) << 21


def set_per_process_memory_fraction(
    fraction: float, device: torch.device | int = 0
) -> None:
    nbytes = int(fraction * torch.ops.abacus.memory_nbytes())
    torch.ops.abacus.limit(_index(device), nbytes)


def synchronize(device: torch.device | int = 0) -> None:
    torch.ops.abacus.synchronize(_index(device))


def manual_seed_all(seed: int) -> None:
    for one in default_generators:
        one.manual_seed(seed)


def _is_in_bad_fork() -> bool:
    return False


def _index(device: torch.device | int) -> int:
    index = device if isinstance(device, int) else device.index
    return current_device() if index is None else index


torch.ops.load_library(LIBRARY.build())
torch.utils.rename_privateuse1_backend(KIND)
torch._register_device_module(KIND, sys.modules[__name__])
default_generators = [torch.ops.abacus.default_generator(one) for one in range(COUNT)]
