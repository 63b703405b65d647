"""What the device computes is what torch computes here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.executor_desk import Desk
from xpool_protocol.values import Tensor
from xpool_server.dtypes import DTYPE_CODES

X = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7
Y = torch.linspace(-2, 2, 12).reshape(3, 4)
INTS = torch.tensor([2, 0, 1])
COMPLEX = torch.complex(X, Y)
IMAGES = torch.linspace(-1, 1, 2 * 3 * 5 * 5).reshape(2, 3, 5, 5)
WEIGHT = torch.linspace(1, 2, 4 * 3 * 3 * 3).reshape(4, 3, 3, 3)

CASES: list[tuple[str, dict[str, Any]]] = [
    ("aten::add.Tensor", {"self": X, "other": Y, "alpha": 3}),
    ("aten::add.Tensor", {"self": X, "other": Y[0]}),
    ("aten::sub.Tensor", {"self": X.t(), "other": Y.t()}),
    ("aten::mul.Tensor", {"self": X[1:, ::2], "other": Y[1:, 1::2]}),
    ("aten::mul.Scalar", {"self": X, "other": 2.5}),
    ("aten::mm", {"self": X, "mat2": Y.t()}),
    ("aten::addmm", {"self": X[:, 0], "mat1": X, "mat2": Y.t(), "beta": 2}),
    ("aten::sum.dim_IntList", {"self": X, "dim": [1], "keepdim": True}),
    ("aten::sum.dim_IntList", {"self": INTS, "dim": None, "dtype": torch.float64}),
    ("aten::mean.dim", {"self": X, "dim": []}),
    ("aten::cat", {"tensors": [X, Y], "dim": 1}),
    ("aten::topk", {"self": Y, "k": 2}),
    ("aten::sort", {"self": Y, "descending": True}),
    ("aten::max.dim", {"self": Y, "dim": 0}),
    ("aten::index.Tensor", {"self": X, "indices": [INTS]}),
    ("aten::index.Tensor", {"self": X, "indices": [None, INTS]}),
    ("aten::gather", {"self": X, "dim": 0, "index": INTS.reshape(3, 1)}),
    ("aten::where.self", {"condition": X > Y, "self": X, "other": Y}),
    ("aten::gelu", {"self": X, "approximate": "tanh"}),
    ("aten::clamp", {"self": Y, "min": -1, "max": None}),
    ("aten::_softmax", {"self": X, "dim": -1, "half_to_float": False}),
    ("aten::native_layer_norm",
     {"input": X, "normalized_shape": [4], "weight": Y[0], "bias": None, "eps": 1e-5}),
    ("aten::convolution",
     {"input": IMAGES, "weight": WEIGHT, "bias": None, "stride": [1, 2],
      "padding": [1, 1], "dilation": [1, 1], "transposed": False,
      "output_padding": [0, 0], "groups": 1}),
    ("aten::convolution_backward",
     {"grad_output": torch.ones(2, 4, 3, 3), "input": IMAGES, "weight": WEIGHT,
      "bias_sizes": [4], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1],
      "transposed": False, "output_padding": [0, 0], "groups": 1,
      "output_mask": [False, True, True]}),
    ("aten::upsample_nearest2d.vec",
     {"input": IMAGES, "output_size": None, "scale_factors": [2.0, 2.0]}),
    ("aten::clone", {"self": IMAGES, "memory_format": torch.channels_last}),
    ("aten::_to_copy", {"self": X, "dtype": torch.bfloat16}),
    ("aten::zeros", {"size": [2, 3], "dtype": torch.int8,
                     "device": torch.device("cpu")}),
    ("aten::full", {"size": [], "fill_value": True}),
    ("aten::arange.start_step", {"start": 1, "end": 9, "step": 2.5}),
    ("aten::empty_like", {"self": torch.empty(0, 3)}),
    ("aten::view_as_real_copy", {"self": COMPLEX}),
    ("aten::mul.Tensor", {"self": COMPLEX.conj(), "other": COMPLEX}),
    ("aten::add.Tensor", {"self": COMPLEX.conj().imag, "other": X}),
    ("aten::_foreach_add.Scalar", {"self": [X, Y, INTS], "scalar": 2}),
    ("aten::split_copy.Tensor", {"self": X, "split_size": 2}),
    ("aten::linalg_svd", {"A": X, "full_matrices": False}),
    ("aten::bitwise_and.Scalar", {"self": INTS, "other": 1}),
]  # fmt: skip


def results_of(name: str, given: dict[str, Any]) -> list[torch.Tensor | None]:
    """What torch gives here, leaf by leaf."""
    base, _, overload = name.removeprefix("aten::").partition(".")
    result = getattr(getattr(torch.ops.aten, base), overload or "default")(**given)
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_results_are_torchs_own(desk: Desk, name: str, given: dict[str, Any]) -> None:
    expected = results_of(name, given)
    outputs = [
        None
        if one is None
        else Tensor(
            next(desk.ids), DTYPE_CODES[one.dtype], tuple(one.shape), one.stride()
        )
        for one in expected
    ]
    assert not desk.call(name, outputs, **given)
    for output, one in zip(outputs, expected, strict=True):
        if output is not None and one is not None and name != "aten::empty_like":
            assert torch.equal(desk.get(output), one)
    assert desk.counter("executed_ops") == 1
    assert desk.counter("failed_ops") == 0


def test_every_result_was_taken_as_it_was(desk: Desk) -> None:
    out = desk.new(3)
    assert not desk.call("aten::add.Tensor", [out], self=X[:, 0], other=X[:, 1])
    assert desk.counter("relaid_outputs") == 0


def test_in_place(desk: Desk) -> None:
    mine = X.clone()
    wire = desk.put(mine)
    other = desk.put(Y)
    assert not desk.call("aten::add_.Tensor", [None], self=wire, other=other)
    assert not desk.call("aten::mul_.Tensor", [None], self=wire, other=other)
    assert torch.equal(desk.get(wire), (X + Y) * Y)


def test_in_place_on_a_view_changes_the_others(desk: Desk) -> None:
    whole = desk.put(torch.zeros(4, 4))
    column = Tensor(whole.storage, 6, (4,), (4,), 1)
    assert not desk.call("aten::fill_.Scalar", [None], self=column, value=5)
    assert desk.get(whole).sum() == 20


def test_metadata_of_a_storage_is_the_clients_alone(desk: Desk) -> None:
    """An in-place view changes a tensor of its own, not the one that others get."""
    wire = desk.put(X.clone())
    assert not desk.call("aten::t_", [None], self=wire)
    out = Tensor(next(desk.ids), 6, (3, 4), (4, 1))
    assert not desk.call("aten::neg", [out], self=wire)
    assert torch.equal(desk.get(out), -X)


def test_foreach_and_optimizer_steps_write_lists(desk: Desk) -> None:
    wires = [desk.put(X.clone()), desk.put(INTS.clone())]
    assert not desk.call("aten::_foreach_add_.Scalar", [], self=wires, scalar=1)
    assert torch.equal(desk.get(wires[0]), X + 1)
    assert torch.equal(desk.get(wires[1]), INTS + 1)


def test_a_different_layout_is_copied_into_the_predicted_one(desk: Desk) -> None:
    out = Tensor(next(desk.ids), 6, (3, 4), (1, 3))
    assert not desk.call("aten::neg", [out], self=X)
    assert torch.equal(desk.get(out), -X)
    assert desk.counter("relaid_outputs") == 1


def test_the_stride_of_one_item_is_no_other_layout(desk: Desk) -> None:
    """As the meta kernel of attention for the CPU predicts it otherwise."""
    row, out = X[:1], Tensor(next(desk.ids), 6, (1, 4), (99, 1))
    assert not desk.call("aten::neg", [out], self=row)
    assert torch.equal(desk.get(out), -row)
    assert desk.counter("relaid_outputs") == 0
    column = Tensor(out.storage, 6, (4, 1), (1, 99))
    twice = Tensor(next(desk.ids), 6, (4, 1), (1, 1))
    assert not desk.call("aten::add.Tensor", [twice], self=column, other=column)
    assert torch.equal(desk.get(twice), -2 * row.T)
    none = Tensor(next(desk.ids), 6, (0, 1), (1, 7))
    assert not desk.call("aten::neg", [none], self=X[:0, :1])
    assert desk.get(none).shape == (0, 1)


def test_a_result_that_is_an_argument_is_copied(desk: Desk) -> None:
    wire = desk.put(X)
    out = Tensor(next(desk.ids), 6, (3, 4), (4, 1))
    # Without training it returns what it was given, whatever its schema says.
    assert not desk.call("aten::dropout", [out], input=wire, p=0.5, train=False)
    assert not desk.call("aten::zero_", [None], self=wire)
    assert torch.equal(desk.get(out), X)


def test_a_view_of_an_argument_is_copied(desk: Desk) -> None:
    out = Tensor(next(desk.ids), 6, (4,), (1,))
    assert not desk.call("aten::select.int", [out], self=X, dim=0, index=1)
    assert torch.equal(desk.get(out), X[1])


def test_two_results_in_one_storage_become_two(desk: Desk) -> None:
    outputs = [desk.new(4), desk.new(4), desk.new(4)]
    assert not desk.call("aten::unbind.int", outputs, self=X)
    assert [torch.equal(desk.get(outputs[i]), X[i]) for i in range(3)] == [True] * 3


def test_zeros_without_a_storage_become_real(desk: Desk) -> None:
    out = desk.new(5)
    assert not desk.call("aten::_efficientzerotensor", [out], size=[5])
    assert torch.equal(desk.get(out), torch.zeros(5))


@pytest.mark.parametrize(
    ("predicted", "why"),
    [
        (Tensor(900, 6, (4, 3), (3, 1)), "predicted sizes [4, 3]"),
        (Tensor(900, 7, (3, 4), (4, 1)), "predicted sizes [3, 4] of torch.float64"),
        (Tensor(900, 6, (3, 4), (4, 1), 1), "begins at its first item"),
        (Tensor(900, 6, (3, 4), (4, 1), 0, 1), "begins at its first item"),
    ],
)
def test_a_wrong_prediction_is_an_error(
    desk: Desk, predicted: Tensor, why: str
) -> None:
    fault = desk.fault(desk.make_call("aten::neg", [predicted], self=X))
    assert fault.code == 502
    assert why in fault.text
    assert not desk.storages.is_live(900)


def test_strides_with_overlap_are_refused_by_torch(desk: Desk) -> None:
    fault = desk.fault(
        desk.make_call("aten::neg", [Tensor(900, 6, (3, 4), (0, 0))], self=X)
    )
    assert fault.code == 500
    assert "single memory location" in fault.text


def test_the_number_of_results_is_checked(desk: Desk) -> None:
    for outputs in ([], [None, None]):
        fault = desk.fault(desk.make_call("aten::neg", outputs, self=X))
        assert f"predicted {len(outputs)} results, got 1" in fault.text


def test_an_undefined_result_can_not_be_named(desk: Desk) -> None:
    given = dict(CASES)["aten::convolution_backward"]
    outputs = [desk.new(1), None, None]
    fault = desk.fault(desk.make_call("aten::convolution_backward", outputs, **given))
    assert "got no tensor" in fault.text
