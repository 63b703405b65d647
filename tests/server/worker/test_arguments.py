"""What a call may hold, and what it gets when it holds something else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.executor_desk import Desk, host, number
from xpool_protocol.errors import (
    ArgumentInvalid,
    HandleUnknown,
    OperationFailed,
    OperationUnknown,
)
from xpool_protocol.messages import Failure, Fault
from xpool_protocol.records import Call, DefineOperation
from xpool_protocol.values import (
    Device,
    DType,
    Generator,
    HostTensor,
    Layout,
    MemoryFormat,
    Tensor,
    Value,
)
from xpool_server import allowed
from xpool_server.faults import fault_from

X = torch.linspace(-3, 3, 6).reshape(2, 3)
INTS = torch.tensor([1, 2, 3])
HALF = torch.tensor(1.5, dtype=torch.float16)


def fault_of(desk: Desk, name: str, /, **given: Any) -> Fault:
    """The failure of a call with one result."""
    return desk.fault(desk.make_call(name, [desk.new(1)], **given))


# ---- numbers and host tensors ----


@pytest.mark.parametrize(
    ("name", "tensor", "value"),
    [
        ("aten::add.Tensor", X, 2.5),
        ("aten::add.Tensor", INTS, 2.5),
        ("aten::add.Tensor", HALF, 2.5),
        ("aten::mul.Tensor", INTS.to(torch.int8), 3),
        ("aten::copysign.Tensor", X, -1.0),
        ("aten::copysign.Tensor", INTS, -1.0),
        ("aten::copysign.Tensor", HALF, -1.0),
        ("aten::eq.Tensor", X, 3),
        ("aten::fmod.Tensor", INTS, 2),
        ("aten::remainder.Tensor", X.double(), 0.1),
        ("aten::bitwise_xor.Tensor", INTS, True),
        ("aten::mul.Tensor", X, 1j),
    ],
)
def test_a_number_takes_no_part_in_promotion(
    desk: Desk, name: str, tensor: torch.Tensor, value: complex
) -> None:
    operation = name.removeprefix("aten::").removesuffix(".Tensor")
    expected = getattr(torch, operation)(tensor, value)
    results, _ = desk.ask(name, self=tensor, other=number(value))
    assert torch.equal(desk.get(results[0]), expected)
    assert desk.get(results[0]).dtype == expected.dtype


@pytest.mark.parametrize("tensor", [X, X.double(), INTS])
def test_a_number_where_no_overload_takes_one(desk: Desk, tensor: torch.Tensor) -> None:
    results, _ = desk.ask("aten::maximum", self=tensor, other=number(0.1))
    expected = torch.clamp(tensor, min=0.1)
    assert torch.equal(desk.get(results[0]), expected)
    assert desk.get(results[0]).dtype == expected.dtype


def test_a_tensor_without_dimensions_is_no_number(desk: Desk) -> None:
    results, _ = desk.ask(
        "aten::add.Tensor",
        self=INTS,
        other=host(torch.tensor(2.5, dtype=torch.float64)),
    )
    assert results[0].dtype == 7


def test_indices_may_lie_on_the_host(desk: Desk) -> None:
    results, _ = desk.ask("aten::index.Tensor", self=X, indices=[host(INTS[:1])])
    assert torch.equal(desk.get(results[0]), X[INTS[:1]])


def test_an_empty_host_tensor(desk: Desk) -> None:
    empty = host(torch.empty(0, dtype=torch.int64))
    results, _ = desk.ask("aten::index.Tensor", self=X, indices=[empty])
    assert results[0].sizes == (0, 3)


def test_a_host_tensor_can_not_be_written(desk: Desk) -> None:
    fault = desk.fault(desk.make_call("aten::zero_", [None], self=host(X)))
    assert fault.code == ArgumentInvalid.code
    assert "'self' must be a tensor on the device" in fault.text


# ---- the schema ----

BREAKS: list[tuple[str, dict[str, Any], str]] = [
    ("aten::neg", {"self": 5}, "argument 'self' must be a tensor, not int '5'"),
    ("aten::neg", {"self": None}, "not None"),
    ("aten::sum.dim_IntList", {"self": X, "dim": 1}, "'dim' must be a list of int"),
    ("aten::sum.dim_IntList", {"self": X, "dim": [True]}, "must be int, not a list"),
    ("aten::sum.dim_IntList", {"self": X, "dim": [1.0]}, "must be int"),
    ("aten::sum.dim_IntList", {"self": X, "dim": [[1]]}, "must be int"),
    ("aten::sum", {"self": X, "dtype": 6}, "'dtype' must be dtype, not int '6'"),
    ("aten::sum", {"self": X, "dtype": "float"}, "not str 'float'"),
    ("aten::cat", {"tensors": X, "dim": 0}, "'tensors' must be a list of Tensor"),
    ("aten::cat", {"tensors": [X, 3], "dim": 0}, "not a list of 2 items"),
    ("aten::dropout", {"input": X, "p": "a", "train": True}, "'p' must be float"),
    ("aten::dropout", {"input": X, "p": 0.1, "train": 1}, "'train' must be bool"),
    ("aten::mul.Scalar", {"self": X, "other": "2"}, "'other' must be number"),
    ("aten::gelu", {"self": X, "approximate": 3}, "'approximate' must be str"),
    ("aten::zeros", {"size": [2], "layout": Layout(3)}, "must be Layout"),
    ("aten::zeros", {"size": [2], "device": Device(1)}, "must be Device 0"),
    ("aten::zeros", {"size": [2], "device": "cpu"}, "must be Device 0"),
    ("aten::clone", {"self": X, "memory_format": MemoryFormat(9)}, "MemoryFormat"),
    ("aten::clone", {"self": X, "memory_format": DType(0)}, "not a DType"),
    ("aten::normal_", {"self": X, "generator": 0}, "must be Generator"),
    ("aten::add.Tensor", {"self": X}, "argument other is missing"),
    ("aten::rand.generator", {"size": [1]}, "argument generator is missing"),
    ("aten::neg", {}, "argument self is missing"),
]


@pytest.mark.parametrize(("name", "given", "text"), BREAKS)
def test_what_breaks_the_schema(
    desk: Desk, name: str, given: dict[str, Any], text: str
) -> None:
    fault = fault_of(desk, name, **given)
    assert fault.code == ArgumentInvalid.code
    assert fault.exception == "RuntimeError"
    assert fault.text.startswith(f"{name}: ")
    assert fault.name == name
    assert text in fault.text
    assert desk.counter("executed_ops") == 0


def test_a_way_back_takes_an_undefined_tensor(desk: Desk) -> None:
    """Autograd hands one over where the schema says Tensor."""
    rows = torch.tensor([0, 1, 1])
    out = Tensor(next(desk.ids), 6, (4, 3), (3, 1))
    assert not desk.call(
        "aten::_embedding_bag_dense_backward",
        [out],
        grad=torch.ones(2, 3),
        indices=rows,
        offset2bag=torch.tensor([0, 0, 1]),
        bag_size=torch.tensor([2, 1]),
        maximum_indices=None,
        num_weights=4,
        scale_grad_by_freq=False,
        mode=0,
        per_sample_weights=None,
    )
    assert desk.get(out).tolist() == [[1] * 3, [2] * 3, [0] * 3, [0] * 3]


def test_a_way_back_that_needs_the_tensor_fails_alone(desk: Desk) -> None:
    name = "aten::threshold_backward"
    fault = fault_of(desk, name, grad_output=None, self=X, threshold=0)
    assert fault.code == OperationFailed.code
    assert fault.name == name
    out = desk.new(3)
    assert not desk.call("aten::neg", [out], self=INTS.float())


def test_a_generator_that_does_not_exist(desk: Desk) -> None:
    fault = fault_of(desk, "aten::normal_", self=X, generator=Generator(7))
    assert fault.code == HandleUnknown.code


def test_an_argument_that_this_torch_does_not_have(desk: Desk) -> None:
    """Fine while it is left out, as a newer client does with a default."""
    names = ("self", "novelty")
    desk.define("aten::neg", names)
    out = desk.new(3)
    assert not desk.call("aten::neg", [out], self=INTS.float())
    fault = fault_of(desk, "aten::neg", self=X, novelty=1)
    assert f"torch {torch.__version__} knows no argument 'novelty'" in fault.text


def test_arguments_go_by_name_not_by_position(desk: Desk) -> None:
    desk.define("aten::sub.Tensor", ("other", "alpha", "self"))
    out = desk.new(3)
    given = {"self": INTS.float(), "other": X[0], "alpha": 2}
    assert not desk.call("aten::sub.Tensor", [out], **given)
    assert torch.equal(desk.get(out), INTS.float() - 2 * X[0])


def test_an_argument_beyond_the_names(desk: Desk) -> None:
    operation = desk.define("aten::neg")
    fault = desk.fault(Call(operation, ((3, desk.put(X)),), ()))
    assert "no argument no. 3" in fault.text


def test_an_argument_named_twice(desk: Desk) -> None:
    desk.define("aten::neg", ("self", "self"))
    assert "named twice" in fault_of(desk, "aten::neg", self=X).text


# ---- bounds ----

FAR = 1 << 46


@pytest.mark.parametrize(
    "view",
    [
        Tensor(0, 6, (7,), (1,)),
        Tensor(0, 6, (6,), (1,), 1),
        Tensor(0, 6, (2, 3), (4, 1)),
        Tensor(0, 6, (2,), (6,)),
        Tensor(0, 7, (4,), (1,)),
        Tensor(0, 6, (2, 2), (FAR, FAR)),
        Tensor(0, 6, (FAR, FAR), (FAR, FAR)),
        Tensor(0, 6, (FAR,), (1,)),
        Tensor(0, 6, (1,), (1,), FAR),
        Tensor(0, 6, (), (), 6),
    ],
)
def test_a_tensor_outside_its_storage(desk: Desk, view: Tensor) -> None:
    storage = desk.put(X).storage
    outside = Tensor(storage, view.dtype, view.sizes, view.strides, view.offset)
    fault = fault_of(desk, "aten::neg", self=outside)
    assert fault.code == ArgumentInvalid.code
    assert "'self'" in fault.text
    assert "reaches outside its storage of 24 bytes" in fault.text


def test_an_empty_view_stands_anywhere_and_begins_at_the_start(desk: Desk) -> None:
    """Were its offset believed, resizing it as an out= argument would be vast."""
    storage = desk.put(X).storage
    view = desk.executor.storages.tensor(Tensor(storage, 6, (0,), (1,), FAR))
    assert view.storage_offset() == 0
    assert view.shape == (0,)


@pytest.mark.parametrize(
    "view",
    [
        Tensor(0, 6, (6,), (1,)),
        Tensor(0, 6, (0,), (1,), 6),
        Tensor(0, 6, (FAR, 0), (FAR, FAR)),
        Tensor(0, 6, (1,), (FAR,), 5),
        Tensor(0, 6, (1000,), (0,), 5),
        Tensor(0, 0, (24,), (1,)),
    ],
)
def test_a_tensor_that_just_fits(desk: Desk, view: Tensor) -> None:
    storage = desk.put(X).storage
    inside = Tensor(storage, view.dtype, view.sizes, view.strides, view.offset)
    results, _ = desk.ask("aten::is_same_size", self=inside, other=inside)
    assert results == [True]


def test_a_storage_that_does_not_exist(desk: Desk) -> None:
    fault = fault_of(desk, "aten::neg", self=Tensor(77, 6, (1,), (1,)))
    assert fault.code == HandleUnknown.code
    assert "storage 77" in fault.text


def test_huge_sizes_that_take_no_memory_harm_nobody(desk: Desk) -> None:
    """A stride of zero: the view is legal, its copy is not affordable."""
    storage = desk.put(X).storage
    huge = Tensor(storage, 6, (FAR,), (0,))
    out = Tensor(next(desk.ids), 6, (FAR,), (1,))
    fault = desk.fault(desk.make_call("aten::neg", [out], self=huge))
    assert fault.exception == "OutOfMemoryError"


# ---- which operations ----


@pytest.mark.parametrize(
    "name",
    [
        "aten::no_such_operation",
        "aten::add.NoSuchOverload",
        "aten::save",
        "aten::print",
        "aten::__class__",
        "aten::add.__class__",
        "aten.add.Tensor",
        "add.Tensor",
        "prim::device",
        "prims::add",
        "profiler::_record_function_enter",
        "quantized::add",
        "os::system",
        "",
        "::",
        "aten::",
        "aten::add.Tensor.x",
        "aten::add\x00",
    ],
)
def test_what_is_no_aten_operation(desk: Desk, name: str) -> None:
    desk.define(name, ("self",))
    fault = fault_of(desk, name, self=X)
    assert fault.code == OperationUnknown.code
    assert fault.exception == "NotImplementedError"
    assert f"torch {torch.__version__} has no operation {name!r}" in fault.text


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("aten::from_file", {"filename": "README.md", "size": 1}),
        ("aten::set_.source_Tensor", {"self": X, "source": X}),
        ("aten::resize_", {"self": X, "size": [9]}),
        ("aten::pin_memory", {"self": X}),
        ("aten::_reshape_alias", {"self": X, "size": [99], "stride": [99]}),
        ("aten::fbgemm_linear_fp16_weight", {"input": X}),
        ("aten::_nested_view_from_buffer", {"self": X}),
        ("aten::_sparse_coo_tensor_unsafe", {"indices": X}),
        ("aten::_print", {"s": "hello"}),
        ("aten::quantize_per_tensor", {"self": X}),
    ],
)
def test_what_is_denied_says_why(desk: Desk, name: str, given: dict[str, Any]) -> None:
    fault = fault_of(desk, name, **given)
    assert fault.code == OperationUnknown.code
    assert f"operation {name} is not allowed here: it " in fault.text
    assert desk.counter("executed_ops") == 0


def test_every_denied_name_exists() -> None:
    """A name that torch dropped, or that is misspelt, would deny nothing."""
    names = allowed.known_names()
    bases = {one.removeprefix("aten::").partition(".")[0] for one in names}
    assert set(allowed.DENIED) <= bases
    for prefix in allowed.DENIED_PREFIXES:
        assert any(base.startswith(prefix) for base in bases), prefix


def test_nothing_allowed_takes_a_storage_a_stream_or_an_object() -> None:
    """Such arguments can't cross the wire; without a default nobody could call it."""
    for name in allowed.known_names():
        if allowed.refusal(name) is None:
            base, _, overload = name.partition(".")
            kinds = [
                str(a.type) for a in torch._C._get_schema(base, overload).arguments
            ]
            assert not {"Storage", "Stream"}.intersection(kinds), name


