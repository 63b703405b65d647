"""torch's own OpInfo samples on the remote device against the local CPU.

    xpool run op_suite.py OUT.jsonl FIRST LAST [DTYPE…]

For every entry (operation, dtype, variant) one JSON line: what was compared are
values, dtypes, shapes and strides, of results, gradients, ``out=`` tensors, in-place
results and views. Samples that do not run on the local CPU are left out; an entry
none of whose samples does is skipped. A line ``begun`` goes before each operation, so
that a crash can be told from an end.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "cuda"
DTYPES = ("float32", "int64", "bool", "bfloat16", "complex64")
MAX_SAMPLES = 8
MAX_SECONDS = 4.0
TOLERANCES = {
    torch.float32: (1e-4, 1e-4),
    torch.complex64: (1e-4, 1e-4),
    torch.bfloat16: (2e-2, 2e-2),
    torch.float16: (2e-3, 2e-3),
}

# Their values depend on the order of draws, or on nothing at all.
RANDOM = {
    *("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial"),
    *("normal", "uniform", "rand_like", "randn_like", "randint_like", "randint"),
    *("randn", "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty"),
    *("new_empty_strided", "svd_lowrank", "pca_lowrank", "nn.functional.dropout"),
    *("nn.functional.dropout2d", "nn.functional.dropout3d", "randint_like", "rand"),
    *("nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout"),
    *("nn.functional.rrelu", "nn.functional.fractional_max_pool2d", "resize_"),
    *("nn.functional.fractional_max_pool3d", "nn.functional.gumbel_softmax"),
    "nn.functional.multi_head_attention_forward",
    "nn.functional.scaled_dot_product_attention",
    "_native_dropout",
}


class Skipped(Exception):
    """The entry has nothing to compare on the local CPU."""


def moved(value: Any, device: str) -> Any:
    """A copy of a sample on the device; the same tensor stays the same tensor."""
    seen: dict[int, torch.Tensor] = {}

    def move(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            if id(leaf) not in seen:
                copy = copied(leaf, device)
                seen[id(leaf)] = copy.requires_grad_(leaf.requires_grad)
            return seen[id(leaf)]
        if isinstance(leaf, torch.device) or (leaf == "cpu" and isinstance(leaf, str)):
            return torch.device(device)
        return leaf

    return tree_map(move, value)


def copied(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """A leaf of the same layout, where torch can make one."""
    tensor = tensor.detach()
    is_plain = tensor.layout is torch.strided and not tensor.is_conj()
    if not is_plain or 0 in tensor.stride():
        return tensor.clone().to(device)
    twin = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
    )
    return twin.copy_(tensor)


def leaves(value: Any) -> list[torch.Tensor]:
    return [x for x in tree_flatten(value)[0] if isinstance(x, torch.Tensor)]


def compare(expected: Any, got: Any, by_value: bool, what: str) -> None:
    wanted, found = leaves(expected), leaves(got)
    assert len(wanted) == len(found), f"{what}: {len(found)} tensors for {len(wanted)}"
    for want, have in zip(wanted, found, strict=True):
        assert have.device.type == DEVICE, f"{what}: on {have.device}"
        assert have.shape == want.shape, f"{what}: {have.shape} for {want.shape}"
        assert have.dtype == want.dtype, f"{what}: {have.dtype} for {want.dtype}"
        if want.layout is torch.strided:
            same = have.numel() == 0 or have.stride() == want.stride()
            assert same, f"{what}: strides {have.stride()} for {want.stride()}"
        if by_value:
            rtol, atol = TOLERANCES.get(want.dtype, (1e-6, 1e-6))
            torch.testing.assert_close(
                have.detach().cpu(),
                want.detach(),
                rtol=rtol,
                atol=atol,
                equal_nan=True,
                msg=lambda text: f"{what}: {text}",
            )
    for want, have in zip(tree_flatten(expected)[0], tree_flatten(got)[0], strict=True):
        if isinstance(want, (bool, int)) and by_value:
            assert want == have, f"{what}: {have} for {want}"


def differentiable(value: Any) -> list[torch.Tensor]:
    return [t for t in leaves(value) if t.requires_grad]


def gradients(result: Any, inputs: Any) -> tuple[torch.Tensor | None, ...]:
    outputs = differentiable(result)
    total = [(t.abs() if t.is_complex() else t).sum() for t in outputs]
    return torch.autograd.grad(total, differentiable(inputs), allow_unused=True)


def run_forward(op: Any, local: Any, remote: Any, by_value: bool) -> None:
    expected = call(op.op, local)
    got = op_call(op.op, remote)
    compare(expected, got, by_value, "forward")


def run_backward(op: Any, local: Any, remote: Any, by_value: bool) -> None:
    if not differentiable(local):
        raise Skipped
    expected = call(op.op, local)
    if not differentiable(expected):
        raise Skipped
    try:
        reference = gradients(expected, local)
    except Exception as error:
        raise Skipped from error
    found = gradients(op_call(op.op, remote), remote)
    for want, have in zip(reference, found, strict=True):
        assert (want is None) == (have is None), "gradient: one is None"
        if want is not None:
            compare(want, have, by_value, "gradient")


def run_out(op: Any, local: Any, remote: Any, by_value: bool) -> None:
    if not op.supports_out:
        raise Skipped
    with torch.no_grad():
        reference = call(op.op, local)
        for make in (
            torch.empty_like,
            lambda t: torch.empty(0, dtype=t.dtype, device=t.device),
        ):
            out = tree_map(
                lambda t, m=make: m(t) if isinstance(t, torch.Tensor) else t, reference
            )
            expected = call(op.op, local, out=out)
            there = moved(
                tree_map(
                    lambda t, m=make: m(t) if isinstance(t, torch.Tensor) else t,
                    reference,
                ),
                DEVICE,
            )
            got = op_call(op.op, remote, out=there)
            compare(expected, got, by_value, "out")
            compare(out, there, by_value, "out tensor")


def run_inplace(op: Any, local: Any, remote: Any, by_value: bool) -> None:
    if op.inplace_variant is None or not isinstance(local[0], torch.Tensor):
        raise Skipped
    with torch.no_grad():
        expected = call(op.inplace_variant, local)
        got = op_call(op.inplace_variant, remote)
        assert got is remote[0], "in-place: another tensor came back"
        compare(expected, got, by_value, "in-place")


VARIANTS = {
    "forward": run_forward,
    "backward": run_backward,
    "out": run_out,
    "inplace": run_inplace,
}


def call(function: Callable[..., Any], given: Any, **named: Any) -> Any:
    """On the CPU: what fails there is no sample."""
    torch.manual_seed(1)
    try:
        return function(given[0], *given[1], **{**given[2], **named})
    except Exception as error:
        raise Skipped from error


def op_call(function: Callable[..., Any], given: Any, **named: Any) -> Any:
    torch.manual_seed(1)
    return function(given[0], *given[1], **{**given[2], **named})


def samples(op: Any, dtype: torch.dtype, grad: bool) -> list[Any]:
    torch.manual_seed(0)
    # Some generators put tensors on "cuda" by themselves where it is available.
    is_available, torch.cuda.is_available = torch.cuda.is_available, lambda: False
    try:
        return list(op.sample_inputs("cpu", dtype, requires_grad=grad))
    except (RuntimeError, NotImplementedError, ImportError):
        return []
    finally:
        torch.cuda.is_available = is_available


def run_entry(op: Any, dtype: torch.dtype, variant: str) -> tuple[int, str | None]:
    """How many samples agreed, and the first that did not."""
    began, count = time.monotonic(), 0
    grad = variant == "backward"
    if grad and not (
        op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    ):
        return 0, None
    by_value = op.name not in RANDOM
    for sample in samples(op, dtype, grad):
        if count >= MAX_SAMPLES or time.monotonic() - began > MAX_SECONDS:
            break
        given = sample.input, sample.args, sample.kwargs
        try:
            local, remote = moved(given, "cpu"), moved(given, DEVICE)
            VARIANTS[variant](op, local, remote, by_value)
        except Skipped:
            continue
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if "-v" in sys.argv:
                traceback.print_exc()
            return count, text[:400]
        count += 1
    return count, None


def main() -> None:
    path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    names = [a for a in sys.argv[4:] if a in DTYPES] or DTYPES
    only = [a[5:] for a in sys.argv[4:] if a.startswith("only=")]
    warnings.simplefilter("ignore")
    with open(path, "a", buffering=1) as out, contextlib.suppress(KeyboardInterrupt):
        for i in range(first, min(last, len(op_db))):
            op = op_db[i]
            name = op.name + (
                f".{op.variant_test_name}" if op.variant_test_name else ""
            )
            if only and op.name not in only and name not in only:
                continue
            out.write(json.dumps({"i": i, "op": name, "state": "begun"}) + "\n")
            for dtype_name in names:
                dtype = getattr(torch, dtype_name)
                if dtype not in op.supported_dtypes("cpu"):
                    continue
                for variant in VARIANTS:
                    count, error = run_entry(op, dtype, variant)
                    state = "fail" if error else "pass" if count else "skip"
                    out.write(
                        json.dumps(
                            {
                                "i": i,
                                "op": name,
                                "dtype": dtype_name,
                                "variant": variant,
                                "state": state,
                                "samples": count,
                                "error": error,
                            }
                        )
                        + "\n"
                    )
        out.write(json.dumps({"i": last, "state": "end"}) + "\n")


if __name__ == "__main__":
    main()
