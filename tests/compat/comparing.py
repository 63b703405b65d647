"""The same work on the local CPU and on the remote device: moving and comparing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from entries import SampleSkipped
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "cuda"
TOLERANCES = {
    torch.float32: (1e-4, 1e-4),
    torch.complex64: (1e-4, 1e-4),
    torch.bfloat16: (2e-2, 2e-2),
    torch.float16: (2e-3, 2e-3),
}
EXACT = (1e-6, 1e-6)


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
    """Every tensor in a structure."""
    return [x for x in tree_flatten(value)[0] if isinstance(x, torch.Tensor)]


def compare(
    expected: Any, got: Any, what: str, *, by_value: bool = True, device: str = DEVICE
) -> None:
    """Both have the same tensors and numbers; without ``by_value`` but for the values.

    Raises:
        AssertionError: they have not; the text says what is different.
    """
    wanted, found = leaves(expected), leaves(got)
    assert len(wanted) == len(found), f"{what}: {len(found)} tensors for {len(wanted)}"
    for want, have in zip(wanted, found, strict=True):
        assert have.device.type == device, f"{what}: on {have.device}"
        compare_tensors(want, have, what, by_value=by_value)
    for want, have in zip(tree_flatten(expected)[0], tree_flatten(got)[0], strict=True):
        if isinstance(want, (bool, int, float, complex)) and by_value:
            same = want == have or (want != want and have != have)
            assert same, f"{what}: {have} for {want}"


def compare_tensors(
    want: torch.Tensor, have: torch.Tensor, what: str, *, by_value: bool
) -> None:
    """Shape, dtype, layout, strides, and values if they are to be the same."""
    assert have.shape == want.shape, f"{what}: {have.shape} for {want.shape}"
    assert have.dtype == want.dtype, f"{what}: {have.dtype} for {want.dtype}"
    assert have.layout == want.layout, f"{what}: {have.layout} for {want.layout}"
    if want.layout is torch.strided:
        same = have.numel() == 0 or have.stride() == want.stride()
        assert same, f"{what}: strides {have.stride()} for {want.stride()}"
    if by_value:
        rtol, atol = TOLERANCES.get(want.dtype, EXACT)
        torch.testing.assert_close(
            have.detach().cpu(),
            want.detach(),
            rtol=rtol,
            atol=atol,
            equal_nan=True,
            msg=lambda text: f"{what}: {text}",
        )


def differentiable(value: Any) -> list[torch.Tensor]:
    """The tensors that a gradient flows to."""
    return [t for t in leaves(value) if t.requires_grad]


def gradients(result: Any, inputs: Any) -> tuple[torch.Tensor | None, ...]:
    """What arrives at every input that wants a gradient, if the results get some."""
    outputs = differentiable(result)
    drawn = torch.Generator().manual_seed(2)
    given = [
        torch.randn(t.shape, dtype=t.dtype, generator=drawn).to(t.device)
        for t in outputs
    ]
    return torch.autograd.grad(
        outputs, differentiable(inputs), given, allow_unused=True
    )


def compare_gradients(
    wanted: tuple[torch.Tensor | None, ...],
    found: tuple[torch.Tensor | None, ...],
    *,
    by_value: bool,
) -> None:
    """The same gradients, and the same ones missing."""
    for want, have in zip(wanted, found, strict=True):
        assert (want is None) == (have is None), "gradient: one is None"
        if want is not None:
            compare(want, have, "gradient", by_value=by_value)


def on_cpu(work: Callable[[], Any]) -> Any:
    """What the CPU makes of it; what fails there is no sample."""
    torch.manual_seed(1)
    try:
        return work()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        text = f"local CPU: {type(error).__name__}: {reason}"
        raise SampleSkipped(text[:160]) from error


def remotely(work: Callable[[], Any]) -> Any:
    """The same on the device: every error is one."""
    torch.manual_seed(1)
    return work()


def sharing(value: Any, inputs: Any) -> list[tuple[int, int] | None]:
    """Per result: which input's memory it lies in, and how far from its start."""
    sources = [t for t in leaves(inputs) if t.layout is torch.strided]

    def place(tensor: torch.Tensor) -> tuple[int, int] | None:
        for i, source in enumerate(sources):
            if tensor.layout is not torch.strided or not tensor.numel():
                return None
            mine, other = tensor.untyped_storage(), source.untyped_storage()
            if mine.nbytes() and mine.data_ptr() == other.data_ptr():
                return i, tensor.data_ptr() - source.data_ptr()
        return None

    return [place(tensor) for tensor in leaves(value)]
