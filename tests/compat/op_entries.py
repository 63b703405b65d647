"""torch's OpInfo list (``op_db``): forward, gradients, ``out=``, in-place and views."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from comparing import (
    DEVICE,
    compare,
    compare_gradients,
    differentiable,
    gradients,
    leaves,
    moved,
    on_cpu,
    remotely,
    sharing,
)
from entries import Entry, NoSuchVariant, Outcome, SampleSkipped, Tally
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_map

DTYPES = ("float32", "int64", "bool", "bfloat16", "complex64")
VARIANTS = ("forward", "backward", "out", "inplace", "view")
MAX_SECONDS = 30.0
"""No entry needs a tenth of it on a quiet machine: on any, the same samples run."""

# Their values depend on the order of draws: a repeat under the same seed is the test.
RANDOM = {
    *("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial"),
    *("normal", "uniform", "rand_like", "randn_like", "randint_like", "randint"),
    *("randn", "rand", "svd_lowrank", "pca_lowrank", "nn.functional.dropout"),
    *("nn.functional.dropout2d", "nn.functional.dropout3d"),
    *("nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout"),
    *("nn.functional.feature_alpha_dropout", "nn.functional.rrelu"),
    *("nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d"),
    *("nn.functional.gumbel_softmax", "nn.functional.multi_head_attention_forward"),
    *("nn.functional.scaled_dot_product_attention", "_native_dropout"),
}

# Their values are whatever the memory held.
UNDEFINED = {
    *("empty", "empty_like", "empty_strided", "empty_permuted"),
    *("new_empty", "new_empty_strided", "resize_", "resize_as_"),
}

# Where a CUDA device wants them on the CPU, too.
HOST_ARGUMENTS = {"tensor_split"}


def all_entries() -> list[Entry]:
    """Every entry of the list that its own description says exists."""
    return [
        Entry("op_db", name_of(op), dtype, variant, op)
        for op in op_db
        for dtype in DTYPES
        if getattr(torch, dtype) in op.supported_dtypes("cpu")
        for variant in VARIANTS
        if has_variant(op, getattr(torch, dtype), variant)
    ]


def name_of(op: Any) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def has_variant(op: Any, dtype: torch.dtype, variant: str) -> bool:
    match variant:
        case "backward":
            floats = dtype.is_floating_point or dtype.is_complex
            return bool(
                op.supports_autograd
                and floats
                and dtype in op.supported_backward_dtypes("cpu")
            )
        case "out":
            return bool(op.supports_out)
        case "inplace":
            return op.inplace_variant is not None
        case _:
            return True


def run(entry: Entry, max_samples: int) -> Outcome:
    """Run an entry's samples, evenly spread over the list where there are more."""
    op, dtype = entry.info, getattr(torch, entry.dtype)
    try:
        given = samples(op, dtype, grad=entry.variant == "backward")
    except Exception as error:  # on the CPU alone: no word about the remote device
        reason = str(error).splitlines()[0] if str(error) else ""
        return Outcome("skip", 0, f"no samples: {type(error).__name__}: {reason}"[:160])
    if not given:
        return Outcome("skip", 0, "torch gives no samples")
    tally, compared = Tally(), RUN[entry.variant]
    return tally.outcome_of(timely(tally, compared, op, spread(given, max_samples)))


def timely(
    tally: Tally, compared: Callable[..., None], op: Any, given: list[Any]
) -> Iterator[Callable[[], None]]:
    """Samples, until time is up and there was one."""
    began = time.monotonic()
    for sample in given:
        if tally.agreed and time.monotonic() - began > MAX_SECONDS:
            return
        yield partial(run_sample, compared, op, sample)


