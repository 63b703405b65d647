"""CuPy's random numbers on a CPU: NumPy's, with CuPy's arguments.

The same seed gives the same numbers each time, but other ones than on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.api import api
from xpool_protocol.errors import ArgumentInvalid


class _Bits(np.random.PCG64):
    """What stands for each of CuPy's bit generators."""

    def __init__(self, seed: Any = None, *, size: int = -1) -> None:
        super().__init__(_plain(seed))


class XORWOW(_Bits):
    """``cupy.random.XORWOW``."""


class MRG32k3a(_Bits):
    """``cupy.random.MRG32k3a``."""


class Philox4x3210(np.random.Philox):
    """``cupy.random.Philox4x3210``."""

    def __init__(self, seed: Any = None, *, size: int = -1) -> None:
        super().__init__(_plain(seed))


def _plain(seed: Any) -> Any:
    if isinstance(seed, np.ndarray):
        return seed.tolist()
    return abs(seed) if isinstance(seed, int) else seed


class _State:
    """The generator behind the module's functions."""

    def __init__(self) -> None:
        self.current = np.random.RandomState()


_state: Final = _State()


def random_state(seed: Any = None, method: Any = None) -> np.random.RandomState:
    """``cupy.random.RandomState``; which generator of cuRAND's makes no difference."""
    seed = _plain(seed)
    if isinstance(seed, int):
        seed %= 1 << 32
    return np.random.RandomState(seed)


def seed(seed: Any = None) -> None:
    """Seed the generator behind the module's functions."""
    _state.current.seed(_legacy_seed(seed))


def _legacy_seed(seed: Any) -> Any:
    seed = _plain(seed)
    return seed % (1 << 32) if isinstance(seed, int) else seed


def get_random_state() -> np.random.RandomState:
    """The generator behind the module's functions."""
    return _state.current


def set_random_state(rs: Any) -> None:
    """Put another one there."""
    if not isinstance(rs, np.random.RandomState):
        raise TypeError(
            "Random state must be an instance of RandomState. "
            f"Actual: {type(rs).__name__}"
        )
    _state.current = rs


def reset_states() -> None:
    """Seed the generator anew."""
    _state.current = np.random.RandomState()


def default_rng(seed: Any = None) -> np.random.Generator:
    """``cupy.random.default_rng``."""
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, np.random.BitGenerator):
        return np.random.Generator(seed)
    return np.random.Generator(XORWOW(seed))


def _cast(found: Any, dtype: Any) -> Any:
    return found if dtype is None else np.asarray(found).astype(dtype)


