"""The figures of ``torch.cuda.memory``: its own functions over the slice's ledger.

torch's Python functions are kept; what is given to them are the ``_cuda_*`` functions
of the C library that they ask. There is no cache between a job and its quota, so what
is allocated, active and reserved is one figure; it stands under ``large_pool``.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any, Final

import torch

from xpool.torch.devices import Devices

Numbers = dict[str, int]

_BYTES: Final = ("allocated_bytes", "reserved_bytes", "active_bytes", "requested_bytes")
_COUNTS: Final = ("allocation", "active", "segment")
_UNUSED: Final = ("inactive_split", "inactive_split_bytes")
_ACCUMULATED: Final = (
    "allocation_count",
    "allocated_total",
    "released_count",
    "released_total",
    "refused_count",
)
FIRST_ADDRESS: Final = 1 << 60
"""Where addresses of remote storages begin."""


def _numbers(current: int, peak: int, allocated: int, freed: int) -> Numbers:
    return {"current": current, "peak": peak, "allocated": allocated, "freed": freed}


_NOTHING: Final = _numbers(0, 0, 0, 0)


def _pools(numbers: Numbers) -> dict[str, Numbers]:
    return {
        "all": dict(numbers),
        "small_pool": dict(_NOTHING),
        "large_pool": dict(numbers),
    }


class MemoryStatistics:
    """What the ``_cuda_*Memory*`` functions of a CUDA build answer."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._baselines = [dict.fromkeys(_ACCUMULATED, 0) for _ in devices.remotes]
        self._metadata = ""

    def counters(self, device: Any = None) -> Numbers:
        """The counters of a device's ledger, with bytes released so far."""
        counters = self._devices[device].library.memory()
        released = counters["allocated_total"] - counters["allocated"]
        return {**counters, "released_total": released}

    def nested(self, device: int = 0) -> dict[str, Any]:
        """``memory_stats_as_nested_dict``, with the keys of torch's allocator."""
        counters, baseline = self.counters(device), self._baselines[device]
        since = {name: counters[name] - baseline[name] for name in _ACCUMULATED}
        live = counters["allocation_count"] - counters["released_count"]
        nbytes = _numbers(
            counters["allocated"],
            counters["peak"],
            since["allocated_total"],
            since["released_total"],
        )
        count = _numbers(
            live,
            counters["peak_count"],
            since["allocation_count"],
            since["released_count"],
        )
        return {
            "num_alloc_retries": 0,
            "num_ooms": since["refused_count"],
            "max_split_size": -1,
            "num_sync_all_streams": 0,
            "num_device_alloc": since["allocation_count"],
            "num_device_free": since["released_count"],
            "num_oom_rejections": 0,
            **{name: _pools(count) for name in _COUNTS},
            **{name: _pools(nbytes) for name in _BYTES},
            **{name: _pools(_NOTHING) for name in _UNUSED},
            "oversize_allocations": dict(_NOTHING),
            "oversize_segments": dict(_NOTHING),
            "reserved_bytes_by_private_pools": {},
        }

    def reset_accumulated(self, device: int = 0) -> None:
        """Let the historical sums begin again at 0."""
        counters = self.counters(device)
        self._baselines[device] = {name: counters[name] for name in _ACCUMULATED}

    def reset_peak(self, device: int = 0) -> None:
        """Let the peaks begin again at what is there now."""
        self._devices[device].library.reset_peak_memory()

    def snapshot(self, mempool_id: object = None) -> dict[str, Any]:
        """Each device's memory as one segment of one block: no list is kept here."""
        segments = [
            _segment(device, nbytes)
            for device in range(len(self._devices.remotes))
            if (nbytes := self.counters(device)["allocated"])
        ]
        return {
            "segments": segments,
            "device_traces": [[] for _ in self._devices.remotes],
            "external_annotations": [],
            "allocator_settings": {
                "PYTORCH_CUDA_ALLOC_CONF": "",
                "max_split_size": -1,
                "garbage_collection_threshold": 0.0,
                "expandable_segments": False,
                "pinned_num_register_threads": 1,
                "release_lock_on_cudamalloc": False,
                "pinned_use_cuda_host_register": False,
                "roundup_power2_divisions": {},
            },
        }

    def record_history(self, enabled: object = "all", *_: Any, **__: Any) -> None:
        """Say that no history of allocations is kept."""
        if enabled:
            warnings.warn(
                "xpool: the history of allocations on a remote device is not recorded;"
                " a snapshot holds the sums of now",
                stacklevel=4,
            )

    def free_and_total(self, device: Any = None) -> tuple[int, int]:
        """Bytes that the quota still holds, and the quota."""
        counters = self.counters(device)
        return counters["quota"] - counters["allocated"], counters["quota"]

    def get_metadata(self) -> str:
        """What ``_cuda_setMemoryMetadata`` was told."""
        return self._metadata

    def set_metadata(self, metadata: str) -> None:
        """Keep a text; no snapshot has a place for it."""
        self._metadata = metadata


