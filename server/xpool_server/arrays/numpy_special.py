"""Ufuncs that answer for infinities and zeros as CuPy's kernels do, and NumPy's do not.

The array API standard asks for the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np


def _kind(value: Any) -> str:
    return np.dtype(getattr(value, "dtype", type(value))).kind


def _stored(found: Any, args: Any, kwargs: Any) -> Any:
    """A result, where the call wants it and as what."""
    return np.positive(found, *args, **kwargs) if args or kwargs else found


def floor_divide(x1: Any, x2: Any, *args: Any, **kwargs: Any) -> Any:
    """The quotient of floats, rounded down: infinite where the quotient is."""
    kinds = {_kind(x1), _kind(x2)}
    if "f" not in kinds or "c" in kinds or kwargs.keys() - {"out"}:
        return np.floor_divide(x1, x2, *args, **kwargs)
    dtype = np.result_type(x1, x2)
    wide = np.float32 if dtype == np.float16 else dtype
    found = np.floor(np.true_divide(x1, x2, dtype=wide)).astype(dtype, copy=False)
    return _stored(found, args, kwargs)


def expm1(x: Any, *args: Any, **kwargs: Any) -> Any:
    """One less than the exponential: of complex values without a limit, of that one."""
    if _kind(x) != "c" or kwargs.keys() - {"out"}:
        return np.expm1(x, *args, **kwargs)
    found, is_special = np.expm1(x), ~np.isfinite(x) | (np.equal(x, 0))
    if np.any(is_special):
        found = np.where(is_special, np.exp(x) - found.dtype.type(1).real, found)
    return _stored(found, args, kwargs)


OWN: Final[dict[str, Callable[..., Any]]] = {
    "cupy.floor_divide": floor_divide,
    "cupy.expm1": expm1,
}
