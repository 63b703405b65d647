"""Failures are late and exact: what they spoil, who is told, and when."""

from __future__ import annotations

import torch
from support.executor_desk import QUOTA_NBYTES, Desk
from xpool_protocol.errors import (
    HandleUnknown,
    OperationFailed,
    PoolError,
    QuotaExceeded,
)
from xpool_protocol.messages import Failure, Fault, Reply
from xpool_protocol.records import (
    Allocate,
    Call,
    Fence,
    Free,
    Read,
    Record,
    RequestCall,
    SeedGenerator,
    Write,
)
from xpool_protocol.values import Tensor, Value
from xpool_server import failures

X = torch.linspace(-3, 3, 6).reshape(2, 3)


def spoiled(desk: Desk) -> tuple[Tensor, Fault]:
    """A result of a call that failed, and its fault."""
    out = desk.new(4)
    fault = desk.fault(desk.make_call("aten::mm", [out], self=X, mat2=X))
    return out, fault


def read(desk: Desk, wire: Tensor) -> Fault:
    (failure,) = desk.run(Read(3, wire.storage, 0, 4))
    assert isinstance(failure, Failure)
    assert failure.request == 3
    return failure.fault


def test_the_fault_names_operation_and_number(desk: Desk) -> None:
    before = desk.executor.operation_count
    _, fault = spoiled(desk)
    # Two uploads of two records each and the definition come before the call.
    assert fault.operation == before + 5
    assert fault.name == "aten::mm"
    assert fault.code == OperationFailed.code


def test_results_of_results_carry_the_first_fault(desk: Desk) -> None:
    out, fault = spoiled(desk)
    second, third = desk.new(4), desk.new(8)
    assert not desk.call("aten::neg", [second], self=out)
    assert not desk.call("aten::cat", [third], tensors=[X, second], dim=0)
    assert read(desk, third) == read(desk, second) == read(desk, out) == fault
    assert desk.counter("executed_ops") == 0
    assert desk.counter("failed_ops") == 1


def test_the_first_poisoned_argument_wins(desk: Desk) -> None:
    first, fault = spoiled(desk)
    second, other = spoiled(desk)
    assert fault != other
    out = desk.new(4)
    assert not desk.call("aten::add.Tensor", [out], self=second, other=first)
    assert read(desk, out) == other


def test_a_failed_call_spoils_what_it_writes(desk: Desk) -> None:
    mine, source = desk.put(X.clone()), desk.put(X)
    call = desk.make_call("aten::add_.Tensor", [None], self=mine, other=torch.ones(5))
    fault = desk.fault(call)
    assert read(desk, mine) == fault
    assert torch.equal(desk.get(source), X)


def test_a_failed_call_spoils_lists_and_outs(desk: Desk) -> None:
    mine = [desk.put(X.clone()), desk.put(X.clone())]
    given = {"self": mine, "other": [torch.ones(5), torch.ones(5)]}
    fault = desk.fault(desk.make_call("aten::_foreach_add_.List", [], **given))
    assert read(desk, mine[0]) == read(desk, mine[1]) == fault
    out = desk.put(X.clone())
    fault = desk.fault(desk.make_call("aten::mm.out", [None], self=X, mat2=X, out=out))
    assert read(desk, out) == fault


def test_a_call_on_poison_spoils_what_it_would_have_written(desk: Desk) -> None:
    mine = desk.put(X.clone())
    out, fault = spoiled(desk)
    assert not desk.call("aten::add_.Tensor", [None], self=mine, other=out)
    assert read(desk, mine) == fault


def test_a_poisoned_storage_keeps_its_first_fault(desk: Desk) -> None:
    first, fault = spoiled(desk)
    second, _ = spoiled(desk)
    assert not desk.call("aten::add_.Tensor", [None], self=first, other=second)
    assert read(desk, first) == fault


def test_an_unknown_operation_spoils_what_it_may_have_written(desk: Desk) -> None:
    mine, other = desk.put(X.clone()), desk.put(X.clone())
    desk.define("aten::novelty_", ("self", "others"))
    fault = desk.fault(
        desk.make_call("aten::novelty_", [None], self=mine, others=[other])
    )
    assert read(desk, mine) == read(desk, other) == fault
    kept, out = desk.put(X), desk.new(1)
    desk.define("aten::novelty", ("self",))
    fault = desk.fault(desk.make_call("aten::novelty", [out], self=kept))
    assert read(desk, out) == fault
    assert torch.equal(desk.get(kept), X)


def test_other_handles_are_not_touched(desk: Desk) -> None:
    before = desk.put(X)
    out, _ = spoiled(desk)
    after = desk.put(-X)
    assert after.storage > out.storage
    assert torch.equal(desk.get(before), X)
    assert torch.equal(desk.get(after), -X)


def test_free_and_a_new_start_with_the_same_id(desk: Desk) -> None:
    out, _ = spoiled(desk)
    assert not desk.run(Free(out.storage), Allocate(out.storage, 16))
    assert desk.get(out).shape == (4,)


