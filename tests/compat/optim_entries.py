"""torch's OptimizerInfo list (``optim_db``): several steps of every configuration.

Each configuration that torch lists for a CPU or a CUDA device runs as a plain loop,
with ``foreach``, and with ``fused`` where there is such a kernel. The reference on the
CPU has the same configuration, but for ``capturable``, which changes where the step is
counted and not what is computed, and which a CPU refuses.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from comparing import DEVICE, EXACT, TOLERANCES, on_cpu, remotely
from entries import Entry, Outcome, Tally
from torch.testing._internal.common_optimizers import (
    _get_optim_inputs_including_global_cliquey_kwargs as configurations,
)
from torch.testing._internal.common_optimizers import optim_db

DTYPES = ("float32", "float64", "complex64")
STEPS = 4
SHAPES = ((4, 3), (3,), (2, 2, 2), ())
MATRICES = ((4, 3), (3, 5))
FLAGS = ("foreach", "fused", "differentiable")


def all_entries() -> list[Entry]:
    """Every optimizer in every configuration; a variant is what the loop is made of."""
    return [
        Entry("optim_db", name, dtype, variant, (info, configs))
        for info in optim_db
        for dtype in DTYPES
        if dtype != "complex64" or info.supports_complex
        for (name, variant), configs in grouped(info, getattr(torch, dtype)).items()
    ]


def grouped(info: Any, dtype: torch.dtype) -> dict[tuple[str, str], list[Any]]:
    """Configurations by optimizer, description and variant."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for device in ("cpu", DEVICE):
        for config in configurations(device, dtype, info):
            flags = [flag for flag in FLAGS if config.kwargs.get(flag)]
            what = config.desc.split(" & ")[0].replace(" ", "-").replace(",", "")
            name = f"{info.optim_cls.__name__}.{what or 'default'}"
            variant = flags[0] if flags else "forloop"
            same = groups.setdefault((name, variant), [])
            if not any(is_same(config.kwargs, other.kwargs) for other in same):
                same.append(config)
    return groups


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return repr(sorted(one.items())) == repr(sorted(other.items()))


def run(entry: Entry, max_samples: int) -> Outcome:
    """Run an entry's configurations."""
    info, configs = entry.info
    dtype = getattr(torch, entry.dtype)
    return Tally().outcome_of(
        partial(run_config, info, config.kwargs, dtype) for config in configs
    )


def run_config(info: Any, kwargs: dict[str, Any], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    wants_matrices = info.optim_cls is torch.optim.Muon
    shapes = MATRICES if wants_matrices or info.only_supports_sparse_grads else SHAPES
    start = [torch.randn(shape, dtype=dtype) for shape in shapes]
    goals = [torch.randn(shape, dtype=dtype) for shape in shapes]
    ours = dict(kwargs)
    if ours.pop("capturable", False) and isinstance(ours.get("lr"), torch.Tensor):
        ours["foreach"] = False  # a rate that is a tensor wants it or a plain loop
    local = on_cpu(partial(trained, info, ours, start, goals, "cpu"))
    remote = remotely(partial(trained, info, kwargs, start, goals, DEVICE))
    check_close(local[0], remote[0], "a parameter", dtype)
    assert {p.device.type for p in remote[0]} == {DEVICE}, "a parameter has moved"
    check_close(local[1], remote[1], "the state", dtype)


def trained(
    info: Any,
    kwargs: dict[str, Any],
    start: list[torch.Tensor],
    goals: list[torch.Tensor],
    device: str,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Parameters and the optimizer's state after some steps."""
    leaves = [torch.nn.Parameter(one.detach().clone().to(device)) for one in start]
    # A step that is differentiable writes its parameters: no leaf can stand that.
    is_recorded = bool(kwargs.get("differentiable"))
    parameters = [leaf.clone() for leaf in leaves] if is_recorded else leaves
    targets = [goal.to(device) for goal in goals]
    given = {
        key: value.to(device) if is_tensor_on_device(key, value, kwargs) else value
        for key, value in copy.deepcopy(kwargs).items()
    }
    optimizer = info.optim_cls(parameters, **given)

    def closure() -> torch.Tensor:
        loss = distance(parameters, targets)
        found = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, found, strict=True):
            is_sparse = info.only_supports_sparse_grads
            parameter.grad = gradient.to_sparse() if is_sparse else gradient
        return loss

    for _ in range(STEPS):
        if info.step_requires_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return [p.detach() for p in parameters], tensors_of(optimizer)


def distance(parameters: list[Any], targets: list[torch.Tensor]) -> torch.Tensor:
    """What is optimized."""
    terms = [
        ((p - t).abs() ** 2).sum() for p, t in zip(parameters, targets, strict=True)
    ]
    return torch.stack(terms).sum()


def is_tensor_on_device(key: str, value: Any, kwargs: dict[str, Any]) -> bool:
    """A rate that is a tensor lies on the device where torch wants it there."""
    return (
        isinstance(value, torch.Tensor)
        and key == "lr"
        and bool(kwargs.get("capturable") or kwargs.get("fused"))
    )


def tensors_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The state's tensors, in the order of parameters and names."""
    state = optimizer.state_dict()["state"]
    found: list[torch.Tensor] = []
    for parameter in sorted(state):
        for name in sorted(state[parameter], key=str):
            value = state[parameter][name]
            if isinstance(value, torch.Tensor):
                found.append(value)
            elif isinstance(value, (list, tuple)):
                found += [item for item in value if isinstance(item, torch.Tensor)]
    return found


def check_close(
    wanted: list[torch.Tensor],
    found: list[torch.Tensor],
    what: str,
    dtype: torch.dtype,
) -> None:
    assert len(wanted) == len(found), f"{what}: {len(found)} tensors for {len(wanted)}"
    rtol, atol = TOLERANCES.get(dtype, EXACT)
    for want, have in zip(wanted, found, strict=True):
        assert have.shape == want.shape, f"{what}: {have.shape} for {want.shape}"
        assert have.dtype == want.dtype, f"{what}: {have.dtype} for {want.dtype}"
        torch.testing.assert_close(
            have.detach().cpu(),
            want.detach(),
            rtol=rtol,
            atol=atol,
            equal_nan=True,
            msg=lambda text: f"{what}: {text}",
        )
