"""Runs of plans on the server: what happens is what their records would have done."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest
import torch
from support.executor_desk import Desk
from support.strategies import encoded
from xpool_protocol import limits
from xpool_protocol.errors import HandleUnknown, OperationUnknown, PeerError
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.plan_records import DefinePlan, FreePlan, RunPlan
from xpool_protocol.plans import Rule
from xpool_protocol.records import Allocate, Call, Free, Read, Record, Write
from xpool_protocol.values import Tensor
from xpool_protocol.wire import Writer

X = torch.linspace(-3, 3, 6).reshape(2, 3)


def matrix(storage: int) -> Tensor:
    return Tensor(storage, 6, (2, 3), (3, 1))


def definition(
    records: Sequence[Record],
    variables: Sequence[tuple[Rule, int]] = (),
    places: Sequence[tuple[int, int]] = (),
    early: Sequence[tuple[int, int]] = (),
    plan: int = 1,
) -> DefinePlan:
    """Places are (position, variable), each of one byte."""
    writer = Writer()
    writer.uvarint(len(variables))
    for rule, number in variables:
        writer.uint8(rule)
        writer.svarint(number)
    writer.uvarint(len(places))
    end = 0
    for at, variable in places:
        writer.uvarint(at - end)
        writer.uvarint(variable)
        end = at + 1
    writer.uvarint(len(early))
    for after, read in early:
        writer.uvarint(after)
        writer.uvarint(read)
    return DefinePlan(plan, encoded(list(records)), bytes(writer.buffer))


def run(
    *meant: Record, first: int = 0, values: bytes = b"\0", plan: int = 1
) -> RunPlan:
    check = zlib.crc32(encoded(list(meant)))
    return RunPlan(plan, first, len(meant), check, values)


def negation(desk: Desk, old: int, new: int) -> Call:
    number = desk.define("aten::neg")
    return Call(number, ((0, matrix(old)),), (matrix(new),))


def operation_count(desk: Desk) -> int:
    return desk.executor.operation_count


@pytest.fixture
def negated(desk: Desk) -> DefinePlan:
    """A plan that negates storage 1 into a new one, which begins at 50 and goes up."""
    desk.run(Allocate(1, 24), Write(1, 0, 24, 0, X.numpy().tobytes()))
    record = encoded([negation(desk, 1, 50)])
    at = record.index(50)
    plan = definition([negation(desk, 1, 50)], [(Rule.NEXT, 1)], [(at, 0)])
    assert not desk.run(plan)
    return plan


def test_a_run_is_its_records(desk: Desk, negated: DefinePlan) -> None:
    executed = desk.counter("executed_ops")
    for new in (51, 52, 53):
        before = operation_count(desk)
        assert not desk.run(run(negation(desk, 1, new)))
        assert operation_count(desk) == before + 1
        assert torch.equal(desk.get(matrix(new)), -X)
    assert desk.counter("executed_ops") == executed + 3


def test_a_record_of_a_run_fails_under_its_own_number(
    desk: Desk, negated: DefinePlan
) -> None:
    desk.run(Free(1))
    before = operation_count(desk)
    answers = desk.run(Allocate(9, 4), run(negation(desk, 1, 51)), Free(9))
    (failure,) = answers
    assert isinstance(failure, Failure)
    assert failure.fault.code == HandleUnknown.code
    assert failure.fault.operation == before + 1
    assert failure.fault.name == "aten::neg"
    assert operation_count(desk) == before + 3
    (answer,) = desk.run(Read(5, 51, 0, 4))
    assert isinstance(answer, Failure)
    assert answer.fault == failure.fault


@pytest.mark.parametrize("name", ["aten::no_such", "aten::from_file", "prims::add"])
def test_an_operation_that_is_not_allowed_fails_when_it_is_called(
    desk: Desk, name: str
) -> None:
    number = desk.define(name, ("self",))
    call = Call(number, ((0, matrix(1)),), (matrix(50),))
    assert not desk.run(definition([call]))
    (failure,) = desk.run(run(call))
    assert isinstance(failure, Failure)
    assert failure.fault.code == OperationUnknown.code


def test_a_forward_reference_is_a_storage_that_is_not_there_yet(desk: Desk) -> None:
    calls = (negation(desk, 51, 50), negation(desk, 50, 51))
    assert not desk.run(definition(calls))
    answers = desk.run(run(*calls))
    assert [answer.fault.code for answer in answers if isinstance(answer, Failure)] == [
        HandleUnknown.code
    ]


@pytest.mark.parametrize("inner", [RunPlan(1, 0, 1, 0, b"\0"), FreePlan(1)])
def test_a_plan_does_not_run_plans(desk: Desk, inner: Record) -> None:
    with pytest.raises(PeerError, match="may not stand in a plan"):
        desk.run(definition([inner]))


def test_a_value_cannot_make_another_kind_of_record(desk: Desk) -> None:
    """The variable stands where the record says its kind: it becomes a RunPlan."""
    plan = definition([Free(7)], [(Rule.KEEP, 24)], [(0, 0)])
    desk.run(plan)
    check = zlib.crc32(b"\x1d\x07")
    with pytest.raises(PeerError, match="kind 29 may not stand in a plan"):
        desk.run(RunPlan(1, 0, 1, check, b"\0"))


def test_a_value_cannot_make_more_or_fewer_records(desk: Desk) -> None:
    raw = Writer()
    for number in (1, Rule.RAW, 2, 1, 0, 0, 0):
        raw.uvarint(number)
    desk.run(DefinePlan(1, encoded([Free(7), Free(8)]), bytes(raw.buffer)))
    joined = b"\x05\x87\x05\x08"  # one Free, and a kind that is missing
    assert len(joined) == 4
    bad = RunPlan(1, 0, 2, zlib.crc32(b"\x05\x89\x05\x08"), b"\x01\0\x05\x89")
    with pytest.raises(PeerError):
        desk.run(bad)


def test_a_wrong_check_ends_the_session(desk: Desk, negated: DefinePlan) -> None:
    with pytest.raises(PeerError, match="does not make what was meant"):
        desk.run(run(negation(desk, 1, 52)))


def test_values_that_are_not_there_end_the_session(
    desk: Desk, negated: DefinePlan
) -> None:
    for values, why in (
        (b"\x01\x01\x05", "no number 1"),
        (b"\x01\0", "missing"),
        (b"\0\0", "behind its values"),
    ):
        with pytest.raises(PeerError, match=why):
            desk.run(run(negation(desk, 1, 51), values=values))


def test_plans_that_are_not_there(desk: Desk, negated: DefinePlan) -> None:
    with pytest.raises(PeerError, match="plan 2 does not exist"):
        desk.run(run(Free(1), plan=2))
    with pytest.raises(PeerError, match="plan 2 does not exist"):
        desk.run(FreePlan(2))
    desk.run(FreePlan(1))
    with pytest.raises(PeerError, match="plan 1 does not exist"):
        desk.run(run(negation(desk, 1, 51)))


def test_a_session_has_a_bounded_number_of_plans(desk: Desk) -> None:
    for number in range(limits.MAX_PLANS):
        desk.run(definition([Free(1)], plan=number))
    with pytest.raises(PeerError, match="exists already"):
        desk.run(definition([Free(1)], plan=0))
    with pytest.raises(PeerError, match=f"at most {limits.MAX_PLANS} plans"):
        desk.run(definition([Free(1)], plan=99))
    desk.run(FreePlan(3), definition([Free(1)], plan=99))


def test_a_batch_stands_for_a_bounded_number_of_bytes(desk: Desk) -> None:
    """Some bytes cannot keep a worker busy for longer than a whole batch could."""
    number = desk.define("aten::no_such", ("self",))
    records = [Call(number, ((0, "x" * 60_000),), ())] * 16
    desk.run(definition(records))
    nbytes = len(encoded(list(records)))
    batch = encoded([run(*records)] * (limits.MAX_EXPANDED_NBYTES // nbytes + 1))
    assert len(batch) < 200
    with (
        desk.executor.batch(),
        pytest.raises(PeerError, match="the plans of one batch stand for more than"),
    ):
        list(desk.executor.run(batch))


def early_plan(desk: Desk) -> DefinePlan:
    """A negation, something else, and a read of the negation's result."""
    desk.run(Allocate(1, 24), Write(1, 0, 24, 0, X.numpy().tobytes()))
    records = (negation(desk, 1, 50), Free(60), Read(30, 50, 0, 24))
    data = encoded(list(records))
    made, request = data.index(50), data.index(30)
    places = [(made, 0), (request, 1), (request + 1, 0)]
    plan = definition(records, [(Rule.NEXT, 1), (Rule.KEEP, 1)], places, [(0, 2)])
    desk.run(plan)
    return plan


