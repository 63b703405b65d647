"""Sparse tensors in the worker: right ones are torch's own, wrong ones harm nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.executor_desk import QUOTA_NBYTES, Desk
from xpool_protocol.messages import Failure
from xpool_protocol.records import RequestCall
from xpool_protocol.values import Layout, SparseTensor, Tensor

pytestmark = pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")

DENSE = torch.tensor([[0.0, 2, 0, 1], [0, 0, 0, 0], [3, 0, 0, 4]])
LAYOUTS: list[tuple[torch.layout, tuple[int, int] | None]] = [
    (torch.sparse_coo, None),
    (torch.sparse_csr, None),
    (torch.sparse_csc, None),
    (torch.sparse_bsr, (1, 2)),
    (torch.sparse_bsc, (3, 2)),
]
CODES = {
    layout: code for code, (layout, _) in zip((1, 2, 4, 5, 6), LAYOUTS, strict=True)
}


def parts_of(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return tensor.ccol_indices(), tensor.row_indices(), tensor.values()


def put(desk: Desk, tensor: torch.Tensor) -> SparseTensor:
    is_coalesced = tensor.layout is torch.sparse_coo and tensor.is_coalesced()
    parts = tuple(desk.put(part.contiguous()) for part in parts_of(tensor))
    return SparseTensor(
        CODES[tensor.layout],
        tuple(tensor.shape),
        tensor.dense_dim(),
        parts,
        is_coalesced,
    )


def get(desk: Desk, wire: SparseTensor) -> torch.Tensor:
    parts = [desk.get(part) for part in wire.parts]
    if wire.layout == 1:
        made = torch.sparse_coo_tensor(*parts, wire.sizes, check_invariants=False)
        return made._coalesced_(wire.is_coalesced)
    layout = next(one for one, code in CODES.items() if code == wire.layout)
    return torch.sparse_compressed_tensor(
        *parts, wire.sizes, layout=layout, check_invariants=False
    )


def ask(desk: Desk, name: str, **given: Any) -> Any:
    """The first result of a call, or its Failure."""
    answer = desk.ask(name, 10_000 + 10 * next(desk.ids), **given)
    return answer if isinstance(answer, Failure) else answer[0][0]


@pytest.mark.parametrize(("layout", "block"), LAYOUTS, ids=str)
def test_there_and_back(
    desk: Desk, layout: torch.layout, block: tuple[int, int] | None
) -> None:
    mine = DENSE.to_sparse(layout=layout, blocksize=block)
    dense = ask(desk, "aten::_to_dense", self=put(desk, mine))
    assert isinstance(dense, Tensor)
    assert torch.equal(desk.get(dense), DENSE)
    found = ask(
        desk,
        "aten::_to_sparse",
        self=desk.put(DENSE),
        layout=Layout(CODES[layout]),
        blocksize=None if block is None else list(block),
    )
    assert isinstance(found, SparseTensor)
    for have, want in zip(parts_of(get(desk, found)), parts_of(mine), strict=True):
        assert torch.equal(have, want)


def test_a_product_with_predicted_results(desk: Desk) -> None:
    mine, other = DENSE.to_sparse(), torch.arange(8.0).reshape(4, 2)
    out = Tensor(next(desk.ids), 6, (3, 2), (2, 1))
    assert not desk.call("aten::mm", [out], self=put(desk, mine), mat2=other)
    assert torch.equal(desk.get(out), DENSE @ other)


def test_coalescing(desk: Desk) -> None:
    indices = torch.tensor([[2, 0, 2], [1, 3, 1]])
    mine = torch.sparse_coo_tensor(
        indices, torch.tensor([1.0, 2, 3]), (3, 4), check_invariants=False
    )
    found = ask(desk, "aten::_coalesce", self=put(desk, mine))
    assert isinstance(found, SparseTensor)
    assert found.is_coalesced
    assert torch.equal(get(desk, found).to_dense(), mine.to_dense())


def test_in_place_writes_the_clients_values(desk: Desk) -> None:
    wire = put(desk, DENSE.to_sparse())
    answer = desk.ask("aten::mul_.Tensor", self=wire, other=desk.put(torch.tensor(2.0)))
    assert not isinstance(answer, Failure), answer
    _, (written,) = answer
    assert isinstance(written, SparseTensor)
    assert torch.equal(get(desk, written).to_dense(), DENSE * 2)
    assert desk.executor.counters()["allocated_nbytes"] < QUOTA_NBYTES


def test_a_dense_tensor_takes_a_sparse_one(desk: Desk) -> None:
    wire = desk.put(torch.ones(3, 4))
    other = put(desk, DENSE.to_sparse())
    assert not desk.call("aten::add_.Tensor", [None], self=wire, other=other)
    assert torch.equal(desk.get(wire), 1 + DENSE)


def test_a_poisoned_part_poisons_what_is_made_of_it(desk: Desk) -> None:
    wire = put(desk, DENSE.to_sparse())
    index = desk.put(torch.tensor([9]))
    one = desk.put(torch.ones(1))
    fault = desk.fault(
        desk.make_call(
            "aten::index_put_", [None], self=wire.parts[1], indices=[index], values=one
        )
    )
    found = ask(desk, "aten::_to_dense", self=wire)
    assert isinstance(found, Failure)
    assert found.fault.operation == fault.operation


COO_INDICES = torch.tensor([[0, 1, 2], [3, 0, 1]])
COO_VALUES = torch.ones(3)
CROW = torch.tensor([0, 1, 1, 3])
COL = torch.tensor([3, 0, 1])

WRONG: dict[str, tuple[int, tuple[int, ...], int, tuple[torch.Tensor, ...], bool]] = {
    "index past the end": (1, (3, 3), 0, (COO_INDICES, COO_VALUES), False),
    "negative index": (1, (3, 4), 0, (-COO_INDICES, COO_VALUES), False),
    "huge index": (1, (3, 4), 0, (COO_INDICES << 40, COO_VALUES), False),
    "int32 indices": (1, (3, 4), 0, (COO_INDICES.int(), COO_VALUES), False),
    "float indices": (1, (3, 4), 0, (COO_INDICES.double(), COO_VALUES), False),
    "one row of indices": (1, (3, 4), 0, (COO_INDICES[0], COO_VALUES), False),
    "other number of values": (1, (3, 4), 0, (COO_INDICES, torch.ones(4)), False),
    "values without items": (1, (3, 4), 0, (COO_INDICES, torch.tensor(1.0)), False),
    "dense sizes differ": (1, (3, 4, 2), 1, (COO_INDICES, torch.ones(3, 3)), False),
    "not sorted": (1, (3, 4), 0, (COO_INDICES.flip(1), COO_VALUES), True),
    "not unique": (1, (3, 4), 0, (COO_INDICES[:, [0, 0, 1]], COO_VALUES), True),
    "no sparse dimension": (1, (), 0, (torch.empty(0, 3).long(), COO_VALUES), True),
    "crow does not begin at 0": (2, (3, 4), 0, (CROW + 1, COL, COO_VALUES), False),
    "crow falls": (
        2, (3, 4), 0, (torch.tensor([0, 2, 1, 3]), COL, COO_VALUES), False
    ),
    "crow is negative": (
        2, (3, 4), 0, (torch.tensor([0, -5, 1, 3]), COL, COO_VALUES), False
    ),
    "crow ends late": (
        2, (3, 4), 0, (torch.tensor([0, 1, 1, 1 << 40]), COL, COO_VALUES), False
    ),
    "crow is short": (2, (3, 4), 0, (CROW[:-1], COL, COO_VALUES), False),
    "column outside": (2, (3, 3), 0, (CROW, COL, COO_VALUES), False),
    "row outside": (4, (3, 3), 0, (CROW, COL, COO_VALUES), False),
    "column is negative": (2, (3, 4), 0, (CROW, COL - 1, COO_VALUES), False),
    "two kinds of indices": (2, (3, 4), 0, (CROW.int(), COL, COO_VALUES), False),
    "one dimension": (2, (4,), 0, (CROW, COL, COO_VALUES), False),
    "batches differ": (
        2, (2, 3, 4), 0, (CROW.expand(2, 4), COL.expand(3, 3), torch.ones(2, 3)), False
    ),
    "blocks do not fit": (5, (3, 4), 0, (CROW, COL, torch.ones(3, 2, 3)), False),
    "empty blocks": (5, (3, 4), 0, (CROW, COL, torch.ones(3, 0, 1)), False),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_sparse_tensor_is_refused(desk: Desk, case: Any) -> None:
    layout, sizes, dense_dim, parts, is_coalesced = case
    wires = tuple(desk.put(part.contiguous()) for part in parts)
    wire = SparseTensor(layout, sizes, dense_dim, wires, is_coalesced)
    found = ask(desk, "aten::_to_dense", self=wire)
    assert isinstance(found, Failure)
    assert found.fault.code == 502, found.fault
    whole = ask(desk, "aten::_to_dense", self=put(desk, DENSE.to_sparse()))
    assert torch.equal(desk.get(whole), DENSE)


def test_indices_are_checked_again_when_they_were_written(desk: Desk) -> None:
    wire = put(desk, DENSE.to_sparse())
    assert isinstance(ask(desk, "aten::_to_dense", self=wire), Tensor)
    number = desk.value(1 << 40)
    assert not desk.call("aten::fill_.Scalar", [None], self=wire.parts[0], value=number)
    found = ask(desk, "aten::_to_dense", self=wire)
    assert isinstance(found, Failure)
    assert "outside its dimension" in found.fault.text


@pytest.mark.parametrize(
    ("name", "argument"),
    [("aten::_foreach_neg", "self"), ("aten::view", "self"), ("aten::gelu", "self")],
)
def test_operations_without_a_sparse_kernel_refuse(
    desk: Desk, name: str, argument: str
) -> None:
    """``_foreach_copy`` of sparse tensors ends a process that lets it run."""
    wire = put(desk, DENSE.to_sparse())
    given: dict[str, Any] = {argument: [wire] if "foreach" in name else wire}
    if name == "aten::view":
        given["size"] = [12]
    found = desk.ask(name, **given)
    assert isinstance(found, Failure)
    assert found.fault.code == 502
    assert "not sparse" in found.fault.text


@pytest.mark.parametrize(
    "name",
    [
        "aten::_sparse_coo_tensor_unsafe",
        "aten::_sparse_compressed_tensor_unsafe",
        "aten::_sparse_coo_tensor_with_dims_and_tensors",
        "aten::sparse_resize_",
        "aten::_coalesced_",
        "aten::_convert_indices_from_coo_to_csr",
        "aten::_convert_indices_from_csr_to_coo",
    ],
)
def test_what_trusts_indices_is_denied(desk: Desk, name: str) -> None:
    number = desk.define(name)
    (answer,) = desk.run(RequestCall(5, 10_000, number, ()))
    assert isinstance(answer, Failure)
    assert answer.fault.code == 501


def test_gradients_of_a_reduced_product_check_their_indices(desk: Desk) -> None:
    mine, weight = DENSE.to_sparse_csr(), torch.arange(8.0).reshape(4, 2)
    gradient, nothing = torch.ones(3, 2), torch.empty(0, dtype=torch.int64)
    given = {
        "self": put(desk, mine),
        "grad_out": gradient,
        "weight": weight,
        "output_mask": [True, True],
    }
    name = "aten::_sparse_mm_reduce_impl_backward"
    want = torch.ops.aten._sparse_mm_reduce_impl_backward(
        mine, gradient, weight, "sum", nothing, [True, True]
    )
    answer = desk.ask(name, **given, reduce="sum", arg_out=nothing)
    assert not isinstance(answer, Failure), answer
    found, of_weight = answer[0]
    assert torch.equal(get(desk, found).to_dense(), want[0].to_dense())
    assert torch.equal(desk.get(of_weight), want[1])
    index = torch.zeros(3, 2, dtype=torch.int64)
    # As many as there are items: the row has none, and no gradient flows.
    absent = index + mine.values().numel()
    answer = desk.ask(name, 15_000, **given, reduce="amax", arg_out=absent)
    assert not isinstance(answer, Failure), answer
    assert not get(desk, answer[0][0]).to_dense().any()
    for wrong in (
        absent + 1,
        index + (1 << 40),
        index - 9,
        index[:2],
        index.int(),
        nothing,
    ):
        failure = desk.ask(name, 20_000, **given, reduce="amax", arg_out=wrong)
        assert isinstance(failure, Failure)
        assert failure.fault.code == 502
    given["weight"] = weight[:2]
    failure = desk.ask(name, 20_000, **given, reduce="sum", arg_out=nothing)
    assert failure.fault.code == 502
