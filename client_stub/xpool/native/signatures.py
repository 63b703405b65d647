"""The native library's functions as ctypes must know them."""

from __future__ import annotations

import ctypes
from typing import Any

from xpool.native import pump


class Answer(ctypes.Structure):
    """``Answer`` of ``remote.h``."""

    _fields_ = (
        ("status", ctypes.c_int32),
        ("signal", ctypes.c_int32),
        ("value", ctypes.c_void_p),
        ("value_nbytes", ctypes.c_uint64),
        ("payloads", ctypes.c_void_p),
        ("payload_nbytes", ctypes.c_void_p),
        ("payload_count", ctypes.c_uint64),
        ("exception", ctypes.c_char_p),
        ("text", ctypes.c_char_p),
    )


class TakenBatch(ctypes.Structure):
    """A batch as ``xpool_take`` hands it over."""

    _fields_ = (
        ("records", ctypes.c_void_p),
        ("nbytes", ctypes.c_uint64),
        ("record_count", ctypes.c_uint64),
        ("payloads", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_uint64)),
        ("payload_count", ctypes.c_uint64),
    )


class Counters(ctypes.Structure):
    """``MemoryCounters`` of ``remote.h``."""

    _fields_ = (
        ("allocated", ctypes.c_uint64),
        ("peak", ctypes.c_uint64),
        ("quota", ctypes.c_uint64),
        ("allocation_count", ctypes.c_uint64),
        ("allocated_total", ctypes.c_uint64),
        ("released_count", ctypes.c_uint64),
        ("peak_count", ctypes.c_uint64),
        ("refused_count", ctypes.c_uint64),
    )


class PlanCounters(ctypes.Structure):
    """How often a call's geometry was known."""

    _fields_ = (
        ("hits", ctypes.c_uint64),
        ("misses", ctypes.c_uint64),
        ("requests", ctypes.c_uint64),
    )


class ReplayCounters(ctypes.Structure):
    """``ReplayCounters`` of ``replay.h``."""

    _fields_ = (
        ("records", ctypes.c_uint64),
        ("replayed", ctypes.c_uint64),
        ("parts", ctypes.c_uint64),
        ("plans", ctypes.c_uint64),
        ("early_answers", ctypes.c_uint64),
    )


class LaneCounters(ctypes.Structure):
    """``Lane::Counters``."""

    _fields_ = (
        ("uploads", ctypes.c_uint64),
        ("downloads", ctypes.c_uint64),
        ("known", ctypes.c_uint64),
    )


class AheadCounters(ctypes.Structure):
    """``Ahead::Counters``."""

    _fields_ = (("sent", ctypes.c_uint64), ("used", ctypes.c_uint64))


class _PyBuffer(ctypes.Structure):
    """CPython's ``Py_buffer``, to learn the address of a read-only buffer."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


REQUEST_CALLBACK = ctypes.CFUNCTYPE(
    None, ctypes.c_int32, ctypes.c_uint64, ctypes.POINTER(Answer)
)
WAIT_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int32)
ROOM_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_int32, ctypes.c_uint64, ctypes.c_uint32
)
TRACE_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_uint64)
OPEN_LANE_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int32)
DIGEST_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64
)
WAITED_CALLBACK = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64
)


def address_of(view: object) -> int:
    """Where a buffer's bytes stand, a read-only one's too; its owner keeps them."""
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(
        ctypes.py_object(view), ctypes.byref(buffer), ctypes.c_int(0)
    )
    address = int(buffer.buf or 0)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address


def declare(library: Any) -> None:
    """Say what the library's functions take and return."""
    library.xpool_register.argtypes = [ctypes.c_int32]
    library.xpool_register.restype = ctypes.c_char_p
    library.xpool_settle.restype = ctypes.c_char_p
    library.xpool_take_over.restype = ctypes.c_char_p
    library.xpool_take.argtypes = [ctypes.c_int32, ctypes.POINTER(TakenBatch)]
    library.xpool_take.restype = ctypes.c_void_p
    library.xpool_release.argtypes = [ctypes.c_void_p]
    library.xpool_queued_bytes.restype = ctypes.c_uint64
    library.xpool_request.argtypes = [ctypes.c_int32, ctypes.c_uint8]
    library.xpool_request.restype = ctypes.c_uint64
    library.xpool_position.argtypes = [ctypes.c_int32]
    library.xpool_position.restype = ctypes.c_uint64
    library.xpool_set_callbacks.argtypes = [
        REQUEST_CALLBACK,
        WAIT_CALLBACK,
        TRACE_CALLBACK,
    ]
    library.xpool_set_quota.argtypes = [ctypes.c_int32, ctypes.c_uint64]
    library.xpool_wait_for_room.argtypes = [ROOM_CALLBACK]
    library.xpool_watch_waits.argtypes = [WAITED_CALLBACK]
    library.xpool_set_lane_opener.argtypes = [OPEN_LANE_CALLBACK, DIGEST_CALLBACK]
    library.xpool_set_known.argtypes = [
        ctypes.c_int32,
        ctypes.c_char_p,
        ctypes.c_uint64,
    ]
    library.xpool_connect.argtypes = [
        ctypes.c_int32,
        ctypes.c_int32,
        ctypes.c_uint64,
        ctypes.c_int32,
    ]
    library.xpool_set_peer.argtypes = [ctypes.c_int32, *[ctypes.c_char_p] * 3]
    library.xpool_set_server_text.argtypes = [ctypes.c_int32, ctypes.c_char_p]
    library.xpool_set_lacking.argtypes = [ctypes.c_int32, ctypes.c_char_p]
    library.xpool_learn.argtypes = [ctypes.c_char_p]
    library.xpool_end.argtypes = [ctypes.c_int32, ctypes.c_char_p]
    library.xpool_current_stream.restype = ctypes.c_int64
    library.xpool_set_current_stream.argtypes = [ctypes.c_int32, ctypes.c_int64]
    for name in ("xpool_export_storage", "xpool_import_tensor"):
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
    library.xpool_resize_storage.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    library.xpool_resize_storage.restype = ctypes.c_char_p
    pump.declare(library)
    library.xpool_enable_ahead.argtypes = [ctypes.c_int32]
    library.xpool_send_ahead.argtypes = [ctypes.c_int32, ctypes.c_void_p]
