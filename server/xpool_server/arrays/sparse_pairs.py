"""Sparse matrices with one another on a CPU: CuPy's rules where SciPy has others.

CuPy stretches a matrix of one row or one column where two are compared, or the larger
items of both are taken; SciPy refuses other shapes, or calls them unequal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np

COMPARISONS: Final = ("eq", "ne", "lt", "gt", "le", "ge")


@functools.cache
def _scipy() -> Any:
    import scipy.sparse

    return scipy.sparse


def common_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """What two matrices are stretched to.

    >>> common_shape((3, 1), (3, 4)), common_shape((1, 1), (0, 2))
    ((3, 4), (0, 2))

    Raises:
        ValueError: they do not fit together.
    """
    found = []
    for one, other in zip(a, b, strict=True):
        if one != other and 1 not in (one, other):
            raise ValueError(f"inconsistent shapes {a} and {b}")
        found.append(other if one == 1 else one)
    return tuple(found)


def stretched(matrix: Any, shape: tuple[int, ...]) -> Any:
    """A matrix whose one row or one column is repeated, compressed by rows."""
    found = matrix.tocsr()
    rows, columns = shape
    if found.shape[0] != rows:
        found = found[np.zeros(rows, np.intp)]
    if found.shape[1] != columns:
        found = found[:, np.zeros(columns, np.intp)]
    return found


def _in_pairs(kind: str, name: str) -> Callable[..., Any]:
    method = getattr(getattr(_scipy(), kind), name)

    def run(self: Any, other: Any) -> Any:
        if (
            _scipy().issparse(other)
            and self.shape != other.shape
            and self.ndim == other.ndim == 2
        ):
            shape = common_shape(self.shape, other.shape)
            self, other = stretched(self, shape), stretched(other, shape)
            return getattr(type(self), name)(self, other)
        return method(self, other)

    return run


def _lazily(kind: str, name: str) -> Callable[..., Any]:
    """SciPy is imported at the first call."""

    @functools.cache
    def found() -> Callable[..., Any]:
        return _in_pairs(kind, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        return found()(*args, **kwargs)

    return run


def own(kinds: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    """What the classes of these names have of their own."""
    names = (*(f"__{one}__" for one in COMPARISONS), "maximum", "minimum")
    return {
        f"cupyx.scipy.sparse.{kind}.{name}": _lazily(kind, name)
        for kind in kinds
        for name in names
    }