def test_every_allowed_operation_can_be_defined(desk: Desk) -> None:
    names = sorted(one for one in allowed.known_names() if not allowed.refusal(one))
    assert len(names) > 2500
    for number_, name in enumerate(names):
        assert not desk.run(DefineOperation(number_, name, ()))


def test_an_operation_number_that_was_never_defined(desk: Desk) -> None:
    fault = desk.fault(Call(123, (), (desk.new(1),)))
    assert fault.code == OperationUnknown.code
    assert "123" in fault.text


def test_a_kernel_that_this_device_lacks(desk: Desk) -> None:
    fault = fault_of(desk, "aten::_cudnn_init_dropout_state", dropout=0.1, train=True,
                     dropout_seed=1)  # fmt: skip
    assert fault.code == OperationUnknown.code
    assert fault.text == (
        "aten::_cudnn_init_dropout_state has no kernel for cpu on this server"
        f" (torch {torch.__version__})"
    )


@pytest.mark.parametrize(
    ("name", "given", "exception"),
    [
        ("aten::mm", {"self": X, "mat2": X}, "RuntimeError"),
        ("aten::select.int", {"self": X, "dim": 0, "index": 9}, "IndexError"),
        ("aten::linalg_inv", {"A": torch.zeros(2, 2)}, "LinAlgError"),
        ("aten::special_zeta", {"self": 1j * X, "other": X}, "NotImplementedError"),
    ],
)
def test_what_torch_raises_keeps_its_name_and_text(
    desk: Desk, name: str, given: dict[str, Any], exception: str
) -> None:
    fault = fault_of(desk, name, **given)
    assert fault.code == OperationFailed.code
    assert fault.exception == exception
    base, _, overload = name.removeprefix("aten::").partition(".")
    operation = getattr(getattr(torch.ops.aten, base), overload or "default")
    with pytest.raises(Exception, match=r".") as caught:
        operation(**given)
    assert fault.text == str(caught.value)


