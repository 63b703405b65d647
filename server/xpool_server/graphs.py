"""Graphs: records of the log that are kept, prepared once and run many times.

A run is what its records would be outside, one after the other: charged, failing and
poisoning alike. The difference is where a storage's number leads: ``Frame`` has the
numbers of one run, and is to it what ``Storages`` is to the session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from msgspec.structs import replace
from xpool_protocol import limits
from xpool_protocol.errors import ArgumentInvalid, HandleUnknown, PeerError, PoolError
from xpool_protocol.graphs import GraphRecord, read_graph, tensors_in
from xpool_protocol.messages import Fault
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineGraph,
    Free,
    FreeGraph,
    RunGraph,
    Write,
)
from xpool_protocol.values import Tensor

from xpool_server.calls import Calls
from xpool_server.devices.base import Backend
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.generators import Generators
from xpool_server.operations import Operation, Prepared
from xpool_server.results import Binder, check_new, leaves_of, span_of
from xpool_server.schema import Converters
from xpool_server.storages import Entry, Storages, charged_nbytes

Slot: TypeAlias = Entry | Fault | None
"""What a storage of a run is: there, spoiled, or not there."""


class Frame:
    """The storages of the run under way, by the numbers of its graph."""

    def __init__(self, storages: Storages) -> None:
        self.slots: list[Slot] = []
        self.bound: dict[int, int] = {}
        """Parameters by number: the session's storage."""
        self._storages = storages

    def enter(self, graph: Graph, parameters: Sequence[int]) -> None:
        """Begin a run.

        Raises:
            HandleUnknown: a parameter names no storage.
        """
        slots: list[Slot] = [None] * graph.storages
        self.bound = dict(zip(graph.parameters, parameters, strict=True))
        for number, storage_id in self.bound.items():
            slots[number] = self._storages.slot(storage_id)
        self.slots = slots

    def leave(self, results: dict[int, int]) -> None:
        """End a run: results get their ids, everything else that was made goes.

        Raises:
            PeerError: the session names too many storages.
        """
        slots, self.slots = self.slots, []
        for number, slot in enumerate(slots):
            if number in self.bound:
                continue
            storage_id = results.get(number, 0)
            if storage_id == 0:
                if isinstance(slot, Entry):
                    self._storages.let_go(slot)
            elif isinstance(slot, Entry):
                self._storages.name(storage_id, slot)
            elif slot is not None:  # it is, where the session ends in the middle
                self._storages.poison(storage_id, slot)
        self.bound = {}

    # ---- as Storages

    def entry(self, number: int) -> Entry:
        """A storage of the run.

        Raises:
            Poisoned: what should have made or filled it has failed.
        """
        slot = self.slots[number]
        if type(slot) is Entry:
            return slot
        assert slot is not None
        raise Poisoned(slot)  # type: ignore[arg-type]  # Entry has no subclass

    def tensor(self, wire: Tensor) -> torch.Tensor:
        """The tensor that a graph describes; it may be shared."""
        return self._storages.tensor_over(self.entry(wire.storage), wire)

    def own_tensor(self, wire: Tensor) -> torch.Tensor:
        """As ``tensor``, but nobody else's."""
        return self._storages.own_tensor_over(self.entry(wire.storage), wire)

    def over(self, storage: torch.UntypedStorage, wire: Tensor) -> torch.Tensor:
        """A tensor of a geometry that is known to fit the storage."""
        return self._storages.over(storage, wire)

    def check_room(self, nbytes: int) -> None:
        """Refuse what the quota does not hold."""
        self._storages.check_room(nbytes)

    def id_of(self, storage: torch.UntypedStorage) -> int | None:
        """Whether the session has a storage already."""
        return self._storages.id_of(storage)

    def adopt(self, number: int, storage: torch.UntypedStorage) -> Entry:
        """Take a storage that was made, and charge it."""
        entry = self._storages.hold(storage)
        self.slots[number] = entry
        return entry

    # ---- ends

    def poison(self, number: int, fault: Fault) -> None:
        """Spoil a storage; a bound one is spoiled in the session too."""
        slot = self.slots[number]
        self.slots[number] = fault
        if number in self.bound:
            if self._storages.is_live(self.bound[number]):
                self._storages.poison(self.bound[number], fault)
                self._spoil_twins(self.bound[number], fault)
        elif isinstance(slot, Entry):
            self._storages.let_go(slot)

    def _spoil_twins(self, storage_id: int, fault: Fault) -> None:
        """A storage may be bound to several parameters."""
        for number, bound in self.bound.items():
            if bound == storage_id:
                self.slots[number] = fault

    def free(self, number: int) -> None:
        """Drop a storage that the graph has made."""
        slot = self.slots[number]
        self.slots[number] = None
        if isinstance(slot, Entry):
            self._storages.let_go(slot)


