"""The client's replay in C++, and the server's side of it, face to face."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from support.probes import built_probe
from xpool.native import build
from xpool_protocol.plan_records import DefinePlan, FreePlan, RunPlan
from xpool_protocol.plans import Plan, read_plan
from xpool_protocol.records import Read, Record, read_records, write_record
from xpool_protocol.wire import Writer

SOURCES = (
    *("replay.cpp", "history.cpp", "log_plan.cpp", "plan_making.cpp"),
    "record_walk.cpp",
)


class Counters(ctypes.Structure):
    _fields_ = (
        ("records", ctypes.c_uint64),
        ("replayed", ctypes.c_uint64),
        ("parts", ctypes.c_uint64),
        ("plans", ctypes.c_uint64),
        ("early_answers", ctypes.c_uint64),
    )


def build_probe(probe: Path, folder: Path) -> Any:
    """The probe's functions."""
    library = built_probe(build.LIBRARY, probe, folder, *SOURCES)
    pointer, uint64 = ctypes.c_void_p, ctypes.c_uint64
    out = ctypes.POINTER(uint64)
    for name, arguments, result in (
        ("probe_new", [ctypes.c_int], pointer),
        ("probe_delete", [pointer], None),
        ("probe_append", [pointer, ctypes.c_char_p, uint64], ctypes.c_uint32),
        ("probe_request", [pointer, uint64, uint64, uint64], uint64),
        ("probe_next_request", [pointer], uint64),
        ("probe_flush", [pointer], None),
        ("probe_take", [pointer, out], pointer),
        ("probe_abandoned", [pointer, out, uint64], uint64),
        ("probe_counters", [pointer, ctypes.POINTER(Counters)], None),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


class Client:
    """Gives records to the replay, and takes what it puts out."""

    def __init__(self, library: Any, *, with_early: bool = True) -> None:
        self._library = library
        self._probe = library.probe_new(int(with_early))
        self.ours = 0

    def close(self) -> None:
        self._library.probe_delete(self._probe)

    def append(self, record: bytes) -> None:
        self.ours += self._library.probe_append(self._probe, record, len(record))

    def read(self, storage: int, offset: int, nbytes: int) -> bytes:
        """Append a read as the log does; its bytes."""
        request = self._library.probe_request(self._probe, storage, offset, nbytes)
        record = encoded(Read(request, storage, offset, nbytes))
        self.append(record)
        return record

    def next_request(self) -> int:
        return int(self._library.probe_next_request(self._probe))

    def take(self) -> bytes:
        """Flush, and take all that goes on the wire."""
        self._library.probe_flush(self._probe)
        return self.take_unflushed()

    def take_unflushed(self) -> bytes:
        nbytes = ctypes.c_uint64()
        at = self._library.probe_take(self._probe, ctypes.byref(nbytes))
        return ctypes.string_at(at, nbytes.value)

    def abandoned(self) -> list[int]:
        room = (ctypes.c_uint64 * 1000)()
        count = self._library.probe_abandoned(self._probe, room, len(room))
        assert count <= len(room)
        return list(room[:count])

    def counters(self) -> dict[str, int]:
        counters = Counters()
        self._library.probe_counters(self._probe, ctypes.byref(counters))
        return {name: getattr(counters, name) for name, _ in Counters._fields_}


class Server:
    """Makes ordinary records of what is on the wire."""

    def __init__(self) -> None:
        self.plans: dict[int, Plan] = {}
        self.own_records = 0
        self.early: list[tuple[int, bytes]] = []
        """Reads that may be answered early: after how many records, and their bytes."""
        self.count = 0

    def expand(self, wire: bytes, in_place_of_ours: bytes = b"") -> bytes:
        """The records that a batch stands for.

        Args:
            wire: a batch.
            in_place_of_ours: what to put where plans are defined and freed.
        """
        made = bytearray()
        for record in read_records(wire):
            match record:
                case DefinePlan():
                    assert record.plan not in self.plans
                    self.plans[record.plan] = read_plan(record)
                    self.own_records += 1
                    made += in_place_of_ours
                case FreePlan():
                    del self.plans[record.plan]
                    self.own_records += 1
                    made += in_place_of_ours
                case RunPlan():
                    expansion = self.plans[record.plan].expand(record)
                    made += expansion.records
                    for index, read in expansion.reads.items():
                        self.early.append((self.count + index + 1, read))
                    self.count += record.count
                case _:
                    made += encoded(record)
                    self.count += 1
        return bytes(made)


def encoded(*records: Record) -> bytes:
    writer = Writer()
    for record in records:
        write_record(writer, record)
    return bytes(writer.buffer)
