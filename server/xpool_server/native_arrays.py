"""Rows of array records in C++, and what is left of them for Python.

The loop in C++ executes rows by itself, as far as it knows them. C++ works on the
store beneath ``ArrayTable`` and on the ledger of ``NativeStorages``. It hands back what
it does not know before that has had any effect; an operation is told to it once Python
has run it.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from enum import IntEnum
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.values import SCALAR_TYPES
from xpool_protocol.messages import Reply

from xpool_server import storages
from xpool_server.arrays.calls import ArrayCalls
from xpool_server.arrays.dtypes import DTYPE_OF
from xpool_server.native.library import NativeSession
from xpool_server.native_array_store import NativeArrayStore
from xpool_server.storages import Storages

_DTYPE_CODES: Final = 30
_NAMES: Final = (
    *("shape", "dtype", "base", "nbytes", "flags", "c_contiguous", "writeable"),
)


class ArrayOutcome(IntEnum):
    """Why ``NativeArrays.run`` has returned; as in ``arrays.h``."""

    DONE = 0
    HAND_BACK = 1
    FAILED = 2
    RESULT = 3
    ANSWER = 4


class Stop(ctypes.Structure):
    """Where ``NativeArrays.run`` has stopped, and what it has done."""

    _fields_ = (
        ("position", ctypes.c_uint64),
        ("record_count", ctypes.c_uint64),
    )


class Counts(ctypes.Structure):
    """What C++ has done since it was last asked."""

    _fields_ = (
        ("executed_ops", ctypes.c_uint64),
        ("reused", ctypes.c_uint64),
        ("charged_nbytes", ctypes.c_int64),
    )


class NativeArrays:
    """Runs one session's rows of array records."""

    def __init__(
        self, native: NativeSession, calls: ArrayCalls, ledger: Storages
    ) -> None:
        self.stop = Stop()
        self.error: Exception | None = None
        """What the call has raised that ``run`` has stopped at."""
        self.reused = 0
        """Results that took the memory of an argument that was about to be freed."""
        self.looks_inside = False
        """Results are looked at by their fields, not by their attributes."""
        self._native, self._calls, self._ledger = native, calls, ledger
        self._call = native.library.functions
        self._pointer: int | None = None
        self._known: set[int] = set()
        native.library.declare_locked(*_FUNCTIONS)

    def run(self, records: bytes, position: int) -> ArrayOutcome:
        """Execute records from a position on, until one is Python's; see ``stop``.

        Where the loop in C++ has stopped in a row already, this is why.
        """
        stop = self.stop
        if self._pointer is None and not self._open():
            stop.position, stop.record_count = position, 0
            return ArrayOutcome.HAND_BACK
        self.error = None
        try:
            outcome = self._call["xs_arrays_run"](
                *(self._pointer, records, len(records), position, ctypes.byref(stop))
            )
        except Exception as error:  # noqa: BLE001  a library may raise anything
            self.error, outcome = error, ArrayOutcome.FAILED
        return ArrayOutcome(outcome)

    def settle(self) -> None:
        """Take what C++ has counted, in the loop or here, into Python's counters."""
        if self._pointer is None:
            return
        counts = Counts()
        self._call["xs_arrays_take_counts"](self._pointer, ctypes.byref(counts))
        self._calls.executed_ops += counts.executed_ops
        self._ledger.charged_elsewhere(counts.charged_nbytes)
        self.reused += counts.reused

    def take_result(self) -> Any:
        """What the call has returned that ``run`` has stopped at."""
        return self._call["xs_arrays_result"](self._pointer)

    def take_answer(self) -> Reply:
        """The answer of the request that ``run`` has stopped after."""
        request = ctypes.c_uint64()
        value = self._call["xs_arrays_answer"](self._pointer, ctypes.byref(request))
        return Reply(request.value, value)

    def learn(self, number: int) -> None:
        """Python has run an operation: from now on C++ may."""
        if number in self._known or self._pointer is None:
            return
        if self._calls.is_get(number):
            self._known.add(number)
            self._call["xs_arrays_define_get"](self._pointer, number)
            return
        found = self._calls.known_operation(number)
        if found is None:
            return
        self._known.add(number)
        function, is_view = found
        self._call["xs_arrays_define"](
            *(self._pointer, number, function, is_view),
            self._calls.library.is_elementwise(function),
        )

    def _open(self) -> bool:
        """Make the part in C++, if there are arrays already."""
        if not self._calls.is_open:
            return False
        store = self._calls.arrays.store
        assert isinstance(store, NativeArrayStore), "C++ works on its own store"
        self._store = store  # C++ works on it as long as there are records
        self._pointer = self._call["xs_arrays_new"](
            *(self._native.pointer, _constants(self._calls)),
            *(store.pointer, storages.MAX_HANDLES),
        )
        self.looks_inside = bool(
            self._call["xs_arrays_look_inside"](self._pointer, _probes(self._calls))
        )
        self._call["xs_arrays_lend"](self._native.pointer, self._pointer)
        weakref.finalize(self, self._call["xs_arrays_delete"], self._pointer)
        return True


