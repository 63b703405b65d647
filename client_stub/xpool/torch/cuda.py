"""``torch.cuda`` of a torch built without CUDA, answered for the remote device.

torch's own Python code calls the names patched here; the list grows by test. Each
name gets a function object of its own: Dynamo keeps rules by object, and two names
that share one make it refuse both.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.cuda

from xpool.torch.remote import Remote
from xpool.torch.streams import RemoteEvent, RemoteStream


def _answer(value: Any) -> Callable[..., Any]:
    """A new function that returns ``value`` whatever it is asked."""
    return lambda *_args, **_named: value


def _check_index(device: Any) -> int:
    if device is None:
        return 0
    if isinstance(device, (str, torch.device)):
        device = torch.device(device)
        if device.type != "cuda":
            raise ValueError(f"Expected a cuda device, but got: {device}")
        device = device.index
    if device not in (None, -1, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return 0


def patch_torch_cuda(remote: Remote) -> None:
    """Make ``torch.cuda`` tell of the remote device."""
    _patch_presence(remote)
    _patch_properties(remote)
    _patch_memory(remote)
    _patch_streams(remote)
    _patch_random(remote)


def _set(names: str, make: Callable[[], Any], module: Any = torch.cuda) -> None:
    for name in names.split():
        setattr(module, name, make())


def _patch_presence(remote: Remote) -> None:
    cuda: Any = torch.cuda
    core: Any = torch._C
    cuda._initialized = True
    _set("is_available is_initialized _is_compiled", lambda: _answer(True))
    _set("_lazy_init init ipc_collect", lambda: _answer(None))
    owner = os.getpid()
    cuda._is_in_bad_fork = lambda: os.getpid() != owner
    _set("device_count _device_count_nvml _raw_device_count_nvml", lambda: _answer(1))
    _set("_lazy_call", lambda: lambda call, **_: call())

    def set_device(device: Any) -> None:
        _check_index(device)

    def current_device() -> int:
        return remote.library.current_device()

    def synchronize(device: Any = None) -> None:
        _check_index(device)
        remote.synchronize()

    cuda.set_device, cuda.current_device = set_device, current_device
    cuda.synchronize = synchronize
    _set("_exchange_device _maybe_exchange_device", lambda: lambda device: 0)
    _set(
        "_cuda_getDevice _cuda_exchangeDevice _cuda_maybeExchangeDevice"
        " _cuda_getCurrentRawStream",
        lambda: _answer(0),
        core,
    )
    _set("_cuda_getDeviceCount", lambda: _answer(1), core)
    _set("_cuda_setDevice _cuda_init", lambda: _answer(None), core)
    core._cuda_isInBadFork = lambda: os.getpid() != owner
    core._cuda_synchronize = lambda: remote.synchronize()
    core._cuda_getArchFlags = _answer("")
    core._cuda_isCurrentStreamCapturing = _answer(False)
    cuda.is_current_stream_capturing = _answer(False)
    cuda.graphs.is_current_stream_capturing = _answer(False)


def _patch_properties(remote: Remote) -> None:
    cuda: Any = torch.cuda
    properties = remote.properties

    def get_device_properties(device: Any = None) -> Any:
        _check_index(device)
        return properties

    def get_device_name(device: Any = None) -> str:
        _check_index(device)
        return properties.name

    def get_device_capability(device: Any = None) -> tuple[int, int]:
        _check_index(device)
        return properties.major, properties.minor

    cuda.get_device_properties = get_device_properties
    cuda._get_device_properties = lambda device: get_device_properties(device)
    cuda.get_device_name = get_device_name
    cuda.get_device_capability = get_device_capability
    cuda.is_bf16_supported = _answer(True)
    # False is the truth, and the original warns at every recurrent layer.
    cudnn: Any = torch.backends.cudnn
    cudnn.is_acceptable = _answer(False)
    cuda.is_tf32_supported = _answer(False)
    cuda.get_arch_list = _answer([])
    cuda.get_gencode_flags = _answer("")
    cuda.can_device_access_peer = _answer(False)
    torch.cuda.amp.common.amp_definitely_not_available = _answer(False)


def _patch_memory(remote: Remote) -> None:
    cuda: Any = torch.cuda
    library = remote.library

    def memory_allocated(device: Any = None) -> int:
        _check_index(device)
        return library.memory()["allocated"]

    def max_memory_allocated(device: Any = None) -> int:
        _check_index(device)
        return library.memory()["peak"]

    def reset_peak_memory_stats(device: Any = None) -> None:
        _check_index(device)
        library.reset_peak_memory()

    def memory_stats(device: Any = None) -> dict[str, Any]:
        counters = library.memory()
        stats: dict[str, Any] = collections.OrderedDict()
        for pool in ("all", "small_pool", "large_pool"):
            here = pool != "small_pool"
            for kind in ("allocated_bytes", "reserved_bytes", "active_bytes"):
                stats[f"{kind}.{pool}.current"] = counters["allocated"] * here
                stats[f"{kind}.{pool}.peak"] = counters["peak"] * here
        stats["num_ooms"] = stats["num_alloc_retries"] = 0
        stats["allocation.all.allocated"] = counters["allocation_count"]
        return stats

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        counters = library.memory()
        return counters["quota"] - counters["allocated"], counters["quota"]

    def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
        counters = library.memory()
        return (
            f"slice of {remote.properties.name}: {counters['allocated']} bytes"
            f" allocated, {counters['peak']} at most, {counters['quota']} allowed"
        )

    makers: dict[str, Callable[..., Any]] = {
        "memory_allocated": memory_allocated,
        "max_memory_allocated": max_memory_allocated,
        # There is no cache between the job and its quota: both are one figure.
        "memory_reserved": lambda device=None: memory_allocated(device),
        "max_memory_reserved": lambda device=None: max_memory_allocated(device),
        "memory_cached": lambda device=None: memory_allocated(device),
        "max_memory_cached": lambda device=None: max_memory_allocated(device),
        "reset_peak_memory_stats": reset_peak_memory_stats,
        "reset_max_memory_allocated": lambda device=None: reset_peak_memory_stats(
            device
        ),
        "reset_accumulated_memory_stats": lambda device=None: None,
        "memory_stats": memory_stats,
        "memory_stats_as_nested_dict": memory_stats,
        "mem_get_info": mem_get_info,
        "memory_summary": memory_summary,
        "memory_snapshot": lambda *_args, **_named: [],
        "empty_cache": lambda: None,
        "set_per_process_memory_fraction": lambda fraction, device=None: None,
    }
    for name, function in makers.items():
        setattr(cuda, name, function)
        setattr(cuda.memory, name, function)


def _patch_streams(remote: Remote) -> None:
    cuda: Any = torch.cuda
    core: Any = torch._C
    library = remote.library

    class Stream(RemoteStream):
        pass

    class Event(RemoteEvent):
        pass

    for made, name in ((Stream, "Stream"), (Event, "Event")):
        made.remote = remote
        made.__module__, made.__qualname__ = "torch.cuda", name
    remote.event_class = Event
    cuda.Stream, cuda.Event = Stream, Event
    cuda.streams.Stream, cuda.streams.Event = Stream, Event

    def stream_numbered(number: int) -> Any:
        return Stream(stream_id=number, device_index=0, device_type=1)

    def set_stream(stream: Any) -> None:
        if stream is not None:
            library.set_current_stream(stream.stream_id)

    cuda.current_stream = lambda device=None: stream_numbered(library.current_stream())
    cuda.default_stream = lambda device=None: stream_numbered(0)
    cuda.set_stream = set_stream
    cuda._set_stream_by_id = lambda stream_id, device_index, device_type: (
        library.set_current_stream(stream_id)
    )
    core._cuda_setStream = lambda stream_id, device_index, device_type: (
        library.set_current_stream(stream_id)
    )
    core._cuda_getCurrentStream = lambda device: (library.current_stream(), 0, 1)
    core._cuda_getDefaultStream = lambda device: (0, 0, 1)


def _patch_random(remote: Remote) -> None:
    remote.library.expect_default_generator()
    generator = torch.Generator(device="cuda")
    cuda: Any = torch.cuda
    cuda.default_generators = (generator,)

    def manual_seed(seed: int) -> None:
        generator.manual_seed(int(seed))

    def get_rng_state(device: Any = "cuda") -> torch.Tensor:
        _check_index(device)
        return generator.get_state()

    def set_rng_state(new_state: torch.Tensor, device: Any = "cuda") -> None:
        _check_index(device)
        generator.set_state(new_state.cpu())

    def set_rng_state_all(new_states: Any) -> None:
        for state in new_states:
            set_rng_state(state)

    makers: dict[str, Callable[..., Any]] = {
        "manual_seed": manual_seed,
        "manual_seed_all": lambda seed: manual_seed(seed),
        "seed": lambda: generator.seed(),
        "seed_all": lambda: generator.seed(),
        "initial_seed": lambda: generator.initial_seed(),
        "get_rng_state": get_rng_state,
        "set_rng_state": set_rng_state,
        "get_rng_state_all": lambda: [get_rng_state()],
        "set_rng_state_all": set_rng_state_all,
    }
    for name, function in makers.items():
        setattr(cuda, name, function)
        setattr(cuda.random, name, function)
