"""The session's log of the pure-Python device: the twin of ``native/log.cpp``.

Records are appended in one order and cut into batches by the same rules, so that both
devices make the same bytes of the same calls. Nothing here knows torch.

A finalizer runs anywhere, also in the middle of this code and on this thread: it only
calls ``append_later``, and what it leaves is appended before the next record.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from xpool_protocol import limits
from xpool_protocol.messages import Payload
from xpool_protocol.records import (
    CALL,
    FREE,
    DefineOperation,
    Free,
    FreeGenerator,
    Record,
    RequestCall,
    Write,
    write_record,
)
from xpool_protocol.values import (
    TAG_TENSOR,
    Tensor,
    Value,
    write_tensor,
    write_value,
)
from xpool_protocol.wire import Writer

from xpool.outbox import QueuedBatch

if TYPE_CHECKING:
    from xpool_protocol.connection import ClientConnection
    from xpool_protocol.transport import Link

    from xpool.outbox import Diagnose

BATCH_PAYLOADS: Final = 128
"""Frames of one batch; with one transfer more it stays below a message's 256."""


class _OpenBatch:
    __slots__ = ("payload_nbytes", "payloads", "record_count", "records")

    def __init__(self) -> None:
        self.records = bytearray()
        self.record_count = 0
        self.payloads: list[Payload] = []
        self.payload_nbytes = 0


class PythonLog:
    """Records on their way out; the link's ``Outbox``. For any thread."""

    def __init__(self, on_record: Callable[[int], None] | None = None) -> None:
        """An empty log.

        Args:
            on_record: told the operation number of each call, for ``XPOOL_TRACE``.
        """
        self.wake_fileno = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.on_record = on_record
        self.is_closed = False
        # Reentrant: the collector may run a user's finalizer while we hold it.
        self._lock = threading.RLock()
        self._batches: deque[_OpenBatch] = deque()
        self._late: deque[Free | FreeGenerator] = deque()
        self._operations: dict[str, int] = {}
        self._next_operation = 0
        self._record_count = 0
        self._queued_nbytes = 0
        self._ring_at = 1
        self._has_told_of_late = False
        self._next_storage = self._next_request = self._next_generator = 1

    def position(self) -> int:
        """How many records there are, those that finalizers have left included."""
        with self._lock:
            return self._record_count + len(self._late)

    # ---- numbers

    def next_storage(self, count: int = 1) -> int:
        """The first of ``count`` storage ids that nobody else gets."""
        with self._lock:
            number = self._next_storage
            self._next_storage = number + count
            return number

    def next_request(self) -> int:
        """A request id."""
        with self._lock:
            number = self._next_request
            self._next_request = number + 1
            return number

    def next_generator(self) -> int:
        """A generator id."""
        with self._lock:
            number = self._next_generator
            self._next_generator = number + 1
            return number

    # ---- records

    def append(self, record: Record) -> int:
        """Append one record; its operation number."""
        writer = Writer()
        write_record(writer, record)
        return self._append(writer.buffer)

    def append_encoded(self, record: bytes | bytearray) -> int:
        """Append one record that is bytes already; its operation number."""
        return self._append(record)

    def append_call(
        self,
        name: str,
        argument_names: tuple[str, ...],
        arguments: tuple[tuple[int, Value], ...],
        outputs: tuple[Tensor | None, ...],
    ) -> None:
        """Append a CALL, after defining the operation if this is its first use."""
        operation = self._defined(name, argument_names)
        self._note(self._append(_call_bytes(operation, arguments, outputs)))

    def append_request_call(
        self,
        name: str,
        argument_names: tuple[str, ...],
        arguments: tuple[tuple[int, Value], ...],
    ) -> int:
        """Append a REQUEST_CALL with ids reserved for its results; the request id."""
        request = self.next_request()
        first_storage = self.next_storage(limits.MAX_RESERVED_IDS)
        operation = self._defined(name, argument_names)
        record = RequestCall(request, first_storage, operation, arguments)
        self._note(self.append(record))
        return request

    def append_write(self, storage: int, offset: int, data: memoryview) -> None:
        """Append WRITE records for any number of bytes, copied from ``data``."""
        while data.nbytes:
            is_inline = data.nbytes <= limits.INLINE_NBYTES
            part = data[: limits.TRANSFER_NBYTES]
            chunks = [] if is_inline else _chunks(part)
            with self._lock:
                if self.is_closed:
                    return
                self._flush()
                batch = self._open_batch(0 if is_inline else part.nbytes)
                first = 0 if is_inline else len(batch.payloads) + 1
                inline = bytes(part) if is_inline else b""
                batch.payloads += chunks
                if chunks:
                    batch.payload_nbytes += part.nbytes
                    self._note_queued(part.nbytes)
                self.append(Write(storage, offset, part.nbytes, first, inline))
            offset += part.nbytes
            data = data[part.nbytes :]

    def append_later(self, record: Free | FreeGenerator) -> None:
        """Append before the next record; for finalizers, takes no lock."""
        if self.is_closed:
            return
        self._late.append(record)
        # Where more than one byte is waited for, the link looks by itself before long.
        if not (self._has_told_of_late or self._batches) and self._ring_at <= 1:
            self._has_told_of_late = True
            self._wake()

    # ---- the link's outbox

    def take(self) -> QueuedBatch | None:
        """The oldest batch, or None; never blocks for long."""
        with self._lock:
            self._flush()
            if not self._batches:
                return None
            batch = self._batches.popleft()
            self._queued_nbytes -= len(batch.records) + batch.payload_nbytes
        return QueuedBatch(bytes(batch.records), batch.record_count, batch.payloads)

    def queued_nbytes(self) -> int:
        """Bytes that wait to be taken."""
        return self._queued_nbytes

    def ring_at(self, nbytes: int) -> int:
        """Wake the link when so much waits, from now on; how much does now."""
        with self._lock:
            self._ring_at = nbytes
            return self._queued_nbytes + len(self._late)

    def native_link(
        self, link: Link, connection: ClientConnection, diagnose: Diagnose
    ) -> None:
        """None: the link of this device is Python too."""

    def close(self) -> None:
        """Record nothing any more: the interpreter ends, or this is a forked child."""
        self.is_closed = True

    def close_copy(self) -> None:
        """In a forked child, whose parent may have held the lock."""
        self._lock = threading.RLock()
        self.is_closed = True

    # ---- within the lock

    def _defined(self, name: str, argument_names: tuple[str, ...]) -> int:
        number = self._operations.get(name)
        if number is not None:
            return number
        with self._lock:
            number = self._operations.get(name)
            if number is None:
                # A finalizer may define another operation before we are done.
                number = self._next_operation
                self._next_operation = number + 1
                self.append(DefineOperation(number, name, argument_names))
                self._operations[name] = number
            return number

    def _append(self, record: bytes | bytearray) -> int:
        with self._lock:
            if self.is_closed:
                return 0
            self._flush()
            return self._append_to_batch(record)

    def _flush(self) -> None:
        self._has_told_of_late = False
        while self._late:
            record = self._late.popleft()
            if type(record) is Free:
                self._append_to_batch(_FREE + _uvarint(record.storage))
                continue
            writer = Writer()
            write_record(writer, record)
            self._append_to_batch(writer.buffer)

    def _append_to_batch(self, record: bytes | bytearray) -> int:
        batch = self._open_batch(0)
        batch.records += record
        batch.record_count += 1
        self._note_queued(len(record))
        number = self._record_count
        self._record_count = number + 1
        return number

    def _note_queued(self, nbytes: int) -> None:
        before = self._queued_nbytes
        self._queued_nbytes = before + nbytes
        if before < self._ring_at <= before + nbytes:
            self._wake()

    def _open_batch(self, payload_nbytes: int) -> _OpenBatch:
        """The last batch, unless it is full or has no room for this payload."""
        last = self._batches[-1] if self._batches else None
        if (
            last is None
            or len(last.records) >= limits.BATCH_NBYTES
            or (
                payload_nbytes
                and (
                    last.payload_nbytes + payload_nbytes > limits.TRANSFER_NBYTES
                    or len(last.payloads) >= BATCH_PAYLOADS
                )
            )
        ):
            last = _OpenBatch()
            self._batches.append(last)
        return last

    def _note(self, number: int) -> None:
        if self.on_record is not None:
            self.on_record(number)

    def _wake(self) -> None:
        # A full counter means that a wake is pending already.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.wake_fileno, 1)