def _segment(device: int, nbytes: int) -> dict[str, Any]:
    block = {
        "size": nbytes,
        "requested_size": nbytes,
        "address": FIRST_ADDRESS,
        "state": "active_allocated",
        "frames": [],
    }
    return {
        "device": device,
        "address": FIRST_ADDRESS,
        "total_size": nbytes,
        "allocated_size": nbytes,
        "active_size": nbytes,
        "requested_size": nbytes,
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": [block],
    }


_HOST_STATISTICS: Final[dict[str, Any]] = {
    **{
        name: dict(_NOTHING)
        for name in (
            "allocations",
            "allocated_bytes",
            "active_requests",
            "active_bytes",
            "segment",
            "reserved_bytes",
        )
    },
    "num_host_alloc": 0,
    "num_host_free": 0,
    **{
        name: {"total": 0, "max": 0, "min": 0, "count": 0, "avg": 0}
        for name in ("host_alloc_time", "host_free_time")
    },
}
"""Pinned memory is ordinary memory here: its allocator has no pool to count."""


def patch_memory(devices: Devices) -> None:
    """Give ``torch.cuda.memory`` the functions that it expects of a CUDA build."""
    statistics = MemoryStatistics(devices)
    core: Any = torch._C
    core._cuda_memoryStats = statistics.nested
    core._cuda_resetAccumulatedMemoryStats = statistics.reset_accumulated
    core._cuda_resetPeakMemoryStats = statistics.reset_peak
    core._cuda_memorySnapshot = statistics.snapshot
    core._cuda_record_memory_history = statistics.record_history
    core._cuda_record_memory_history_legacy = statistics.record_history
    core._cuda_isHistoryEnabled = lambda: False
    core._cuda_allocationTraceback = lambda data_ptr: None
    core._cuda_setMemoryMetadata = statistics.set_metadata
    core._cuda_getMemoryMetadata = statistics.get_metadata
    core._cuda_hostMemoryStats = lambda: copy.deepcopy(_HOST_STATISTICS)
    core._cuda_resetAccumulatedHostMemoryStats = lambda: None
    core._cuda_resetPeakHostMemoryStats = lambda: None
    core._cuda_emptyCache = lambda: None
    core._cuda_getAllocatorBackend = lambda: "native"
    core._cuda_cudaCachingAllocator_enable = lambda value: None
    core._cuda_cudaCachingAllocator_is_enabled = lambda: True
    _patch_fraction(core)
    for module in (torch.cuda, importlib.import_module("torch.cuda.memory")):
        vars(module)["mem_get_info"] = statistics.free_and_total
        vars(module)["list_gpu_processes"] = lambda device=None: (
            f"GPU:{devices.index_of(device)}\nprocess of this job uses"
            f" {statistics.counters(device)['allocated'] / 1e6:10.3f} MB GPU memory"
        )
    vars(torch.cuda)["device_memory_used"] = lambda device=None: statistics.counters(
        device
    )["allocated"]


def _patch_fraction(core: Any) -> None:
    """A fraction that a program sets for itself is kept; the quota is the limit."""
    fractions: dict[int, float] = {}

    def set_fraction(fraction: float, device: int) -> None:
        fractions[device] = fraction

    core._cuda_setMemoryFraction = set_fraction
    core._cuda_getMemoryFraction = lambda device: fractions.get(device, 1.0)
