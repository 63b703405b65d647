"""The executor whose common records run in C++, without Python's lock.

C++ takes a batch as far as its records are calls that pass their schema, allocations,
frees and small writes. It hands back, before it has had any effect, every record that
is of another kind or breaks a rule, and the exception or the results of a call that did
not come out as predicted. What happens then, and what is said, is ``Executor``'s.
"""

# ruff: noqa: D102  the class in executor.py documents the methods

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Final, TypeAlias

import torch
from xpool_protocol.arrays.records import (
    ARRAY_KINDS,
    ArrayCall,
    ArrayOverStorage,
    ArrayRequest,
)
from xpool_protocol.messages import Reply
from xpool_protocol.plan_records import RunPlan
from xpool_protocol.records import Call, DefineOperation, Record, read_record
from xpool_protocol.wire import Reader

from xpool_server.arbiter.costs import Costs
from xpool_server.arbiter.native_costs import NativeCosts
from xpool_server.arbiter.turn import NativeTurn, Turn
from xpool_server.arrays.store import ArrayStore
from xpool_server.calls import encoded
from xpool_server.devices.base import Backend
from xpool_server.executor import Executor
from xpool_server.failures import Answers
from xpool_server.graphs import Graphs
from xpool_server.host_memory import KEPT_NBYTES
from xpool_server.known_uploads import KnownUploads
from xpool_server.lane import Lane
from xpool_server.native.library import (
    CALLED,
    DONE,
    FAILED,
    HAND_BACK,
    READ,
    NativeLibrary,
)
from xpool_server.native_array_store import NativeArrayStore
from xpool_server.native_arrays import ArrayOutcome, NativeArrays
from xpool_server.native_graphs import NativeGraphs
from xpool_server.native_plans import NativePlans
from xpool_server.native_storages import NativeStorages
from xpool_server.plans import Plans, read_planned
from xpool_server.storages import Storages
from xpool_server.transfers import PeerDoor

_NONE: Final = encoded(None)
_RUN_BY_ROWS: Final = (ArrayCall, ArrayRequest, ArrayOverStorage)

MakeExecutor: TypeAlias = Callable[
    [Backend, int, Lane, PeerDoor, KnownUploads], Executor
]
"""From a device, a quota in bytes, the lane for bulk, the door for other workers, and
what need not be uploaded again."""


_loaded = cache(NativeLibrary)
"""One of each path: its functions are declared once."""


def executor_maker(library: Path | None) -> MakeExecutor:
    """What makes a session's executor: with the library in C++, without in Python."""
    if library is None:
        return Executor
    return partial(NativeExecutor, library=_loaded(library))


def keep_large_memory(library: Path | None) -> None:
    """As ``host_memory.keep_memory``, for blocks that glibc maps one by one.

    Without the library they are the kernel's to give, each time.
    """
    if library is not None:
        _loaded(library).keep_memory(KEPT_NBYTES)


