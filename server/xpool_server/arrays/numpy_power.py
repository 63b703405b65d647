"""Powers of integers as CuPy's kernels have them: negative exponents are no error."""

from __future__ import annotations

from typing import Any

import numpy as np

INTEGERS = "bi"
"""Kinds in which an exponent may be negative."""


def power(x1: Any, x2: Any, out: Any = None, **kwargs: Any) -> Any:
    """``numpy.power``, and 1, -1 or 0 for an integer to the power of a negative one."""
    dtype = _negative(x1, x2) if not kwargs else None
    if dtype is None:
        return np.power(x1, x2, out=out, **kwargs)
    base, exponent = np.asarray(x1).astype(dtype), np.asarray(x2).astype(dtype)
    minus_one = np.where(exponent & 1, -1, 1)
    inverse = np.where(base == -1, minus_one, base == 1)
    plain = np.power(base, np.maximum(exponent, 0))
    found = np.where(exponent < 0, inverse, plain).astype(dtype)
    if out is None:
        return found
    np.copyto(out, found, casting="same_kind")
    return out


def _negative(x1: Any, x2: Any) -> Any:
    """The integer dtype of a power with negative exponents; None if it is none."""
    operands = [_dtype(one) for one in (x1, x2)]
    if operands[1] is not int and getattr(operands[1], "kind", "f") not in INTEGERS:
        return None
    if operands[0] is not int and getattr(operands[0], "kind", "f") not in "biu":
        return None
    if not np.any(np.less(x2, 0)):
        return None
    if int in operands and operands.count(int) == 2:
        return np.dtype(int)
    dtype = np.power.resolve_dtypes((*operands, None))[-1]
    if dtype.kind != "i" or (operands[1] is int and x2 < np.iinfo(dtype).min):
        return None
    return dtype


def _dtype(value: Any) -> Any:
    kind = type(value)
    if kind is bool:
        return np.dtype(bool)
    return kind if kind in (int, float, complex) else getattr(value, "dtype", None)
