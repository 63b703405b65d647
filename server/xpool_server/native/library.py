"""The native executor seen from Python: the library's functions, by ctypes.

What runs kernels is called without Python's lock; what makes Python objects, or raises,
is called with it.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import torch
from xpool_protocol.plans import Plan

from xpool_server import storages

NO_HANDLE: Final = (1 << 64) - 1

_POINTER: Final = ctypes.c_void_p
_ID: Final = ctypes.c_uint64
_NUMBERS: Final = ctypes.POINTER(ctypes.c_uint64)


DONE, HAND_BACK, FAILED, RESULTS, READ, CALLED = range(6)
"""Why ``NativeSession.run`` has returned; as in ``executor.h``."""


class State(IntEnum):
    """What a handle names."""

    NOTHING = 0
    LIVE = 1
    POISONED = 2


class Stop(ctypes.Structure):
    """Where and with what ``NativeSession.run`` has stopped."""

    _fields_ = (
        ("position", ctypes.c_uint64),
        ("record_count", ctypes.c_uint64),
        ("leaf_count", ctypes.c_uint64),
        ("bound", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("nbytes", ctypes.c_uint64),
        ("expansion", ctypes.c_void_p),
        ("expansion_nbytes", ctypes.c_uint64),
        ("expansion_at", ctypes.c_uint64),
        ("plan", ctypes.c_uint64),
    )


class PlanTables(ctypes.Structure):
    """``XsPlan`` in ``api.cpp``."""

    _fields_ = (
        ("records", ctypes.c_char_p),
        ("nbytes", ctypes.c_uint64),
        ("ends", _NUMBERS),
        ("record_count", ctypes.c_uint64),
        ("holes", _NUMBERS),
        ("hole_count", ctypes.c_uint64),
        ("variables", _NUMBERS),
        ("variable_count", ctypes.c_uint64),
        ("early", _NUMBERS),
        ("early_count", ctypes.c_uint64),
    )


class Ledger(ctypes.Structure):
    """Counters of the table of storages, and of calls."""

    _fields_ = (
        ("allocated_nbytes", ctypes.c_uint64),
        ("peak_nbytes", ctypes.c_uint64),
        ("live_count", ctypes.c_uint64),
        ("handle_count", ctypes.c_uint64),
        ("executed_ops", ctypes.c_uint64),
    )


# Name, arguments after the session, result. Called without Python's lock.
_PLAIN: Final[tuple[tuple[str, tuple[Any, ...], Any], ...]] = (
    ("xs_delete", (), None),
    ("xs_run", (ctypes.c_char_p, _ID, _ID, ctypes.POINTER(Stop)), ctypes.c_int32),
    (
        "xs_run_graph",
        (_ID, _NUMBERS, _NUMBERS, ctypes.c_uint64, ctypes.POINTER(Stop)),
        ctypes.c_int32,
    ),
)

# With it: short, or touching Python's objects.
_LOCKED: Final[tuple[tuple[str, tuple[Any, ...], Any], ...]] = (
    (
        "xs_define",
        (
            *(_ID, ctypes.c_char_p, ctypes.c_char_p),
            *(ctypes.POINTER(ctypes.c_char_p), ctypes.c_uint64, ctypes.c_int32),
        ),
        ctypes.c_int32,
    ),
    ("xs_undefine", (_ID,), None),
    (
        "xs_define_graph",
        (_ID, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64),
        ctypes.c_int32,
    ),
    ("xs_free_graph", (_ID,), None),
    ("xs_define_plan", (_ID, ctypes.POINTER(PlanTables)), ctypes.c_int32),
    ("xs_free_plan", (_ID,), None),
    ("xs_go_on_in_plan", (ctypes.c_uint64,), None),
    ("xs_expanded", (), ctypes.c_uint64),
    ("xs_made", (_NUMBERS,), ctypes.c_uint64),
    ("xs_made_nbytes", (_ID,), ctypes.c_uint64),
    ("xs_made_storage", (_ID,), ctypes.py_object),
    ("xs_raise", (), ctypes.c_int32),
    ("xs_leaf", (_ID,), ctypes.py_object),
    ("xs_drop_leaves", (), None),
    ("xs_state", (_ID,), ctypes.c_int32),
    ("xs_storage", (_ID,), ctypes.py_object),
    ("xs_nbytes", (_ID,), ctypes.c_uint64),
    ("xs_id_of", (ctypes.c_uint64,), ctypes.c_uint64),
    ("xs_adopt", (_ID, ctypes.c_uint64), ctypes.c_int32),
    ("xs_adopt_shared", (_ID, ctypes.c_uint64), ctypes.c_int32),
    ("xs_charge", (ctypes.c_int64,), None),
    ("xs_charge_of", (_ID,), ctypes.c_uint64),
    ("xs_hold", (ctypes.c_uint64,), ctypes.c_int32),
    ("xs_name", (_ID, ctypes.c_uint64), ctypes.c_int32),
    ("xs_let_go", (ctypes.c_uint64,), ctypes.c_int32),
    ("xs_resized", (ctypes.c_uint64,), ctypes.c_int32),
    ("xs_poison", (_ID,), ctypes.c_int32),
    ("xs_free", (_ID,), None),
    ("xs_set_busy", (_ID, ctypes.c_int32), None),
    ("xs_set_quota", (_ID,), None),
    ("xs_ledger", (ctypes.POINTER(Ledger),), None),
    ("xs_handles", (ctypes.POINTER(ctypes.c_uint64),), None),
)


class NativeLibrary:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        plain, locked = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        self._plain, self._locked = plain, locked
        self.functions: dict[str, Any] = {}
        for library, declared in ((plain, _PLAIN), (locked, _LOCKED)):
            for name, arguments, result in declared:
                self._add(library, name, (_POINTER, *arguments), result)
        new = (ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64)
        self._add(locked, "xs_new", new, _POINTER)
        self._add(plain, "xs_keep_memory", (ctypes.c_uint64,), None)
        self._add(plain, "xs_kept_nbytes", (), ctypes.c_uint64)

    def _add(self, library: Any, name: str, arguments: Any, result: Any) -> None:
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = result
        self.functions[name] = function

    def declare(self, *declared: tuple[str, tuple[Any, ...], Any]) -> None:
        """Further functions that are called without Python's lock.

        Args:
            declared: of each its name, its arguments, its result.
        """
        for name, arguments, result in declared:
            self._add(self._plain, name, arguments, result)

    def declare_locked(self, *declared: tuple[str, tuple[Any, ...], Any]) -> None:
        """Further functions that are called with Python's lock, as ``declare``."""
        for name, arguments, result in declared:
            self._add(self._locked, name, arguments, result)

    def keep_memory(self, nbytes: int) -> None:
        """Keep so much of large blocks that torch frees on the CPU for the next ones.

        For this process and from now on; see ``kept_memory.cpp``.
        """
        self.functions["xs_keep_memory"](nbytes)

    @property
    def kept_nbytes(self) -> int:
        """How much of them is kept now."""
        return int(self.functions["xs_kept_nbytes"]())

    def session(self, device: torch.device, quota_nbytes: int) -> NativeSession:
        """A new session's native state."""
        return NativeSession(self, device, quota_nbytes)


