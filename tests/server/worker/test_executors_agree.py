"""Both executors, fed the same bytes: the same answers, counters and storages."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.executor_desk import KINDS, Desk, bytes_from, bytes_of, library
from support.random_records import (
    QUOTA_NBYTES,
    determined,
    opening,
    records,
    streams,
)
from support.replaying import Client, Server, build_probe
from xpool_protocol.errors import HandleUnknown, PeerError
from xpool_protocol.group_records import Collective, DefineGroup, OpenMeeting
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.native_build import compiler
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineGraph,
    DefineOperation,
    Free,
    Record,
    RunGraph,
    Write,
    read_records,
)
from xpool_protocol.values import Tensor, row_major_strides
from xpool_server.devices.cpu import CpuBackend
from xpool_server.faults import Poisoned
from xpool_server.native.library import HAND_BACK
from xpool_server.native_executor import NativeExecutor
from xpool_server.sparse import GUARDED

HANDLES = range(40)
"""More than the records name."""


M_PERTURB = -6
"""Of glibc's ``mallopt``: new memory is filled with one byte, so that what a record
leaves undefined is the same for both."""


@pytest.fixture(autouse=True, scope="module")
def executor_kind() -> Iterator[None]:
    """Both at once: the module runs one time, and only where there is a compiler."""
    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    library()
    libc = ctypes.CDLL(None)
    assert libc.mallopt(M_PERTURB, 0x5A)
    yield
    assert libc.mallopt(M_PERTURB, 0)


class WithoutClock(CpuBackend):
    """Whose time does not tell one run from another."""

    @property
    def busy_ns(self) -> int:
        return 0


@dataclass
class Outcome:
    """Everything that can be seen of an executor from outside."""

    answers: list[Reply | Failure] = field(default_factory=list)
    refusal: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    storages: dict[int, object] = field(default_factory=dict)


def undefined_after(batches: Iterable[bytes]) -> set[int]:
    """Storages that were allocated and not filled: their bytes are anybody's."""
    open_ones: dict[int, int] = {}
    for batch in batches:
        with contextlib.suppress(PeerError):
            for record in read_records(batch):
                if isinstance(record, Allocate):
                    open_ones[record.storage] = record.nbytes
                elif (
                    isinstance(record, Write)
                    and record.offset == 0
                    and open_ones.get(record.storage) == record.nbytes
                ):
                    del open_ones[record.storage]
    return set(open_ones)


def outcome(kind: str, batches: Sequence[bytes]) -> Outcome:
    """What an executor makes of batches, one after the other."""
    undefined = undefined_after(batches)
    torch.manual_seed(0)
    desk = Desk(QUOTA_NBYTES, kind, WithoutClock())
    # Ports and other workers are never twice the same; test_groups.py has them.
    for among_workers in (OpenMeeting, DefineGroup, Collective):
        desk.executor._handlers[among_workers] = lambda record: ()
    seen = Outcome()
    try:
        for batch in batches:
            with desk.executor.batch([b"1234", b"56"]):
                for answers in desk.executor.run(batch):
                    assert answers is not None, "nothing else waits"
                    seen.answers += answers
    except PeerError as error:
        seen.refusal = str(error)
    desk.storages.validate()
    seen.counters = desk.executor.counters()
    seen.counters["operations"] = desk.executor.operation_count
    for handle in HANDLES:
        try:
            entry = desk.storages.entry(handle)
            data = None if handle in undefined else bytes_of(entry.storage)
            seen.storages[handle] = data, entry.nbytes
        except Poisoned as poisoned:
            seen.storages[handle] = poisoned.fault
        except HandleUnknown:
            pass
    return seen


def compare(*batches: bytes) -> None:
    python, native = (outcome(kind, (opening(), *batches)) for kind in KINDS)
    assert native == python


@settings(max_examples=100)
@given(st.lists(streams, min_size=1, max_size=3))
def test_any_records(batches: list[bytes]) -> None:
    compare(*batches)


@settings(max_examples=100)
@given(streams, st.data())
def test_streams_with_wrong_bits(stream: bytes, data: st.DataObject) -> None:
    broken = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(broken) - 1))
        broken[position] ^= 1 << data.draw(st.integers(0, 7))
    compare(bytes(broken))


@settings(max_examples=40)
@given(streams, st.data())
def test_streams_that_are_cut_short(stream: bytes, data: st.DataObject) -> None:
    compare(stream[: data.draw(st.integers(0, len(stream)))])


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_garbage(garbage: bytes) -> None:
    compare(garbage)


