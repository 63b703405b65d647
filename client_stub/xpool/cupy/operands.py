"""What ufuncs and operators are given, and the shape that they return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from xpool.cupy.ndarray import ndarray

BOOL: Final = np.dtype("?")
INTEGERS: Final = {char: np.iinfo(char) for char in "bBhHiIlLqQ"}
_SCALARS: Final = (int, float, complex)


BINARY: Final = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "divmod": "divmod",
}
COMPARE: Final = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}
UNARY: Final = {
    "neg": "negative",
    "abs": "absolute",
    "invert": "invert",
    "pos": "positive",
}
"""Operators, and the ufuncs behind them."""


def operand_dtype(value: Any) -> Any:
    """A dtype, or a Python type for a weak scalar, as ``resolve_dtypes`` wants it."""
    kind = type(value)
    if kind is ndarray:
        return value._geo.dtype
    if kind is bool:
        return BOOL
    if kind in _SCALARS:
        return kind
    if isinstance(value, np.generic):
        return value.dtype
    for one in _SCALARS:
        if isinstance(value, one):
            return one
    raise TypeError(f"Unsupported type {kind}")


def large(value: Any, others: Sequence[Any]) -> Any:
    """A Python integer beyond int64 with Booleans only is an uint64, as in CuPy."""
    if type(value) is not int or not 1 << 63 <= value < 1 << 64:
        return value
    kinds = {one._geo.dtype.kind for one in others if type(one) is ndarray}
    return np.uint64(value) if kinds == {"b"} else value


def check_operands(values: Sequence[Any]) -> None:
    """Refuse host arrays, as CuPy does.

    Raises:
        TypeError: one is among the values.
    """
    for one in values:
        if isinstance(one, np.ndarray):
            raise TypeError(f"Unsupported type {type(one)}")


def result_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that all of these are broadcast to.

    Raises:
        ValueError: there is none.
    """
    if not shapes:
        return ()
    first = shapes[0]
    for one in shapes:
        if one != first:
            break
    else:
        return first
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        text = " ".join(map(str, shapes))
        raise ValueError(
            f"operands could not be broadcast together with shapes {text}"
        ) from None


def is_operand(value: Any) -> bool:
    """Whether an operator of arrays takes it."""
    if isinstance(value, ndarray | int | float | complex | np.generic | np.ndarray):
        return True
    return hasattr(type(value), "__cupy_get_ndarray__")


def asked_of_other(local: Any, a: ndarray, b: Any, reflected: bool) -> Any:
    """What an operator gives with a foreign array, which NumPy's protocol asks.

    Args:
        local: NumPy's ufunc.
        a: ours.
        b: not ours, nor a number.
        reflected: whether ``b`` stands first.

    Returns:
        ``NotImplemented``: it has no such protocol, so that Python asks it.

    Raises:
        TypeError: it has, and does not know what to do either.
    """
    if getattr(b, "__array_ufunc__", None) is None:
        return NotImplemented
    return local(b, a) if reflected else local(a, b)


def local_ufunc(module: str, name: str, nin: int, nout: int) -> np.ufunc | None:
    """NumPy's ufunc of that name, if it resolves dtypes for this one."""
    if module != "cupy":
        return _special(name, nin, nout) if module == "cupyx.scipy.special" else None
    found = getattr(np, name, None)
    if isinstance(found, np.ufunc) and found.signature is None:
        return found if (found.nin, found.nout) == (nin, nout) else None
    return None


def _special(name: str, nin: int, nout: int) -> np.ufunc | None:
    try:
        import scipy.special
    except ImportError:  # the client needs no SciPy: calls then wait
        return None
    found = getattr(scipy.special, name, None)
    if isinstance(found, np.ufunc) and (found.nin, found.nout) == (nin, nout):
        return found
    return None
