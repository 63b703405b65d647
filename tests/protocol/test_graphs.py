"""What may stand in a graph, and in which order; everything else is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import WIRE_RECORDS, encoded, mutated
from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.graphs import read_graph
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineGraph,
    DefineOperation,
    Fence,
    Free,
    FreeGraph,
    NewGenerator,
    Read,
    Record,
    RequestCall,
    RunGraph,
    SeedGenerator,
    Statistics,
    Write,
)
from xpool_protocol.values import Tensor


def row(storage: int) -> Tensor:
    return Tensor(storage, 6, (2,), (1,))


def call(inputs: list[int], outputs: list[int]) -> Call:
    arguments = tuple((at, row(storage)) for at, storage in enumerate(inputs))
    return Call(0, arguments, tuple(map(row, outputs)))


def graph(
    *written: Record,
    storages: int = 4,
    parameters: tuple[int, ...] = (0, 1),
    results: tuple[int, ...] = (),
) -> DefineGraph:
    return DefineGraph(1, storages, parameters, results, encoded(list(written)))


def test_a_graph_is_its_records() -> None:
    written = (
        call([0, 1], [2]),
        Allocate(3, 8),
        Write(3, 0, 2, 0, b"ab"),
        Call(1, ((0, [row(2), row(3)]),), (None,)),
        Free(3),
    )
    assert read_graph(graph(*written, results=(2,))) == written


REFUSED: list[tuple[Callable[[], DefineGraph], str]] = [
    (lambda: graph(call([2], [3])), "uses storage 2 before it is"),
    (lambda: graph(call([0], [2]), call([3], []), call([0], [3])), "before it is"),
    (lambda: graph(call([2], [2])), "uses storage 2 before it is"),
    (lambda: graph(Call(0, ((0, [[row(2)]]),), ())), "uses storage 2 before it is"),
    (lambda: graph(call([0], [2]), Free(2), call([2], [])), "after it was freed"),
    (lambda: graph(call([0], [2]), Free(2), Free(2)), "after it was freed"),
    (lambda: graph(Write(2, 0, 1, 0, b"a")), "before it is"),
    (lambda: graph(Write(0, 0, 1, 1)), "must hold its bytes"),
    (lambda: graph(call([0], [2]), call([0], [2])), "makes storage 2 twice"),
    (lambda: graph(call([0], [2]), Free(2), Allocate(2, 4)), "makes storage 2 twice"),
    (lambda: graph(call([0], [1])), "makes storage 1 twice"),
    (lambda: graph(Free(0)), "frees its parameter 0"),
    (lambda: graph(Allocate(4, 8)), "has 4 storages and names no. 4"),
    (lambda: graph(parameters=(4,)), "names no. 4"),
    (lambda: graph(parameters=(0, 0)), "names a parameter twice"),
    (lambda: graph(results=(4,)), "names no. 4"),
    (lambda: graph(results=(2,)), "result 2 of graph 1 is not made in it"),
    (lambda: graph(results=(0,)), "result 0 of graph 1 is not made in it"),
    (lambda: graph(Allocate(2, 8), Free(2), results=(2,)), "is not made in it"),
    (lambda: graph(Allocate(2, 8), results=(2, 2)), "names a result twice"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_a_graph_that_makes_no_sense_is_refused(
    make: Callable[[], DefineGraph], why: str
) -> None:
    with pytest.raises(PeerError, match=why):
        read_graph(make())


@pytest.mark.parametrize(
    "record",
    [
        RequestCall(1, 100, 0, ()),
        Read(1, 0, 0, 8),
        Fence(1),
        Statistics(1),
        DefineOperation(0, "aten::neg", ("self",)),
        NewGenerator(1),
        SeedGenerator(0, 1),
        DefineGraph(2, 0, (), (), b""),
        RunGraph(2, (), ()),
        FreeGraph(2),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_may_not_stand_in_a_graph(record: Record) -> None:
    with pytest.raises(PeerError, match=r"record kind \d+ may not stand in a graph"):
        read_graph(graph(record))


def test_a_graph_has_a_limited_number_of_records() -> None:
    one = encoded([Call(0, (), ())])
    assert len(read_graph(DefineGraph(1, 0, (), (), one * 65_536))) == 65_536
    with pytest.raises(PeerError, match="more than 65536 records"):
        read_graph(DefineGraph(1, 0, (), (), one * 65_537))


def test_ten_million_nodes_are_refused_by_their_bytes() -> None:
    from xpool_protocol.records import read_records
    from xpool_protocol.wire import Writer

    writer = Writer()
    writer.uint8(25)
    for number in (1, 0, 0, 0, 40_000_000):
        writer.uvarint(number)
    with pytest.raises(PeerError, match="length of graph is 40000000, over the limit"):
        list(read_records(bytes(writer.buffer)))
    assert limits.MAX_GRAPH_NBYTES < 40_000_000


def test_an_unknown_record_in_a_graph_is_refused() -> None:
    with pytest.raises(PeerError, match="record kind 255 may not stand"):
        read_graph(DefineGraph(1, 0, (), (), b"\xff"))


numbers = st.lists(st.integers(0, 5), max_size=4).map(tuple)
bodies = st.one_of(
    st.binary(max_size=60),
    mutated(st.lists(WIRE_RECORDS, min_size=1, max_size=3).map(encoded)),
    mutated(
        st.lists(
            st.sampled_from(
                [call([0, 1], [2]), call([2], [3]), Free(2), Allocate(4, 8)]
            ),
            max_size=5,
        ).map(encoded)
    ),
)


@given(st.builds(DefineGraph, st.just(1), st.integers(0, 6), numbers, numbers, bodies))
def test_anything_is_a_graph_or_a_peer_error(record: DefineGraph) -> None:
    try:
        found = read_graph(record)
    except PeerError:
        return
    assert encoded(list(found)) == record.records


def test_a_flipped_bit_is_another_graph_or_a_peer_error() -> None:
    whole = graph(call([0, 1], [2]), Allocate(3, 8), Free(3), results=(2,))
    for at in range(len(whole.records) * 8):
        data = bytearray(whole.records)
        data[at // 8] ^= 1 << at % 8
        record = DefineGraph(1, 4, (0, 1), (2,), bytes(data))
        try:
            found = read_graph(record)
        except PeerError:
            continue
        assert encoded(list(found)) == record.records
