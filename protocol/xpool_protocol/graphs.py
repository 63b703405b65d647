"""What a graph holds: records of the log over storages that have numbers of their own.

``read_graph`` decodes the records of a ``DefineGraph`` and checks the whole before
anything is kept because of it. SPEC.md section 5, "Graphs".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.records import (
    ALLOCATE,
    CALL,
    FREE,
    WRITE,
    Allocate,
    Call,
    DefineGraph,
    Free,
    Write,
    read_record,
)
from xpool_protocol.values import SparseTensor, Tensor, Value
from xpool_protocol.wire import Reader

GraphRecord: TypeAlias = Call | Allocate | Free | Write

ALLOWED: Final = frozenset({CALL, ALLOCATE, FREE, WRITE})
"""Kinds of records that may stand in a graph: none that is answered, none that the
session as a whole would notice, no graph in a graph."""


def read_graph(record: DefineGraph) -> tuple[GraphRecord, ...]:
    """The records of a graph, in order.

    Raises:
        PeerError: a record that may not stand in a graph, too many of them, or a
            storage that is used before it is made, made twice, or freed and used.
    """
    checker = _Checker(record)
    reader = Reader(record.records)
    found: list[GraphRecord] = []
    while not reader.is_exhausted:
        if len(found) >= limits.MAX_GRAPH_RECORDS:
            raise PeerError(
                f"graph {record.graph} has more than {limits.MAX_GRAPH_RECORDS} records"
            )
        kind = reader.peek()
        if kind not in ALLOWED:
            raise PeerError(f"record kind {kind} may not stand in a graph")
        one = read_record(reader)
        assert isinstance(one, GraphRecord)
        checker.check(one)
        found.append(one)
    checker.check_results(record)
    return tuple(found)


def tensors_in(values: Iterable[Value]) -> Iterator[Tensor]:
    """Tensors among values, lists of values and the parts of sparse tensors."""
    for value in values:
        if type(value) is Tensor:
            yield value
        elif type(value) is SparseTensor:
            yield from value.parts
        elif type(value) is list:
            yield from tensors_in(value)


class _Checker:
    """Which of a graph's storages are there, at each place of it."""

    def __init__(self, record: DefineGraph) -> None:
        self._graph = record.graph
        self._count = record.storages
        self._parameters = set(record.parameters)
        self._made: set[int] = set()
        self._here: set[int] = set()
        if len(self._parameters) != len(record.parameters):
            raise PeerError(f"graph {self._graph} names a parameter twice")
        for storage in record.parameters:
            self._within(storage)
        self._here |= self._parameters

    def check(self, record: GraphRecord) -> None:
        match record:
            case Call():
                for tensor in tensors_in(value for _, value in record.arguments):
                    self._use(tensor.storage)
                for output in record.outputs:
                    if output is not None:
                        self._make(output.storage)
            case Allocate():
                self._make(record.storage)
            case Write():
                if record.payload:
                    raise PeerError("a write in a graph must hold its bytes")
                self._use(record.storage)
            case Free():
                self._use(record.storage)
                if record.storage in self._parameters:
                    raise PeerError(
                        f"graph {self._graph} frees its parameter {record.storage}"
                    )
                self._here.discard(record.storage)

    def check_results(self, record: DefineGraph) -> None:
        if len(set(record.results)) != len(record.results):
            raise PeerError(f"graph {self._graph} names a result twice")
        for storage in record.results:
            self._within(storage)
            if storage in self._parameters or storage not in self._here:
                raise PeerError(
                    f"result {storage} of graph {self._graph} is not made in it"
                )

    def _within(self, storage: int) -> None:
        if storage >= self._count:
            raise PeerError(
                f"graph {self._graph} has {self._count} storages and names no."
                f" {storage}"
            )

    def _use(self, storage: int) -> None:
        self._within(storage)
        if storage not in self._here:
            state = "after it was freed" if storage in self._made else "before it is"
            raise PeerError(f"graph {self._graph} uses storage {storage} {state}")

    def _make(self, storage: int) -> None:
        self._within(storage)
        if storage in self._made or storage in self._parameters:
            raise PeerError(f"graph {self._graph} makes storage {storage} twice")
        self._made.add(storage)
        self._here.add(storage)
