"""Names of a CUDA build that a CPU build lacks: each answers or refuses in a sentence.

What is refused belongs to CUDA's own libraries (handles, raw pointers, compilers of
CUDA source) or asks a sensor of a device that is elsewhere.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable
from typing import Any, Final

import torch

from xpool.torch.devices import Devices

REFUSED: Final = {
    "a library handle of CUDA": (
        "_cuda_getCurrentBlasHandle _cuda_getCurrentSolverHandle"
    ),
    "a raw device pointer": (
        "_cuda_cudaCachingAllocator_raw_alloc _cuda_cudaCachingAllocator_raw_delete"
        " _cuda_cudaHostAllocator"
    ),
    "an allocator of the program's own": (
        "_cuda_customAllocator _cuda_changeCurrentAllocator _cuda_getAllocator"
        " _cuda_getCheckpointState _cuda_setCheckpointPoolState"
        " _cuda_checkPoolLiveAllocations"
    ),
    "a memory pool of its own": (
        "_cuda_beginAllocateToPool _cuda_beginAllocateCurrentThreadToPool"
        " _cuda_beginAllocateCurrentStreamToPool _cuda_endAllocateToPool"
        " _cuda_releasePool"
    ),
    "a kernel in CUDA source": "_cuda_jiterator_compile_and_launch_kernel",
}
"""Functions of ``torch._C``, by what they would need."""

SENSORS: Final = {
    "memory_usage": "how busy its memory is",
    "temperature": "its temperature",
    "power_draw": "its power draw",
    "clock_rate": "its clock rate",
}
"""Functions of ``torch.cuda`` that read a sensor, and which."""

_SETTINGS: Final = {
    "_cuda_{}_sync_debug_mode": 0,
    "_cuda_{}_cudnn_benchmark_limit": 10,
    "_cuda_{}_conv_benchmark_empty_cache": False,
}
_TUNABLE: Final = {
    "is_enabled": False,
    "tuning_is_enabled": False,
    "get_max_tuning_duration": 30,
    "get_max_tuning_iterations": 100,
    "get_filename": "",
    "read_file": False,
    "get_results": (),
    "get_validators": (),
    "get_rotating_buffer_size": 0,
}
_TUNABLE_SETTERS: Final = (
    *("enable", "tuning_enable", "set_max_tuning_duration", "set_filename"),
    *("set_max_tuning_iterations", "set_rotating_buffer_size"),
    "set_numerical_check_tolerances",
)


def patch_cuda_names(devices: Devices) -> None:
    """Fill in what ``torch.cuda`` and ``torch._C`` have in a CUDA build."""
    core: Any = torch._C
    for what, names in REFUSED.items():
        for name in names.split():
            if not hasattr(core, name):
                setattr(core, name, refusal(what))
    _patch_settings(core)
    core._cuda_sleep = lambda cycles: None
    core._cuda_canDeviceAccessPeer = lambda device, peer: (
        torch.cuda.can_device_access_peer(device, peer)
    )
    core._cuda_ipc_collect = lambda: None
    core._cuda_getCompiledVersion = lambda: 0
    core._cuda_getStreamFromExternal = lambda data_ptr, device: (data_ptr, device, 1)
    for name in (
        "_cuda_clearCublasWorkspaces",
        "_cuda_resetCublasWorkspaceSize",
        "_cuda_resetCublasLtWorkspaceSize",
    ):
        setattr(core, name, lambda: None)
    vars(torch.cuda)["_cudart"] = runtime()
    _patch_sensors(devices)


def refusal(what: str) -> Callable[..., Any]:
    """A function that refuses: there is no use for ``what``."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"xpool: a remote device has no use for {what}")

    return refuse


def _patch_settings(core: Any) -> None:
    """Settings that nothing here reads; a program may set them and read them back."""
    kept: dict[str, Any] = {}
    for pattern, standard in _SETTINGS.items():
        kept[pattern] = standard
        getter, setter = _setting(kept, pattern)
        setattr(core, pattern.format("get"), getter)
        setattr(core, pattern.format("set"), setter)
    for which in ("Cublas", "CublasLt"):
        getter, setter = _setting(kept, which)
        kept[which] = 0
        setattr(core, f"_cuda_get{which}WorkspaceSize", getter)
        setattr(core, f"_cuda_set{which}WorkspaceSize", setter)
    for name, answer in _TUNABLE.items():
        setattr(core, f"_cuda_tunableop_{name}", lambda *_, answer=answer: answer)
    core._cuda_tunableop_get_rotation_buffer_size = lambda: 0
    for name in _TUNABLE_SETTERS:
        setattr(core, f"_cuda_tunableop_{name}", lambda *_: None)
    core._cuda_record_untuned_is_enabled = lambda: False
    core._cuda_record_untuned_enable = lambda value: None


def _setting(
    kept: dict[str, Any], key: str
) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def setter(value: Any) -> None:
        kept[key] = value

    return lambda: kept[key], setter


def runtime() -> types.SimpleNamespace:
    """What ``torch.cuda.cudart()`` returns: the runtime's functions that torch binds.

    Success is 0. Pinning is a matter of a host with a device; here all host memory is
    alike, so it succeeds and changes nothing.
    """
    success = types.SimpleNamespace(success=0)

    def memory(device: int = 0) -> tuple[int, int]:
        free, total = torch.cuda.mem_get_info(device)
        return free, total

    return types.SimpleNamespace(
        cudaError=success,
        cudaGetErrorString=lambda error: f"cudaError {error}",
        cudaProfilerStart=lambda: 0,
        cudaProfilerStop=lambda: 0,
        cudaHostRegister=lambda pointer, size, flags: 0,
        cudaHostUnregister=lambda pointer: 0,
        cudaStreamCreate=refusal("a raw stream"),
        cudaStreamDestroy=refusal("a raw stream"),
        cudaMemGetInfo=memory,
    )


def _patch_sensors(devices: Devices) -> None:
    cuda: Any = torch.cuda
    # The first call tells of the time since here, a later one since the call before.
    began_ns = time.monotonic_ns()
    all_known = [{"at_ns": began_ns, "busy_ns": 0} for _ in devices.remotes]

    def utilization(device: Any = None) -> int:
        """Percent of the time since the last call that the device worked for this job.

        It is read from the server: a call waits for all operations before it.
        """
        index = devices.index_of(device)
        known = all_known[index]
        busy_ns = devices[index].statistics()["busy_ns"]
        now_ns = time.monotonic_ns()
        worked, passed = busy_ns - known["busy_ns"], now_ns - known["at_ns"]
        known.update(at_ns=now_ns, busy_ns=busy_ns)
        return min(100, 100 * worked // max(1, passed))

    cuda.utilization = utilization
    for name, what in SENSORS.items():
        setattr(cuda, name, _sensor(what))


def _sensor(what: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"xpool: the server does not tell {what}")

    return refuse
