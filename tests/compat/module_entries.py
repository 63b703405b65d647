"""torch's ModuleInfo list (``module_db``): forward, gradients, buffers, train and eval.

Each module is made on the CPU; its copy on the device begins with the same state.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
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
)
from entries import Entry, Outcome, SampleSkipped, Tally
from torch.testing._internal.common_modules import module_db

DTYPES = ("float32", "float64", "bfloat16", "complex64")
MODES = ("train", "eval")
DRAWS = ("Dropout", "RReLU", "FractionalMaxPool")


def all_entries() -> list[Entry]:
    """Every module, in every dtype it names, trained and not."""
    return [
        Entry("module_db", info.name, dtype, mode, info)
        for info in module_db
        for dtype in DTYPES
        if getattr(torch, dtype) in info.dtypes
        for mode in MODES
    ]


def run(entry: Entry, max_samples: int) -> Outcome:
    """Run an entry's inputs, one after the other."""
    torch.manual_seed(0)
    is_training = entry.variant == "train"
    try:
        given = entry.info.module_inputs_func(
            entry.info,
            device="cpu",
            dtype=getattr(torch, entry.dtype),
            requires_grad=True,
            training=is_training,
        )
    except Exception as error:  # on the CPU alone: no word about the remote device
        return Outcome("skip", 0, f"no samples: {type(error).__name__}: {error}"[:160])
    return Tally().outcome_of(samples(entry, given[:max_samples]))


def samples(entry: Entry, given: list[Any]) -> Iterator[Any]:
    for sample in given:
        if sample.forward_input is not None:
            yield partial(run_sample, entry, sample)


def run_sample(entry: Entry, sample: Any) -> None:
    local = on_cpu(partial(make_module, entry, sample))
    remote = remotely(lambda: copy.deepcopy(local).to(DEVICE))
    given = sample.forward_input.args, sample.forward_input.kwargs
    ours, theirs = moved(given, "cpu"), moved(given, DEVICE)
    by_value = is_by_value(entry, local)
    expected = on_cpu(lambda: local(*ours[0], **ours[1]))
    got = remotely(lambda: remote(*theirs[0], **theirs[1]))
    compare(expected, got, "forward", by_value=by_value)
    compare_backward(expected, got, (local, ours), (remote, theirs), by_value=by_value)
    compare(dict(local.named_buffers()), dict(remote.named_buffers()), "buffers")
    if not by_value:
        again = remotely(lambda: remote(*theirs[0], **theirs[1]))
        for first, second in zip(leaves(got), leaves(again), strict=True):
            assert torch.equal(first, second), "other values under the same seed"


def make_module(entry: Entry, sample: Any) -> torch.nn.Module:
    made = sample.constructor_input
    module: torch.nn.Module = entry.info.module_cls(*made.args, **made.kwargs)
    module = module.to(getattr(torch, entry.dtype))
    return module.train(entry.variant == "train")


def is_by_value(entry: Entry, module: torch.nn.Module) -> bool:
    """Whether nothing is drawn: what is, is tested by its repeat."""
    drops = [
        getattr(one, "dropout", 0.0) for one in module.modules() if one is not module
    ]
    drops.append(getattr(module, "dropout", 0.0))
    is_random = any(isinstance(p, float) and p > 0 for p in drops) or any(
        draw in type(one).__name__ for draw in DRAWS for one in module.modules()
    )
    always = any("FractionalMaxPool" in type(one).__name__ for one in module.modules())
    return not always and not (is_random and entry.variant == "train")


def compare_backward(
    expected: Any, got: Any, local: Any, remote: Any, *, by_value: bool
) -> None:
    ours = [list(local[0].parameters()), local[1]]
    theirs = [list(remote[0].parameters()), remote[1]]
    if not differentiable(expected) or not differentiable(ours):
        return
    try:
        wanted = on_cpu(lambda: gradients(expected, ours))
    except SampleSkipped:
        return  # the forward pass has been compared
    compare_gradients(wanted, gradients(got, theirs), by_value=by_value)
