"""A sparse matrix times a vector, again and again: what came out is known by then.

What a matrix is, only the server knows. But its product with a vector has the shape and
dtype that it had with the vector before, so that the first product of a kind asks the
server and the next ones are queued.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from xpool.cupy import ndarray as arrays
from xpool.cupy.geometry import geometry
from xpool.cupy.ndarray import ndarray

PRODUCTS: Final = ("__matmul__", "__rmatmul__", "__mul__", "__rmul__", "dot")
KNOWN: Final = "_products"
"""A matrix's attribute: geometries of products, by operation and the vector's."""


def forget(matrix: Any) -> None:
    """Its items may be of another dtype from now on."""
    vars(matrix).pop(KNOWN, None)


def remembering(full: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """A method that remembers what came out.

    Args:
        full: the operation, ``cupyx.scipy.sparse.csr_matrix.dot``.
        run: asks the server.
    """

    @functools.wraps(run)
    def product(self: Any, other: Any) -> Any:
        if type(other) is not ndarray or len(other._geo.shape) != 1:
            return run(self, other)
        known = vars(self).setdefault(KNOWN, {})
        key = full, other._geo.shape, other._geo.dtype
        found = known.get(key)
        if found is not None:
            return arrays.posted(full, found, (self, other))
        made = run(self, other)
        if type(made) is ndarray and made.ndim == 1:
            known[key] = geometry(made.shape, made.dtype)
        return made

    return product


def remember(kind: Any) -> None:
    """Let a class of sparse matrices remember its products with vectors."""
    for name in PRODUCTS:
        full = f"{kind._full}.{name}"
        setattr(kind, name, remembering(full, getattr(kind, name)))
