"""What a device backend is. ``tests/server/devices`` holds the suite that defines it.

Level 1 (all that exists yet): allocate, copy in and out, run in order, synchronize.
Memory is the framework's: a storage is a ``torch.UntypedStorage`` on the backend's
device, so that any operation can use it and freeing it is dropping it.

A backend checks nothing that came from a client: the caller has bounded it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from xpool_protocol.messages import Payload

from xpool_server.lane import PART_NBYTES, Destination


class StagedDestination:
    """Receives into host memory that is kept, and writes from there to the device."""

    def __init__(
        self, backend: Backend, storage: torch.UntypedStorage, offset: int
    ) -> None:
        self._backend = backend
        self._storage = storage
        self._offset = offset
        self._buffer = memoryview(bytearray(PART_NBYTES))

    def room(self, at: int, nbytes: int) -> memoryview:
        """Host memory for the next bytes."""
        return self._buffer[:nbytes]

    def filled(self, at: int, nbytes: int) -> None:
        """Write them to the device."""
        self._backend.write(self._storage, self._offset + at, self._buffer[:nbytes])

    def close(self) -> None:
        """They are in their place already."""


class Backend(ABC):
    """One device, used by one thread of one process."""

    level: ClassVar[int] = 1
    kind: str
    dispatch_keys: tuple[str, ...]
    """torch's keys for its tensors, dense first: they decide which kernels it has."""
    plain_arguments: ClassVar[tuple[str, ...]] = ()
    """``OPERATION?ARGUMENT``: its kernels take no other than the plain value there."""

    is_thread_time: ClassVar[bool] = False
    """Device time is the processor time of the thread that runs the operations: native
    code takes it itself, and tells it with ``add_busy``."""

    draws_on_host: bool = False
    """Operations that it has no kernel for draw from the host's default generator, if
    they take none: that is a part of its own."""

    context_nbytes: int = 0
    """Device memory that a process takes before its first storage: of each quota."""

    remarks: tuple[str, ...] = ()
    """What cannot be known of the device or done with it, for its server's log."""

    device: torch.device
    """Where storages lie and operations run."""
    name: str
    """For people."""

    def warm_up(self) -> None:
        """Allocate and run one operation, so that the first call is not slow."""
        torch.ones(8, device=self.device).add(1)
        self.synchronize()

    @abstractmethod
    def properties(self, quota_nbytes: int) -> Mapping[str, str | int | float]:
        """What ``torch.cuda.get_device_properties`` answers for a slice of this."""

    @abstractmethod
    def limit_memory(self, quota_nbytes: int) -> None:
        """The framework's or the system's own limit beneath the quota; called once."""

    def allocate(self, nbytes: int) -> torch.UntypedStorage:
        """A storage of undefined bytes.

        Raises:
            RuntimeError: the framework's allocator has no room.
        """
        storage: torch.UntypedStorage = torch.UntypedStorage(  # type: ignore[no-untyped-call]
            nbytes, device=self.device
        )
        return storage

    @abstractmethod
    def write(self, storage: torch.UntypedStorage, offset: int, data: Payload) -> None:
        """Put bytes at an offset; ``data`` is free again on return."""

    @abstractmethod
    def read(self, storage: torch.UntypedStorage, offset: int, nbytes: int) -> bytes:
        """A copy of bytes at an offset, after all that was launched before."""

    def destination(self, storage: torch.UntypedStorage, offset: int) -> Destination:
        """Where bytes that a stream brings are received; used by another thread."""
        return StagedDestination(self, storage, offset)

    def parts(
        self, storage: torch.UntypedStorage, offset: int, nbytes: int
    ) -> Iterator[Payload]:
        """Bytes at an offset for a stream, part by part."""
        end = offset + nbytes
        for at in range(offset, end, PART_NBYTES):
            yield self.read(storage, at, min(PART_NBYTES, end - at))

    @abstractmethod
    def synchronize(self) -> None:
        """Return when everything launched has run; raises what failed meanwhile."""

    @abstractmethod
    def default_generator(self) -> torch.Generator:
        """The random generator that operations use when none is given."""

    def new_generator(self) -> torch.Generator:
        """A further generator, with the framework's default seed."""
        return torch.Generator(device=self.device)

    @property
    def overhead_nbytes(self) -> int:
        """What this process holds beside its storages: context, cache, workspaces."""
        return self.context_nbytes

    @abstractmethod
    def begin_work(self) -> None:
        """Operations follow: device time counts from here."""

    @abstractmethod
    def end_work(self) -> None:
        """No operations follow for now."""

    def wait_for_chunks(self, in_flight: int) -> None:
        """Wait until at most so many pieces of work are under way on the device."""
        del in_flight  # nothing is ever under way here

    def add_busy(self, busy_ns: int) -> None:
        """Count device time that native code has taken.

        Args:
            busy_ns: 0 unless ``is_thread_time``.
        """
        assert busy_ns == 0, "this backend takes its time itself"

    def take_spans(self) -> list[int]:
        """What each piece of work has taken that is over, since the last call.

        A piece is what lay between ``begin_work`` and ``end_work``; in order; empty
        where nothing runs behind its submission.
        """
        return []

    @property
    @abstractmethod
    def busy_ns(self) -> int:
        """Device time spent between ``begin_work`` and ``end_work`` so far."""
