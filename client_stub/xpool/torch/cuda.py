"""``torch.cuda`` of a torch built without CUDA, answered for the remote device.

torch's own Python code calls the names patched here; the list grows by test. Each
name gets a function object of its own: Dynamo keeps rules by object, and two names
that share one make it refuse both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.cuda

from xpool.torch.cuda_graphs import patch_cuda_graphs
from xpool.torch.cuda_names import patch_cuda_names
from xpool.torch.devices import Devices
from xpool.torch.dlpack import patch_dlpack
from xpool.torch.legacy_tensors import patch_legacy_tensors
from xpool.torch.memory_statistics import patch_memory
from xpool.torch.profiling import patch_profiling
from xpool.torch.remote import Remote
from xpool.torch.streams import External, RemoteEvent, RemoteStream


def _answer(value: Any) -> Callable[..., Any]:
    """A new function that returns ``value`` whatever it is asked."""
    return lambda *_args, **_named: value


def patch_torch_cuda(remotes: list[Remote]) -> None:
    """Make ``torch.cuda`` tell of the remote devices; ``remotes[i]`` is ``cuda:i``."""
    devices = Devices(remotes)
    _patch_presence(devices)
    _patch_properties(devices)
    patch_memory(devices)
    _patch_streams(devices)
    patch_cuda_graphs()
    _patch_random(devices)
    patch_cuda_names(devices)
    patch_dlpack(devices.process)
    patch_legacy_tensors()
    patch_profiling()


def _set(names: str, make: Callable[[], Any], module: Any = torch.cuda) -> None:
    for name in names.split():
        setattr(module, name, make())


def _patch_presence(devices: Devices) -> None:
    cuda: Any = torch.cuda
    core: Any = torch._C
    cuda._initialized = True
    _set("is_available is_initialized _is_compiled", lambda: _answer(True))
    _set("_lazy_init init ipc_collect", lambda: _answer(None))
    owner = os.getpid()
    cuda._is_in_bad_fork = lambda: os.getpid() != owner
    count = len(devices.remotes)
    _set(
        "device_count _device_count_nvml _raw_device_count_nvml", lambda: _answer(count)
    )
    _set("_lazy_call", lambda: lambda call, **_: call())

    def set_device(device: Any) -> None:
        devices.exchange(devices.index_of(device))

    def current_device() -> int:
        return devices.current

    def synchronize(device: Any = None) -> None:
        devices[device].synchronize()

    cuda.set_device, cuda.current_device = set_device, current_device
    cuda.synchronize = synchronize
    _set(
        "_exchange_device _maybe_exchange_device",
        lambda: lambda device: devices.exchange(device),
    )
    core._cuda_getDevice = lambda: devices.current
    _set(
        "_cuda_exchangeDevice _cuda_maybeExchangeDevice",
        lambda: lambda device: devices.exchange(device),
        core,
    )
    _set("_cuda_getCurrentRawStream", lambda: _answer(0), core)
    _set("_cuda_getDeviceCount", lambda: _answer(count), core)
    _set("_cuda_init", lambda: _answer(None), core)
    core._cuda_setDevice = lambda device: set_device(device)
    core._cuda_isInBadFork = lambda: os.getpid() != owner
    core._cuda_synchronize = lambda: devices[None].synchronize()
    core._cuda_getArchFlags = _answer("")


def _patch_properties(devices: Devices) -> None:
    cuda: Any = torch.cuda

    def get_device_properties(device: Any = None) -> Any:
        return devices[device].properties

    def get_device_name(device: Any = None) -> str:
        return devices[device].properties.name

    def get_device_capability(device: Any = None) -> tuple[int, int]:
        properties = devices[device].properties
        return properties.major, properties.minor

    def can_device_access_peer(device: Any, peer_device: Any) -> bool:
        # Copies go from server to server.
        return devices.index_of(device) != devices.index_of(peer_device)

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
    cuda.can_device_access_peer = can_device_access_peer
    torch.cuda.amp.common.amp_definitely_not_available = _answer(False)


def _patch_streams(devices: Devices) -> None:
    cuda: Any = torch.cuda
    core: Any = torch._C

    class Stream(RemoteStream):
        remotes = devices.remotes

    class Event(RemoteEvent):
        def remote_of(self, stream: Any) -> Remote:
            return devices[None if stream is None else stream.device_index]

    class ExternalStream(External, Stream):
        pass

    for made, name in (
        (Stream, "Stream"),
        (Event, "Event"),
        (ExternalStream, "ExternalStream"),
    ):
        made.__module__, made.__qualname__ = "torch.cuda", name
    for remote in devices.remotes:
        remote.event_class = Event
    cuda.Stream, cuda.Event = Stream, Event
    cuda.streams.Stream, cuda.streams.Event = Stream, Event
    cuda.ExternalStream = cuda.streams.ExternalStream = ExternalStream

    def stream_numbered(device: Any, number: int) -> Any:
        index = devices.index_of(device)
        return Stream(stream_id=number, device_index=index, device_type=1)

    def current_stream(device: Any = None) -> Any:
        return stream_numbered(device, devices[device].library.current_stream())

    def default_stream(device: Any = None) -> Any:
        return stream_numbered(device, 0)

    def set_stream_by_id(stream_id: int, device_index: int, device_type: int) -> None:
        devices[device_index].library.set_current_stream(stream_id)
        devices.exchange(device_index)

    def set_stream(stream: Any) -> None:
        if stream is not None:
            set_stream_by_id(stream.stream_id, stream.device_index, 1)

    cuda.current_stream, cuda.default_stream = current_stream, default_stream
    cuda.set_stream, cuda._set_stream_by_id = set_stream, set_stream_by_id
    core._cuda_setStream = lambda stream_id, device_index, device_type: (
        set_stream_by_id(stream_id, device_index, device_type)
    )

    def described(device: Any, number: int) -> tuple[int, int, int]:
        return number, devices.index_of(device), 1

    core._cuda_getCurrentStream = lambda device: described(
        device, devices[device].library.current_stream()
    )
    core._cuda_getDefaultStream = lambda device: described(device, 0)


def _patch_random(devices: Devices) -> None:
    generators = []
    for index in range(len(devices.remotes)):
        devices.process.expect_default_generator()
        generators.append(torch.Generator(device=f"cuda:{index}"))
    cuda: Any = torch.cuda
    cuda.default_generators = tuple(generators)

    def generator_of(device: Any = None) -> torch.Generator:
        return generators[devices.index_of(device)]

    def manual_seed(seed: int) -> None:
        generator_of().manual_seed(int(seed))

    def manual_seed_all(seed: int) -> None:
        for generator in generators:
            generator.manual_seed(int(seed))

    def seed_all() -> None:
        generators[0].seed()
        manual_seed_all(generators[0].initial_seed())

    def get_rng_state(device: Any = "cuda") -> torch.Tensor:
        return generator_of(device).get_state()

    def set_rng_state(new_state: torch.Tensor, device: Any = "cuda") -> None:
        generator_of(device).set_state(new_state.cpu())

    def set_rng_state_all(new_states: Any) -> None:
        for index, state in enumerate(new_states):
            set_rng_state(state, index)

    makers: dict[str, Callable[..., Any]] = {
        "manual_seed": manual_seed,
        "manual_seed_all": manual_seed_all,
        "seed": lambda: generator_of().seed(),
        "seed_all": seed_all,
        "initial_seed": lambda: generator_of().initial_seed(),
        "get_rng_state": get_rng_state,
        "set_rng_state": set_rng_state,
        "get_rng_state_all": lambda: [one.get_state() for one in generators],
        "set_rng_state_all": set_rng_state_all,
    }
    for name, function in makers.items():
        setattr(cuda, name, function)
        setattr(cuda.random, name, function)
