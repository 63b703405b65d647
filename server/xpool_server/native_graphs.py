"""Graphs whose records run in C++, as far as nothing about them is unusual.

C++ has the graph's bytes and its operations. Where it stops, Python takes over what the
run has made so far and goes on to the end.
"""

from __future__ import annotations

from typing import Any

from xpool_protocol.graphs import GraphRecord
from xpool_protocol.messages import Fault
from xpool_protocol.records import DefineGraph, FreeGraph

from xpool_server.failures import Answers
from xpool_server.graphs import Graph, Graphs, Step
from xpool_server.native.library import DONE, FAILED, HAND_BACK, RESULTS, NativeSession
from xpool_server.storages import Entry


class NativeGraphs(Graphs):
    """The graphs of a session, and what runs them."""

    def __init__(self, native: NativeSession, *parts: Any) -> None:
        super().__init__(*parts)
        self._native = native
        self._in_native: set[int] = set()

    def _define(self, record: DefineGraph, records: tuple[GraphRecord, ...]) -> None:
        super()._define(record, records)
        steps = self._graph(record.graph).steps
        # What can't be called is decided now, and not by what is defined later.
        if any(type(step) is Step and step.error is not None for step in steps):
            return
        self._native.define_graph(record.graph, record.records, record.storages)
        self._in_native.add(record.graph)

    def free(self, record: FreeGraph) -> Answers:
        """Forget a graph."""
        self._forget(record.graph)
        return super().free(record)

    def leave_to_python(self) -> None:
        """An operation's number means another one from now on, but not in graphs."""
        for graph_id in tuple(self._in_native):
            self._forget(graph_id)

    def _forget(self, graph_id: int) -> None:
        self._in_native.discard(graph_id)
        self._native.free_graph(graph_id)

    def _run_steps(self, graph: Graph) -> Fault | None:
        if graph.id not in self._in_native:
            return super()._run_steps(graph)
        native = self._native
        outcome = native.run_graph(graph.id, self._frame.bound)
        index, bound = int(native.stop.record_count), int(native.stop.bound)
        leaves = native.take_leaves() if outcome == RESULTS else []
        for number, (storage, nbytes) in native.made(graph.storages).items():
            self._frame.slots[number] = Entry(storage, nbytes)
        if outcome == DONE:
            return None
        if outcome == HAND_BACK:
            return self._run_from(graph, index, None)

        def finish(step: Step) -> None:
            if outcome == FAILED:
                native.raise_failure()
            self._bind(step, leaves, bound)

        return self._run_from(graph, index + 1, self._attempt(graph, index, finish))
