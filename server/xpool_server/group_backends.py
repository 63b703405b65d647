"""The library that carries out a process group's collectives, by kind of device."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch.distributed
from xpool_protocol.errors import OperationUnknown

dist: Any = torch.distributed  # what it exports is not what its types say


def made_backend(
    kind: str, store: Any, rank: int, size: int, timeout: timedelta, host: str
) -> Any:
    """The library's own group; returns when all ranks have met."""
    if kind == "cuda":
        # So that a lost peer is an exception here and not the end of this process.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        return dist.ProcessGroupNCCL(store, rank, size, options)
    if kind != "cpu":
        return _vendors_backend(kind, store, rank, size, timeout)
    gloo = dist.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._threads = 1
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  compared only
        options._devices = [gloo.create_default_device()]
    else:
        options._devices = [gloo.create_device(hostname=host)]
    return gloo(store, rank, size, options)


def _vendors_backend(
    kind: str, store: Any, rank: int, size: int, timeout: timedelta
) -> Any:
    """What a vendor's module has registered with torch for its kind of device.

    Raises:
        OperationUnknown: it has registered nothing that can be made from these.
    """
    name = dist.Backend.default_device_backend_map.get(kind, "")
    plugin = dist.Backend._plugins.get(name.upper())
    if plugin is None or plugin.extended_api:
        raise OperationUnknown(
            f"collectives among {kind} devices are not known to this server: torch"
            f" {torch.__version__} has no backend for them that can be made here; run"
            " the job on one device"
        )
    return plugin.creator_fn(store, rank, size, timeout)