def _call_bytes(
    operation: int,
    arguments: tuple[tuple[int, Value], ...],
    outputs: tuple[Tensor | None, ...],
) -> bytes:
    """A CALL as ``write_record`` writes it, but quicker: shapes repeat."""
    parts: list[bytes | bytearray] = [_CALL, _uvarint(operation)]
    parts.append(_uvarint(len(arguments)))
    for position, value in arguments:
        parts.append(_uvarint(position))
        if type(value) is Tensor:
            parts += (_TENSOR, _uvarint(value.storage), _geometry_of(value))
        else:
            writer = Writer()
            write_value(writer, value)
            parts.append(writer.buffer)
    parts.append(_uvarint(len(outputs)))
    for output in outputs:
        if output is None:
            parts.append(_ABSENT)
        else:
            parts += (_PRESENT, _uvarint(output.storage), _geometry_of(output))
    return b"".join(parts)


_SMALL: Final = [bytes((number,)) for number in range(0x80)]
_CALL, _FREE, _TENSOR = _SMALL[CALL], _SMALL[FREE], _SMALL[TAG_TENSOR]
_ABSENT, _PRESENT = _SMALL[0], _SMALL[1]


def _uvarint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    writer = Writer()
    writer.uvarint(value)
    return bytes(writer.buffer)


def _geometry_of(tensor: Tensor) -> bytes:
    """What follows the storage's id."""
    return _geometry(
        tensor.dtype, tensor.sizes, tensor.strides, tensor.offset, tensor.flags
    )


@functools.lru_cache(maxsize=16384)
def _geometry(
    dtype: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    flags: int,
) -> bytes:
    writer = Writer()
    write_tensor(writer, Tensor(0, dtype, sizes, strides, offset, flags))
    return bytes(writer.buffer[1:])  # storage 0 is one byte


def _chunks(data: memoryview) -> list[Payload]:
    step = limits.CHUNK_NBYTES
    return [bytes(data[at : at + step]) for at in range(0, data.nbytes, step)]
