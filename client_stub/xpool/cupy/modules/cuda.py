"""The modules ``cupy.cuda`` and below."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from xpool.cupy import cuda, hooks, memory
from xpool.cupy.device import device
from xpool.cupy.faults import CUDARuntimeError, OutOfMemoryError
from xpool.cupy.filling import CLASSES
from xpool.cupy.finder import module
from xpool.cupy.functions import own
from xpool.cupy.modules.device_facts import properties_of
from xpool.cupy.waiting import DeviceSynchronized, waiting

SUBMODULES = (
    *("compiler", "device", "driver", "memory", "memory_hook", "memory_hooks"),
    *("nccl", "nvtx"),
    *("pinned_memory", "profiler", "runtime", "stream"),
)
RUNTIME_VERSION = 13000
"""Of CUDA, as the CuPy whose names these are was built for."""

for _one in (
    *(cuda.Device, cuda.Stream, cuda.Event, cuda.ExternalStream),
    *(memory.MemoryPool, memory.PinnedMemoryPool, memory.MemoryAsyncPool),
    *(memory.PythonFunctionAllocator, memory.CFunctionAllocator),
    hooks.MemoryHook,
):
    CLASSES[f"cupy.cuda.{_one.__name__}"] = _one

own("cupy.get_default_memory_pool")(memory.get_default_memory_pool)
own("cupy.get_default_pinned_memory_pool")(memory.get_default_pinned_memory_pool)
for _function in (
    *(memory.set_allocator, memory.get_allocator, memory.using_allocator),
    *(memory.set_pinned_memory_allocator, cuda.get_current_stream),
    cuda.get_elapsed_time,
):
    own(f"cupy.cuda.{_function.__name__}")(_function)
for _name in ("alloc", "malloc_async", "malloc_managed"):
    own(f"cupy.cuda.{_name}")(memory.refuse_memory)
own("cupy.cuda.alloc_pinned_memory")(memory.alloc_pinned_memory)


@own("cupy.cuda.is_available")
def is_available() -> bool:
    """There is a device."""
    return True


own("cupy.cuda.get_device_id")(cuda.get_device_id)


@own("cupy.cuda.get_local_runtime_version")
def get_local_runtime_version() -> int:
    """Of the CUDA that the names are of."""
    return RUNTIME_VERSION


def _no_path() -> None:
    """CUDA is the server's: there is no folder of it here."""


for _name in ("get_cuda_path", "get_nvcc_path", "get_rocm_path", "get_hipcc_path"):
    own(f"cupy.cuda.{_name}")(_no_path)


