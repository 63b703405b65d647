"""The CPU as a device: the reference backend, there on every machine."""

# ruff: noqa: D102  the interface in base.py documents the methods

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

import torch
from xpool_protocol.messages import Payload

from xpool_server.devices.base import Backend
from xpool_server.devices.discovery import cpu_name
from xpool_server.lane import Destination

SLACK_NBYTES: Final = 1 << 30
"""Memory beyond twice the quota: threads' stacks, buffers, the interpreter."""


class CpuBackend(Backend):
    """Storages are plain memory; every operation has run when its call returns."""

    kind = "cpu"
    is_thread_time: ClassVar[bool] = True
    dispatch_keys = ("CPU", "SparseCPU", "SparseCsrCPU")
    plain_arguments: ClassVar[tuple[str, ...]] = (
        # A GPU converts inside these kernels.
        "aten::_softmax?half_to_float",
        "aten::_log_softmax?half_to_float",
        "aten::_softmax_backward_data?input_dtype",
        "aten::_log_softmax_backward_data?input_dtype",
        # It counts integers, too.
        "aten::histc?self",
    )

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.name = cpu_name()
        self._busy_ns = 0
        self._begun_ns: int | None = None
        self.warm_up()

    def properties(self, quota_nbytes: int) -> Mapping[str, str | int | float]:
        return {
            "name": self.name,
            "major": 0,
            "minor": 0,
            "total_memory": quota_nbytes,
            "multi_processor_count": os.cpu_count() or 1,
        }

    def limit_memory(self, quota_nbytes: int) -> None:
        """Bound the process's data, as no allocator of the CPU has a limit.

        Twice the quota: operations need room for results not yet charged and for
        scratch memory beside the storages.
        """
        nbytes = _data_nbytes() + 2 * quota_nbytes + SLACK_NBYTES
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            nbytes = min(nbytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (nbytes, hard))

    def write(self, storage: torch.UntypedStorage, offset: int, data: Payload) -> None:
        if len(data):
            _memory(storage, offset, len(data))[:] = data

    def read(self, storage: torch.UntypedStorage, offset: int, nbytes: int) -> bytes:
        return bytes(_memory(storage, offset, nbytes)) if nbytes else b""

    def destination(self, storage: torch.UntypedStorage, offset: int) -> Destination:
        return _OwnMemory(storage, offset)

    def parts(
        self, storage: torch.UntypedStorage, offset: int, nbytes: int
    ) -> Iterator[Payload]:
        if nbytes:
            yield _memory(storage, offset, nbytes)

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    def default_generator(self) -> torch.Generator:
        return torch.default_generator

    def begin_work(self) -> None:
        self._begun_ns = time.thread_time_ns()

    def end_work(self) -> None:
        self._busy_ns = self.busy_ns
        self._begun_ns = None

    def add_busy(self, busy_ns: int) -> None:
        self._busy_ns += busy_ns

    @property
    def busy_ns(self) -> int:
        """Time of the calling thread; helpers of a parallel operation do not count."""
        if self._begun_ns is None:
            return self._busy_ns
        return self._busy_ns + time.thread_time_ns() - self._begun_ns


class _OwnMemory:
    """Receives straight into a storage, and keeps it alive meanwhile."""

    def __init__(self, storage: torch.UntypedStorage, offset: int) -> None:
        self._storage = storage
        self._offset = offset

    def room(self, at: int, nbytes: int) -> memoryview:
        return _memory(self._storage, self._offset + at, nbytes)

    def filled(self, at: int, nbytes: int) -> None:
        """It is where it belongs."""

    def close(self) -> None:
        """Nothing is under way."""


def _memory(storage: torch.UntypedStorage, offset: int, nbytes: int) -> memoryview:
    """The storage's own bytes; it must outlive the view."""
    array = (ctypes.c_ubyte * nbytes).from_address(storage.data_ptr() + offset)
    return memoryview(array).cast("B")


def _data_nbytes() -> int:
    """What RLIMIT_DATA counts of this process now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0
