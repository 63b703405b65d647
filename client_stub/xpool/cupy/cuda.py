"""``cupy.cuda``: the device, streams and events as this session has them.

A session runs everything in one order, so streams differ in name only. An event is a
fence in the log; its time is the arrival of its answer on this host.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, Final

from xpool_protocol.errors import PoolError
from xpool_protocol.records import FENCE

from xpool.cupy import callbacks
from xpool.cupy.device import device
from xpool.cupy.encoding import uvarint
from xpool.cupy.faults import invalid_device, raise_local
from xpool.cupy.waiting import check_synchronize
from xpool.session import RemoteFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpool.cupy.device import ArrayDevice
    from xpool.link import Mark

_state = threading.local()
_pointers: Final = itertools.count(3)
"""Of streams and events; 1 and 2 are those of CUDA's own default streams."""


def check_device_id(index: int) -> int:
    """The index of a device that there is.

    Raises:
        CUDARuntimeError: there is none.
    """
    if not 0 <= index < len(device().members):
        raise invalid_device()
    return index


def get_device_id() -> int:
    """The index of the current device."""
    return device().current_index()


class Device:
    """A CUDA device: a slice of the job's."""

    def __init__(self, device: Any = None) -> None:
        """A device, by its index; it need not be there before it is used.

        Args:
            device: its index, or another object of it; None: the current one.
        """
        self.id: int = get_device_id() if device is None else int(device)
        self._before: list[int] = []

    @property
    def _array_device(self) -> ArrayDevice:
        return device().members[check_device_id(self.id)]

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return other == self.id
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        before = get_device_id()
        self.use()
        self._before.append(before)
        return self

    def __exit__(self, *_: object) -> None:
        device().use(self._before.pop())

    def use(self) -> None:
        """Make this the thread's current device.

        Raises:
            CUDARuntimeError: there is no such device.
        """
        device().use(self.id)

    def synchronize(self) -> None:
        """Wait until everything has run."""
        self._array_device.synchronize()
        callbacks.wait()

    @property
    def compute_capability(self) -> str:
        """Major and minor version in one text."""
        properties = self._array_device.session.welcome.properties
        return f"{properties.get('major', 0)}{properties.get('minor', 0)}"

    @property
    def attributes(self) -> dict[str, Any]:
        """Figures of the device, by CUDA's names without their prefix."""
        from xpool.cupy.modules.device_facts import attributes_of

        return attributes_of(self._array_device.session.welcome.properties)

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and total bytes of the slice."""
        where = self._array_device
        total = where.session.welcome.memory_nbytes
        return max(total - used_nbytes(where), 0), total

    @property
    def pci_bus_id(self) -> str:
        """Where a local device would stand; this one has no such place here."""
        return "0000:00:00.0"


def used_nbytes(where: ArrayDevice) -> int:
    """What a session takes from its quota: arrays and torch's storages."""
    return where.used_nbytes() + where.log.allocated_nbytes()


class Event:
    """A mark in the session's order."""

    def __init__(
        self,
        block: bool = False,
        disable_timing: bool = False,
        interprocess: bool = False,
    ) -> None:
        """A mark that is not set yet.

        Raises:
            NotImplementedError: for another process.
        """
        if interprocess:
            raise NotImplementedError("xpool: events can't be shared between processes")
        self.ptr = next(_pointers)
        self.disable_timing = disable_timing
        self._mark: Mark | None = None

    def record(self, stream: Any = None) -> None:
        """Put the mark here; does not wait."""
        where = device()
        request = where.log.next_request()
        self._mark = where.session.mark(request)
        where.post(bytes((FENCE,)) + uvarint(request))

    def synchronize(self) -> None:
        """Wait until what was before the mark has run."""
        if self._mark is None:
            return
        try:
            device().session.noted("synchronize", self._mark.reached.wait)
        except (RemoteFault, PoolError) as error:
            raise_local(error)
        if self._mark.error is not None:
            raise_local(self._mark.error)

    @property
    def done(self) -> bool:
        """Whether what was before the mark has run; does not wait."""
        return self._mark is None or self._mark.reached.is_set()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return self.ptr


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events, as the news of them came to this host.

    Raises:
        ValueError: one was not recorded, or without timing.
    """
    for event in (start_event, end_event):
        if event._mark is None or event.disable_timing:
            raise ValueError("both events must have been recorded, with timing")
        event.synchronize()
    assert start_event._mark is not None
    assert end_event._mark is not None
    return (end_event._mark.at_ns - start_event._mark.at_ns) / 1e6


class Stream:
    """A stream of the session's one order."""

    null: Stream
    ptds: Stream

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int = 0,
    ) -> None:
        self.is_non_blocking, self.priority = non_blocking, priority
        self.ptr = 0 if null else 2 if ptds else next(_pointers)
        self.device_id = -1 if null or ptds else get_device_id()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.ptr == self.ptr

    def __hash__(self) -> int:
        return hash(self.ptr)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def __enter__(self) -> Stream:
        _stack().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _stack().pop()

    def use(self) -> Stream:
        """Make this the current stream of this thread."""
        _stack()[-1] = self
        return self

    @property
    def done(self) -> bool:
        """Whether all has run; this waits until it is so."""
        device().synchronize()
        return True

    def synchronize(self) -> None:
        """Wait until all has run."""
        check_synchronize()
        device().synchronize()
        callbacks.wait()

    def record(self, event: Event | None = None) -> Event:
        """Record an event."""
        made = event or Event()
        made.record(self)
        return made

    def wait_event(self, event: Event) -> None:
        """One order: the event's work comes first anyway."""

    def add_callback(self, callback: Callable[..., Any], arg: Any) -> None:
        """Call ``callback(stream, status, arg)`` when all so far has run."""
        callbacks.after(self.record(), lambda status: callback(self, status, arg))

    def launch_host_func(self, callback: Callable[..., Any], arg: Any) -> None:
        """Call ``callback(arg)`` when all so far has run; not after a failure."""

        def call(status: int) -> None:
            if not status:
                callback(arg)

        callbacks.after(self.record(), call)

    def begin_capture(self, mode: Any = None) -> None:
        """Refused: ``xpool.capture`` makes a whole step one record."""
        raise NotImplementedError(
            "xpool: arrays can't be captured; torch programs use torch.cuda.CUDAGraph"
        )

    end_capture = begin_capture

    def is_capturing(self) -> bool:
        """Never."""
        return False

    @classmethod
    def from_external(cls, stream: Any) -> Stream:
        """A stream that another library has made, by its ``__cuda_stream__``."""
        told = getattr(stream, "__cuda_stream__", None)
        pointer = told()[1] if callable(told) else getattr(stream, "cuda_stream", None)
        if pointer is None:
            raise TypeError(f"{type(stream)} is no stream that tells its pointer")
        return ExternalStream(pointer)


class ExternalStream(Stream):
    """A stream that other code, such as torch, has made."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        super().__init__()
        self.ptr, self.device_id = int(ptr), device_id


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


def _stack() -> list[Stream]:
    found: list[Stream] | None = getattr(_state, "streams", None)
    if found is None:
        found = _state.streams = [Stream.null]
    return found


def get_current_stream(device_id: int = -1) -> Stream:
    """This thread's current stream."""
    return _stack()[-1]


for _one in (
    *(Device, Event, Stream, ExternalStream, get_current_stream),
    get_device_id,
):
    _one.__module__ = "cupy.cuda"