def _pinned(name: str) -> None:
    function = getattr(np, name)

    def make(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    make.__doc__ = f"As ``numpy.{name}``: pages are pinned on the server."
    own(f"cupyx.{name}_pinned")(make)


for _name in ("empty", "empty_like", "zeros", "zeros_like"):
    _pinned(_name)


@own("cupyx.allow_synchronize")
@contextlib.contextmanager
def allow_synchronize(allow: bool) -> Iterator[None]:
    """Let this thread wait for the device, or not."""
    before = getattr(waiting, "is_forbidden", False)
    waiting.is_forbidden = not allow
    try:
        yield
    finally:
        waiting.is_forbidden = before


CLASSES["cupyx.DeviceSynchronized"] = DeviceSynchronized


@module("cupy.cuda")
def fill(m: ModuleType) -> None:
    """Its submodules."""
    for name in SUBMODULES:
        setattr(m, name, importlib.import_module(f"cupy.cuda.{name}"))


def _properties(index: int) -> dict[str, Any]:
    """What the runtime says of a device: the slice's figures."""
    welcome = device().members[cuda.check_device_id(index)].session.welcome
    name = f"xpool {welcome.device_name} on {welcome.server}"
    return properties_of(welcome.properties, name, welcome.memory_nbytes)


@module("cupy.cuda.memory")
def fill_memory(m: ModuleType) -> None:
    """Pools, and the error of a full slice."""
    m.OutOfMemoryError = OutOfMemoryError  # type: ignore[attr-defined]
    for name in (
        *("MemoryPool", "MemoryAsyncPool", "set_allocator", "get_allocator"),
        *("using_allocator", "PythonFunctionAllocator", "CFunctionAllocator"),
    ):
        setattr(m, name, getattr(memory, name))
    m.alloc = memory.refuse_memory  # type: ignore[attr-defined]


@module("cupy.cuda.memory_hook")
def fill_hook(m: ModuleType) -> None:
    """The base class."""
    m.MemoryHook = hooks.MemoryHook  # type: ignore[attr-defined]


@module("cupy.cuda.memory_hooks")
def fill_hooks(m: ModuleType) -> None:
    """The two hooks that CuPy has."""
    m.DebugPrintHook = hooks.DebugPrintHook  # type: ignore[attr-defined]
    m.LineProfileHook = hooks.LineProfileHook  # type: ignore[attr-defined]


@module("cupy.cuda.pinned_memory")
def fill_pinned(m: ModuleType) -> None:
    """A pool of nothing."""
    m.PinnedMemoryPool = memory.PinnedMemoryPool  # type: ignore[attr-defined]


@module("cupy.cuda.device")
def fill_device(m: ModuleType) -> None:
    """``Device``."""
    m.Device = cuda.Device  # type: ignore[attr-defined]
    m.get_compute_capability = lambda: cuda.Device().compute_capability  # type: ignore[attr-defined]


@module("cupy.cuda.stream")
def fill_stream(m: ModuleType) -> None:
    """Streams and events."""
    m.Stream, m.Event = cuda.Stream, cuda.Event  # type: ignore[attr-defined]
    m.ExternalStream = cuda.ExternalStream  # type: ignore[attr-defined]
    m.get_current_stream = cuda.get_current_stream  # type: ignore[attr-defined]
    m.get_elapsed_time = cuda.get_elapsed_time  # type: ignore[attr-defined]


@module("cupy.cuda.driver")
def fill_driver(m: ModuleType) -> None:
    """The version alone."""
    m.get_build_version = lambda: RUNTIME_VERSION  # type: ignore[attr-defined]


@module("cupy.cuda.runtime")
def fill_runtime(m: ModuleType) -> None:
    """The few calls of the runtime that programs make themselves."""
    m.is_hip = False  # type: ignore[attr-defined]
    m.CUDARuntimeError = CUDARuntimeError  # type: ignore[attr-defined]
    answers: dict[str, Any] = {
        "getDeviceCount": lambda: len(device().members),
        "getDevice": lambda: cuda.get_device_id(),
        "setDevice": lambda index: cuda.Device(index).use(),
        "getDeviceProperties": _properties,
        "memGetInfo": lambda: cuda.Device().mem_info,
        "deviceSynchronize": lambda: cuda.Device().synchronize(),
        "streamSynchronize": lambda stream: cuda.Device().synchronize(),
        "runtimeGetVersion": lambda: RUNTIME_VERSION,
        "driverGetVersion": lambda: RUNTIME_VERSION,
        "deviceCanAccessPeer": lambda first, second: 0,
    }
    for name, answer in answers.items():
        answer.__name__ = name
        setattr(m, name, answer)


@module("cupy.cuda.nvtx")
def fill_nvtx(m: ModuleType) -> None:
    """Marks for a profiler that looks at a local device: nothing happens."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    for name in ("Mark", "MarkC", "RangePush", "RangePushC", "RangePop"):
        setattr(m, name, nothing)
    m.available = False  # type: ignore[attr-defined]


@module("cupy.cuda.profiler")
def fill_profiler(m: ModuleType) -> None:
    """A profiler that looks at a local device: nothing happens."""
    m.start = m.stop = m.initialize = lambda *_, **__: None  # type: ignore[attr-defined]