@settings(max_examples=60)
@given(st.sampled_from([2, 4, 5, 6]), st.binary(max_size=60))
def test_garbage_that_begins_like_a_record(kind: int, garbage: bytes) -> None:
    compare(bytes([kind]) + garbage)


NOTHING_AT_ALL = bytes_from(DefineOperation(4000, "aten::nothing", ()))
"""In the place of a plan's definition: it counts as one record and does nothing."""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tests = Path(__file__).parents[2]
    source = tests / "client_stub" / "native" / "replay_probe.cpp"
    return build_probe(source, tmp_path_factory.mktemp("probe"))


ADD, ADD_IN_PLACE, MUL_OUT, NEG, NO_SUCH = 0, 1, 2, 3, 15


def row_major(storage: int, sizes: tuple[int, ...]) -> Tensor:
    return Tensor(storage, 6, sizes, row_major_strides(sizes))


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """A graph of additions that mostly fit, and some runs of it."""
    there, count, steps = [0, 1], 2, list[Record]()
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from("nnaaiofmu"))
        one, other = (draw(st.sampled_from(there)) for _ in range(2))
        shape = draw(st.sampled_from([(2, 3), (2, 3), (2, 3), (3,), (0, 3)]))
        args = ((0, row_major(one, (2, 3))), (1, row_major(other, shape)))
        new = row_major(count, draw(st.sampled_from([(2, 3), (2, 3), (3, 2)])))
        made = 0
        match kind:
            case "n":
                steps.append(Call(NEG, args[:1], (new,)))
                made = 1
            case "a":
                steps.append(Call(ADD, args, (new,)))
                made = 1
            case "i":
                steps.append(Call(ADD_IN_PLACE, args, (None,)))
            case "o":
                steps.append(Call(MUL_OUT, (*args, (2, args[0][1])), (None,)))
            case "m":
                nbytes = draw(st.sampled_from([24, 24, 9000]))
                steps += [Allocate(count, nbytes), Write(count, 0, 24, 0, bytes(24))]
                made = 1
            case "u":
                steps.append(Call(NO_SUCH, args[:1], (None,)))
            case "f" if one > 1:
                steps.append(Free(one))
                there.remove(one)
        if made:
            there.append(count)
            count += 1
    results = draw(st.lists(st.sampled_from(there), unique=True))
    results = [one for one in results if one > 1]
    items: list[Record] = [
        DefineGraph(1, count, (0, 1), tuple(results), bytes_from(*steps))
    ]
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 5)) == 0:
            items.append(DefineOperation(NEG, "aten::abs", ("self",)))
        given = tuple(draw(st.sampled_from([0, 1, 2, 9])) for _ in range(2))
        ids = tuple(10 + number if number % 2 else 0 for number in range(len(results)))
        items.append(RunGraph(1, given, ids))
    return bytes_from(*items)


@settings(max_examples=150)
@given(graphs())
def test_any_graphs(stream: bytes) -> None:
    compare(stream)


def test_a_guarded_operation_is_not_called_around_its_guard() -> None:
    """Its kernel trusts what the guard, which is Python's, has checked."""
    assert GUARDED
    for name in GUARDED:
        base, _, overload = name.partition(".")
        schema = torch._C._get_schema(base, overload)
        names = tuple(one.name for one in schema.arguments)
        call = Call(0, ((0, row_major(0, (2, 3))),), (None,))
        compare(bytes_from(DefineOperation(0, name, names), call))
        native = Desk(QUOTA_NBYTES, "native")
        native.run(DefineOperation(0, name, names), Allocate(0, 24))
        assert isinstance(native.executor, NativeExecutor)
        assert native.executor.native.run(bytes_from(call), 0) == HAND_BACK


@settings(max_examples=100, deadline=None)
@given(st.lists(records, min_size=4, max_size=20), st.data())
def test_runs_of_plans_are_the_records_themselves(
    probe: Any, items: list[Record], data: st.DataObject
) -> None:
    """The client's replay puts a stream in fewer bytes; nobody can tell."""
    stream = [one for item in items for one in determined(item)]
    client, server = Client(probe, with_early=False), Server()
    planned: list[bytes] = []
    try:
        for _ in range(data.draw(st.integers(6, 12))):
            for record in stream:
                client.append(bytes_from(record))
            if data.draw(st.booleans()):
                planned.append(client.take())
        planned.append(client.take())
    finally:
        client.close()
    plain = [server.expand(one, in_place_of_ours=NOTHING_AT_ALL) for one in planned]
    python, native = (outcome(kind, (opening(), *planned)) for kind in KINDS)
    itself = outcome("python", (opening(), *plain))
    assert native == python
    assert python == itself
