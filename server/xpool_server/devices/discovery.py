"""What ``--devices`` means, and what is there when nobody says.

``cpu``, ``cpu:2``, ``cpu:2,memory=4GiB,cores=1``, ``cuda``, ``cuda:0,1``, and the same
of other accelerators: ``npu:0,1``, ``npu:0,memory=32GiB``. The framework is imported
only where an accelerator is asked about.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from xpool_protocol.errors import UsageError
from xpool_protocol.quantities import nbytes_from_text

from xpool_server.devices.accelerators import accelerator_devices, current_kind
from xpool_server.devices.device_info import DeviceInfo
from xpool_server.devices.kinds import KINDS, check_kind
from xpool_server.devices.mig import Instance, instances

__all__ = ["DeviceInfo", "cpu_name", "discover", "machine_memory_nbytes"]

MAX_CPU_DEVICES: Final = 64
"""A trial pool on one machine; each is a set of processes with the framework in it."""

_EXAMPLES: Final = "cpu, cpu:2,memory=4GiB, cuda, cuda:0,1 or npu:0"


def discover(
    spec: str | None = None, accelerator: str = "", modules: Sequence[str] = ()
) -> list[DeviceInfo]:
    """Devices of this machine, in order.

    Args:
        spec: which ones; None takes every device of the accelerator, or the CPU if
            there is none.
        accelerator: kind of accelerator of this machine; empty: what torch finds.
        modules: Python modules that bring it.

    Raises:
        UsageError: not a device list, or a device that is not here.
    """
    if accelerator:
        check_kind(accelerator)
    if spec is None:
        return _whatever(accelerator, modules)
    kind, _, rest = spec.strip().partition(":")
    if kind == "cuda":
        devices = _cuda_devices(_indices(rest, spec) if rest else None)
        if not devices:
            raise UsageError(
                "the framework sees no CUDA device here: check the driver,"
                " or serve the CPU with --devices cpu"
            )
        return devices
    kind = spec.strip().split(",")[0].partition(":")[0]
    if kind and kind in (accelerator, *KINDS):
        return _accelerators(spec.strip(), modules)
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


def _whatever(accelerator: str, modules: Sequence[str]) -> list[DeviceInfo]:
    """What is offered when nobody says."""
    if accelerator not in ("", "cuda"):
        return _some(accelerator, None, modules, None)
    found = _cuda_devices(None)
    kind = None if found or accelerator else current_kind()
    if kind is not None:
        found = accelerator_devices(kind, None, modules)
    return found or _cpu_devices(1, None, 0)


def _accelerators(spec: str, modules: Sequence[str]) -> list[DeviceInfo]:
    """Of ``npu``, ``npu:0,1`` and ``npu:0,memory=32GiB``."""
    parts = spec.split(",")
    numbers = [one for one in parts if "=" not in one]
    chosen = _options(parts[len(numbers) :], spec)
    kind, colon, first = numbers[0].partition(":")
    if "cores" in chosen or (len(numbers) > 1 and not colon):
        raise _unreadable(spec)
    indices = _indices(",".join((first, *numbers[1:])), spec) if colon else None
    memory = chosen.get("memory")
    nbytes = None if memory is None else nbytes_from_text(memory)
    return _some(kind, indices, modules, nbytes)


def _some(
    kind: str,
    indices: list[int] | None,
    modules: Sequence[str],
    memory_nbytes: int | None,
) -> list[DeviceInfo]:
    devices = accelerator_devices(kind, indices, modules, memory_nbytes)
    if not devices:
        raise UsageError(
            f"the framework sees no {kind.upper()} device here: check the driver, or"
            " serve the CPU with --devices cpu"
        )
    return devices


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
    return accelerator_devices("cuda", indices)


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
            vendor="nvidia",
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
