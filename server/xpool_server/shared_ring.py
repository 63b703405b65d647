"""The server's end of a lane through memory that it shares with a client on its host.

A ring of slots for each direction (SPEC.md section 13). The stream says how many bytes
the next slot holds; the socket beside it says that a slot is free again. A client may
write into its slots whenever it likes: what is copied out of them is its own data, and
nothing in them is ever believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import socket
from typing import Final

from xpool_protocol import lane as wire
from xpool_protocol.errors import PeerError
from xpool_protocol.messages import Payload

from xpool_server.stream_reading import fill_from

_ONE: Final = ctypes.c_char


class SharedRing:
    """Both rings of one lane."""

    def __init__(self, memory_fd: int, freed: socket.socket) -> None:
        """Map the client's memory.

        Args:
            memory_fd: of the client's memory; still the caller's.
            freed: the client's other end tells of free slots; the ring's from now on.

        Raises:
            PeerError: the memory has another size, or might shrink beneath us.
        """
        self._freed = freed
        self._whole = memoryview(_mapped(memory_fd))
        self._received = 0
        self._sent = 0
        self._confirmed = 0
        self._slot = self._whole[:0]
        """What the current slot still holds."""

    def receive(self, stream: socket.socket, room: memoryview, left: int) -> None:
        """Fill ``room`` from the client's slots.

        Args:
            stream: says how many bytes a slot holds.
            room: where the bytes go.
            left: how many the transfer still has, from the room's beginning.

        Raises:
            EOFError, OSError: the client is gone, or was silent for too long.
            PeerError: a slot can't hold so much.
        """
        at = 0
        while at < len(room):
            if not len(self._slot):
                self._slot = self._next_slot(stream)
                if len(self._slot) > left:
                    raise PeerError("a lane's slot holds bytes of two transfers")
            count = min(len(room) - at, len(self._slot))
            copy_bytes(room[at : at + count], self._slot[:count])
            self._slot = self._slot[count:]
            at += count
            left -= count
            if not len(self._slot):
                self._received += 1
                self._freed.sendall(wire.FREED)

    def send(self, stream: socket.socket, part: Payload) -> None:
        """Copy ``part`` into the server's slots, and say so.

        Raises:
            EOFError, OSError: the client is gone, or took nothing for too long.
        """
        view = memoryview(part).cast("B")
        for at in range(0, len(view), wire.SLOT_NBYTES):
            piece = view[at : at + wire.SLOT_NBYTES]
            self._await_free_slot()
            begin = wire.DOWNLOAD_SLOTS_AT + wire.slot_at(self._sent)
            copy_bytes(self._whole[begin : begin + len(piece)], piece)
            self._sent += 1
            stream.sendall(wire.count_bytes(len(piece)))

    def close(self) -> None:
        """End whoever waits for a free slot. The memory stays until nobody uses it."""
        with contextlib.suppress(OSError):  # the client may be gone already
            self._freed.shutdown(socket.SHUT_RDWR)
        self._freed.close()

    def _next_slot(self, stream: socket.socket) -> memoryview:
        count = bytearray(wire.COUNT_NBYTES)
        fill_from(stream, memoryview(count))
        begin = wire.slot_at(self._received)
        return self._whole[begin : begin + wire.count_from(count)]

    def _await_free_slot(self) -> None:
        while self._sent - self._confirmed >= wire.SLOTS:
            told = self._freed.recv(wire.SLOTS)
            if not told:
                raise EOFError("the client closed its memory")
            self._confirmed += len(told)


def copy_bytes(to: memoryview, source: memoryview) -> None:
    """Copy between memory of the same length, other threads run meanwhile."""
    if source.readonly:
        to[:] = source
        return
    ctypes.memmove(
        ctypes.addressof(_ONE.from_buffer(to)),
        ctypes.addressof(_ONE.from_buffer(source)),
        len(to),
    )


def _mapped(memory_fd: int) -> mmap.mmap:
    try:
        seals = fcntl.fcntl(memory_fd, fcntl.F_GET_SEALS)
        nbytes = os.fstat(memory_fd).st_size
    except OSError as error:
        raise PeerError(f"what should be shared memory is none: {error}") from error
    if nbytes != wire.MEMORY_NBYTES:
        raise PeerError(
            f"a lane's shared memory has {wire.MEMORY_NBYTES} bytes, not {nbytes}"
        )
    # Memory that shrinks beneath a mapping kills whoever touches it.
    if not seals & fcntl.F_SEAL_SHRINK:
        raise PeerError("a lane's shared memory must be sealed against shrinking")
    return mmap.mmap(memory_fd, nbytes)