class Step:
    """A call within a graph, as far as it can be prepared."""

    __slots__ = ("error", "name", "operation", "prepared", "record", "room_nbytes")

    def __init__(self, record: Call, operation: Operation | PoolError, name: str):
        self.record = record
        self.name = name
        self.operation: Operation | None = None
        self.prepared: Prepared | None = None
        self.error: PoolError | None = None
        self.room_nbytes = 0
        if isinstance(operation, PoolError):
            self.error = operation
            return
        self.operation = operation
        try:
            for output in record.outputs:
                if output is not None:
                    check_new(output)
                    self.room_nbytes += charged_nbytes(span_of(output))
            self.prepared = operation.prepare(record.arguments)
        except PoolError as error:
            self.error = error


class Graph:
    """One graph, ready to run."""

    def __init__(self, record: DefineGraph) -> None:
        self.id = record.graph
        self.storages = record.storages
        self.parameters = record.parameters
        self.results = record.results
        self.nbytes = len(record.records)
        self.steps: list[Step | Allocate | Free | Write] = []


class Graphs:
    """The graphs of a session, and what runs them."""

    def __init__(
        self,
        backend: Backend,
        storages: Storages,
        generators: Generators,
        failures: Failures,
        calls: Calls,
    ) -> None:
        self.runs = 0
        self._backend = backend
        self._storages = storages
        self._failures = failures
        self._calls = calls
        self._frame = Frame(storages)
        self.binder = Binder(self._frame, backend)
        self._converters = Converters(self._frame, generators, backend.device)
        self._table: dict[int, Graph] = {}
        self._nbytes = 0

    def define(self, record: DefineGraph) -> Answers:
        """Keep a graph.

        Raises:
            PeerError: the graph makes no sense.
        """
        records = read_graph(record)
        return self._failures.attempt(lambda: self._define(record, records))

    def _define(self, record: DefineGraph, records: tuple[GraphRecord, ...]) -> None:
        if record.graph in self._table:
            raise ArgumentInvalid(f"graph {record.graph} exists already")
        if len(self._table) >= limits.MAX_GRAPHS:
            raise ArgumentInvalid(f"a session has at most {limits.MAX_GRAPHS} graphs")
        graph = Graph(record)
        if self._nbytes + graph.nbytes > limits.MAX_GRAPHS_NBYTES:
            raise ArgumentInvalid(
                f"the graphs of a session hold at most {limits.MAX_GRAPHS_NBYTES} bytes"
            )
        known: dict[int, Operation | PoolError] = {}
        for one in records:
            if not isinstance(one, Call):
                graph.steps.append(one)
                continue
            if one.operation not in known:
                known[one.operation] = self._calls.resolved(
                    one.operation, self._converters
                )
            name = self._calls.name_of(one.operation)
            graph.steps.append(Step(one, known[one.operation], name))
        self._table[record.graph] = graph
        self._nbytes += graph.nbytes

    def free(self, record: FreeGraph) -> Answers:
        """Forget a graph."""

        def run() -> None:
            self._nbytes -= self._graph(record.graph).nbytes
            del self._table[record.graph]

        return self._failures.attempt(run)

    def _graph(self, graph_id: int) -> Graph:
        graph = self._table.get(graph_id)
        if graph is None:
            raise HandleUnknown(f"graph {graph_id} does not exist or was freed")
        return graph

    def run(self, record: RunGraph) -> Answers:
        """Run a graph on storages of the session.

        Raises:
            PeerError: the session names too many storages.
        """
        try:
            graph = self._graph(record.graph)
            results = self._begin(graph, record)
        except PoolError as error:
            fault = self._failures.fault(error)
            for storage_id in record.results:
                if storage_id:
                    self._storages.poison(storage_id, fault)
            if not record.results:
                for storage_id in record.parameters:
                    if self._storages.is_live(storage_id):
                        self._storages.poison(storage_id, fault)
            return self._failures.told(fault)
        try:
            first = self._run_steps(graph)
        finally:
            self._frame.leave(results)
        self.runs += 1
        return NOTHING if first is None else self._failures.told(first)

    def _begin(self, graph: Graph, record: RunGraph) -> dict[int, int]:
        """Check and bind; ids of results that are in use are given up.

        Raises:
            ArgumentInvalid: the record does not fit the graph.
            HandleUnknown: a parameter names no storage.
        """
        if len(record.parameters) != len(graph.parameters) or len(
            record.results
        ) != len(graph.results):
            raise ArgumentInvalid(
                f"graph {graph.id} takes {len(graph.parameters)} storages and makes"
                f" {len(graph.results)}, not {len(record.parameters)} and"
                f" {len(record.results)}"
            )
        wanted = [storage_id for storage_id in record.results if storage_id]
        taken = set(wanted)
        if len(taken) != len(wanted) or taken.intersection(record.parameters):
            raise ArgumentInvalid(f"a result of graph {graph.id} is named twice")
        self._frame.enter(graph, record.parameters)
        for storage_id in wanted:
            if storage_id in self._storages:
                self._storages.free(storage_id)
        return dict(zip(graph.results, record.results, strict=True))

    def _run_steps(self, graph: Graph) -> Fault | None:
        """Run a graph's records; the first fault of one that has failed itself."""
        return self._run_from(graph, 0, None)

    def _run_from(self, graph: Graph, start: int, first: Fault | None) -> Fault | None:
        for index in range(start, len(graph.steps)):
            fault = self._attempt(graph, index, self._run_step)
            first = first or fault
        return first

    def _run_step(self, step: Step | Allocate | Free | Write) -> None:
        if type(step) is Step:
            self._call(step)
        elif type(step) is Free:
            self._frame.free(step.storage)
        elif type(step) is Allocate:
            self._frame.check_room(charged_nbytes(step.nbytes))
            self._frame.adopt(step.storage, self._backend.allocate(step.nbytes))
        elif type(step) is Write:
            self._write(step)

    def _attempt(
        self, graph: Graph, index: int, run: Callable[[Any], None]
    ) -> Fault | None:
        """Run one record, or what is left of it; the fault if it has failed itself."""
        step = graph.steps[index]
        try:
            run(step)
        except Poisoned as poisoned:
            self._spoil(step, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a kernel may raise anything
            name = step.name if type(step) is Step else ""
            fault = self._failures.fault(error, name)
            text = f"{fault.text} (record {index} of graph {graph.id})"
            fault = replace(fault, text=text)
            self._spoil(step, fault)
            return fault
        return None

    def _call(self, step: Step) -> None:
        if step.error is not None:
            raise step.error
        operation, record = step.operation, step.record
        assert operation is not None
        assert step.prepared is not None
        function, positional, keywords = operation.bind_prepared(
            step.prepared, record.arguments
        )
        self._frame.check_room(step.room_nbytes)
        result = function(*positional, **keywords)
        self._calls.executed_ops += 1
        self._bind(step, leaves_of(result, operation.returns), 0)

    def _bind(
        self, step: Step, leaves: Sequence[torch.Tensor | None], bound: int
    ) -> None:
        """What is left to do for a call that has run, with so many outputs bound."""
        operation, record = step.operation, step.record
        assert operation is not None
        if operation.reshapes:
            for tensor in operation.tensors_written(record.arguments):
                entry = self._frame.entry(tensor.storage)
                if entry.storage.nbytes() != entry.nbytes:
                    self._storages.resized(entry)
        self.binder.bind(record.outputs[bound:], leaves[bound:])

    def _write(self, step: Write) -> None:
        entry = self._frame.entry(step.storage)
        if step.offset + step.nbytes > entry.nbytes:
            raise ArgumentInvalid(
                f"{step.nbytes} bytes at offset {step.offset} reach outside a storage"
                f" of {entry.nbytes} bytes"
            )
        self._backend.write(entry.storage, step.offset, step.data)

    def _spoil(self, step: Step | Allocate | Free | Write, fault: Fault) -> None:
        """Poison what a record would have made or written."""
        if not isinstance(step, Step):
            self._frame.poison(step.storage, fault)
            return
        record = step.record
        outputs = [one.storage for one in record.outputs if one is not None]
        for number in outputs:
            self._frame.poison(number, fault)
        if step.operation is not None:
            touched = step.operation.tensors_written(record.arguments)
        elif not outputs:
            touched = tensors_in(value for _, value in record.arguments)
        else:
            return
        for tensor in touched:
            if isinstance(self._frame.slots[tensor.storage], Entry):
                self._frame.poison(tensor.storage, fault)
