"""The loop of an open session in C++, seen from Python: ``serving.h`` by ctypes."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from xpool_protocol.transport import NativeSockets, PeerId

from xpool_server.native.library import NativeLibrary, NativeSession, Stop


class Why(IntEnum):
    """Why ``NativeServing.serve`` has returned; as in ``serving.h``."""

    QUIET = 0
    MESSAGE = 1
    RECORD = 2
    BROKEN = 3


NOTE_WORK: Final = ctypes.CFUNCTYPE(None, ctypes.c_int32)
IS_SETTLED: Final = ctypes.CFUNCTYPE(ctypes.c_int32)


class _Setup(ctypes.Structure):
    _fields_ = (
        ("functions", ctypes.c_void_p * 10),
        ("socket", ctypes.c_void_p),
        ("socket_fileno", ctypes.c_int32),
        ("version", ctypes.c_uint32),
        ("max_message_nbytes", ctypes.c_uint64),
        ("window_nbytes", ctypes.c_uint64),
        ("owner", ctypes.c_char_p),
        ("owner_nbytes", ctypes.c_uint64),
        ("watched", ctypes.POINTER(ctypes.c_int32)),
        ("watched_count", ctypes.c_uint64),
        ("note_work", NOTE_WORK),
        ("is_settled", IS_SETTLED),
    )


class _Served(ctypes.Structure):
    _fields_ = (
        ("sequence", ctypes.c_uint64),
        ("operation", ctypes.c_uint64),
        ("received_nbytes", ctypes.c_uint64),
        ("sent_nbytes", ctypes.c_uint64),
        ("busy_ns", ctypes.c_uint64),
        ("refused_messages", ctypes.c_uint64),
        ("outcome", ctypes.c_int32),
        ("message", ctypes.c_void_p),
        ("frame_count", ctypes.c_uint64),
    )


class Place(NamedTuple):
    """How far a session's log is executed and acknowledged."""

    sequence: int
    """The last batch."""
    operation: int
    """The next record."""


class Served(NamedTuple):
    """What ``NativeServing.serve`` has come to."""

    why: Why
    place: Place
    received_nbytes: int
    """Of the batches that were executed to their end."""
    sent_nbytes: int
    busy_ns: int
    refused_messages: int
    """Thrown away: over a limit, or of a peer that named itself."""
    peer: PeerId
    frames: Sequence[memoryview]
    """With MESSAGE and RECORD: the message that is Python's."""
    outcome: int
    """With RECORD: as ``NativeSession.run`` returns it; ``stop`` is set likewise."""


def declare(library: NativeLibrary) -> None:
    """Load the loop's functions and their types."""
    pointer, uint64 = ctypes.c_void_p, ctypes.c_uint64
    lent = ctypes.POINTER(ctypes.c_uint64)
    served, stop = ctypes.POINTER(_Served), ctypes.POINTER(Stop)
    library.declare(
        ("xs_serving_new", (pointer, ctypes.POINTER(_Setup)), pointer),
        ("xs_serving_delete", (pointer,), None),
        ("xs_serve", (pointer, ctypes.c_int64, served, stop), ctypes.c_int32),
        ("xs_frame", (pointer, uint64, lent), pointer),
        ("xs_release", (pointer,), None),
    )


class _Owner:
    """Keeps a message's memory while a view of a frame is alive."""


class NativeServing:
    """Serves one session's owner at a ROUTER socket that Python uses in turn."""

    def __init__(
        self,
        session: NativeSession,
        sockets: NativeSockets,
        owner: PeerId,
        watched: Sequence[int],
        *,
        version: int,
        window_nbytes: int,
        note_work: Callable[[bool], None] | None,
        is_settled: Callable[[], bool],
    ) -> None:
        """A loop that has not begun.

        Args:
            session: whose records it runs.
            sockets: of the listener.
            owner: the only peer whose messages it reads.
            watched: descriptors that end it when they are readable.
            version: of the protocol.
            window_nbytes: what each Ack tells.
            note_work: told when work begins and when it ends; None: the loop takes
                the time of its thread itself.
            is_settled: waits for the device, and says whether there is no more to a
                fence than that.
        """
        declare(session.library)
        self._call = session.library.functions
        self._session = session
        self._note_work = NOTE_WORK() if note_work is None else NOTE_WORK(note_work)
        self._is_settled = IS_SETTLED(is_settled)
        setup = _Setup(
            functions=(ctypes.c_void_p * 10)(*sockets.functions),
            socket=sockets.socket,
            socket_fileno=sockets.socket_fileno,
            version=version,
            max_message_nbytes=sockets.max_message_nbytes,
            window_nbytes=window_nbytes,
            owner=ctypes.c_char_p(bytes(owner)),
            owner_nbytes=len(owner),
            watched=(ctypes.c_int32 * len(watched))(*watched),
            watched_count=len(watched),
            note_work=self._note_work,
            is_settled=self._is_settled,
        )
        self._pointer = self._call["xs_serving_new"](
            session.pointer, ctypes.byref(setup)
        )
        weakref.finalize(self, self._call["xs_serving_delete"], self._pointer)

    def serve(self, place: Place, timeout_s: float) -> Served:
        """Serve until something is Python's, for at most so long. Holds no lock."""
        served = _Served(sequence=place.sequence, operation=place.operation)
        why = self._call["xs_serve"](
            *(self._pointer, round(timeout_s * 1e9)),
            *(ctypes.byref(served), ctypes.byref(self._session.stop)),
        )
        frames = self._frames(served)
        return Served(
            Why(why),
            Place(served.sequence, served.operation),
            served.received_nbytes,
            served.sent_nbytes,
            served.busy_ns,
            served.refused_messages,
            PeerId(bytes(frames[0]) if frames else b""),
            frames[1:],
            served.outcome,
        )

    def _frames(self, served: _Served) -> list[memoryview]:
        if not served.message:
            return []
        owner, frames = _Owner(), []
        weakref.finalize(owner, self._call["xs_release"], served.message)
        for index in range(served.frame_count):
            nbytes = ctypes.c_uint64()
            at = self._call["xs_frame"](served.message, index, ctypes.byref(nbytes))
            array: Any = (ctypes.c_char * nbytes.value).from_address(at)
            array._owner = owner
            frames.append(memoryview(array).cast("B"))
        return frames
