"""What a plan may be, what its runs stand for, and everything that is refused."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import encoded
from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.plan_records import DefinePlan, FreePlan, RunPlan
from xpool_protocol.plans import Plan, Rule, read_plan
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineGraph,
    DefineOperation,
    Fence,
    Free,
    NewGenerator,
    Read,
    Record,
    RequestCall,
    RunGraph,
    Statistics,
    Upload,
    Write,
)
from xpool_protocol.values import Tensor
from xpool_protocol.wire import Writer

RECORDS = (
    Call(0, ((0, Tensor(7, 6, (2,), (1,))), (1, 0.5)), (Tensor(20, 6, (2,), (1,)),)),
    Free(20),
    Read(3, 7, 0, 8),
)
# In the bytes of RECORDS: storage 7, 0.5, storage 20; then 20 of Free; request, 7.
KEPT, NUMBER, MADE, FREED, REQUEST, READ = 5, 13, 23, 30, 32, 33

Variables = list[tuple[int, int]]
Places = list[tuple[int, int]]


def layout(variables: Variables, places: Places, early: Places | None = None) -> bytes:
    """Places are positions and variables; a position's number is read from RECORDS."""
    writer = Writer()
    writer.uvarint(len(variables))
    for rule, number in variables:
        writer.uint8(rule)
        if rule in (Rule.KEEP, Rule.NEXT):
            writer.svarint(number)
        else:
            writer.uvarint(number)
    writer.uvarint(len(places))
    end = 0
    for wanted, variable in places:
        at = max(wanted, end)  # distances: nothing on the wire says less
        writer.uvarint(at - end)
        writer.uvarint(variable)
        is_raw = variable < len(variables) and variables[variable][0] == Rule.RAW
        end = at + (variables[variable][1] if is_raw else 1)
    writer.uvarint(len(early or []))
    for after, read in early or []:
        writer.uvarint(after)
        writer.uvarint(read)
    return bytes(writer.buffer)


VARIABLES: Variables = [(0, 0), (3, 8), (1, 10), (0, 1)]
PLACES: Places = [
    *((KEPT, 0), (NUMBER, 1), (MADE, 2), (FREED, 2), (REQUEST, 3), (READ, 0))
]


def define(
    variables: Variables = VARIABLES,
    places: Places = PLACES,
    early: Places | None = None,
    records: tuple[Record, ...] = RECORDS,
) -> DefinePlan:
    return DefinePlan(4, encoded(list(records)), layout(variables, places, early))


def run(
    *meant: Record, first: int = 0, values: bytes = b"\0", count: int | None = None
) -> RunPlan:
    check = zlib.crc32(encoded(list(meant)))
    return RunPlan(4, first, len(meant) if count is None else count, check, values)


def call(kept: int, number: float, made: int) -> Call:
    first, second = Tensor(kept, 6, (2,), (1,)), Tensor(made, 6, (2,), (1,))
    return Call(0, ((0, first), (1, number)), (second,))


def expand(plan: Plan, record: RunPlan) -> bytes:
    return bytes(plan.expand(record).records)


def test_the_places_are_where_they_should_be() -> None:
    data = encoded(list(RECORDS))
    assert [data[at] for at in (KEPT, MADE, FREED, REQUEST, READ)] == [7, 20, 20, 3, 7]
    assert data[NUMBER : NUMBER + 8] == bytes.fromhex("000000000000e03f")


def test_a_run_goes_on_as_before() -> None:
    plan = read_plan(define())
    for number in (1, 2, 3):
        meant = (call(7, 0.5, 20 + 10 * number), Free(20 + 10 * number))
        meant += (Read(3 + number, 7, 0, 8),)  # type: ignore[assignment]
        assert expand(plan, run(*meant)) == encoded(list(meant))


