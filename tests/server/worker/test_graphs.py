"""Graphs on the server: what a run makes, charges, fails at and spoils."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.executor_desk import Desk, host
from support.strategies import encoded
from xpool_protocol.errors import (
    ArgumentInvalid,
    HandleUnknown,
    OperationFailed,
    OperationUnknown,
    PeerError,
    QuotaExceeded,
)
from xpool_protocol.messages import Failure
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineGraph,
    Free,
    FreeGraph,
    Read,
    Record,
    RunGraph,
    SeedGenerator,
    Write,
)
from xpool_protocol.values import Generator, Tensor, Value

X = torch.linspace(-3, 3, 6).reshape(2, 3)
Y = torch.linspace(0, 1, 6).reshape(2, 3)


def matrix(storage: int) -> Tensor:
    return Tensor(storage, 6, (2, 3), (3, 1))


def step(desk: Desk, name: str, outputs: list[Tensor | None], **given: Value) -> Call:
    """A call within a graph: its tensors are named already."""
    return desk.make_call(name, outputs, **given)


def define(
    desk: Desk,
    *written: Record,
    graph: int = 1,
    storages: int = 8,
    parameters: tuple[int, ...] = (0, 1),
    results: tuple[int, ...] = (),
) -> DefineGraph:
    record = DefineGraph(graph, storages, parameters, results, encoded(list(written)))
    assert not desk.run(record)
    return record


def add_then_relu(desk: Desk) -> DefineGraph:
    return define(
        desk,
        step(desk, "aten::add.Tensor", [matrix(2)], self=matrix(0), other=matrix(1)),
        step(desk, "aten::relu", [matrix(3)], self=matrix(2)),
        Free(2),
        results=(3,),
    )


def test_a_run_is_its_records(desk: Desk) -> None:
    add_then_relu(desk)
    a, b = desk.put(X), desk.put(Y)
    before = desk.counter("executed_ops")
    assert not desk.run(RunGraph(1, (a.storage, b.storage), (100,)))
    assert torch.equal(desk.get(matrix(100)), torch.relu(X + Y))
    assert desk.counter("executed_ops") == before + 2
    assert desk.counter("graph_runs") == 1
    assert desk.counter("storage_count") == 3


def test_each_run_takes_other_storages(desk: Desk) -> None:
    add_then_relu(desk)
    a, b = desk.put(X), desk.put(Y)
    assert not desk.run(RunGraph(1, (a.storage, b.storage), (100,)))
    assert not desk.run(RunGraph(1, (100, 100), (101,)))
    assert torch.equal(desk.get(matrix(101)), 2 * torch.relu(X + Y))


def test_a_result_keeps_its_name_from_run_to_run(desk: Desk) -> None:
    add_then_relu(desk)
    a, b = desk.put(X), desk.put(Y)
    run = RunGraph(1, (a.storage, b.storage), (100,))
    assert not desk.run(run)
    allocated = desk.counter("allocated_nbytes")
    changed = torch.full((2, 3), 4.0)
    assert not desk.run(Write(a.storage, 0, 24, 0, bytes(host(changed).data)))
    assert not desk.run(run)
    assert torch.equal(desk.get(matrix(100)), torch.relu(changed + Y))
    assert desk.counter("allocated_nbytes") == allocated


def test_an_unwanted_result_is_not_kept(desk: Desk) -> None:
    add_then_relu(desk)
    a, b = desk.put(X), desk.put(Y)
    assert not desk.run(RunGraph(1, (a.storage, b.storage), (0,)))
    assert desk.counter("storage_count") == 2


def test_a_graph_writes_its_parameters_and_its_own_bytes(desk: Desk) -> None:
    define(
        desk,
        Allocate(1, 24),
        Write(1, 0, 24, 0, bytes(host(Y).data)),
        step(desk, "aten::mul_.Tensor", [None], self=matrix(0), other=matrix(1)),
        parameters=(0,),
    )
    a = desk.put(X)
    assert not desk.run(RunGraph(1, (a.storage,), ()))
    assert not desk.run(RunGraph(1, (a.storage,), ()))
    assert torch.equal(desk.get(a), X * Y * Y)
    assert desk.counter("storage_count") == 1


def test_a_host_tensor_is_new_in_each_run(desk: Desk) -> None:
    define(
        desk,
        step(desk, "aten::alias", [matrix(0)], self=host(X)),
        step(desk, "aten::add_.Tensor", [None], self=matrix(0), other=matrix(0)),
        parameters=(),
        results=(0,),
    )
    for storage in (100, 101):
        assert not desk.run(RunGraph(1, (), (storage,)))
        assert torch.equal(desk.get(matrix(storage)), 2 * X)


def test_random_numbers_go_on_from_run_to_run(desk: Desk) -> None:
    define(
        desk,
        step(desk, "aten::normal_", [None], self=matrix(0), generator=Generator(0)),
        parameters=(0,),
    )
    a = desk.put(X)
    desk.run(SeedGenerator(0, 7))
    seen = []
    for _ in range(2):
        desk.run(RunGraph(1, (a.storage,), ()))
        seen.append(desk.get(a).clone())
    generator = torch.Generator().manual_seed(7)
    wanted = [torch.empty(2, 3).normal_(generator=generator) for _ in range(2)]
    assert all(map(torch.equal, seen, wanted))


def failing(desk: Desk) -> None:
    """Result 4 comes from a failing call, 3 does not; 4 is added to parameter 1."""
    define(
        desk,
        step(desk, "aten::neg", [matrix(3)], self=matrix(0)),
        step(desk, "aten::mm", [matrix(4)], self=matrix(0), mat2=matrix(0)),
        step(desk, "aten::neg", [matrix(5)], self=matrix(4)),
        step(desk, "aten::add_.Tensor", [None], self=matrix(1), other=matrix(5)),
        Free(5),
        results=(3, 4),
    )


def test_a_failure_spoils_what_depends_on_it_and_nothing_else(desk: Desk) -> None:
    failing(desk)
    a, b = desk.put(X), desk.put(Y)
    fault = desk.fault(RunGraph(1, (a.storage, b.storage), (100, 101)))
    assert fault.name == "aten::mm"
    assert fault.code == OperationFailed.code
    assert "(record 1 of graph 1)" in fault.text
    assert fault.operation == desk.executor.operation_count - 1
    assert torch.equal(desk.get(matrix(100)), -X)
    assert torch.equal(desk.get(a), X)
    for spoiled in (101, b.storage):
        (answer,) = desk.run(Read(3, spoiled, 0, 4))
        assert isinstance(answer, Failure)
        assert answer.fault == fault
    assert desk.counter("failed_ops") == 1


def test_the_next_run_is_not_harmed(desk: Desk) -> None:
    failing(desk)
    define(
        desk,
        step(desk, "aten::neg", [matrix(1)], self=matrix(0)),
        graph=2,
        parameters=(0,),
        results=(1,),
    )
    a, b = desk.put(X), desk.put(Y)
    desk.fault(RunGraph(1, (a.storage, b.storage), (100, 101)))
    assert not desk.run(RunGraph(2, (101,), (102,)))  # poison passes through
    (answer,) = desk.run(Read(3, 102, 0, 4))
    assert isinstance(answer, Failure)
    assert not desk.run(RunGraph(2, (a.storage,), (102,)))  # and is overcome
    assert torch.equal(desk.get(matrix(102)), -X)


def test_only_the_first_of_several_faults_is_sent(desk: Desk) -> None:
    define(
        desk,
        *(
            step(desk, "aten::mm", [matrix(at)], self=matrix(0), mat2=matrix(0))
            for at in (2, 3, 4)
        ),
        results=(2, 3, 4),
    )
    a, b = desk.put(X), desk.put(Y)
    fault = desk.fault(RunGraph(1, (a.storage, b.storage), (100, 101, 102)))
    assert "(record 0 of graph 1)" in fault.text
    (answer,) = desk.run(Read(3, 102, 0, 4))
    assert isinstance(answer, Failure)
    assert "(record 2 of graph 1)" in answer.fault.text


@pytest.mark.parametrize("name", ["aten::no_such", "aten::from_file", "aten::set_"])
def test_a_call_that_is_not_allowed_fails_in_the_run(desk: Desk, name: str) -> None:
    desk.define(name, ("self",))
    define(
        desk,
        step(desk, name, [matrix(2)], self=matrix(0)),
        step(desk, "aten::neg", [matrix(3)], self=matrix(1)),
        results=(2, 3),
    )
    a, b = desk.put(X), desk.put(Y)
    fault = desk.fault(RunGraph(1, (a.storage, b.storage), (100, 101)))
    assert fault.code == OperationUnknown.code
    assert fault.name == name
    assert torch.equal(desk.get(matrix(101)), -Y)


def test_arguments_against_the_schema_fail_in_the_run(desk: Desk) -> None:
    define(
        desk,
        step(desk, "aten::neg", [matrix(2)], self="text"),
        step(desk, "aten::neg", [matrix(3)], self=Tensor(0, 6, (9, 9), (9, 1))),
        step(desk, "aten::neg", [Tensor(4, 6, (2, 3), (3, 1), 1)], self=matrix(0)),
        results=(2, 3, 4),
    )
    a, b = desk.put(X), desk.put(Y)
    fault = desk.fault(RunGraph(1, (a.storage, b.storage), (100, 101, 102)))
    assert fault.code == ArgumentInvalid.code
    for storage, why in ((100, "must be a tensor"), (101, "outside"), (102, "begins")):
        (answer,) = desk.run(Read(3, storage, 0, 4))
        assert isinstance(answer, Failure)
        assert why in answer.fault.text


def test_a_wrong_prediction_names_the_record(desk: Desk) -> None:
    wrong = Tensor(2, 6, (3, 3), (3, 1))
    define(desk, step(desk, "aten::neg", [wrong], self=matrix(0)), results=(2,))
    a, b = desk.put(X), desk.put(Y)
    fault = desk.fault(RunGraph(1, (a.storage, b.storage), (100,)))
    assert "predicted sizes [3, 3]" in fault.text
    assert "(record 0 of graph 1)" in fault.text


def test_the_quota_counts_what_lives_within_a_run() -> None:
    desk = Desk(quota_nbytes=4 * 512)
    add_then_relu(desk)
    a, b = desk.put(X), desk.put(Y)
    assert not desk.run(RunGraph(1, (a.storage, b.storage), (100,)))
    assert desk.counter("allocated_nbytes_peak") == 4 * 512
    fault = desk.fault(RunGraph(1, (a.storage, b.storage), (101,)))
    assert fault.code == QuotaExceeded.code
    assert fault.exception == "OutOfMemoryError"
    assert not desk.run(Free(100), RunGraph(1, (a.storage, b.storage), (102,)))
    # A result that is named again gives its bytes up before.
    assert not desk.run(RunGraph(1, (a.storage, b.storage), (102,)))
    assert torch.equal(desk.get(matrix(102)), torch.relu(X + Y))


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (RunGraph(9, (1, 2), (100,)), HandleUnknown),
        (RunGraph(1, (1, 99), (100,)), HandleUnknown),
        (RunGraph(1, (1,), (100,)), ArgumentInvalid),
        (RunGraph(1, (1, 2), (100, 101)), ArgumentInvalid),
        (RunGraph(1, (1, 2), (2,)), ArgumentInvalid),
    ],
)
def test_a_run_that_does_not_fit_fails_as_a_whole(
    desk: Desk, run: RunGraph, kind: type[Exception]
) -> None:
    add_then_relu(desk)
    assert [desk.put(X).storage, desk.put(Y).storage] == [1, 2]
    fault = desk.fault(run)
    assert fault.code == kind.code  # type: ignore[attr-defined]
    (answer,) = desk.run(Read(3, run.results[0], 0, 4))
    assert isinstance(answer, Failure)
    assert torch.equal(desk.get(matrix(1)), X)


def test_a_run_without_results_that_does_not_fit_spoils_its_parameters(
    desk: Desk,
) -> None:
    a = desk.put(X)
    fault = desk.fault(RunGraph(9, (a.storage, 99), ()))
    (answer,) = desk.run(Read(3, a.storage, 0, 4))
    assert isinstance(answer, Failure)
    assert answer.fault == fault


def test_one_storage_may_be_bound_twice(desk: Desk) -> None:
    failing(desk)
    a = desk.put(X)
    fault = desk.fault(RunGraph(1, (a.storage, a.storage), (100, 101)))
    (answer,) = desk.run(Read(3, a.storage, 0, 4))
    assert isinstance(answer, Failure)
    assert answer.fault == fault


def test_a_graph_id_is_used_once_at_a_time(desk: Desk) -> None:
    add_then_relu(desk)
    fault = desk.fault(DefineGraph(1, 0, (), (), b""))
    assert "graph 1 exists already" in fault.text
    assert not desk.run(FreeGraph(1))
    assert "graph 1 does not exist" in desk.fault(FreeGraph(1)).text
    assert not desk.run(DefineGraph(1, 0, (), (), b""), RunGraph(1, (), ()))


def test_a_session_has_a_limited_number_of_graphs(desk: Desk) -> None:
    for graph in range(4096):
        assert not desk.run(DefineGraph(graph, 0, (), (), b""))
    assert "at most 4096 graphs" in desk.fault(DefineGraph(4096, 0, (), (), b"")).text


def test_the_graphs_of_a_session_have_a_limited_size(desk: Desk) -> None:
    data = encoded([Allocate(0, 1), *[Write(0, 0, 65_536, 0, bytes(65_536))] * 63])
    for graph in range((64 << 20) // len(data)):
        assert not desk.run(DefineGraph(graph, 1, (), (), data))
    fault = desk.fault(DefineGraph(4096, 1, (), (), data))
    assert "hold at most 67108864 bytes" in fault.text
    assert not desk.run(FreeGraph(0), DefineGraph(0, 1, (), (), data))


def test_a_graph_that_makes_no_sense_ends_the_session(desk: Desk) -> None:
    with pytest.raises(PeerError, match="before it is"):
        desk.run(DefineGraph(1, 3, (0,), (), encoded([Free(1)])))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_runs_the_ledger_is_true(draw: st.DataObject) -> None:
    """Random graphs over few storages, random bindings; ``Desk.run`` validates."""
    desk = Desk(quota_nbytes=9 * 512)
    for _ in range(2):
        desk.put(X)
    here, written, made = [0, 1], [], 2
    names = ["aten::neg", "aten::neg_", "aten::mm", "aten::t", "aten::nonzero"]
    for name in draw.draw(st.lists(st.sampled_from([*names, "free"]), max_size=6)):
        at = draw.draw(st.sampled_from(here))
        if name == "free":
            if at > 1:
                written.append(Free(at))
                here.remove(at)
            continue
        given = {"self": matrix(at)}
        if name == "aten::mm":
            given["mat2"] = matrix(at)
        is_in_place = name == "aten::neg_"
        written.append(
            desk.make_call(name, [None if is_in_place else matrix(made)], **given)
        )
        if not is_in_place:
            here.append(made)
            made += 1
    results = tuple(at for at in here if at > 1)
    desk.run(DefineGraph(1, 16, (0, 1), results, encoded(written)))
    for _ in range(2):
        bound = draw.draw(st.tuples(*[st.sampled_from([1, 2, 3, 50, 51])] * 2))
        ids = draw.draw(st.tuples(*[st.sampled_from([0, 50, 51, 52])] * len(results)))
        desk.run(RunGraph(1, bound, ids))
    desk.run(FreeGraph(1))
