"""Calls whose results only the device knows."""

from __future__ import annotations

import torch
from support.executor_desk import QUOTA_NBYTES, Desk
from xpool_protocol.errors import ArgumentInvalid, QuotaExceeded
from xpool_protocol.messages import Failure
from xpool_protocol.values import FLAG_CONJ, Tensor

X = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])


def test_nonzero(desk: Desk) -> None:
    results, mutated = desk.ask("aten::nonzero", 700, self=X)
    assert mutated == []
    assert results[0].storage == 700
    assert torch.equal(desk.get(results[0]), X.nonzero())


def test_unique(desk: Desk) -> None:
    results, _ = desk.ask(
        "aten::_unique2", 700, self=X, sorted=True, return_inverse=True,
        return_counts=True,
    )  # fmt: skip
    assert [one.storage for one in results] == [700, 701, 702]
    expected = torch.unique(X, return_inverse=True, return_counts=True)
    for wire, tensor in zip(results, expected, strict=True):
        assert torch.equal(desk.get(wire), tensor)


def test_masked_select(desk: Desk) -> None:
    results, _ = desk.ask("aten::masked_select", self=X, mask=X > 0)
    assert torch.equal(desk.get(results[0]), X[X > 0])
    # The result is an ordinary storage now.
    out = desk.new(3)
    assert not desk.call("aten::neg", [out], self=results[0])
    assert torch.equal(desk.get(out), -X[X > 0])


def test_numbers(desk: Desk) -> None:
    assert desk.ask("aten::_local_scalar_dense", self=X[0, 2]) == [[2.0], []]
    assert desk.ask("aten::equal", self=X, other=X) == [[True], []]
    mask = X > 0
    assert desk.ask("aten::_local_scalar_dense", self=mask[0, 0]) == [[True], []]


def test_a_result_in_an_arguments_storage(desk: Desk) -> None:
    wire = desk.put(X)
    results, _ = desk.ask("aten::t", self=wire)
    assert results == [Tensor(wire.storage, 6, (3, 2), (1, 3))]
    count = desk.counter("storage_count")
    assert desk.counter("storage_count") == count


def test_results_that_share_a_new_storage(desk: Desk) -> None:
    results, _ = desk.ask("aten::unsafe_split.Tensor", 700, self=X, split_size=1)
    (rows,) = results
    wire = desk.put(X)
    results, _ = desk.ask("aten::unbind.int", 800, self=wire)
    assert {one.storage for one in results[0]} == {wire.storage}
    assert len(rows) == 2


def test_undefined_results(desk: Desk) -> None:
    results, _ = desk.ask(
        "aten::convolution_backward",
        grad_output=torch.ones(1, 1, 2), input=torch.ones(1, 1, 2),
        weight=torch.ones(1, 1, 1), bias_sizes=[1], stride=[1], padding=[0],
        dilation=[1], transposed=False, output_padding=[0], groups=1,
        output_mask=[False, True, False],
    )  # fmt: skip
    assert results[0] is None
    assert results[2] is None
    assert torch.equal(desk.get(results[1]), torch.full((1, 1, 1), 2.0))


def test_conjugated_results(desk: Desk) -> None:
    wire = desk.put(torch.tensor([1 + 2j]))
    results, _ = desk.ask("aten::_conj", self=wire)
    assert results[0].flags == FLAG_CONJ
    assert torch.equal(desk.get(results[0]), torch.tensor([1 - 2j]))


def test_in_place_requests_tell_the_geometry(desk: Desk) -> None:
    wire = desk.put(X.clone())
    results, mutated = desk.ask("aten::add_.Scalar", self=wire, other=1)
    assert results == mutated == [wire]
    assert torch.equal(desk.get(wire), X + 1)


def test_an_out_that_grows(desk: Desk) -> None:
    out = desk.put(torch.empty(0, dtype=torch.int64))
    allocated = desk.counter("allocated_nbytes")
    results, mutated = desk.ask("aten::nonzero.out", self=X.repeat(40, 1), out=out)
    expected = X.repeat(40, 1).nonzero()
    grown = Tensor(out.storage, 4, tuple(expected.shape), expected.stride())
    assert results == mutated == [grown]
    assert torch.equal(desk.get(grown), expected)
    # One for the argument, one more granule and a half for what grew.
    assert desk.counter("allocated_nbytes") == allocated + 1024 + 2048 - 512
    desk.storages.validate()


def test_an_out_that_grows_in_a_call(desk: Desk) -> None:
    out = desk.put(torch.empty(0))
    assert not desk.call("aten::neg.out", [None], self=X, out=out)
    assert torch.equal(desk.get(Tensor(out.storage, 6, (2, 3), (3, 1))), -X)


def test_an_out_that_grows_over_the_quota() -> None:
    desk = Desk(quota_nbytes=4096 + 512)
    out = desk.put(torch.empty(0))
    x = desk.put(torch.ones(512))
    assert not desk.call("aten::neg.out", [None], self=x, out=out)
    other = desk.put(torch.empty(0)).storage
    (failure,) = desk.call(
        "aten::neg.out", [None], self=x, out=Tensor(other, 6, (0,), (1,))
    )
    assert isinstance(failure, Failure)
    assert failure.fault.exception == "OutOfMemoryError"
    assert not desk.storages.is_live(other)
    assert desk.counter("allocated_nbytes") == 4096


def test_foreach_tells_each_list_item(desk: Desk) -> None:
    wires = [desk.put(X.clone()), desk.put(X.clone())]
    results, mutated = desk.ask("aten::_foreach_neg_", self=wires)
    assert results == []
    assert mutated == wires


def test_results_that_do_not_all_fit(desk: Desk) -> None:
    """The part that fitted must not stay behind when the next one does not."""
    count = desk.counter("storage_count")
    row = torch.ones(QUOTA_NBYTES // 8 // 3 + 1000, dtype=torch.float64)
    failure = desk.ask("aten::_to_sparse", self=row)
    assert isinstance(failure, Failure)
    assert failure.fault.code == QuotaExceeded.code
    assert desk.counter("storage_count") == count + 1


def test_result_ids_that_are_in_use(desk: Desk) -> None:
    wire = desk.put(X)
    failure = desk.ask("aten::nonzero", wire.storage, self=wire)
    assert failure.fault.code == ArgumentInvalid.code
    assert "can't be given to a result" in failure.fault.text
    assert torch.equal(desk.get(wire), X)
