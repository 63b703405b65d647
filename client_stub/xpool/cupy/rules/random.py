"""Random numbers: shape and dtype stand in the arguments, the values come later.

What NumPy refuses as a parameter of a distribution, it refuses for no items at all too:
that is how an invalid parameter is found here, and then the server says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy.functions import RULES, signature_of
from xpool.cupy.geometry import Geometry, check_dtype, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import as_size, ndarray
from xpool.cupy.operands import result_shape

_NUMBERS: Final = (int, float, bool, np.bool, np.integer, np.floating)
_OPTIONS: Final = frozenset(("self", "size", "dtype", "out", "method", "endpoint"))
_INT64: Final = np.dtype(np.int64)
_FLOAT64: Final = np.dtype(np.float64)

INTEGERS: Final = frozenset(
    (
        *("binomial", "geometric", "hypergeometric", "logseries", "negative_binomial"),
        *("poisson", "zipf"),
    )
)
DISTRIBUTIONS: Final = (
    *("beta", "binomial", "chisquare", "exponential", "f", "gamma", "geometric"),
    *("gumbel", "hypergeometric", "laplace", "logistic", "lognormal", "logseries"),
    *("negative_binomial", "noncentral_chisquare", "noncentral_f", "normal"),
    *("pareto", "poisson", "power", "random", "random_sample", "rayleigh"),
    *("standard_cauchy", "standard_exponential", "standard_gamma"),
    *("standard_normal", "standard_t", "triangular", "uniform", "vonmises", "wald"),
    *("weibull", "zipf"),
)

STRICTER: Final[dict[str, Callable[..., bool]]] = {
    "hypergeometric": lambda ngood, nbad, nsample: nsample >= 1,
    "logseries": lambda p: p > 0,
}
"""Where CuPy refuses parameters that NumPy takes."""

CHECKED: Final = frozenset(
    f"RandomState.{name}"
    for name in (
        *("exponential", "logseries", "negative_binomial", "noncentral_chisquare"),
        *("noncentral_f", "power", "rayleigh", "triangular", "weibull", "zipf"),
    )
)
"""Where CuPy looks at each item of an array of parameters, and waits for it, too."""

_state: Final = np.random.RandomState(0)
_generator: Final = np.random.Generator(np.random.PCG64(0))


def size_of(size: Any) -> tuple[int, ...]:
    """The shape that ``size`` asks for.

    Raises:
        NoRule: a length is negative.
    """
    shape = () if size is None else as_size(size)
    if min(shape, default=0) < 0:
        raise NoRule
    return shape


def _distribution(owner: str, name: str, local: Any) -> Callable[..., Geometry]:
    signature = signature_of(api()["cupy.random"][owner][3][name][0])
    assert signature is not None
    parameters = [one for one in signature.parameters if one not in _OPTIONS]
    draw, is_stricter = getattr(local, name), STRICTER.get(name)
    is_checked = f"{owner}.{name}" in CHECKED
    kinds = "ld" if name in INTEGERS else "fd"

    def predict(*args: Any, **kwargs: Any) -> Geometry:
        bound = signature.bind(*args, **kwargs)
        is_given = "dtype" in bound.arguments
        bound.apply_defaults()
        given = bound.arguments
        values = [given[one] for one in parameters]
        if given.get("out") is not None:
            raise NoRule
        shape = size_of(given["size"])
        if any(type(one) is ndarray for one in values):
            if is_checked or is_stricter is not None:
                raise NoRule
            shape = _shape_over(values, None if given["size"] is None else shape)
        elif not all(map(_is_number, values)) or (
            is_stricter is not None and not is_stricter(*values)
        ):
            raise NoRule
        else:
            draw(*values, size=0)  # raises where a parameter is none
        default = _INT64 if name in INTEGERS else _FLOAT64
        dtype = check_dtype(given["dtype"]) if is_given else default
        if dtype.char not in ("il" if name in INTEGERS else kinds):
            raise NoRule
        return geometry(shape, dtype)

    return predict


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and math.isfinite(value)


def _shape_over(values: list[Any], size: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of what is drawn with arrays of parameters.

    Raises:
        NoRule: one is no array of real numbers, or does not fit the size.
    """
    shapes = [one._geo.shape for one in values if type(one) is ndarray]
    for one in values:
        if type(one) is not ndarray and not _is_number(one):
            raise NoRule
        if type(one) is ndarray and one._geo.dtype.char not in "ilfd":
            raise NoRule
    found = result_shape(shapes if size is None else [*shapes, size])
    if size is not None and found != size:
        raise NoRule
    return found


for _name in DISTRIBUTIONS:
    for _owner, _local in (("RandomState", _state), ("Generator", _generator)):
        if _name in api()["cupy.random"][_owner][3]:
            RULES[f"cupy.random.{_owner}.{_name}"] = _distribution(
                _owner, _name, _local
            )


def _bounds(low: Any, high: Any, dtype: np.dtype[Any], endpoint: bool) -> None:
    if type(low) is not int or type(high) not in (int, type(None)):
        raise NoRule
    if high is None:
        low, high = 0, low
    last = high if endpoint else high - 1
    info = np.iinfo(dtype)
    if low > last or low < info.min or last > info.max:
        raise NoRule


def randint(
    self: Any, low: Any, high: Any = None, size: Any = None, dtype: Any = int
) -> Geometry:
    """Integers below ``high``."""
    found = check_dtype(dtype)
    if found.kind not in "iu":
        raise NoRule
    _bounds(low, high, found, endpoint=False)
    return geometry(size_of(size), found)


def integers(
    self: Any,
    low: Any,
    high: Any = None,
    size: Any = None,
    dtype: Any = np.int64,
    endpoint: Any = False,
) -> Geometry:
    """Integers below ``high``, or up to it."""
    found = check_dtype(dtype)
    if found.kind not in "iu" or type(endpoint) is not bool:
        raise NoRule
    _bounds(low, high, found, endpoint)
    return geometry(size_of(size), found)


def permutation(self: Any, a: Any) -> Geometry:
    """All integers below a number, or an array's rows, in another order."""
    if type(a) is int and a >= 0:
        return geometry((a,), _INT64)
    if type(a) is ndarray and a._geo.ndim:
        return a._geo
    raise NoRule


def choice(
    self: Any, a: Any, size: Any = None, replace: Any = True, p: Any = None
) -> Geometry:
    """Some of the items, each independent of the others."""
    if replace is not True or p is not None:
        raise NoRule
    if type(a) is int and a > 0:
        return geometry(size_of(size), _INT64)
    if type(a) is ndarray and a._geo.ndim == 1 and a._geo.size:
        return geometry(size_of(size), a._geo.dtype)
    raise NoRule


def random_raw(self: Any, size: Any = None, output: Any = True) -> Geometry:
    """The generator's own bits."""
    if output is not True:
        raise NoRule
    return geometry(size_of(size), np.dtype(np.int32))


RULES["cupy.random.RandomState.randint"] = randint
RULES["cupy.random.Generator.integers"] = integers
RULES["cupy.random.RandomState.permutation"] = permutation
RULES["cupy.random.RandomState.choice"] = choice
for _name in ("XORWOW", "MRG32k3a", "Philox4x3210"):
    RULES[f"cupy.random.{_name}.random_raw"] = random_raw
