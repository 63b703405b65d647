"""The devices of a kind of accelerator, as torch's module of it counts them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from xpool_protocol.errors import UsageError

from xpool_server.devices.device_info import DeviceInfo
from xpool_server.devices.kinds import (
    NO_ACCELERATORS,
    device_module,
    name_of,
    properties_of,
    total_memory_nbytes,
    vendor_of,
)


def accelerator_devices(
    kind: str,
    indices: Sequence[int] | None = None,
    modules: Sequence[str] = (),
    memory_nbytes: int | None = None,
) -> list[DeviceInfo]:
    """Devices of this machine, in the order named.

    Args:
        kind: device type of torch.
        indices: as torch counts; None: every one.
        modules: Python modules that bring the kind.
        memory_nbytes: to offer of each; None: all that it has.

    Raises:
        UsageError: there is no such kind or device here, or nobody knows its memory.
    """
    module = device_module(kind, modules)
    count = module.device_count()
    chosen = range(count) if indices is None else indices
    if any(index >= count for index in chosen):
        raise UsageError(
            f"the framework sees {count} {kind.upper()} devices here, numbered from 0:"
            f" {kind}:{','.join(map(str, chosen))} is out of range"
        )
    return [
        DeviceInfo(
            index=position,
            kind=kind,
            name=name_of(module, index, kind),
            memory_nbytes=_offered(
                f"{kind}:{index}", total_memory_nbytes(module, index), memory_nbytes
            ),
            torch_device=f"{kind}:{index}",
            architecture=_architecture(module, index, kind),
            vendor=_vendor(kind),
        )
        for position, index in enumerate(chosen)
    ]


def current_kind() -> str | None:
    """The kind of accelerator that torch has found here by itself, if there is one."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    kind = None if found is None else found.type
    return None if kind in NO_ACCELERATORS else kind


def _offered(name: str, has_nbytes: int | None, asked_nbytes: int | None) -> int:
    if has_nbytes is None and asked_nbytes is None:
        raise UsageError(
            f"its module does not tell how much memory {name} has: say it, for"
            f" instance --devices {name},memory=32GiB"
        )
    if has_nbytes is None or asked_nbytes is None:
        return asked_nbytes or has_nbytes or 0
    if asked_nbytes > has_nbytes:
        raise UsageError(
            f"{name} has {has_nbytes} bytes, and {asked_nbytes} were asked"
        )
    return asked_nbytes


def _architecture(module: object, index: int, kind: str) -> str:
    properties = properties_of(module, index)
    if kind == "cuda":
        return f"sm_{properties.major}{properties.minor}"
    told = getattr(properties, "architecture", "")
    return str(told) if isinstance(told, str | int) else ""


def _vendor(kind: str) -> str:
    torch = sys.modules.get("torch")
    if kind == "cuda" and getattr(getattr(torch, "version", None), "hip", None):
        return "amd"  # its builds of torch say cuda
    return vendor_of(kind)
