"""Any accelerator that torch reaches by a device module: ``torch.cuda``, ``torch.npu``.

What these modules have in common is used and nothing else: devices, events that tell
times, memory figures, generators. What one of them cannot tell is said in ``remarks``.
"""

# ruff: noqa: D102  the interface in base.py documents the methods

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import torch
from xpool_protocol import limits
from xpool_protocol.errors import UsageError
from xpool_protocol.messages import Payload

from xpool_server.devices.base import Backend
from xpool_server.devices.kinds import name_of, properties_of, total_memory_nbytes
from xpool_server.devices.pinned import Intake, SlotPool, outflow
from xpool_server.devices.spans import Event, HostEvent, Spans
from xpool_server.lacking import has_fallback
from xpool_server.lane import PART_NBYTES, Destination

_PROCESSORS: Final = (
    "multi_processor_count",
    "max_compute_units",
    "gpu_eu_count",
    "cube_core_num",
    "vector_core_num",
    "cluster_count",
)
"""Vendors' names for the number of processors; the first that there is counts."""

_CANNOT: Final = (AttributeError, NotImplementedError, RuntimeError, TypeError)
"""How a module says that it cannot do something."""


class AcceleratorBackend(Backend):
    """Storages lie in device memory; bytes pass through pinned buffers."""

    def __init__(self, device: torch.device, module: Any) -> None:
        """Open a device.

        Args:
            device: with its number, if its kind has numbers.
            module: torch's, of its kind.

        Raises:
            UsageError: it is not here, or the module lacks what nobody can do without.
        """
        index, count = device.index or 0, module.device_count()
        if index >= count:
            raise UsageError(
                f"{device} is not here: the framework sees {count}"
                f" {device.type.upper()} devices"
            )
        self.kind = device.type
        self.dispatch_keys = dispatch_keys(device.type)
        self.draws_on_host = has_fallback(self.dispatch_keys[0])
        self.device, self._index, self._module = device, index, module
        module.set_device(device)
        if not hasattr(module, "default_generators"):
            raise UsageError(
                f"the module of {device.type} devices, {module.__name__}, has no"
                " default_generators: a newer release of it may have them"
            )
        self.name = name_of(module, index, device.type)
        self._total_nbytes = total_memory_nbytes(module, index)
        self._staging, is_pinned = host_buffer(limits.CHUNK_NBYTES)
        self.warm_up()
        timed, plain = self._event_makers()
        self._spans = Spans(timed)
        self._slots = SlotPool(partial(_Slot, device, module, plain))
        self.remarks = tuple(self._remarks(is_pinned=is_pinned, timed=timed))

    def _event_makers(self) -> tuple[Callable[[], Event], Callable[[], Event]]:
        """What makes events that tell times, and others."""
        module = self._module
        try:
            timed: Callable[[], Event] = partial(module.Event, enable_timing=True)
            first, last = timed(), timed()
            first.record()
            last.record()
            last.synchronize()
            first.elapsed_time(last)
        except _CANNOT:
            marks = partial(HostEvent, self.synchronize)
            return marks, marks
        return timed, module.Event

    def _remarks(self, *, is_pinned: bool, timed: Callable[[], Event]) -> Iterator[str]:
        """What cannot be known of the device, or done with it."""
        if isinstance(timed(), HostEvent):
            yield "its events tell no times: each piece of work is waited for"
        if not is_pinned:
            yield "it copies from no pinned memory: transfers are slower"
        if not hasattr(self._module, "set_per_process_memory_fraction"):
            yield "its allocator has no limit: the quota counts storages alone"
        if self._total_nbytes is None:
            yield "it does not tell its memory's size: --devices has said it"

    def properties(self, quota_nbytes: int) -> Mapping[str, str | int | float]:
        told = properties_of(self._module, self._index)
        processors = (getattr(told, one, None) for one in _PROCESSORS)
        return {
            "name": self.name,
            "major": _number(told, "major"),
            "minor": _number(told, "minor"),
            "total_memory": quota_nbytes,
            "multi_processor_count": next(
                (one for one in processors if isinstance(one, int) and one > 0), 1
            ),
        }

    def limit_memory(self, quota_nbytes: int) -> None:
        """The allocator's own limit, its cache and its workspaces included.

        It gives its cache back before it refuses, so that nothing is taken from a
        neighbour whose quota holds the rest of the device.
        """
        limit = getattr(self._module, "set_per_process_memory_fraction", None)
        if limit is not None and self._total_nbytes:
            limit(min(1.0, quota_nbytes / self._total_nbytes), self.device)

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

        def fetch(slot: _Slot, at: int, nbytes: int) -> None:
            start = offset + at
            slot.copy(target[start : start + nbytes], slot.tensor[:nbytes])

        return Intake(self._slots, fetch)

    def parts(
        self, storage: torch.UntypedStorage, offset: int, nbytes: int
    ) -> Iterator[Payload]:
        source = self._bytes_of(storage)

        def fill(slot: _Slot, at: int, nbytes: int) -> None:
            start = offset + at
            slot.copy(slot.tensor[:nbytes], source[start : start + nbytes])

        return outflow(self._slots, fill, nbytes, PART_NBYTES)

    def _bytes_of(self, storage: torch.UntypedStorage) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device=self.device).set_(storage)

    def synchronize(self) -> None:
        self._module.synchronize(self.device)

    @property
    def overhead_nbytes(self) -> int:
        with suppress(*_CANNOT):
            reserved: int = self._module.memory_reserved(self.device)
            allocated: int = self._module.memory_allocated(self.device)
            return self.context_nbytes + max(0, reserved - allocated)
        return self.context_nbytes

    def default_generator(self) -> torch.Generator:
        generator: torch.Generator = self._module.default_generators[self._index]
        return generator

    def begin_work(self) -> None:
        self._spans.begin()

    def end_work(self) -> None:
        self._spans.end()

    def wait_for_chunks(self, in_flight: int) -> None:
        self._spans.wait_for(in_flight)

    def take_spans(self) -> list[int]:
        return self._spans.take()

    @property
    def busy_ns(self) -> int:
        """From a batch's first operation to its last, as the device's clock saw it."""
        return self._spans.busy_ns