def _drawn(owner: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Call a method of a ``RandomState`` that takes no dtype in NumPy."""
    dtype = kwargs.pop("dtype", None)
    at = _dtype_position(name)
    if at is not None and len(args) > at and name != "randint":
        dtype, args = args[at], args[:at]
    args = _PREPARED.get(name, _as_given)(args)
    method = getattr(owner, name)
    if name in ("randint", "tomaxint"):
        if dtype is not None:
            kwargs["dtype"] = dtype
        return method(*args, **kwargs)
    if dtype is not None and np.dtype(dtype).kind == "f":
        _check_float(name, dtype)
    return _cast(method(*args, **kwargs), dtype)


@functools.cache
def _dtype_position(name: str) -> int | None:
    """Where CuPy's method takes a dtype that NumPy's does not take."""
    entry = api()["cupy.random"]["RandomState"][3].get(name)
    if entry is None or entry[0] is None:
        return None
    names = [one.split("=")[0].strip() for one in entry[0].strip("()").split(",")]
    return names.index("dtype") - 1 if "dtype" in names else None


def _as_given(args: Any) -> Any:
    return args


def _counts(args: Any) -> Any:
    """CuPy takes floats for counts."""
    return tuple(
        one.astype(np.int64)
        if isinstance(one, np.ndarray) and one.dtype.kind == "f"
        else int(one)
        if isinstance(one, float)
        else one
        for one in args
    )


def _lines(args: Any) -> Any:
    """CuPy takes one number for a vector of one."""
    return (np.atleast_1d(args[0]), *args[1:]) if args else args


_PREPARED: Final[dict[str, Callable[[Any], Any]]] = {
    "hypergeometric": _counts,
    "dirichlet": _lines,
}


def _check_float(name: str, dtype: Any) -> None:
    if np.dtype(dtype).itemsize < 4 and name in _ONLY_32_AND_64:
        raise TypeError(f"cupy.random.{name} does not support dtype {np.dtype(dtype)}")


_ONLY_32_AND_64: Final = frozenset(("random_sample", "standard_normal", "uniform"))

LEGACY: Final = (
    *("beta", "binomial", "chisquare", "choice", "dirichlet", "exponential", "f"),
    *("gamma", "geometric", "gumbel", "hypergeometric", "laplace", "logistic"),
    *("lognormal", "logseries", "multinomial", "multivariate_normal"),
    *("negative_binomial", "noncentral_chisquare", "noncentral_f", "normal"),
    *("pareto", "permutation", "poisson", "power", "rand", "randint", "randn"),
    *("random", "random_integers", "random_sample", "ranf", "rayleigh", "sample"),
    *("shuffle", "standard_cauchy", "standard_exponential", "standard_gamma"),
    *("standard_normal", "standard_t", "triangular", "uniform", "vonmises", "wald"),
    *("weibull", "zipf", "bytes", "tomaxint", "rand"),
)
_ALIASES: Final = {"ranf": "random_sample", "sample": "random_sample"}


def _of_module(name: str) -> Callable[..., Any]:
    real = _ALIASES.get(name, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        return _drawn(_state.current, real, args, kwargs)

    return function


def _of_state(name: str) -> Callable[..., Any]:
    real = _ALIASES.get(name, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _check(self, np.random.RandomState)
        return _drawn(self, real, args, kwargs)

    return method


def _seed_state(self: Any, seed: Any = None) -> None:
    _check(self, np.random.RandomState)
    self.seed(_legacy_seed(seed))


def _check(found: Any, kind: type) -> None:
    if not isinstance(found, kind):
        raise ArgumentInvalid(f"this is no {kind.__name__}")


_DTYPES_OF_GENERATOR: Final = frozenset(
    ("random", "standard_normal", "standard_exponential", "standard_gamma", "integers")
)


def _of_generator(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _check(self, np.random.Generator)
        if name in _DTYPES_OF_GENERATOR:
            return getattr(self, name)(*args, **kwargs)
        dtype = kwargs.pop("dtype", None)
        return _cast(getattr(self, name)(*args, **kwargs), dtype)

    return method


GENERATOR: Final = (
    *("beta", "binomial", "chisquare", "dirichlet", "exponential", "f", "gamma"),
    *("geometric", "hypergeometric", "integers", "logseries", "poisson", "power"),
    *("random", "standard_exponential", "standard_gamma", "standard_normal", "uniform"),
)

OWN: Final[dict[str, Callable[..., Any]]] = {
    "cupy.random.XORWOW": XORWOW,
    "cupy.random.MRG32k3a": MRG32k3a,
    "cupy.random.Philox4x3210": Philox4x3210,
    "cupy.random.Generator": np.random.Generator,
    "cupy.random.default_rng": default_rng,
    "cupy.random.RandomState": random_state,
    "cupy.random.RandomState.seed": _seed_state,
    "cupy.random.seed": seed,
    "cupy.random.reset_states": reset_states,
    "cupy.random.get_random_state": get_random_state,
    "cupy.random.set_random_state": set_random_state,
    **{f"cupy.random.{name}": _of_module(name) for name in LEGACY},
    **{f"cupy.random.RandomState.{name}": _of_state(name) for name in LEGACY},
    **{f"cupy.random.Generator.{name}": _of_generator(name) for name in GENERATOR},
}
