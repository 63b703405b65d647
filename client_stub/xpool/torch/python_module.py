"""``torch.xpool``: what programs ask of a device besides its operations."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch

from xpool.torch.python_device import DEVICE_TYPE, PythonDevice
from xpool.torch.python_generator import DEFAULT, RemoteGenerator
from xpool.torch.streams import RemoteEvent

if TYPE_CHECKING:
    from xpool.torch.remote import Remote


class Event(RemoteEvent):
    """``torch.xpool.Event``: a point of the session's log."""

    @property
    def device(self) -> torch.device:
        """The device the event belongs to."""
        return torch.device(DEVICE_TYPE, 0)

    def __repr__(self) -> str:
        return f"<torch.xpool.Event {id(self):#x}>"


class Stream:
    """``torch.xpool.Stream``. A session runs in one order, so it is only a name."""

    remote: Remote

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device = torch.device(DEVICE_TYPE, 0)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        """Nothing to do: the log has one order."""

    def wait_event(self, event: Any) -> None:
        """Nothing to do: the log has one order."""

    def record_event(self, event: Event | None = None) -> Event:
        """Record ``event``, or a new one, here."""
        event = event if event is not None else Event()
        event.record(self)
        return event

    def query(self) -> bool:
        """Whether the server has run everything so far."""
        return self.remote.is_idle()

    def synchronize(self) -> None:
        """Wait until the server has run everything so far."""
        self.remote.synchronize()


class _DeviceContext:
    """``with torch.xpool.device(0):``."""

    def __init__(self, device: Any = None) -> None:
        _check_index(device)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _check_index(device: Any) -> None:
    if isinstance(device, (str, torch.device)):
        device = torch.device(device)
        if device.type != DEVICE_TYPE:
            raise ValueError(f"Expected a xpool device, but got: {device}")
        device = device.index
    if device not in (None, -1, 0):
        raise RuntimeError("xpool: invalid device ordinal")


class XpoolModule(types.ModuleType):
    """The module; ``connect`` gives it its session."""

    _default: RemoteGenerator
    _remote: Remote
    _library: PythonDevice

    def __init__(self) -> None:
        super().__init__(f"torch.{DEVICE_TYPE}", __doc__)
        self.device = _DeviceContext
        self.Stream, self.Event = Stream, Event

    def connect(self, remote: Remote, library: PythonDevice) -> None:
        """Answer from a session."""
        self._remote, self._library = remote, library
        self._default = RemoteGenerator(library, DEFAULT)
        Stream.remote = remote
        Event.remote = remote
        self.default_generators = (self._default,)

    # ---- presence

    def is_available(self) -> bool:
        """There is a device."""
        return True

    def is_initialized(self) -> bool:
        """It is ready."""
        return True

    def _is_in_bad_fork(self) -> bool:
        return self._library.is_forked

    def _lazy_init(self) -> None:
        pass

    init = _lazy_init

    def device_count(self) -> int:
        """A lease is one device."""
        return 1

    def current_device(self) -> int:
        """Its index."""
        return 0

    def set_device(self, device: Any) -> None:
        """Choose the only device."""
        _check_index(device)

    def synchronize(self, device: Any = None) -> None:
        """Wait for everything; raises the first failure nobody was told of."""
        _check_index(device)
        self._remote.synchronize()

    def get_device_properties(self, device: Any = None) -> Any:
        """The slice's figures, by the names of ``torch.cuda``'s."""
        _check_index(device)
        return self._remote.properties

    def get_device_name(self, device: Any = None) -> str:
        """What it is, how much of it, and where."""
        _check_index(device)
        return self._remote.properties.name

    def get_device_capability(self, device: Any = None) -> tuple[int, int]:
        """The compute capability, if the device has one."""
        _check_index(device)
        return self._remote.properties.major, self._remote.properties.minor

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """What ``torch.autocast`` may choose."""
        return [torch.float16, torch.bfloat16]

    def is_bf16_supported(self) -> bool:
        """Whether bfloat16 works."""
        return True

    # ---- memory

    def memory_allocated(self, device: Any = None) -> int:
        """Bytes allocated now."""
        return self._library.memory()["allocated"]

    def max_memory_allocated(self, device: Any = None) -> int:
        """Bytes allocated at most."""
        return self._library.memory()["peak"]

    # There is no cache between the job and its quota: both are one figure.
    memory_reserved = memory_allocated
    max_memory_reserved = max_memory_allocated

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        """Let the peak begin again."""
        self._library.reset_peak_memory()

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        """Bytes free and bytes in all, of the slice."""
        counters = self._library.memory()
        return counters["quota"] - counters["allocated"], counters["quota"]

    def empty_cache(self) -> None:
        """Nothing is cached."""

    # ---- random numbers

    def manual_seed(self, seed: int) -> None:
        """Seed the default generator."""
        self._default.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed the default generator."""
        self._default.manual_seed(seed)

    def seed(self) -> None:
        """Seed the default generator with a random number."""
        self._default.seed()

    seed_all = seed

    def initial_seed(self) -> int:
        """What the default generator was seeded with."""
        return self._default.initial_seed()

    def get_rng_state(self, device: Any = DEVICE_TYPE) -> torch.Tensor:
        """The default generator's state."""
        _check_index(device)
        return self._default.get_state()

    def set_rng_state(self, new_state: torch.Tensor, device: Any = DEVICE_TYPE) -> None:
        """Set the default generator's state."""
        _check_index(device)
        self._default.set_state(new_state.cpu())

    def get_rng_state_all(self) -> list[torch.Tensor]:
        """One state per device."""
        return [self.get_rng_state()]

    def set_rng_state_all(self, new_states: list[torch.Tensor]) -> None:
        """One state per device."""
        for state in new_states:
            self.set_rng_state(state)

    # ---- streams

    def current_stream(self, device: Any = None) -> Stream:
        """The only order there is."""
        return Stream()

    default_stream = current_stream

    def stream(self, stream: Stream | None) -> Stream:
        """A context that changes nothing."""
        return stream if stream is not None else Stream()

    def set_stream(self, stream: Stream) -> None:
        """Nothing to do: the log has one order."""