def test_values_that_are_not_as_expected_are_told() -> None:
    plan = read_plan(define())
    quarter = bytes.fromhex("000000000000d03f")
    values = b"\x03\0\x08\0" + quarter + b"\0\xe7\x07"
    meant = (call(8, 0.25, 999), Free(999))
    assert expand(plan, run(*meant, values=values)) == encoded(list(meant))
    after = (call(8, 0.25, 1009), Free(1009), Read(4, 8, 0, 8))
    assert expand(plan, run(*after)) == encoded(list(after))


def test_a_part_of_a_run_uses_what_was_bound_before_it() -> None:
    plan = read_plan(define())
    assert expand(plan, run(Free(20), first=1)) == encoded([Free(20)])
    other = run(Free(33), first=1, values=b"\x01\x02\x21")
    assert expand(plan, other) == encoded([Free(33)])
    # It was no new storage: the next one comes after the last that was.
    assert expand(plan, run(call(7, 0.5, 30))) == encoded([call(7, 0.5, 30)])


def test_a_storage_is_carried_on_from_the_run_before() -> None:
    """What a step makes, the next one frees."""
    records = (Free(6), Allocate(16, 4))
    plan = read_plan(define([(2, 1), (1, 10)], [(1, 0), (3, 1)], records=records))
    for number in range(3):
        old, new = 16 + 10 * number, 26 + 10 * number
        meant = (Free(old), Allocate(new, 4))
        assert expand(plan, run(*meant)) == encoded(list(meant))


def test_an_early_read_is_named_where_it_may_be_answered() -> None:
    plan = read_plan(define(early=[(0, 2)]))
    made = plan.expand(run(call(7, 0.5, 30), Free(30)))
    assert made.requests == {0: 4}
    assert made.reads == {0: encoded([Read(4, 7, 0, 8)])}
    rest = plan.expand(run(Read(4, 7, 0, 8), first=2))
    assert not rest.requests
    given = run(call(7, 0.5, 40), values=b"\x01\x03\x63")
    assert plan.expand(given).reads == {0: encoded([Read(0x63, 7, 0, 8)])}


NOT_IN_A_PLAN: list[Record] = [
    DefineOperation(0, "aten::neg", ("self",)),
    RequestCall(1, 5, 0, ()),
    Write(7, 0, 2, 0, b"ab"),
    Fence(1),
    Statistics(1),
    NewGenerator(1),
    DefineGraph(1, 0, (), (), b""),
    RunGraph(1, (), ()),
    Upload(7, 0, 4),
    DefinePlan(4, b"", b""),
    RunPlan(4, 0, 1, 0, b"\0"),
    FreePlan(4),
]


@pytest.mark.parametrize("record", NOT_IN_A_PLAN, ids=lambda one: type(one).__name__)
def test_nothing_else_stands_in_a_plan(record: Record) -> None:
    """No plan in a plan, so no cycle; no definition; nothing that is answered."""
    with pytest.raises(PeerError, match=r"kind \d+ may not stand in a plan"):
        read_plan(define([], [], records=(Free(1), record)))