class NativeExecutor(Executor):
    """One session's state on one device."""

    def __init__(
        self,
        backend: Backend,
        quota_nbytes: int,
        lane: Lane | None = None,
        door: PeerDoor | None = None,
        known: KnownUploads | None = None,
        *,
        library: NativeLibrary,
    ) -> None:
        self._library = library
        self.native = library.session(backend.device, quota_nbytes)
        super().__init__(backend, quota_nbytes, lane, door, known)
        self._handlers[DefineOperation] = self._define
        self.native_arrays = NativeArrays(self.native, self.arrays, self.storages)

    def _make_storages(self, quota_nbytes: int) -> Storages:
        return NativeStorages(
            self.native, quota_nbytes, self.backend.device, self._broken_upload
        )

    def _make_array_store(self, array_type: type) -> ArrayStore:
        return NativeArrayStore(self._library, array_type)

    def take_turns(self, turn: Turn) -> None:
        super().take_turns(turn)
        if isinstance(turn, NativeTurn):
            turn.give_to(self.native)

    def _make_costs(self) -> Costs:
        costs = NativeCosts(self._library)
        costs.give_to(self.native)
        return costs

    def _make_graphs(self) -> Graphs:
        self._native_graphs = NativeGraphs(
            self.native,
            *(self.backend, self.storages, self.generators, self.failures, self.calls),
        )
        return self._native_graphs

    def _make_plans(self) -> Plans:
        self._native_plans = NativePlans(self.native, *self._plan_parts())
        return self._native_plans

    def run(self, records: bytes) -> Iterator[Answers | None]:
        yield from self.run_rest(records, self.native.run(records, 0))

    def run_rest(self, records: bytes, outcome: int) -> Iterator[Answers | None]:
        """Go on with a batch that C++ has begun: ``native.stop`` says where it stopped.

        Args:
            records: the batch's, all of them.
            outcome: why it stopped.
        """
        native = self.native
        stop = native.stop
        while True:
            self.failures.operation += stop.record_count
            position = stop.position
            if outcome == DONE:
                return
            if outcome == READ:
                yield [Reply(stop.request, _NONE, (native.take_answer(),))]
                outcome = native.run(records, position)
                continue
            if outcome == CALLED:
                yield None
                outcome = native.run(records, position)
                continue
            planned = native.planned()
            if planned is None and records[position] in ARRAY_KINDS:
                position = yield from self._array_row(records, position)
                outcome = native.run(records, position)
                continue
            if planned is None:
                reader = Reader(records, position)
                record = read_record(reader)
                position = reader.position
                if isinstance(record, RunPlan):
                    raise self._native_plans.refusal(record)
            else:
                reader = Reader(planned)
                record = read_planned(reader, native.stop.plan)
            # A record that waits for another worker is tried again.
            while (answers := self._in_python(record, outcome)) is None:
                yield None
            if planned is not None:
                native.go_on_in_plan(reader.position)
            yield answers
            outcome = native.run(records, position)

    def _array_row(
        self, records: bytes, position: int
    ) -> Generator[Answers | None, None, int]:
        """Execute records about arrays, which come in rows; where the row ends."""
        native = self.native_arrays
        while position < len(records) and records[position] in ARRAY_KINDS:
            outcome = native.run(records, position)
            self.failures.operation += native.stop.record_count
            reader = Reader(records, native.stop.position)
            if outcome == ArrayOutcome.ANSWER:
                yield [native.take_answer()]
            elif outcome != ArrayOutcome.DONE:
                record = read_record(reader)
                if outcome == ArrayOutcome.HAND_BACK:
                    yield from self.retried(record)
                    if isinstance(record, ArrayCall | ArrayRequest):
                        native.learn(record.array_operation)
                else:
                    assert isinstance(record, _RUN_BY_ROWS)
                    yield self._finish_array(record, outcome)
            position = reader.position
        native.settle()
        return position

    def _finish_array(
        self,
        record: ArrayCall | ArrayRequest | ArrayOverStorage,
        outcome: ArrayOutcome,
    ) -> Answers:
        """The rest of a record that C++ has run."""
        native = self.native_arrays
        found = native.take_result() if outcome == ArrayOutcome.RESULT else None
        if isinstance(record, ArrayOverStorage):
            assert native.error is not None
            answers = self.arrays.finish_over(record, native.error)
        elif isinstance(record, ArrayRequest):
            answers = self.arrays.finish_request(record, found, native.error)
        else:
            answers = self.arrays.finish(record, found, native.error)
        native.error = None
        self.failures.operation += 1
        return answers

    def _in_python(self, record: Record, outcome: int) -> Answers | None:
        if outcome == HAND_BACK:
            return self.execute(record)
        assert isinstance(record, Call)
        return self._finish(record, outcome)

    def _finish(self, record: Call, outcome: int) -> Answers:
        """The rest of a call that C++ has run."""
        native = self.native
        bound = int(native.stop.bound)

        def run(record: Call) -> None:
            if outcome == FAILED:
                native.raise_failure()
            self.calls.bind_results(record, native.take_leaves(), bound)

        answers = self.calls.attempt(record, run)
        self.failures.operation += 1
        return answers

    def counters(self) -> dict[str, int]:
        self.native_arrays.settle()
        counters = super().counters()
        counters["executed_ops"] += int(self.native.ledger().executed_ops)
        return counters

    def _define(self, record: DefineOperation) -> Answers:
        if self.calls.name_of(record.operation):
            self._native_graphs.leave_to_python()
        answers = self.calls.define(record)
        operation = self.calls.operation(record.operation)
        if operation is None or operation.is_guarded:
            self.native.undefine(record.operation)
            return answers
        base, overload = operation.schema_name
        plain = base.removeprefix("aten::")
        self.native.define(
            record.operation,
            base,
            overload,
            record.argument_names,
            takes_numbers=torch._C._should_allow_numbers_as_tensors(plain),
        )
        return answers
