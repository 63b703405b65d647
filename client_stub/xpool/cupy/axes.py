"""Shapes and axes as programs give them, counted and checked as NumPy does."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def reshaped(size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with its -1 filled in.

    Raises:
        ValueError: it has another number of items.
    """
    unknown = [at for at, one in enumerate(shape) if one < 0]
    if len(unknown) > 1:
        raise ValueError("can only specify one unknown dimension")
    if unknown:
        rest = math.prod([one for one in shape if one >= 0])
        if rest == 0 or size % rest:
            raise ValueError(f"cannot reshape array of size {size} into shape {shape}")
        at = unknown[0]
        return (*shape[:at], size // rest, *shape[at + 1 :])
    if math.prod(shape) != size:
        raise ValueError(f"cannot reshape array of size {size} into shape {shape}")
    return shape


def normalized_axis(axis: Any, ndim: int) -> int:
    """An axis counted from the front.

    Raises:
        AxisError: there is no such axis.
    """
    at = operator.index(axis)
    if not -ndim <= at < ndim:
        raise np.exceptions.AxisError(at, ndim)
    return at % ndim


def normalized_axes(axes: Sequence[Any], ndim: int) -> list[int]:
    """Axes counted from the front, none twice.

    Raises:
        AxisError: there is no such axis.
        ValueError: one stands twice.
    """
    found = [normalized_axis(one, ndim) for one in axes]
    if len(set(found)) != len(found):
        raise ValueError("repeated axis")
    return found