REFUSED: list[tuple[Callable[[], DefinePlan], str]] = [
    (lambda: DefinePlan(4, b"\x05", layout([], [])), "cut short"),
    (lambda: DefinePlan(4, b"\x05\x07", b""), "cut short"),
    (lambda: DefinePlan(4, b"\x05\x07", layout([], []) + b"\0"), "behind its layout"),
    (lambda: define([(4, 0)], [(KEPT, 0)]), "rule 4 of plan 4 is unknown"),
    (lambda: define([(2, 1)], [(KEPT, 0)]), "variable to carry on is 1"),
    (lambda: define([(2, 1), (3, 8)], [(KEPT, 0), (NUMBER, 1)]), "carries on bytes"),
    (lambda: define([(0, 0)], [(KEPT, 1)]), "names variable 1 before its turn"),
    (lambda: define([(0, 0)] * 2, [(KEPT, 1), (MADE, 0)]), "before its turn"),
    (lambda: define([(0, 0)], [(KEPT, 0), (MADE, 1)]), "before its turn"),
    (lambda: define([(0, 0)], [(READ + 3, 0)]), "a variable behind its records"),
    (lambda: define([(3, 9)], [(READ, 0)]), "cut short"),
    (lambda: define([(3, 4)], [(FREED - 1, 0)]), "reaches out of its record"),
    (lambda: define([(0, 0), (0, 0)], [(KEPT, 0)]), "that stand nowhere"),
    (lambda: define([(3, 1)], [(KEPT, 0), (MADE, 0)]), "uses bytes in two places"),
    (lambda: define(early=[(2, 2)]), "reads early after record 2, 2"),
    (lambda: define(early=[(0, 3)]), "reads early after record 0, 3"),
    (lambda: define(early=[(0, 2), (0, 2)]), "reads early after record 0, 2"),
    (lambda: define(early=[(0, 1)]), "record 1 of plan 4 can't be read early"),
    (lambda: define(VARIABLES[:3], PLACES[:4], early=[(0, 2)]), "can't be read early"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_a_plan_that_makes_no_sense(make: Callable[[], DefinePlan], why: str) -> None:
    with pytest.raises(PeerError, match=why):
        read_plan(make())


BAD_RUNS: list[tuple[RunPlan, str]] = [
    (run(count=0), "0 from 0 on are not there"),
    (run(Free(20), first=3), "1 from 3 on are not there"),
    (run(*RECORDS, first=1), "3 from 1 on are not there"),
    (run(call(7, 0.5, 30), values=b""), "cut short"),
    (run(call(7, 0.5, 30), values=b"\0\0"), "behind its values"),
    (run(call(7, 0.5, 30), values=b"\x01"), "cut short"),
    (run(call(7, 0.5, 30), values=b"\x01\x04\x01"), "no number 4"),
    (run(call(7, 0.5, 30), values=b"\x02\x03\x01\x00\x01"), "no number 4"),
    (run(call(7, 0.5, 30), values=b"\x01\x01\x01"), "cut short"),
    (run(call(7, 0.5, 30), values=b"\x01\x03\x63"), "that it does not use"),
    (run(call(7, 0.5, 31)), "does not make what was meant"),
    (run(call(7, 0.5, 20)), "does not make what was meant"),
]


@pytest.mark.parametrize(("bad", "why"), BAD_RUNS)
def test_a_run_that_fits_no_plan(bad: RunPlan, why: str) -> None:
    plan = read_plan(define())
    with pytest.raises(PeerError, match=why):
        plan.expand(bad)


def test_a_plan_has_a_bounded_number_of_records() -> None:
    one = encoded([Free(1)])
    most = limits.MAX_PLAN_RECORDS
    assert len(read_plan(DefinePlan(1, one * most, b"\0\0\0")).ends) == most
    with pytest.raises(PeerError, match=f"more than {most} records"):
        read_plan(DefinePlan(1, one * (most + 1), b"\0\0\0"))


def test_ten_million_places_are_refused_before_they_are_read() -> None:
    writer = Writer()
    writer.uvarint(0)
    writer.uvarint(10_000_000)
    began = time.monotonic()
    with pytest.raises(PeerError, match="over the limit"):
        read_plan(DefinePlan(1, encoded([Free(1)]), bytes(writer.buffer)))
    assert time.monotonic() - began < 1


layouts = st.builds(
    layout,
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=5),
    st.lists(st.tuples(st.integers(0, READ + 2), st.integers(0, 5)), max_size=6).map(
        lambda found: [(9 * i + at % 9, one) for i, (at, one) in enumerate(found)]
    ),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=2),
)


@given(
    layouts | st.binary(max_size=40),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.binary(max_size=12))),
)
def test_anything_is_a_plan_or_a_peer_error(
    body: bytes, runs: list[tuple[int, int, bytes]]
) -> None:
    """And what a run makes of a plan is bytes, or a peer error."""
    try:
        plan = read_plan(DefinePlan(4, encoded(list(RECORDS)), body))
        for first, count, values in runs:
            plan.expand(RunPlan(4, first, count, 0, values))
    except PeerError:
        pass