def test_writing_into_poison_changes_nothing(desk: Desk) -> None:
    out, fault = spoiled(desk)
    assert not desk.run(Write(out.storage, 0, 4, 0, bytes(4)))
    assert read(desk, out) == fault


def test_poison_takes_no_memory(desk: Desk) -> None:
    allocated = desk.counter("allocated_nbytes")
    mine = desk.put(torch.zeros(1000))
    fault = desk.fault(
        desk.make_call("aten::add_.Tensor", [None], self=mine, other=torch.ones(3))
    )
    assert fault.code == OperationFailed.code
    # What is left is the other argument.
    assert desk.counter("allocated_nbytes") == allocated + 512
    assert desk.counter("storage_count") == 1


def test_failing_after_some_results_were_taken(desk: Desk) -> None:
    """The second prediction is wrong: the first result is spoiled as well."""
    values, indices = desk.new(2), desk.new(2)
    given = {"self": torch.ones(3), "k": 2}
    fault = desk.fault(desk.make_call("aten::topk", [values, indices], **given))
    assert "got [2] of torch.int64" in fault.text
    assert read(desk, values) == read(desk, indices) == fault
    assert desk.counter("storage_count") == 1


def test_a_result_id_that_is_in_use(desk: Desk) -> None:
    """The client has lost count; neither tensor may pass for the other."""
    used = desk.put(X)
    out = Tensor(used.storage, 6, (2, 3), (3, 1))
    fault = desk.fault(desk.make_call("aten::neg", [out], self=X))
    assert "exists already" in fault.text
    assert read(desk, used) == fault


def test_two_results_of_one_id(desk: Desk) -> None:
    out = desk.new(4)
    fault = desk.fault(
        desk.make_call("aten::aminmax", [out, out], self=torch.ones(4, 4), dim=0)
    )
    assert "exists already" in fault.text
    assert read(desk, out) == fault


# ---- telling ----


def test_a_failure_is_told_at_once_and_at_the_next_fence(desk: Desk) -> None:
    _, fault = spoiled(desk)
    assert desk.fence() == Failure(9, fault)
    assert isinstance(desk.fence(), Reply)


def test_fences_report_failures_in_order(desk: Desk) -> None:
    _, first = spoiled(desk)
    _, second = spoiled(desk)
    answers = desk.run(Fence(1), Fence(2), Fence(3))
    assert [getattr(one, "fault", None) for one in answers] == [first, second, None]


def test_a_fault_that_was_read_is_reported(desk: Desk) -> None:
    out, _ = spoiled(desk)
    further = desk.new(4)
    assert not desk.call("aten::neg", [further], self=out)
    read(desk, further)
    assert isinstance(desk.fence(), Reply)


def test_the_answer_of_a_request_is_a_report(desk: Desk) -> None:
    failure = desk.ask("aten::mm", self=X, mat2=X)
    assert isinstance(failure, Failure)
    assert isinstance(desk.fence(), Reply)
    out, fault = spoiled(desk)
    failure = desk.ask("aten::nonzero", self=out)
    assert failure.fault == fault
    assert isinstance(desk.fence(), Reply)


def test_a_failed_request_spoils_what_it_writes(desk: Desk) -> None:
    mine = desk.put(X.clone())
    failure = desk.ask("aten::add_.Tensor", self=mine, other=torch.ones(5))
    assert isinstance(failure, Failure)
    assert read(desk, mine) == failure.fault


def test_failures_beyond_calls_are_told_too(desk: Desk) -> None:
    cases: list[tuple[Record, type[PoolError]]] = [
        (Free(99), HandleUnknown),
        (Write(99, 0, 1, 0, b"x"), HandleUnknown),
        (SeedGenerator(9, 1), HandleUnknown),
        (Allocate(50, QUOTA_NBYTES + 1), QuotaExceeded),
    ]
    for record, kind in cases:
        fault = desk.fault(record)
        assert (fault.code, fault.name) == (kind.code, "")
        assert desk.fence() == Failure(9, fault)


def test_a_flood_of_failures_keeps_the_first(desk: Desk) -> None:
    faults = [desk.fault(Free(99)) for _ in range(failures.MAX_UNREPORTED + 10)]
    reported = [desk.fence() for _ in faults]
    told = [one.fault for one in reported if isinstance(one, Failure)]
    assert told == faults[: failures.MAX_UNREPORTED]


def test_nothing_runs_after_a_failure_but_what_does_not_depend(desk: Desk) -> None:
    spoiled(desk)
    out = Tensor(next(desk.ids), 6, (2, 3), (3, 1))
    assert not desk.call("aten::neg", [out], self=X)
    assert torch.equal(desk.get(out), -X)


def test_an_undefined_operation_in_a_request(desk: Desk) -> None:
    arguments: tuple[tuple[int, Value], ...] = ()
    (failure,) = desk.run(RequestCall(4, 100, 55, arguments))
    assert isinstance(failure, Failure)
    assert failure.request == 4
    assert isinstance(desk.run(Call(55, arguments, ()))[0], Failure)
