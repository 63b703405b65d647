"""The executor whose common records run in C++, without Python's lock.

C++ takes a batch as far as its records are calls that pass their schema, allocations,
frees and small writes. It hands back, before it has had any effect, every record that
is of another kind or breaks a rule, and the exception or the results of a call that did
not come out as predicted. What happens then, and what is said, is ``Executor``'s.
"""

# ruff: noqa: D102  the class in executor.py documents the methods

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from xpool_protocol.records import Call, DefineOperation, read_record
from xpool_protocol.wire import Reader

from xpool_server.devices.base import Backend
from xpool_server.executor import Executor
from xpool_server.failures import Answers
from xpool_server.lane import Lane
from xpool_server.native.library import NativeLibrary, Outcome
from xpool_server.native_storages import NativeStorages
from xpool_server.storages import Storages

MakeExecutor: TypeAlias = Callable[[Backend, int, Lane], Executor]
"""From a device, a quota in bytes and the lane for bulk."""


def executor_maker(library: Path | None) -> MakeExecutor:
    """What makes a session's executor: with the library in C++, without in Python."""
    if library is None:
        return Executor
    return partial(NativeExecutor, library=NativeLibrary(library))


class NativeExecutor(Executor):
    """One session's state on one device."""

    def __init__(
        self,
        backend: Backend,
        quota_nbytes: int,
        lane: Lane | None = None,
        *,
        library: NativeLibrary,
    ) -> None:
        self._native = library.session(backend.device, quota_nbytes)
        super().__init__(backend, quota_nbytes, lane)
        self._handlers[DefineOperation] = self._define

    def _make_storages(self, quota_nbytes: int) -> Storages:
        return NativeStorages(
            self._native, quota_nbytes, self.backend.device, self._broken_upload
        )

    def run(self, records: bytes) -> Iterator[Answers]:
        native, position = self._native, 0
        while True:
            outcome = native.run(records, position)
            stop = native.stop
            self.failures.operation += stop.record_count
            if outcome is Outcome.DONE:
                return
            reader = Reader(records, stop.position)
            record = read_record(reader)
            position = reader.position
            if outcome is Outcome.HAND_BACK:
                yield self.execute(record)
            else:
                assert isinstance(record, Call)
                yield self._finish(record, outcome)

    def _finish(self, record: Call, outcome: Outcome) -> Answers:
        """The rest of a call that C++ has run."""
        native = self._native
        bound = int(native.stop.bound)

        def run(record: Call) -> None:
            if outcome is Outcome.FAILED:
                native.raise_failure()
            self.calls.bind_results(record, native.take_leaves(), bound)

        answers = self.calls.attempt(record, run)
        self.failures.operation += 1
        return answers

    def counters(self) -> dict[str, int]:
        counters = super().counters()
        counters["executed_ops"] += int(self._native.ledger().executed_ops)
        return counters

    def _define(self, record: DefineOperation) -> Answers:
        answers = self.calls.define(record)
        operation = self.calls.operation(record.operation)
        if operation is None:
            self._native.undefine(record.operation)
            return answers
        base, overload = operation.schema_name
        plain = base.removeprefix("aten::")
        self._native.define(
            record.operation,
            base,
            overload,
            record.argument_names,
            takes_numbers=torch._C._should_allow_numbers_as_tensors(plain),
        )
        return answers