def _constants(calls: ArrayCalls) -> tuple[Any, ...]:
    """As ``xs_arrays_new`` takes them apart."""
    library = calls.library
    dtypes = tuple([DTYPE_OF.get(code) for code in range(_DTYPE_CODES)])
    count = sys.getrefcount if library.reuses_memory else None
    plain = (None, False, True, ..., dtypes, SCALAR_TYPES)
    known = weakref.ref(calls)  # C++'s references are none that a collection sees

    def answer_of(data: bytes) -> tuple[int, bytes] | None:
        found = known()
        assert found is not None, "the session is over"
        return found.answer_of(data)

    def over_of(data: bytes) -> int | None:
        found = known()
        assert found is not None, "the session is over"
        return found.over_of(data)

    items = library.from_bytes, library.to_bytes, answer_of, over_of
    made = library.array_type, library.as_result, count, _NAMES, ("out",)
    return (*plain, *made, *items)


_FIELDS_NBYTES: Final = 80
"""Of an array, with what every object has: as ``NumpyFields`` in C++."""


def _probes(calls: ArrayCalls) -> tuple[Any, ...]:
    """Arrays whose fields are compared with their attributes; none: they are not known.

    Only NumPy's, in an interpreter whose objects begin as they have for ages.
    """
    if calls.library.array_type is not np.ndarray:
        return ()
    if object.__basicsize__ != 16 or np.ndarray.__basicsize__ < _FIELDS_NBYTES:
        return ()
    cube, fixed = np.zeros((2, 3, 5), np.float32), np.arange(7, dtype=np.int16)
    fixed.flags.writeable = False
    return (
        *(cube, cube[1], cube.T, cube[:, ::2], np.asfortranarray(cube), fixed),
        *(fixed[2:], np.array(3.0), np.empty((0, 4), bool)),
        np.frombuffer(b"12345678", np.int64),
    )


_POINTER: Final = ctypes.c_void_p
_ID: Final = ctypes.c_uint64
_OBJECT: Final = ctypes.py_object
_FUNCTIONS: Final[tuple[tuple[str, tuple[Any, ...], Any], ...]] = (
    ("xs_arrays_new", (_POINTER, _OBJECT, _POINTER, _ID), _POINTER),
    ("xs_arrays_delete", (_POINTER,), None),
    ("xs_arrays_lend", (_POINTER, _POINTER), None),
    ("xs_arrays_take_counts", (_POINTER, ctypes.POINTER(Counts)), None),
    (
        "xs_arrays_define",
        (_POINTER, _ID, _OBJECT, ctypes.c_int32, ctypes.c_int32),
        None,
    ),
    ("xs_arrays_define_get", (_POINTER, _ID), None),
    ("xs_arrays_look_inside", (_POINTER, _OBJECT), ctypes.c_int32),
    (
        "xs_arrays_run",
        (_POINTER, ctypes.c_char_p, _ID, _ID, ctypes.POINTER(Stop)),
        ctypes.c_int32,
    ),
    ("xs_arrays_result", (_POINTER,), _OBJECT),
    ("xs_arrays_answer", (_POINTER, ctypes.POINTER(ctypes.c_uint64)), _OBJECT),
)