class _Slot:
    """A buffer that the device copies from or to, and its copy under way."""

    def __init__(
        self, device: torch.device, module: Any, new_event: Callable[[], Event]
    ) -> None:
        self.tensor, self._is_pinned = host_buffer(PART_NBYTES)
        self.view = memoryview(self.tensor.numpy().data)
        self._device, self._module, self._new_event = device, module, new_event
        self._copied: Event | None = None

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Begin a copy; behind everything that the device was given before."""
        self._module.set_device(self._device)  # of this thread
        target.copy_(source, non_blocking=self._is_pinned)
        self._copied = self._new_event()
        self._copied.record()

    def wait(self) -> None:
        copied, self._copied = self._copied, None
        if copied is not None:
            copied.synchronize()


def host_buffer(nbytes: int) -> tuple[torch.Tensor, bool]:
    """Memory that the device can copy from by itself, if there is such; and whether."""
    try:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True), True
    except _CANNOT:
        return torch.empty(nbytes, dtype=torch.uint8), False


def dispatch_keys(kind: str) -> tuple[str, ...]:
    """Torch's keys for tensors of a kind of device, dense ones first.

    >>> dispatch_keys("xpu")
    ('XPU', 'SparseXPU', 'SparseCsrXPU')
    """
    is_vendors = kind == torch._C._get_privateuse1_backend_name()
    base = "PrivateUse1" if is_vendors else kind.upper()
    names = (base, f"Sparse{base}", f"SparseCsr{base}")
    return tuple(one for one in names if _is_key(one))


def _is_key(name: str) -> bool:
    try:
        torch._C._dispatch_has_computed_kernel_for_dispatch_key(
            "aten::add.Tensor", name
        )
    except RuntimeError:
        return False
    return True


def _number(told: Any, name: str) -> int:
    value = getattr(told, name, 0)
    return value if isinstance(value, int) else 0
