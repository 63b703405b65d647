"""A CUDA device through torch."""

# ruff: noqa: D102  the interface in base.py documents the methods

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Final

import torch
from xpool_protocol import limits
from xpool_protocol.errors import UsageError
from xpool_protocol.messages import Payload

from xpool_server.devices.base import Backend
from xpool_server.devices.pinned import Intake, SlotPool, outflow
from xpool_server.lane import PART_NBYTES, Destination

MAX_OPEN_SPANS: Final = 256
"""Pairs of device events that wait to be read; the oldest is then waited for."""


_FURTHER_PROPERTIES: Final = (
    "warp_size",
    "max_threads_per_block",
    "max_threads_per_multi_processor",
    "regs_per_multiprocessor",
    "shared_memory_per_block",
    "shared_memory_per_block_optin",
    "shared_memory_per_multiprocessor",
    "L2_cache_size",
)
"""What compilers of kernels ask for; torch's names, where this torch has them."""


class CudaBackend(Backend):
    """Storages lie in device memory; bytes pass through pinned buffers."""

    kind: ClassVar[str] = "cuda"
    dispatch_keys: ClassVar[tuple[str, ...]] = ("CUDA", "SparseCUDA", "SparseCsrCUDA")

    def __init__(self, index: int) -> None:
        count = torch.cuda.device_count()
        if index >= count:
            raise UsageError(
                f"cuda:{index} is not here: the framework sees {count} CUDA devices"
            )
        self.device = torch.device("cuda", index)
        torch.cuda.set_device(self.device)
        self._properties = torch.cuda.get_device_properties(index)
        self.name = self._properties.name
        self._staging = torch.empty(
            limits.CHUNK_NBYTES, dtype=torch.uint8, pin_memory=True
        )
        self._spans: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._begun: torch.cuda.Event | None = None
        self._busy_ns = 0
        self._over: deque[int] = deque(maxlen=MAX_OPEN_SPANS)
        self._slots = SlotPool(partial(_PinnedSlot, self.device))
        self.warm_up()
        self.context_nbytes = _context_nbytes(self.device)

    def properties(self, quota_nbytes: int) -> Mapping[str, str | int | float]:
        device = self._properties
        return {
            "name": device.name,
            "major": device.major,
            "minor": device.minor,
            "total_memory": quota_nbytes,
            "multi_processor_count": device.multi_processor_count,
            **{
                name: getattr(device, name)
                for name in _FURTHER_PROPERTIES
                if hasattr(device, name)
            },
        }

    def limit_memory(self, quota_nbytes: int) -> None:
        """The allocator's own limit, its cache and its workspaces included.

        It gives its cache back before it refuses, so that nothing is taken from a
        neighbour whose quota holds the rest of the device.
        """
        fraction = quota_nbytes / self._properties.total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, fraction), self.device)

    def write(self, storage: torch.UntypedStorage, offset: int, data: Payload) -> None:
        target, source = self._bytes_of(storage), memoryview(data)
        staging = memoryview(self._staging.numpy().data)
        for at in range(0, len(source), limits.CHUNK_NBYTES):
            chunk = source[at : at + limits.CHUNK_NBYTES]
            staging[: len(chunk)] = chunk
            start = offset + at
            target[start : start + len(chunk)].copy_(self._staging[: len(chunk)])

    def read(self, storage: torch.UntypedStorage, offset: int, nbytes: int) -> bytes:
        source, parts = self._bytes_of(storage), []
        for at in range(offset, offset + nbytes, limits.CHUNK_NBYTES):
            count = min(limits.CHUNK_NBYTES, offset + nbytes - at)
            self._staging[:count].copy_(source[at : at + count])
            parts.append(self._staging[:count].numpy().tobytes())
        return b"".join(parts)

    def destination(self, storage: torch.UntypedStorage, offset: int) -> Destination:
        target = self._bytes_of(storage)

        def fetch(slot: _PinnedSlot, at: int, nbytes: int) -> None:
            start = offset + at
            slot.copy(target[start : start + nbytes], slot.tensor[:nbytes])

        return Intake(self._slots, fetch)

    def parts(
        self, storage: torch.UntypedStorage, offset: int, nbytes: int
    ) -> Iterator[Payload]:
        source = self._bytes_of(storage)

        def fill(slot: _PinnedSlot, at: int, nbytes: int) -> None:
            start = offset + at
            slot.copy(slot.tensor[:nbytes], source[start : start + nbytes])

        return outflow(self._slots, fill, nbytes, PART_NBYTES)

    def _bytes_of(self, storage: torch.UntypedStorage) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device=self.device).set_(storage)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    @property
    def overhead_nbytes(self) -> int:
        with suppress(RuntimeError):
            reserved = torch.cuda.memory_reserved(self.device)
            allocated = torch.cuda.memory_allocated(self.device)
            return self.context_nbytes + max(0, reserved - allocated)
        return self.context_nbytes

    def default_generator(self) -> torch.Generator:
        return torch.cuda.default_generators[self.device.index]

    # A device that has failed says so to the next operation or fence, which can tell
    # the client; its clock must not be what ends the session.

    def begin_work(self) -> None:
        with suppress(RuntimeError):
            self._begun = _timestamp()

    def end_work(self) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            return
        with suppress(RuntimeError):
            self._spans.append((begun, _timestamp()))
            if len(self._spans) > MAX_OPEN_SPANS:
                self._spans[0][1].synchronize()
                self._read_spans()

    def wait_for_chunks(self, in_flight: int) -> None:
        with suppress(RuntimeError):
            while len(self._spans) > in_flight:
                self._spans[-1 - in_flight][1].synchronize()
                self._read_spans()

    def _read_spans(self) -> None:
        """Add up the spans that are over."""
        while self._spans and _is_over(self._spans[0][1]):
            begun, ended = self._spans.popleft()
            took_ns = int(begun.elapsed_time(ended) * 1e6)
            self._busy_ns += took_ns
            self._over.append(took_ns)

    def take_spans(self) -> list[int]:
        with suppress(RuntimeError):
            self._read_spans()
        over = list(self._over)
        self._over.clear()
        return over

    @property
    def busy_ns(self) -> int:
        """From a batch's first operation to its last, as the device's clock saw it."""
        with suppress(RuntimeError):
            self._read_spans()
        return self._busy_ns


