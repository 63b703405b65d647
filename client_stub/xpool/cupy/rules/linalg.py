"""Products of matrices and vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpool.cupy.functions import rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import result_shape


def _both(a: Any, b: Any, out: Any) -> tuple[Geometry, Geometry, np.dtype[Any]]:
    if out is not None or type(a) is not ndarray or type(b) is not ndarray:
        raise NoRule
    return a._geo, b._geo, np.promote_types(a._geo.dtype, b._geo.dtype)


@rule("cupy.matmul")
def matmul(a: Any, b: Any, out: Any = None, **kwargs: Any) -> Geometry:
    """Matrix product, with batches in front."""
    if kwargs:
        raise NoRule
    first, second, dtype = _both(a, b, out)
    if not first.ndim or not second.ndim:
        raise NoRule
    rows = first.shape[-2:-1]
    columns = second.shape[-1:] if second.ndim > 1 else ()
    if first.shape[-1] != second.shape[-2 if second.ndim > 1 else -1]:
        raise NoRule
    batch = result_shape([first.shape[:-2], second.shape[:-2]])
    return geometry((*batch, *rows, *columns), dtype)


@rule("cupy.dot")
def dot(a: Any, b: Any, out: Any = None) -> Geometry:
    """Sum of products over the last and the last but one axis."""
    first, second, dtype = _both(a, b, out)
    if not first.ndim or not second.ndim:
        return geometry(first.shape or second.shape, dtype)
    if second.ndim == 1:
        if first.shape[-1] != second.shape[0]:
            raise NoRule
        return geometry(first.shape[:-1], dtype)
    if first.shape[-1] != second.shape[-2]:
        raise NoRule
    new = (*first.shape[:-1], *second.shape[:-2], second.shape[-1])
    return geometry(new, dtype)


@rule("cupy.outer")
def outer(a: Any, b: Any, out: Any = None) -> Geometry:
    """All products of two vectors' items."""
    first, second, dtype = _both(a, b, out)
    return geometry((first.size, second.size), dtype)
