"""The modules ``cupy.cuda`` and below."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from xpool.cupy import cuda
from xpool.cupy.device import device
from xpool.cupy.faults import OutOfMemoryError
from xpool.cupy.finder import module


@module("cupy.cuda")
def fill(m: ModuleType) -> None:
    """Device, streams, events."""
    m.Device, m.Stream, m.Event = cuda.Device, cuda.Stream, cuda.Event  # type: ignore[attr-defined]
    m.get_current_stream = lambda device=None: cuda.Stream.null  # type: ignore[attr-defined]
    m.is_available = lambda: True  # type: ignore[attr-defined]
    m.get_elapsed_time = _elapsed  # type: ignore[attr-defined]
    for name in ("compiler", "memory", "device", "stream", "runtime"):
        setattr(m, name, importlib.import_module(f"cupy.cuda.{name}"))


def _elapsed(start: Any, end: Any) -> float:
    """Milliseconds between two events, by the client's clock."""
    if start._recorded_at_s is None or end._recorded_at_s is None:
        raise ValueError("both events must have been recorded")
    return float(end._recorded_at_s - start._recorded_at_s) * 1e3


def _properties(index: int) -> dict[str, Any]:
    """What the runtime says of a device: the slice's figures."""
    welcome = device().session.welcome
    return {
        **welcome.properties,
        "name": f"xpool {welcome.device_name} on {welcome.server}".encode(),
        "totalGlobalMem": welcome.memory_nbytes,
        "multiProcessorCount": welcome.properties.get("multi_processor_count", 1),
        "warpSize": 32,
    }


@module("cupy.cuda.memory")
def fill_memory(m: ModuleType) -> None:
    """The error of a full slice."""
    m.OutOfMemoryError = OutOfMemoryError  # type: ignore[attr-defined]


@module("cupy.cuda.device")
def fill_device(m: ModuleType) -> None:
    """``Device``."""
    m.Device = cuda.Device  # type: ignore[attr-defined]


@module("cupy.cuda.stream")
def fill_stream(m: ModuleType) -> None:
    """Streams and events."""
    m.Stream, m.Event = cuda.Stream, cuda.Event  # type: ignore[attr-defined]
    m.get_current_stream = lambda device=None: cuda.Stream.null  # type: ignore[attr-defined]
    m.get_elapsed_time = _elapsed  # type: ignore[attr-defined]


@module("cupy.cuda.runtime")
def fill_runtime(m: ModuleType) -> None:
    """The few calls of the runtime that programs make themselves."""
    m.is_hip = False  # type: ignore[attr-defined]
    m.getDeviceCount = lambda: 1  # type: ignore[attr-defined]
    m.getDevice = lambda: 0  # type: ignore[attr-defined]
    m.setDevice = cuda.Device  # type: ignore[attr-defined]
    m.getDeviceProperties = _properties  # type: ignore[attr-defined]
    m.deviceSynchronize = lambda: cuda.Device(0).synchronize()  # type: ignore[attr-defined]
