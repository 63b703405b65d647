"""``torch.cuda.Stream`` and ``torch.cuda.Event`` of a remote device.

A session runs in one order, so streams differ in name only. An event is a fence in
the log: it is reached when the server has run everything before it, and its time is
the arrival of that news on this host.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch

from xpool.torch import captures
from xpool.torch.faults import raise_local

if TYPE_CHECKING:
    from xpool.link import Mark
    from xpool.torch.remote import Remote


class RemoteEvent:
    """Drop-in for ``torch.cuda.Event``; a subclass knows the device."""

    remote: Remote
    """Where the event is recorded if the subclass has only one device."""

    def __init__(
        self,
        enable_timing: bool = False,
        blocking: bool = False,
        interprocess: bool = False,
        external: bool = False,
    ) -> None:
        if interprocess:
            raise NotImplementedError("xpool: events can't be shared between processes")
        self.enable_timing = enable_timing
        self._mark: Mark | None = None
        self._recorded_at: Remote | None = None
        self._index = 0
        self._captured: int | None = None
        """The stream it was recorded on, if that was being captured."""

    def remote_of(self, stream: Any) -> Remote:
        """The device on which ``stream``, or the current one if None, runs."""
        return self.remote

    def record(self, stream: Any = None) -> None:
        """Note this point of the log; does not wait."""
        remote = self.remote_of(stream)
        self._index, self._captured = remote.index, None
        self._recorded_at = remote
        if captures.is_capturing(remote.index):
            # Nothing runs: the event only tells which streams are captured together.
            self._mark = None
            self._captured = (
                remote.library.current_stream() if stream is None else stream.stream_id
            )
        else:
            self._mark = remote.mark()

    def wait(self, stream: Any = None) -> None:
        """Later work comes after the event by itself: a log has one order.

        Nothing to do for another device's stream either: what comes from there comes
        by a copy, which waits for what it needs.
        """
        if self._captured is not None:
            own = self.remote_of(stream).library.current_stream()
            follower = own if stream is None else stream.stream_id
            captures.follow(self._index, follower, self._captured)

    def query(self) -> bool:
        """Whether the server is past the event."""
        return self._mark is None or self._mark.reached.is_set()

    def synchronize(self) -> None:
        """Wait until the server is past the event."""
        captures.refuse(self._index)
        if self._mark is None or self._recorded_at is None:
            return
        self._recorded_at.session.noted("synchronize", self._mark.reached.wait)
        if self._mark.error is not None:
            raise_local(self._mark.error)

    def elapsed_time(self, end_event: RemoteEvent) -> float:
        """Milliseconds between two recorded events, once both are reached."""
        if self._mark is None or end_event._mark is None:
            raise ValueError("Both events must be recorded before calculating time.")
        self.synchronize()
        end_event.synchronize()
        return (end_event._mark.at_ns - self._mark.at_ns) / 1e6

    @property
    def cuda_event(self) -> int:
        """A number that is this event's own."""
        return id(self)

    @property
    def device(self) -> torch.device:
        """The device the event was last recorded on."""
        return torch.device("cuda", self._index)

    def __repr__(self) -> str:
        return f"<torch.cuda.Event {self.cuda_event:#x}>"


class RemoteStream(torch.Stream):
    """Drop-in for ``torch.cuda.Stream``; ``remotes`` is set on a subclass."""

    remotes: list[Remote]

    def __new__(
        cls, device: Any = None, priority: int = 0, **named: Any
    ) -> RemoteStream:
        """A new stream, or the one that ``stream_id`` and the like describe."""
        if named:
            made = super().__new__(cls, priority=priority, **named)
        else:
            device = torch.device("cuda" if device is None else device)
            if device.index is None:
                device = torch.device("cuda", torch.cuda.current_device())
            made = super().__new__(cls, device, priority=priority)
        return made

    @property
    def _remote(self) -> Remote:
        return type(self).remotes[self.device_index]

    def wait_stream(self, stream: Any) -> None:
        """Nothing to do: the log has one order. But what waits is captured too."""
        if stream.device_index == self.device_index:
            captures.follow(self.device_index, self.stream_id, stream.stream_id)

    def wait_event(self, event: Any) -> None:
        """Nothing to do: the log has one order. But what waits is captured too."""
        event.wait(self)

    def record_event(self, event: Any = None) -> Any:
        """Record ``event``, or a new one, here."""
        event = event if event is not None else self._remote.event_class()
        event.record(self)
        return event

    def query(self) -> bool:
        """Whether the server has run everything so far."""
        captures.refuse(self.device_index)
        return self._remote.is_idle()

    def synchronize(self) -> None:
        """Wait until the server has run everything so far."""
        self._remote.synchronize()

    @property
    def cuda_stream(self) -> int:
        """The stream's number, in place of a pointer."""
        return int(self.stream_id)

    @property
    def _as_parameter_(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.cuda_stream)


class External:
    """What ``torch.cuda.ExternalStream`` adds: the pointer of a stream made elsewhere.

    Such a stream is one of ours, whose pointer is its number; one order holds all.
    """

    _pointer: int

    def __new__(cls, stream_ptr: int, device: Any = None, **named: Any) -> Any:
        """A stream of the device that tells this pointer."""
        made = super().__new__(cls, device, **named)  # type: ignore[call-arg]
        made._pointer = int(stream_ptr)
        return made

    @property
    def cuda_stream(self) -> int:
        """The pointer that was given."""
        return self._pointer
