"""Where array records go: the session's one log, native or in Python."""

# ruff: noqa: D102  the protocol documents the methods

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final, Protocol

from xpool_protocol import limits
from xpool_protocol.records import Read

if TYPE_CHECKING:
    from collections.abc import Callable

    from xpool.native.device import NativeDevice
    from xpool.session import Session
    from xpool.torch.python_log import PythonLog


class ArrayLog(Protocol):
    """The session's log as the array stub uses it."""

    takes_from_finalizers: bool
    """``append`` may be called while another call of it is under way in this thread."""

    @property
    def append(self) -> Callable[[bytes], int]:
        """Appends one encoded record; its operation number. Never waits."""

    def next_request(self) -> int:
        """A request id."""

    def next_storage(self) -> int:
        """A storage id."""

    def leave_room(self) -> None:
        """Wait while too much is queued.

        Raises:
            RuntimeError: the session is over.
        """

    def write(
        self, storage: int, data: memoryview, before: bytes, after: bytes
    ) -> tuple[int, int]:
        """Fill a storage, between the record that makes it and one that uses it.

        Returns:
            The two records' operation numbers.
        """

    def read(self, storage: int, to: memoryview) -> None:
        """Fetch a storage's bytes."""

    def allocated_nbytes(self) -> int:
        """What storages take from the quota, as the client knows it."""


class _Write(ctypes.Structure):
    _fields_ = (
        ("storage", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("nbytes", ctypes.c_uint64),
        ("before", ctypes.c_char_p),
        ("after", ctypes.c_char_p),
        ("before_nbytes", ctypes.c_uint64),
        ("after_nbytes", ctypes.c_uint64),
        ("before_number", ctypes.c_uint64),
        ("after_number", ctypes.c_uint64),
    )


class NativeArrayLog:
    """The log in C++, which torch's stub shares."""

    takes_from_finalizers = True

    def __init__(self, device: NativeDevice) -> None:
        path = str(device.process.path)
        # Appending needs no thread to let go of Python's lock: it copies some bytes.
        quick, waiting = ctypes.PyDLL(path), ctypes.CDLL(path)
        self._index, self._device = device.index, device
        self.append: Callable[[bytes], int] = _builtin(
            quick.xpool_array_append_parts, device.index
        )
        self._next_request = quick.xpool_array_request
        self._next_storage = quick.xpool_array_storage
        for function in (self._next_request, self._next_storage):
            function.argtypes, function.restype = [ctypes.c_int32], ctypes.c_uint64
        self._leave_room = waiting.xpool_array_leave_room
        self._leave_room.argtypes = [ctypes.c_int32]
        self._leave_room.restype = ctypes.c_char_p
        self._write, self._read = waiting.xpool_array_write, waiting.xpool_array_read
        self._write.argtypes = [ctypes.c_int32, ctypes.POINTER(_Write)]
        self._read.argtypes = [
            ctypes.c_int32,
            ctypes.c_uint64,
            ctypes.c_void_p,
            ctypes.c_uint64,
        ]
        for function in (self._write, self._read):
            function.restype = ctypes.c_char_p

    def next_request(self) -> int:
        return int(self._next_request(self._index))

    def next_storage(self) -> int:
        return int(self._next_storage(self._index))

    def leave_room(self) -> None:
        _raise(self._leave_room(self._index))

    def write(
        self, storage: int, data: memoryview, before: bytes, after: bytes
    ) -> tuple[int, int]:
        write = _Write(
            storage=storage,
            data=_address(data),
            nbytes=data.nbytes,
            before=before,
            after=after,
            before_nbytes=len(before),
            after_nbytes=len(after),
        )
        _raise(self._write(self._index, ctypes.byref(write)))
        return write.before_number, write.after_number

    def read(self, storage: int, to: memoryview) -> None:
        _raise(self._read(self._index, storage, _address(to), to.nbytes))

    def allocated_nbytes(self) -> int:
        return self._device.memory()["allocated"]


class _Method(ctypes.Structure):
    """``PyMethodDef``, of the interpreter's stable ABI."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL: Final = 0x80
_methods: list[_Method] = []
"""What builtin functions refer to, as long as there is a process."""


def _builtin(function: Any, owner: object) -> Callable[..., Any]:
    """A native function as a builtin one: a call costs a fifth of one by ctypes.

    Args:
        function: of C: ``(owner, arguments, count)``, and returns an object.
        owner: its first argument.
    """
    address = ctypes.cast(function, ctypes.c_void_p).value
    method = _Method(b"append", address, _FASTCALL, None)
    _methods.append(method)
    make = ctypes.pythonapi["PyCFunction_NewEx"]
    make.argtypes = [ctypes.POINTER(_Method), ctypes.py_object, ctypes.c_void_p]
    make.restype = ctypes.py_object
    return make(method, owner, None)


def _address(view: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(view, np.uint8).ctypes.data)


def _raise(error: bytes | None) -> None:
    if error is not None:
        raise RuntimeError(error.decode(errors="replace"))


class PythonArrayLog:
    """The log in Python, where there is no native library."""

    takes_from_finalizers = False

    def __init__(self, log: PythonLog, session: Session) -> None:
        self._log, self._session = log, session
        self.append: Callable[[bytes], int] = log.append_encoded

    def next_request(self) -> int:
        return self._log.next_request()

    def next_storage(self) -> int:
        return self._log.next_storage()

    def leave_room(self) -> None:
        if self._session.link.over is not None:
            raise RuntimeError(f"xpool: {self._session.link.over}")
        self._session.link.wait_for_room()

    def write(
        self, storage: int, data: memoryview, before: bytes, after: bytes
    ) -> tuple[int, int]:
        made = self.append(before)
        step = limits.TRANSFER_NBYTES
        for at in range(0, data.nbytes, step):
            self._session.link.wait_for_room()
            self._log.append_write(storage, at, data[at : at + step])
        return made, self.append(after)

    def read(self, storage: int, to: memoryview) -> None:
        step = limits.TRANSFER_NBYTES
        for at in range(0, to.nbytes, step):
            length = min(step, to.nbytes - at)
            request = self._log.next_request()
            self._log.append(Read(request, storage, at, length))
            for payload in self._session.wait(request).payloads:
                part: Any = memoryview(payload)
                if part.nbytes > to.nbytes - at:
                    raise RuntimeError("xpool: the server sent more bytes than asked")
                to[at : at + part.nbytes] = part
                at += part.nbytes

    def allocated_nbytes(self) -> int:
        return 0