@pytest.mark.parametrize(
    ("error", "code", "exception", "text"),
    [
        (KeyError("x"), 500, "KeyError", "'x'"),
        (UnicodeError(""), 500, "ValueError", "UnicodeError"),
        (MemoryError(), 401, "OutOfMemoryError", "xpool: no memory"),
        (torch.OutOfMemoryError("CUDA"), 401, "OutOfMemoryError", "xpool: CUDA"),
        (ValueError("é" * 9000), 500, "ValueError", "é" * 4094 + " …"),
    ],
)
def test_faults_from_exceptions(
    error: Exception, code: int, exception: str, text: str
) -> None:
    fault = fault_from(error, operation=3, name="aten::neg", device_kind="cpu")
    assert fault == Fault(code, text, exception, 3, "aten::neg")
    assert len(fault.text.encode()) <= 8 << 10


def values_of_every_kind(desk: Desk) -> list[Value]:
    plain: list[Value] = [None, True, 1, 1.5, 1j, "text", DType(6), Generator(0)]
    lists: list[Value] = [[], [1], [1.5], [None], [True], [[1]], [DType(6)]]
    places: list[Value] = [Device(0), Device(9), Layout(0), Layout(7), Generator(5)]
    return [
        *(*plain, *lists, *places),
        *(MemoryFormat(0), MemoryFormat(63), HostTensor(6, (), bytes(4)), number(1.5)),
        desk.put(X),
        [desk.put(X)],
    ]


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("aten::neg", "self"),
        ("aten::clamp.Tensor", "min"),
        ("aten::cat", "tensors"),
        ("aten::index.Tensor", "indices"),
        ("aten::sum.dim_IntList", "dim"),
        ("aten::mul.Scalar", "other"),
        ("aten::zeros", "dtype"),
        ("aten::zeros", "device"),
        ("aten::zeros", "layout"),
        ("aten::zeros", "pin_memory"),
        ("aten::clone", "memory_format"),
        ("aten::bernoulli", "generator"),
        ("aten::gelu", "approximate"),
        ("aten::upsample_nearest2d.vec", "scale_factors"),
        ("aten::_foreach_add.ScalarList", "scalars"),
        ("aten::std.correction", "correction"),
    ],
)
def test_any_value_anywhere_is_a_result_or_a_fault(
    desk: Desk, name: str, argument: str
) -> None:
    base, _, overload = name.partition(".")
    schema = torch._C._get_schema(base, overload)
    for value in values_of_every_kind(desk):
        given: dict[str, Any] = {}
        for one in schema.arguments:
            if not one.has_default_value() and one.name != argument:
                kind = str(one.type)
                given[one.name] = [X] if kind == "List[Tensor]" else None
                if kind == "Tensor":
                    given[one.name] = X
                if kind == "List[int]":
                    given[one.name] = [1]
        given[argument] = value
        for answer in desk.call(name, [None], **given):
            assert isinstance(answer, Failure)
            assert answer.fault.code in {500, 501, 502, 503}
