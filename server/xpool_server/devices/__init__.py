"""Devices of this machine: which there are, and one backend per kind.

``discover`` is for the node, which may not have the framework imported;
``open_backend`` is for a session worker, which owns one device's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpool_protocol.errors import UsageError

from xpool_server.devices.discovery import DeviceInfo, discover
from xpool_server.devices.kinds import check_kind, device_module

if TYPE_CHECKING:
    # Importing it imports the framework, which a node can do without.
    from xpool_server.devices.base import Backend

__all__ = ["DeviceInfo", "discover", "open_backend"]


def open_backend(torch_device: str, modules: Sequence[str] = ()) -> Backend:
    """The backend of a device, opened and warm: the first operation has run.

    Args:
        torch_device: as ``DeviceInfo.torch_device`` gives it: ``cpu``, ``cuda:0``.
        modules: Python modules that bring its kind, as the operator named them.

    Raises:
        UsageError: no such device here, or no backend for its kind.
    """
    kind, _, index = torch_device.partition(":")
    if torch_device == "cpu":
        from xpool_server.devices.cpu import CpuBackend

        return CpuBackend()
    if not (index.isascii() and index.isdecimal() and len(index) < 4):
        raise _no_device(torch_device)
    if kind == "cuda":
        from xpool_server.devices.cuda import CudaBackend

        return CudaBackend(int(index))
    try:
        check_kind(kind)
    except UsageError:
        raise _no_device(torch_device) from None
    import torch

    from xpool_server.devices.accelerator import AcceleratorBackend

    module = device_module(kind, modules)
    return AcceleratorBackend(torch.device(kind, int(index)), module)


def _no_device(torch_device: str) -> UsageError:
    return UsageError(
        f"{torch_device!r} is no device of a worker: write cpu or cuda:0 or npu:0"
    )