def spread(given: list[Any], most: int) -> list[Any]:
    if len(given) <= most:
        return given
    return [given[i * len(given) // most] for i in range(most)]


def samples(op: Any, dtype: torch.dtype, *, grad: bool) -> list[Any]:
    """Torch's samples, made on the CPU."""
    torch.manual_seed(0)
    # Some generators put tensors on "cuda" by themselves where it is available.
    is_available, torch.cuda.is_available = torch.cuda.is_available, lambda: False
    try:
        return list(op.sample_inputs("cpu", dtype, requires_grad=grad))
    finally:
        torch.cuda.is_available = is_available


def run_sample(compared: Callable[..., None], op: Any, sample: Any) -> None:
    given = sample.input, sample.args, sample.kwargs
    # A sample that shares memory with others must not see what they were made to be.
    local, remote = moved(given, "cpu"), moved(given, DEVICE)
    if op.name in HOST_ARGUMENTS:
        remote = (remote[0], *moved(given, "cpu")[1:])
    compared(op, local, remote)


def call(function: Callable[..., Any], given: Any, **named: Any) -> Callable[[], Any]:
    return lambda: function(given[0], *given[1], **{**given[2], **named})


def is_by_value(op: Any) -> bool:
    return op.name not in RANDOM and op.name not in UNDEFINED


def compare_arguments(op: Any, local: Any, remote: Any, after: str) -> None:
    """What the call, or a write through its result, has made of its arguments."""
    count = 1 if op.name in HOST_ARGUMENTS else len(local)
    what = f"an argument after {after}"
    compare(local[:count], remote[:count], what, by_value=is_by_value(op))


def compare_repeat(op: Any, work: Callable[[], Any], got: Any) -> None:
    """What is random is the same again under the same seed."""
    if op.name not in RANDOM:
        return
    before = [tensor.detach().cpu() for tensor in leaves(got)]
    for first, again in zip(before, leaves(remotely(work)), strict=True):
        torch.testing.assert_close(
            again.detach().cpu(),
            first,
            rtol=0,
            atol=0,
            equal_nan=True,
            msg="other values under the same seed",
        )


def run_forward(op: Any, local: Any, remote: Any) -> None:
    expected = on_cpu(call(op.op, local))
    got = remotely(call(op.op, remote))
    by_value = is_by_value(op)
    compare(expected, got, "forward", by_value=by_value)
    mine, theirs = sharing(expected, local), sharing(got, remote)
    assert mine == theirs, f"forward: memory shared {theirs} for {mine}"
    compare_arguments(op, local, remote, "the call")
    compare_repeat(op, call(op.op, remote), got)


def run_backward(op: Any, local: Any, remote: Any) -> None:
    if not differentiable(local):
        raise SampleSkipped("no argument wants a gradient")
    expected = on_cpu(call(op.op, local))
    if not differentiable(expected):
        raise SampleSkipped("no result has a gradient")
    wanted = on_cpu(lambda: gradients(expected, local))
    found = gradients(remotely(call(op.op, remote)), remote)
    compare_gradients(wanted, found, by_value=is_by_value(op))


def run_out(op: Any, local: Any, remote: Any) -> None:
    """Into tensors of the right size, and into empty ones that it must resize."""
    with torch.no_grad():
        reference = on_cpu(call(op.op, local))
        if not leaves(reference):
            raise NoSuchVariant
        for make in (torch.empty_like, no_items):
            run_out_into(op, local, remote, tree_map(make_with(make), reference))


def no_items(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=tensor.dtype)


def make_with(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    return lambda leaf: make(leaf) if isinstance(leaf, torch.Tensor) else leaf


def run_out_into(op: Any, local: Any, remote: Any, out: Any) -> None:
    there = moved(out, DEVICE)
    by_value = is_by_value(op)
    expected = on_cpu(call(op.op, local, out=out))
    got = remotely(call(op.op, remote, out=there))
    compare(expected, got, "out", by_value=by_value)
    compare(out, there, "out tensor", by_value=by_value)
    compare_repeat(op, call(op.op, remote, out=there), got)


def run_inplace(op: Any, local: Any, remote: Any) -> None:
    if not isinstance(local[0], torch.Tensor):
        raise NoSuchVariant
    with torch.no_grad():
        expected = on_cpu(call(op.inplace_variant, local))
        got = remotely(call(op.inplace_variant, remote))
        same = (expected is local[0]) == (got is remote[0])
        assert same, "in-place: another tensor came back"
        by_value = is_by_value(op)
        compare(expected, got, "in-place", by_value=by_value)
        compare_arguments(op, local, remote, "the call")


def run_view(op: Any, local: Any, remote: Any) -> None:
    """What is written through a result that is a view arrives in the argument."""
    with torch.no_grad():
        expected = on_cpu(call(op.op, local))
        places = sharing(expected, local)
        if not any(places):
            raise NoSuchVariant
        got = remotely(call(op.op, remote))
        theirs = sharing(got, remote)
        assert places == theirs, f"view: memory shared {theirs} for {places}"
        for ours, view, place in zip(
            leaves(expected), leaves(got), places, strict=True
        ):
            if place is not None:
                on_cpu(partial(ours.fill_, 1))
                view.fill_(1)
        compare_arguments(op, local, remote, "a write through its view")
        compare(expected, got, "view")


RUN: dict[str, Callable[[Any, Any, Any], None]] = {
    "forward": run_forward,
    "backward": run_backward,
    "out": run_out,
    "inplace": run_inplace,
    "view": run_view,
}
