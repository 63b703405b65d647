"""What kernels compute with: C's rules of types, its operators and CUDA's functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from xpool_protocol.errors import ArgumentInvalid

from xpool_server.arrays.kernel_tree import Unsupported

Array = Any

_INT = np.dtype(np.int32)
BOOL = np.dtype(np.bool_)
_DOUBLE = np.dtype(np.float64)
_FLOAT = np.dtype(np.float32)


def promoted(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What an operand is before it is computed with: C's integer promotion."""
    if dtype.kind in "biu" and dtype.itemsize < 4:
        return _INT
    return _FLOAT if dtype == np.float16 else dtype


def common(left: np.dtype[Any], right: np.dtype[Any]) -> np.dtype[Any]:
    """The type of two operands' result: C's usual arithmetic conversions.

    >>> str(common(np.dtype("i4"), np.dtype("f4"))), str(common(TYPES["bool"], _INT))
    ('float32', 'int32')
    >>> str(common(np.dtype("i4"), np.dtype("u4")))
    'uint32'
    """
    left, right = promoted(left), promoted(right)
    if "c" in (left.kind, right.kind):
        sizes = [one.itemsize // (2 if one.kind == "c" else 1) for one in (left, right)]
        floats = [
            size
            for one, size in zip((left, right), sizes, strict=True)
            if one.kind in "cf"
        ]
        return np.dtype(np.complex128 if max(floats) > 4 else np.complex64)
    if "f" in (left.kind, right.kind):
        return max(
            (one for one in (left, right) if one.kind == "f"), key=lambda d: d.itemsize
        )
    if left.itemsize != right.itemsize:
        return max(left, right, key=lambda one: one.itemsize)
    return left if left.kind == "u" else right


def _floating(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one or more floats; integers are doubles, as in CUDA."""

    def run(*operands: Array) -> Array:
        kind = _FLOAT if operands[0].dtype == np.float16 else operands[0].dtype
        for one in operands[1:]:
            kind = common(kind, one.dtype)
        if kind.kind in "biu":
            kind = _DOUBLE
        return function(*(one.astype(kind) for one in operands))

    return run


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*operands: Array) -> Array:
        kind = operands[0].dtype
        for one in operands[1:]:
            kind = kind if kind == one.dtype else common(kind, one.dtype)
        return function(*(one.astype(kind) for one in operands))

    return run


def _special(name: str) -> Callable[..., Any]:
    def run(*operands: Array) -> Array:
        import scipy.special

        return getattr(scipy.special, name)(*operands)

    return run


_FLOATING: Final[dict[str, Callable[..., Any]]] = {
    **{
        name: getattr(np, name)
        for name in (
            *("sqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p"),
            *("sin", "cos", "tan", "sinh", "cosh", "tanh", "floor", "ceil"),
            *("trunc", "rint", "fabs", "cbrt", "hypot", "copysign", "nextafter"),
            *("fmod", "fmin", "fmax"),
        )
    },
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "atan2": np.arctan2,
    "pow": np.power,
    "round": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "signbit": np.signbit,
    "fdim": lambda x, y: np.maximum(x - y, 0),
    "ldexp": lambda x, n: np.ldexp(x, n.astype(_INT)),
    "fma": lambda x, y, z: x * y + z,
    **{
        name: _special(theirs)
        for name, theirs in {
            "erf": "erf",
            "erfc": "erfc",
            "tgamma": "gamma",
            "lgamma": "gammaln",
            "normcdf": "ndtr",
            "normcdfinv": "ndtri",
            "erfinv": "erfinv",
            "erfcinv": "erfcinv",
            "erfcx": "erfcx",
            "exp10": "exp10",
            "j0": "j0",
            "j1": "j1",
            "y0": "y0",
            "y1": "y1",
        }.items()
    },
}
FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    **{name: _floating(function) for name, function in _FLOATING.items()},
    **{
        f"{name}f": lambda *given, run=function: run(*(g.astype(_FLOAT) for g in given))
        for name, function in _FLOATING.items()
    },
    "min": _same(np.minimum),
    "max": _same(np.maximum),
    "abs": _same(np.abs),
    "conj": _same(np.conj),
    "real": _same(np.real),
    "imag": _same(np.imag),
}
"""By the names that kernels write; ``std::`` in front changes nothing."""


def _divide(left: Array, right: Array) -> Array:
    if left.dtype.kind not in "iu":
        return left / right
    safe = np.where(right == 0, right.dtype.type(1), right)
    found = left // safe
    if left.dtype.kind == "i":
        # C rounds towards zero.
        found = found + ((left % safe != 0) & ((left < 0) != (safe < 0)))
    return found.astype(left.dtype)


def _remainder(left: Array, right: Array) -> Array:
    if left.dtype.kind not in "iu":
        raise Unsupported("% is for integers: use fmod")
    return (left - _divide(left, right) * right).astype(left.dtype)


ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _remainder,
}
ATOMICS: Final[dict[str, Any]] = {
    "atomicAdd": np.add,
    "atomicSub": np.subtract,
    "atomicMax": np.maximum,
    "atomicMin": np.minimum,
}
BITS: Final[dict[str, Callable[..., Any]]] = {
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: np.left_shift(a, b),
    ">>": lambda a, b: np.right_shift(a, b),
}
COMPARISONS: Final[dict[str, Callable[..., Any]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


def converted(value: Array, dtype: np.dtype[Any]) -> Array:
    """A value as another type, by C's rules."""
    if value.dtype == dtype:
        return value
    if value.dtype.kind == "c" and dtype.kind != "c":
        raise Unsupported("a kernel converts a complex number to a real one")
    return np.asarray(value).astype(dtype)[()]


def check_integer(value: Array) -> None:
    """Refuse what is no integer.

    Raises:
        ArgumentInvalid: it is none.
    """
    if value.dtype.kind not in "biu":
        raise ArgumentInvalid("a kernel computes with bits of what is no integer")


def operated(sign: str, left: Array, right: Array) -> Array:
    """The value of ``left sign right``, of C's type; not of ``&&`` and ``||``."""
    if sign in ("<<", ">>"):
        kind = promoted(left.dtype)
    else:
        kind = common(left.dtype, right.dtype)
    left, right = converted(left, kind), converted(right, kind)
    if sign in COMPARISONS:
        return COMPARISONS[sign](left, right)
    if sign in BITS:
        check_integer(left)
        return BITS[sign](left, right).astype(kind)
    return np.asarray(ARITHMETIC[sign](left, right)).astype(kind)[()]


def truth(value: Array) -> Array:
    """Whether it is not zero."""
    return np.asarray(value).astype(BOOL)[()]
