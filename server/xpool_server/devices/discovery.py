"""What ``--devices`` means, and what is there when nobody says.

``cpu``, ``cpu:2``, ``cpu:2,memory=4GiB,cores=1``, ``cuda`` and ``cuda:0,1``. The
framework is imported only where CUDA is asked about.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xpool_protocol.errors import UsageError
from xpool_protocol.quantities import nbytes_from_text

from xpool_server.devices.mig import Instance, instances

MAX_CPU_DEVICES: Final = 64
"""A trial pool on one machine; each is a set of processes with the framework in it."""

_EXAMPLES: Final = "cpu, cpu:2,memory=4GiB, cuda or cuda:0,1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """One device as the registry learns of it."""

    index: int
    """Position among the node's devices, from 0."""
    kind: str
    """``cpu`` or ``cuda``."""
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


def discover(spec: str | None = None) -> list[DeviceInfo]:
    """Devices of this machine, in order.

    Args:
        spec: which ones; None takes every CUDA device, or the CPU if there is none.

    Raises:
        UsageError: not a device list, or a device that is not here.
    """
    if spec is None:
        return _cuda_devices(None) or _cpu_devices(1, None, 0)
    kind, _, rest = spec.strip().partition(":")
    if kind == "cuda":
        devices = _cuda_devices(_indices(rest, spec) if rest else None)
        if not devices:
            raise UsageError(
                "the framework sees no CUDA device here: check the driver,"
                " or serve the CPU with --devices cpu"
            )
        return devices
    kind, *options = spec.strip().split(",")
    name, _, count = kind.partition(":")
    if name != "cpu":
        raise _unreadable(spec)
    chosen = _options(options, spec)
    memory = chosen.get("memory")
    return _cpu_devices(
        _count(count, spec),
        None if memory is None else nbytes_from_text(memory),
        _number(chosen.get("cores", "0"), spec),
    )


def _unreadable(spec: str) -> UsageError:
    return UsageError(f"{spec!r} is not a device list: write for instance {_EXAMPLES}")


def _number(text: str, spec: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 6:
        raise _unreadable(spec)
    return int(text)


def _indices(text: str, spec: str) -> list[int]:
    indices = [_number(one, spec) for one in text.split(",")]
    if len(set(indices)) != len(indices):
        raise UsageError(f"{spec!r} names a device twice")
    return indices


def _count(text: str, spec: str) -> int:
    count = _number(text, spec) if text or ":" in spec else 1
    if not 1 <= count <= MAX_CPU_DEVICES:
        raise UsageError(f"{spec!r} asks for {count} devices: 1 to {MAX_CPU_DEVICES}")
    return count


def _options(options: list[str], spec: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options:
        key, is_set, value = option.partition("=")
        if key not in ("memory", "cores") or not is_set or key in found:
            raise _unreadable(spec)
        found[key] = value
    return found


def _cpu_devices(
    count: int, memory_nbytes: int | None, core_count: int
) -> list[DeviceInfo]:
    each = memory_nbytes or machine_memory_nbytes() // 2 // count
    name = cpu_name()
    cores = _cores(count, core_count)
    return [
        DeviceInfo(
            index=index,
            kind="cpu",
            name=name,
            memory_nbytes=each,
            architecture=platform.machine(),
            torch_device="cpu",
            cores=cores[index],
        )
        for index in range(count)
    ]


def _cores(count: int, each: int) -> list[tuple[int, ...]]:
    """Processors of each device, the last ones first; what is left is for the rest."""
    if each == 0:
        return [()] * count
    ours = sorted(os.sched_getaffinity(0), reverse=True)
    if count * each > len(ours):
        raise UsageError(
            f"{count} devices of {each} processors need {count * each}: this machine"
            f" gives {len(ours)}"
        )
    return [tuple(ours[i * each : (i + 1) * each]) for i in range(count)]


def _cuda_devices(indices: list[int] | None) -> list[DeviceInfo]:
    divided = _divided_devices() if indices is None else []
    if divided:
        return divided
    import torch

    count = torch.cuda.device_count()
    chosen = range(count) if indices is None else indices
    if any(index >= count for index in chosen):
        raise UsageError(
            f"the framework sees {count} CUDA devices here, numbered from 0:"
            f" cuda:{','.join(map(str, chosen))} is out of range"
        )
    found = []
    for position, index in enumerate(chosen):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            DeviceInfo(
                index=position,
                kind="cuda",
                name=properties.name,
                memory_nbytes=properties.total_memory,
                torch_device=f"cuda:{index}",
                architecture=f"sm_{properties.major}{properties.minor}",
            )
        )
    return found


def _divided_devices() -> list[DeviceInfo]:
    """Every MIG instance and whole GPU; empty if no GPU here is divided."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):  # no driver, or it does not answer
        return []
    found = instances(listing)
    return devices_of(found) if any(one.profile for one in found) else []


def devices_of(found: Sequence[Instance]) -> list[DeviceInfo]:
    """Instances as devices: of those whose memory nobody tells there is none."""
    return [
        DeviceInfo(
            index=index,
            kind="cuda",
            name=one.name,
            memory_nbytes=one.memory_nbytes or 0,
            torch_device="cuda:0",
            visible=one.uuid,
        )
        for index, one in enumerate(one for one in found if one.memory_nbytes)
    ]


def machine_memory_nbytes() -> int:
    """Memory of this machine, or of the container around us if that is less."""
    nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:  # no control groups of version 2
        return nbytes
    return min(nbytes, int(limit)) if limit.isdecimal() else nbytes


def cpu_name() -> str:
    """The processor's name for people; ``CPU`` where the kernel tells none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next((name for name in names if name), "CPU")
