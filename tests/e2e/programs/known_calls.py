"""Calls that look like an earlier one, and are not: what each gives on both devices."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Final, TypeAlias

import torch
import xpool

Case: TypeAlias = Callable[[str], object]


def default_dtype(device: str) -> object:
    """What integers divided are depends on a setting."""
    one = torch.arange(1, 5, device=device)
    found = []
    for dtype in (torch.float32, torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        found.append(str((one / one).dtype))
    return found


def numbers(device: str) -> object:
    """Some numbers are refused at once, whatever was taken before."""
    x = torch.ones(4, device=device)
    found: list[object] = [
        torch.nn.functional.softplus(x, beta=beta).tolist() for beta in (1.0, 2.0, 0.5)
    ]
    counts = torch.arange(4, device=device)
    for alpha in (1, 2, 2.5, 3):
        try:
            found.append(torch.add(counts, counts, alpha=alpha).tolist())
        except RuntimeError as error:
            found.append(str(error))
    return found


def overlaps(device: str) -> object:
    """Whether a write may read depends on where both lie."""
    found: list[object] = []
    for offset in (0, 4, 1, 4):
        x = torch.arange(8.0, device=device)
        written, read = x[:4], x[offset : offset + 4]
        try:
            written.add_(read)
        except RuntimeError as error:
            found.append(str(error))
        found.append(x.tolist())
    return found


def same_tensor(device: str) -> object:
    """A tensor may be written and read whole."""
    x = torch.arange(4.0, device=device)
    for _ in range(3):
        x.add_(x)
    return x.tolist()


def layouts(device: str) -> object:
    """Results inherit strides; sizes alone do not tell."""
    found = []
    for _ in range(2):
        for x in (
            torch.ones(2, 3, 4, 5, device=device),
            torch.ones(2, 3, 4, 5, device=device).to(memory_format=torch.channels_last),
            torch.ones(5, 4, 3, 2, device=device).permute(3, 2, 1, 0),
            torch.ones(2, 1, 4, 1, device=device).expand(2, 3, 4, 5),
        ):
            made = x + x
            found.append([list(made.shape), list(made.stride())])
    return found


def offsets(device: str) -> object:
    """Where in its storage an argument lies is nothing to the result."""
    x = torch.arange(40.0, device=device)
    return [(x[start : start + 4] * 2).tolist() for start in range(0, 36, 3)]


def promotion(device: str) -> object:
    """A number, a tensor without dimensions and one with promote otherwise."""
    x = torch.ones(3, dtype=torch.int16, device=device)
    others = (
        *(2, 2.5, True, 2j),
        torch.tensor(2.5, device=device),
        torch.tensor([2.5, 1, 1], device=device),
        torch.tensor(2, dtype=torch.int64, device=device),
    )
    return [str((x * other).dtype) for _ in range(2) for other in others]


def lists(device: str) -> object:
    """Tensors in lists, some of them empty or alike."""
    x, y = torch.ones(2, 3, device=device), torch.zeros(4, 3, device=device)
    none = torch.ones(0, device=device)
    found: list[object] = [
        torch.cat(parts).tolist()
        for parts in ([x, y], [y, x], [x, none], [x], [x, y, x], [x, y])
    ]
    try:
        torch.cat([x, torch.ones(2, 4, device=device)])
    except RuntimeError as error:
        found.append(str(error))
    return found


def indices(device: str) -> object:
    """A mask's result has another size each time."""
    x = torch.arange(6.0, device=device)
    places = torch.tensor([0, 2, 4], device=device)
    found = []
    for limit in (1, 4, 2):
        found.append(x[x > limit].tolist())
        found.append(x[places].tolist())
    return found


def broadcast_failures(device: str) -> object:
    """Shapes that do not fit are refused each time, and at once."""
    x = torch.ones(2, 3, device=device)
    found: list[object] = []
    for size in (3, 4, 3, 4):
        try:
            found.append(list((x + torch.ones(size, device=device)).shape))
        except RuntimeError as error:
            found.append(str(error))
    return found


def gradients(device: str) -> object:
    """Results know what they came from, in each mode."""
    x = torch.arange(3.0, device=device).requires_grad_()
    found: list[object] = []
    for _ in range(3):
        made = (x * x + x).sum()
        made.backward()
        assert x.grad is not None
        found.append(x.grad.tolist())
        with torch.no_grad():
            found.append((x * x).requires_grad)
        with torch.inference_mode():
            found.append((x * x).is_inference())
        found.append((x.detach() * 2).is_inference())
    return found


def warned(device: str) -> object:
    """What torch warns of is warned of each time."""
    found = 0
    x = torch.ones(3, 3, device=device)
    for _ in range(3):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cumsum(x, 0, out=torch.ones(5, device=device))
            found += len(seen)
    return found


def factories(device: str) -> object:
    """Nobody needs to be asked how large these are."""
    before = xpool.current_remote().library.plan_counters()["requests"]
    made = [
        torch.arange(3, 7, device=device),
        torch.arange(0, 1, 0.1, device=device),
        torch.arange(0, device=device),
        torch.eye(3, device=device),
        torch.eye(2, 4, device=device),
        torch.arange(5, out=torch.empty(0, device=device)),
    ]
    after = xpool.current_remote().library.plan_counters()["requests"]
    made.append(torch.arange(6, out=torch.empty(2, 3, device=device)))
    found = [[one.tolist(), str(one.dtype), list(one.stride())] for one in made]
    return [after - before, found]


CASES: Final[tuple[Case, ...]] = (
    *(default_dtype, numbers, overlaps, same_tensor, layouts, offsets, promotion),
    *(lists, indices, broadcast_failures, gradients, warned, factories),
)


def main() -> None:
    """Print what each case gives on the local device and on the remote one."""
    print(
        json.dumps(
            {case.__name__: [case("cpu"), case("cuda")] for case in CASES},
            default=str,
        )
    )


if __name__ == "__main__":
    main()
