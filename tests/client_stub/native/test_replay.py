"""What the client's replay puts on the wire is the stream that it was given, always.

The server's side is ``xpool_protocol.plans``: whatever is drawn, the records that it
makes are the very bytes that went in, in the same order; and an answer that may come
early is one that nothing before its read could have changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.replaying import Client, Server, build_probe, encoded
from support.strategies import WIRE_RECORDS
from xpool.native import build
from xpool_protocol.graphs import tensors_in
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineOperation,
    Fence,
    Free,
    Read,
    Record,
    RequestCall,
    RunGraph,
    Write,
    read_records,
)
from xpool_protocol.values import HostTensor, Tensor, Value, row_major_strides

pytestmark = pytest.mark.skipif(
    build.compiler() is None, reason="no native code without a C++ compiler"
)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = Path(__file__).with_name("replay_probe.cpp")
    return build_probe(source, tmp_path_factory.mktemp("probe"))


def tensor(storage: int, *sizes: int, offset: int = 0) -> Tensor:
    return Tensor(storage, 6, sizes, row_major_strides(sizes), offset)


def named(record: Record) -> set[int] | None:
    """Storages that a record has to do with; None for any."""
    match record:
        case Call():
            values: list[Value] = [value for _, value in record.arguments]
            values += [one for one in record.outputs if one is not None]
            return {one.storage for one in tensors_in(values)}
        case RequestCall():
            return {
                one.storage
                for one in tensors_in(value for _, value in record.arguments)
            }
        case Allocate() | Free() | Write() | Read():
            return {record.storage}
        case Fence() | DefineOperation():
            return set()
    return None


@dataclass
class Wire:
    """A client and a server; checks what passes between them."""

    client: Client
    server: Server = field(default_factory=Server)
    stream: bytearray = field(default_factory=bytearray)
    made: bytearray = field(default_factory=bytearray)
    sent_nbytes: int = 0
    count: int = 0

    def append(self, *records: Record) -> None:
        for record in records:
            data = encoded(record)
            self.stream += data
            self.client.append(data)
            self.count += 1

    def read(self, storage: int, offset: int = 0, nbytes: int = 4) -> None:
        self.stream += self.client.read(storage, offset, nbytes)
        self.count += 1

    def flush(self) -> None:
        self._deliver(self.client.take())
        assert self.made == self.stream
        assert self.server.count == self.count
        assert self.server.own_records == self.client.ours

    def pass_on(self) -> None:
        self._deliver(self.client.take_unflushed())
        assert self.stream.startswith(self.made)

    def _deliver(self, wire: bytes) -> None:
        self.sent_nbytes += len(wire)
        self.made += self.server.expand(wire)

    def check_early_answers(self) -> int:
        """How many reads have used one; each is what it would be in its turn."""
        records = list(read_records(bytes(self.stream)))
        places = {
            record.request: place
            for place, record in enumerate(records)
            if isinstance(record, Read)
        }
        used = 0
        for count, data in self.server.early:
            (early,) = read_records(data)
            assert isinstance(early, Read)
            place = places.get(early.request)
            if place is None:
                continue
            assert records[place] == early
            assert place >= count
            for record in records[count:place]:
                touched = named(record)
                assert touched is not None
                assert early.storage not in touched
            used += 1
        requests = [early for _, early in self.server.early]
        assert len(set(requests)) == len(requests)
        return used


@pytest.fixture
def wire(probe: Any) -> Iterator[Wire]:
    client = Client(probe)
    yield Wire(client)
    client.close()


def step(wire: Wire, new: int, number: int, *, layers: int = 20) -> None:
    """A training step: an input that is written, layers, a loss, updates, a read."""
    one = new
    wire.append(Allocate(one, 64), Write(one, 0, 4, 0, bytes([number % 256] * 4)))
    for layer in range(layers):
        arguments = ((0, tensor(one, 4, 4)), (1, tensor(1 + layer, 4)), (2, 0.5))
        wire.append(Call(layer % 7, arguments, (tensor(one + 1, 4, 4),)))
        if layer:
            wire.append(Free(one))
        one += 1
    loss = one
    for layer in range(layers):
        arguments = ((0, tensor(1 + layer, 4)), (2, 0.1 * number))
        wire.append(Call(7, arguments, (None,)))
    wire.read(loss)
    wire.append(Free(loss), Free(new))


def test_a_step_becomes_a_run(wire: Wire) -> None:
    for number in range(6):
        step(wire, 1000 + 50 * number, number)
        wire.flush()
    before, stream_before = wire.sent_nbytes, len(wire.stream)
    step(wire, 2000, 6)
    wire.flush()
    counters = wire.client.counters()
    assert counters["plans"] == 1
    # The write travels as it is, and so do the new learning rates.
    assert wire.sent_nbytes - before < (len(wire.stream) - stream_before) / 3
    assert wire.check_early_answers() >= 3


def test_numbers_that_go_on_as_before_cost_nothing(wire: Wire) -> None:
    """Sizes and offsets that grow by a step, as a cache of keys and values does."""
    for number in range(8):
        before = wire.sent_nbytes
        for layer in range(20):
            grown = tensor(layer, 2, 10 + number, offset=7 * number)
            made = tensor(100 + 20 * number + layer, 4)
            wire.append(Call(layer, ((0, grown), (1, number)), (made,)))
        wire.flush()
    assert wire.sent_nbytes - before < 20


def test_layers_that_are_alike_do_not_hide_the_step(wire: Wire) -> None:
    """A plan of one layer is found first, and replaced by that of the step."""
    for number in range(12):
        before = wire.sent_nbytes
        made = 1000 + 200 * number
        for layer in range(6):
            for operation in range(20):
                weight = tensor(20 * layer + operation, 4)
                arguments = ((0, tensor(made, 4)), (1, weight))
                made += 1
                wire.append(Call(operation, arguments, (tensor(made, 4),)))
        for layer in range(6):
            wire.append(Call(30 + layer, ((0, tensor(layer, 4)),), (None,)))
        wire.flush()
    assert wire.client.counters()["plans"] > 1
    assert wire.sent_nbytes - before < 40


def test_a_read_is_not_answered_early_if_something_writes_in_between(
    wire: Wire,
) -> None:
    for number in range(8):
        new = 1000 + 50 * number
        for layer in range(20):
            one = tensor(new + layer, 4)
            wire.append(Call(layer, ((0, tensor(layer, 4)),), (one,)))
        wire.append(Call(30, ((0, tensor(500, 4)),), (None,)))
        if number == 6:  # not in the plan: it changes what is read
            wire.append(Write(new + 3, 0, 4, 0, b"1234"))
        wire.read(new + 3)
    wire.flush()
    used = wire.check_early_answers()
    assert wire.client.counters()["early_answers"] == used
    assert len(wire.server.early) == used + 1
    (early,) = {
        request
        for _, data in wire.server.early
        for record in read_records(data)
        if isinstance(record, Read)
        and (request := record.request)
        not in {
            one.request
            for one in read_records(bytes(wire.stream))
            if isinstance(one, Read)
        }
    }
    assert wire.client.abandoned() == [early]


def test_another_name_of_what_is_read_is_no_early_answer(wire: Wire) -> None:
    """A storage that a later call writes turns out to be the one that is read."""
    for number in range(8):
        new = 1000 + 50 * number
        for layer in range(20):
            wire.append(
                Call(layer, ((0, tensor(layer, 4)),), (tensor(new + layer, 4),))
            )
        written = new + 3 if number == 6 else new + 4
        wire.append(Call(30, ((0, tensor(written, 4)),), (None,)))
        wire.read(new + 3)
    wire.flush()
    wire.check_early_answers()


# ---- anything

SIZES = st.sampled_from([(4,), (2, 3), (), (0,), (1, 2, 3)])


@st.composite
def records_of_a_step(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """A list of what a step does, with storages by names of its own."""
    made, steps = 0, list[tuple[Any, ...]]()
    for _ in range(draw(st.integers(3, 30))):
        kind = draw(st.sampled_from("ccccccawfrRgod"))
        old = draw(st.integers(-6, max(made - 1, 0)))
        other = draw(st.integers(-6, max(made - 1, 0)))
        sizes, number = draw(SIZES), draw(st.integers(0, 5))
        steps.append((kind, old, other, sizes, number, made))
        made += kind in "ca"
    return steps


def play(wire: Wire, what: tuple[Any, ...], base: int, number: int) -> None:
    """One record of a step; names below 0 are the same in each step."""
    kind, old, other, sizes, fixed, made = what
    one, two = (base + name if name >= 0 else -name for name in (old, other))
    match kind:
        case "c":
            values: tuple[Value, ...] = (
                tensor(one, *sizes, offset=number if fixed == 1 else 0),
                [tensor(two, *sizes), None] if fixed == 2 else tensor(two, *sizes),
                (0.5, number / 3, number, [number, fixed], True, fixed)[fixed],
                HostTensor(7, (), bytes([number % 256] * 8), is_wrapped=True),
            )
            outputs = (tensor(base + made, *sizes),)
            wire.append(Call(fixed, tuple(enumerate(values)), outputs))
        case "a":
            wire.append(Allocate(base + made, 64 + fixed))
        case "w":
            wire.append(Write(one, fixed, 4, 0, bytes([number % 256] * 4)))
        case "f":
            wire.append(Free(one))
        case "r" | "R":
            wire.read(one, 0 if kind == "r" else number % 2, 4)
        case "g":
            wire.append(Fence(wire.client.next_request()))
        case "o":
            wire.append(RunGraph(fixed, (one,), (two,)))
        case "d":
            wire.client.next_request()


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_stream_that_repeats_itself_and_departs(
    probe: Any, data: st.DataObject
) -> None:
    client = Client(probe, with_early=data.draw(st.booleans()))
    wire = Wire(client)
    try:
        programs = data.draw(st.lists(records_of_a_step(), min_size=1, max_size=2))
        base, number = 100, 0
        for _ in range(data.draw(st.integers(1, 4))):
            program = data.draw(st.sampled_from(programs))
            for _ in range(data.draw(st.integers(2, 9))):
                steps = list(program)
                if data.draw(st.integers(0, 4)) == 0:  # departs somewhere
                    at = data.draw(st.integers(0, len(steps) - 1))
                    cut = data.draw(st.integers(0, 3))
                    steps[at : at + cut] = data.draw(records_of_a_step())[:3]
                for what in steps:
                    play(wire, what, base, number)
                    if data.draw(st.integers(0, 40)) == 0:
                        wire.flush()
                    elif not number % 3:
                        wire.pass_on()
                base += data.draw(st.sampled_from([40, 40, 40, 41]))
                number += 1
        wire.flush()
        wire.check_early_answers()
    finally:
        client.close()


@settings(max_examples=100, deadline=None)
@given(
    repeated=st.lists(WIRE_RECORDS, min_size=1, max_size=8),
    between=st.lists(WIRE_RECORDS, max_size=2),
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=3),
)
def test_any_records_at_all(
    probe: Any, repeated: list[Record], between: list[Record], counts: list[int]
) -> None:
    client = Client(probe)
    wire = Wire(client)
    own = (28, 29, 30)  # a client writes no plan but by its replay
    try:
        for count in counts:
            for _ in range(count):
                wire.append(*(one for one in repeated if encoded(one)[0] not in own))
            wire.append(*(one for one in between if encoded(one)[0] not in own))
        wire.flush()
    finally:
        client.close()
