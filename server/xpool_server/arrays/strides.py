"""Views with strides of the client's: never outside of the array's own memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Extent = Callable[[Any], tuple[int, int]]
"""Where the memory begins and ends that an array may use, in bytes from its first
item."""


def check_strides(
    extent: tuple[int, int],
    itemsize: int,
    shape: Sequence[int],
    strides: Sequence[int],
) -> None:
    """Refuse a view that would reach outside.

    Args:
        extent: of the memory, in bytes from the view's first item.
        itemsize: bytes of an item.
        shape: of the view.
        strides: of the view, in bytes.

    Raises:
        ValueError: it reaches outside, or the two don't belong together.

    >>> check_strides((0, 32), 8, (2, 3), (8, 8))
    >>> check_strides((0, 32), 8, (2, 3), (8, 16))
    Traceback (most recent call last):
    ValueError: strides (8, 16) lead outside of the array's memory
    """
    if len(shape) != len(strides):
        raise ValueError("shape and strides have different lengths")
    if any(size < 0 for size in shape):
        raise ValueError("negative dimensions are not allowed")
    if not math.prod(shape):
        return
    low, high = _reach(itemsize, shape, strides)
    if low < extent[0] or high > extent[1]:
        raise ValueError(f"strides {tuple(strides)} lead outside of the array's memory")


def bounds(begin: int, array: Any) -> tuple[int, int]:
    """Where an array's items begin and end in its memory, in bytes.

    Args:
        begin: of the memory, in bytes from the array's first item.
        array: with one item at the least.
    """
    low, high = _reach(array.itemsize, array.shape, array.strides)
    return low - begin, high - begin


def _reach(
    itemsize: int, shape: Sequence[int], strides: Sequence[int]
) -> tuple[int, int]:
    steps = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    low = sum(min(step, 0) for step in steps)
    return low, sum(max(step, 0) for step in steps) + itemsize
