"""Linear algebra: where CuPy's ways differ from NumPy's.

Of matrices that can't be inverted or decomposed:

CuPy raises for them only in a block of ``cupyx.errstate(linalg="raise")``; otherwise
the result means nothing. Here it is NaN, and other matrices of a stack have theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

_OF_VALUES: Final = ("Singular matrix", "not positive definite", "did not converge")


def _nothing(found: Any) -> Any:
    if isinstance(found, tuple):
        return type(found)(*map(_nothing, found))
    return np.full_like(found, np.nan)


def _is_of_values(error: np.linalg.LinAlgError) -> bool:
    return any(one in str(error) for one in _OF_VALUES)


def ignoring(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ``numpy.linalg`` that gives NaN in the place of such an error."""

    def one(a: Any, args: Any, kwargs: Any) -> Any:
        try:
            return function(a, *args, **kwargs)
        except np.linalg.LinAlgError as error:
            if not _is_of_values(error):
                raise
            unit = np.broadcast_to(np.eye(*a.shape[-2:], dtype=a.dtype), a.shape)
            return _nothing(function(unit, *args, **kwargs))

    def called(a: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(a, *args, **kwargs)
        except np.linalg.LinAlgError as error:
            if not _is_of_values(error):
                raise
        if a.ndim != 3 or (args and isinstance(args[0], np.ndarray)):
            return one(a, args, kwargs)
        found = [one(each, args, kwargs) for each in a]
        if isinstance(found[0], tuple):
            return type(found[0])(*map(np.stack, zip(*found, strict=True)))
        return np.stack(found)

    return called


def einsum(*operands: Any, **kwargs: Any) -> Any:
    """All operands become of the result's dtype first, whatever is multiplied first."""
    # Without a text each array stands before the list of its axes.
    numbers = range(1, len(operands))
    if operands and not isinstance(operands[0], str):
        numbers = range(0, len(operands) - 1, 2)
    kinds = [operands[at].dtype for at in numbers if hasattr(operands[at], "dtype")]
    if len(set(kinds)) > 1 and kwargs.get("dtype") is None:
        kind = np.result_type(*kinds)
        operands = tuple(
            one.astype(kind) if at in numbers and hasattr(one, "dtype") else one
            for at, one in enumerate(operands)
        )
    return np.einsum(*operands, **kwargs)


OWN: Final[dict[str, Callable[..., Any]]] = {"cupy.einsum": einsum}

NAMES: Final = (
    *("inv", "solve", "cholesky", "eigh", "eigvalsh", "svd", "pinv", "lstsq"),
    *("tensorinv", "tensorsolve", "matrix_power"),
)
"""Of ``cupy.linalg``: what may meet such a matrix."""
