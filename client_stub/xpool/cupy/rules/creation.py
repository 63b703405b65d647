"""Arrays from nothing, or like another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpool.cupy.functions import rule
from xpool.cupy.geometry import Geometry, check_dtype, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import as_size, ndarray


@rule("cupy.zeros", "cupy.empty", "cupy.ones")
def filled(shape: Any, dtype: Any = float, order: Any = "C") -> Geometry:
    """One value everywhere."""
    new = as_size(shape)
    if order not in ("C", "F") or min(new, default=0) < 0:
        raise NoRule
    return geometry(new, check_dtype(float if dtype is None else dtype))


@rule("cupy.zeros_like", "cupy.ones_like", "cupy.empty_like")
def like(
    a: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None
) -> Geometry:
    """As another array."""
    if type(a) is not ndarray or subok is not None or order not in ("K", "C", "F", "A"):
        raise NoRule
    new = a._geo.shape if shape is None else as_size(shape)
    if min(new, default=0) < 0:
        raise NoRule
    return geometry(new, a._geo.dtype if dtype is None else check_dtype(dtype))


@rule("cupy.arange")
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Geometry:
    """Evenly spaced values."""
    if any(type(one) not in (int, float, type(None)) for one in (start, stop, step)):
        raise NoRule
    if step in (0, None):
        raise NoRule
    if stop is None:
        start, stop = 0, start
    if start is None:
        raise NoRule
    if dtype is None:
        dtype = np.result_type(*(np.array(one).dtype for one in (start, stop, step)))
    found = check_dtype(dtype)
    if found.kind == "b":
        raise NoRule
    length = (stop - start) / step
    if not math.isfinite(length):
        raise NoRule
    return geometry((max(0, math.ceil(length)),), found)


@rule("cupy.eye", "cupy.identity")
def eye(
    N: Any,  # noqa: N803  CuPy's name
    M: Any = None,  # noqa: N803
    k: Any = 0,
    dtype: Any = float,
    order: Any = "C",
) -> Geometry:
    """Ones on a diagonal."""
    columns = N if M is None else M
    if type(N) is not int or type(columns) is not int or N < 0 or columns < 0:
        raise NoRule
    if type(k) is not int:
        raise NoRule
    return geometry((N, columns), check_dtype(float if dtype is None else dtype))