def test_a_read_is_answered_early_and_once(desk: Desk) -> None:
    early_plan(desk)
    (reply,) = desk.run(run(negation(desk, 1, 51)))
    assert isinstance(reply, Reply)
    assert reply.request == 31
    assert b"".join(map(bytes, reply.payloads)) == (-X).numpy().tobytes()
    before = operation_count(desk)
    assert not desk.run(run(Read(31, 51, 0, 24), first=2))
    assert operation_count(desk) == before + 1


def test_a_whole_run_answers_once(desk: Desk) -> None:
    early_plan(desk)
    desk.run(Allocate(60, 4))
    answers = desk.run(run(negation(desk, 1, 51), Free(60), Read(31, 51, 0, 24)))
    assert [answer.request for answer in answers] == [31]


def test_a_read_under_another_request_is_answered_too(desk: Desk) -> None:
    """The client did not trust the early answer any more."""
    early_plan(desk)
    assert len(desk.run(run(negation(desk, 1, 51)))) == 1
    asked = run(Read(77, 51, 0, 24), first=2, values=b"\x01\x01\x4d")
    (reply,) = desk.run(asked)
    assert reply.request == 77


def test_what_has_failed_is_not_answered_early(desk: Desk) -> None:
    early_plan(desk)
    desk.run(Free(1))
    (failure,) = desk.run(run(negation(desk, 1, 51)))
    assert isinstance(failure, Failure)
    assert failure.request == 0
    (answer,) = desk.run(run(Read(31, 51, 0, 24), first=2))
    assert isinstance(answer, Failure)
    assert answer.request == 31
    assert answer.fault == failure.fault