def _table(rows: Sequence[tuple[int, ...]]) -> tuple[Any, int]:
    numbers = [number for row in rows for number in row]
    return (ctypes.c_uint64 * len(numbers))(*numbers), len(rows)


class NativeSession:
    """One session in C++: its table of storages, its operations, its executor.

    Handles are not checked here: who calls has looked at ``state``.
    """

    def __init__(
        self, library: NativeLibrary, device: torch.device, quota_nbytes: int
    ) -> None:
        functions = library.functions
        self.library = library
        self.stop = Stop()
        self._stop_at = ctypes.byref(self.stop)
        self.pointer = functions["xs_new"](
            str(device).encode(), max(quota_nbytes, 0), storages.MAX_HANDLES
        )
        self._call = functions
        self._run = functions["xs_run"]
        self._state = functions["xs_state"]
        weakref.finalize(self, functions["xs_delete"], self.pointer)

    def run(self, records: bytes, position: int) -> int:
        """Execute records from a position on, until one is Python's; see ``stop``."""
        outcome: int = self._run(
            self.pointer, records, len(records), position, self._stop_at
        )
        return outcome

    def take_answer(self) -> bytes:
        """The bytes that the read asked for that ``run`` has stopped behind."""
        return ctypes.string_at(self.stop.data, self.stop.nbytes)

    def raise_failure(self) -> None:
        """Raise what the call raised that ``run`` has stopped at."""
        self._call["xs_raise"](self.pointer)

    def take_leaves(self) -> list[torch.Tensor | None]:
        """Results of the call that ``run`` has stopped at."""
        leaf = self._call["xs_leaf"]
        leaves = [leaf(self.pointer, one) for one in range(self.stop.leaf_count)]
        self._call["xs_drop_leaves"](self.pointer)
        return leaves

    def define(
        self,
        number: int,
        base: str,
        overload: str,
        argument_names: Sequence[str],
        *,
        takes_numbers: bool,
    ) -> None:
        """Give an operation its number; arguments are those of ``resolve``."""
        names = (ctypes.c_char_p * len(argument_names))(
            *(name.encode() for name in argument_names)
        )
        self._call["xs_define"](
            *(self.pointer, number, base.encode(), overload.encode()),
            *(names, len(argument_names), takes_numbers),
        )

    def undefine(self, number: int) -> None:
        """Leave an operation's calls to Python."""
        self._call["xs_undefine"](self.pointer, number)

    # ---- plans

    def define_plan(self, plan: Plan) -> None:
        """Keep a plan that ``read_plan`` has checked."""
        holes = [hole for row in plan.holes for hole in row]
        tables = PlanTables(
            plan.records,
            len(plan.records),
            *_table([(end,) for end in plan.ends]),
            *_table([(one.at, one.nbytes, one.variable, one.binds) for one in holes]),
            *_table(
                [
                    (one.rule, one.number & NO_HANDLE, one.bound_at, one.now)
                    for one in plan.variables
                ]
            ),
            *_table([(one.after, one.read, one.request) for one in plan.early]),
        )
        self._call["xs_define_plan"](self.pointer, plan.id, ctypes.byref(tables))

    def free_plan(self, plan_id: int) -> None:
        """Forget a plan."""
        self._call["xs_free_plan"](self.pointer, plan_id)

    def planned(self) -> bytes | None:
        """From the record on that ``run`` has stopped at, if it is of a plan's run."""
        stop = self.stop
        if not stop.expansion:
            return None
        left = stop.expansion_nbytes - stop.expansion_at
        return ctypes.string_at(stop.expansion + stop.expansion_at, left)

    def go_on_in_plan(self, nbytes: int) -> None:
        """The record of a plan's run, of so many bytes, is executed."""
        self._call["xs_go_on_in_plan"](self.pointer, self.stop.expansion_at + nbytes)

    def expanded_nbytes(self) -> int:
        """What the runs of plans in this batch stand for so far."""
        return int(self._call["xs_expanded"](self.pointer))

    # ---- graphs

    def define_graph(self, graph_id: int, records: bytes, storages: int) -> None:
        """Keep the records of a graph that ``read_graph`` has checked."""
        self._call["xs_define_graph"](
            self.pointer, graph_id, records, len(records), storages
        )

    def free_graph(self, graph_id: int) -> None:
        """Forget a graph, if there is one."""
        self._call["xs_free_graph"](self.pointer, graph_id)

    def run_graph(self, graph_id: int, bound: Mapping[int, int]) -> int:
        """Run a graph's records as ``run`` does; ``stop`` counts within the graph.

        Args:
            graph_id: which.
            bound: storages of the session by the graph's numbers.
        """
        count = len(bound)
        numbers = (ctypes.c_uint64 * count)(*bound)
        parameters = (ctypes.c_uint64 * count)(*bound.values())
        outcome: int = self._call["xs_run_graph"](
            *(self.pointer, graph_id, numbers, parameters, count, self._stop_at)
        )
        return outcome

    def made(self, storages: int) -> dict[int, tuple[torch.UntypedStorage, int]]:
        """What the last run has made and not freed, by the graph's numbers.

        With each, its bytes as they were last charged.

        Args:
            storages: how many numbers the graph has.
        """
        numbers = (ctypes.c_uint64 * storages)()
        count = self._call["xs_made"](self.pointer, numbers)
        storage, nbytes = self._call["xs_made_storage"], self._call["xs_made_nbytes"]
        return {
            one: (storage(self.pointer, one), int(nbytes(self.pointer, one)))
            for one in numbers[:count]
        }

    # ---- the table of storages

    def state(self, storage_id: int) -> State:
        """What a handle names."""
        return State(self._state(self.pointer, storage_id))

    def storage(self, storage_id: int) -> torch.UntypedStorage:
        """The storage of a live handle."""
        storage: torch.UntypedStorage = self._call["xs_storage"](
            self.pointer, storage_id
        )
        return storage

    def nbytes(self, storage_id: int) -> int:
        """Bytes of a live handle's storage, as it was last charged."""
        return int(self._call["xs_nbytes"](self.pointer, storage_id))

    def id_of(self, identity: int) -> int:
        """The handle of a storage; ``NO_HANDLE`` if it has none."""
        return int(self._call["xs_id_of"](self.pointer, identity))

    def adopt(self, storage_id: int, identity: int) -> None:
        """Name and charge a storage."""
        self._call["xs_adopt"](self.pointer, storage_id, identity)

    def adopt_shared(self, storage_id: int, identity: int) -> None:
        """Name a storage whose memory is charged elsewhere already."""
        self._call["xs_adopt_shared"](self.pointer, storage_id, identity)

    def charge(self, nbytes: int) -> None:
        """Charge memory that is no storage's; negative: give it back."""
        self._call["xs_charge"](self.pointer, nbytes)

    def charge_of(self, storage_id: int) -> int:
        """What a live handle's storage takes from the quota."""
        return int(self._call["xs_charge_of"](self.pointer, storage_id))

    def hold(self, identity: int) -> None:
        """Charge a storage that has no handle yet."""
        self._call["xs_hold"](self.pointer, identity)

    def name(self, storage_id: int, identity: int) -> None:
        """Give what is held a handle."""
        self._call["xs_name"](self.pointer, storage_id, identity)

    def let_go(self, identity: int) -> None:
        """Drop what is held."""
        self._call["xs_let_go"](self.pointer, identity)

    def resized(self, identity: int) -> None:
        """Charge a storage anew whose size has changed."""
        self._call["xs_resized"](self.pointer, identity)

    def poison(self, storage_id: int) -> None:
        """Drop what a handle names, and keep the handle."""
        self._call["xs_poison"](self.pointer, storage_id)

    def free(self, storage_id: int) -> None:
        """Forget a handle."""
        self._call["xs_free"](self.pointer, storage_id)

    def set_busy(self, storage_id: int, *, is_busy: bool) -> None:
        """Whether whatever uses a live handle is handed back."""
        self._call["xs_set_busy"](self.pointer, storage_id, is_busy)

    def set_quota(self, nbytes: int) -> None:
        """Allow another sum from now on."""
        self._call["xs_set_quota"](self.pointer, nbytes)

    def ledger(self) -> Ledger:
        """The counters now."""
        ledger = Ledger()
        self._call["xs_ledger"](self.pointer, ctypes.byref(ledger))
        return ledger

    def handles(self) -> list[int]:
        """Every handle, live or poisoned."""
        found = (ctypes.c_uint64 * self.ledger().handle_count)()
        self._call["xs_handles"](self.pointer, found)
        return list(found)