class _PinnedSlot:
    """A buffer of pinned memory, and the device's copy from or to it."""

    def __init__(self, device: torch.device) -> None:
        self.tensor = torch.empty(PART_NBYTES, dtype=torch.uint8, pin_memory=True)
        self.view = memoryview(self.tensor.numpy().data)
        self._device = device
        self._copied: torch.cuda.Event | None = None

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Begin a copy; behind everything that the device was given before."""
        with torch.cuda.device(self._device):
            target.copy_(source, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def wait(self) -> None:
        copied, self._copied = self._copied, None
        if copied is not None:
            copied.synchronize()


def _context_nbytes(device: torch.device) -> int:
    """What the driver holds for this process beside the allocator's memory.

    0 where the driver's library does not tell (it does not within a container).
    """
    with suppress(ImportError, RuntimeError):
        import pynvml  # type: ignore[import-not-found]

        return context_of_process(pynvml, device.index or 0, os.getpid()) or 0
    return 0


def context_of_process(nvml: Any, index: int, pid: int) -> int | None:
    """A process's memory on a device, less what torch's allocator has reserved.

    Args:
        nvml: the module ``pynvml``.
        index: of the device, as torch counts.
        pid: which process.

    Returns:
        None if the driver does not name the process.
    """
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    for process in processes:
        if process.pid == pid and process.usedGpuMemory is not None:
            reserved = torch.cuda.memory_reserved(index)
            return max(0, int(process.usedGpuMemory) - reserved)
    return None


def _timestamp() -> torch.cuda.Event:
    """A device event, recorded now."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _is_over(event: torch.cuda.Event) -> bool:
    return bool(event.query())  # type: ignore[no-untyped-call]
