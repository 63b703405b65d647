"""CuPy's random numbers on a CPU: NumPy's, with CuPy's arguments.

The same seed gives the same numbers each time, but other ones than on a GPU.
"""

from __future__ import annotations

import functools
import warnings
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
    if isinstance(seed, np.ndarray) and seed.ndim:
        return seed.tolist()
    if isinstance(seed, np.ndarray | np.generic):
        seed = seed.item()
    if isinstance(seed, float | complex):
        raise TypeError("Seed must be an integer.")
    return abs(int(seed)) if isinstance(seed, int) else seed


def _legacy_seed(seed: Any) -> Any:
    if isinstance(seed, int) and not 0 <= seed < 1 << 64:
        raise ValueError("Seed must be an integer between 0 and 2**64 - 1")
    seed = _plain(seed)
    # NumPy takes 32 bits at once: the rest is a second word.
    return [seed & 0xFFFFFFFF, seed >> 32] if isinstance(seed, int) else seed


def random_state(seed: Any = None, method: Any = None) -> np.random.RandomState:
    """``cupy.random.RandomState``; which generator of cuRAND's makes no difference."""
    return np.random.RandomState(_legacy_seed(seed))


def default_rng(seed: Any = None) -> np.random.Generator:
    """``cupy.random.default_rng``."""
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, np.random.BitGenerator):
        return np.random.Generator(seed)
    return np.random.Generator(XORWOW(seed))


def _random_raw(self: Any, size: Any = None, output: bool = True) -> Any:
    """The generator's own bits: 32 of them in an int32, as CuPy has them."""
    _check(self, np.random.BitGenerator)
    bits = np.asarray(self.random_raw(size), np.uint64).astype(np.uint32)
    return bits.view(np.int32) if output else None


def _check(found: Any, kind: type) -> None:
    if not isinstance(found, kind):
        raise ArgumentInvalid(f"this is no {kind.__name__}")


class Signature:
    """What a method of CuPy's takes, as far as it differs from NumPy's."""

    def __init__(self, owner: str, name: str) -> None:
        entry = api()["cupy.random"][owner][3][name]
        words = [one.strip() for one in (entry[0] or "()")[1:-1].split(",")]
        self.names = [one.split("=")[0] for one in words if one != "self"]
        self.has_dtype = "dtype" in self.names
        self.is_legacy = owner == "RandomState"

    def split(self, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any], Any]:
        """Positional arguments, the keywords that are left, and the dtype."""
        given = dict(zip(self.names, args, strict=False))
        if len(args) > len(self.names) or given.keys() & kwargs.keys():
            raise TypeError("wrong arguments")
        given.update(kwargs)
        dtype = given.pop("dtype", None)
        found = []
        for name in self.names:
            if name not in given:
                break
            found.append(given.pop(name))
        return found, given, dtype


@functools.cache
def _signature(owner: str, name: str) -> Signature:
    return Signature(owner, name)


def _counts(values: list[Any], least: int) -> list[Any]:
    """CuPy takes floats for counts, and a sample larger than what there is."""
    found: list[Any] = [
        np.asarray(one).astype(np.int64) if isinstance(one, float | np.ndarray) else one
        for one in values[:3]
    ]
    if len(found) == 3:
        if isinstance(found[2], int) and found[2] < least:
            raise ValueError(f"nsample < {least}")
        if not any(np.any(np.less(one, 0)) for one in found[:2]):
            found[2] = np.minimum(found[2], np.add(found[0], found[1]))
    return [*found, *values[3:]]


def _lines(values: list[Any]) -> list[Any]:
    """CuPy takes one number for a vector of one."""
    return [np.atleast_1d(values[0]), *values[1:]] if values else values


def _open_interval(values: list[Any]) -> list[Any]:
    if values and np.any(np.less_equal(values[0], 0)):
        raise ValueError("p <= 0.0")
    return values


def _whole(values: list[Any]) -> list[Any]:
    """CuPy cuts bounds off, and refuses an empty range even for no items."""
    bounds = [int(one) if isinstance(one, float) else one for one in values[:2]]
    is_pair = len(bounds) == 2 and bounds[1] is not None
    low, high = bounds if is_pair else (0, bounds[0])
    if isinstance(low, int) and isinstance(high, int) and low >= high:
        raise ValueError("low >= high")
    return [*bounds, *values[2:]]


_PREPARED: Final[dict[str, Callable[[list[Any]], list[Any]]]] = {
    "dirichlet": _lines,
    "logseries": _open_interval,
}


def _prepared(name: str, values: list[Any], signature: Signature) -> list[Any]:
    for one, value in zip(signature.names, values, strict=False):
        if value is None and one not in ("size", "high", "p"):
            if signature.is_legacy:
                raise ValueError("Unsupported dtype object")
            raise TypeError(f"{one} is required to be a cupy.ndarray or a scalar")
    if name == "hypergeometric":
        return _counts(values, least=1 if signature.is_legacy else 0)
    prepare = _PREPARED.get(name)
    return values if prepare is None else prepare(values)


def _cast(found: Any, dtype: Any) -> Any:
    """An array, of a dtype if one is asked for."""
    found = np.asarray(found)
    return found if dtype is None else found.astype(dtype)


_ONLY_32_AND_64: Final = frozenset(("random_sample", "standard_normal", "uniform"))


def _of_state(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _check(self, np.random.RandomState)
        signature = _signature("RandomState", name)
        values, rest, dtype = signature.split(args, kwargs)
        values = _prepared(name, values, signature)
        if name == "randint":
            values = _whole(values)
            kind = int if dtype is None else dtype
            return _cast(self.randint(*values, **rest, dtype=kind), kind)
        if dtype is not None and np.dtype(dtype).kind == "f":
            small = np.dtype(dtype).itemsize < 4
            if small and name in _ONLY_32_AND_64:
                raise TypeError("cupy.random only supports float32 and float64")
        return _cast(getattr(self, name)(*values, **rest), dtype)

    return method


def _factor(cov: Any, check_valid: str, tol: float, method: str) -> Any:
    """What independent numbers are multiplied with to vary together.

    Raises:
        LinAlgError: the covariance is not positive definite, and that is asked for.
    """
    try:
        if method == "cholesky" or check_valid == "warn":
            return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        if check_valid == "raise":
            raise np.linalg.LinAlgError(
                "Matrix is not positive definite; if matrix is positive-semidefinite,"
                " set 'check_valid' to 'warn'"
            ) from None
        if check_valid == "warn":
            _warn_of(cov, tol, method)
        if method == "cholesky":
            return np.full_like(cov, np.nan)
    if method == "eigh":
        values, vectors = np.linalg.eigh(cov)
    else:
        vectors, values, _ = np.linalg.svd(cov)
    return vectors * np.sqrt(np.abs(values))


def _warn_of(cov: Any, tol: float, method: str) -> None:
    if method != "cholesky" and np.all(np.linalg.eigvalsh(cov) >= -tol):
        return
    is_or_may = "*is*" if method == "cholesky" else "may be"
    warnings.warn(
        f"covariance is not positive-semidefinite, output {is_or_may} invalid.",
        RuntimeWarning,
        stacklevel=2,
    )


def multivariate_normal(
    self: Any,
    mean: Any,
    cov: Any,
    size: Any = None,
    check_valid: str = "ignore",
    tol: float = 1e-08,
    method: str = "cholesky",
    dtype: Any = float,
) -> Any:
    """``cupy.random.RandomState.multivariate_normal``."""
    _check(self, np.random.RandomState)
    mean, cov = np.asarray(mean, dtype), np.asarray(cov, dtype)
    if mean.ndim != 1:
        raise ValueError("mean must be 1 dimensional")
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1]:
        raise ValueError("cov must be 2 dimensional and square")
    if mean.shape[0] != cov.shape[0]:
        raise ValueError("mean and cov must have same length")
    if method not in ("eigh", "svd", "cholesky"):
        raise ValueError("method must be one of {'eigh', 'svd', 'cholesky'}")
    if check_valid not in ("ignore", "warn", "raise"):
        raise ValueError("check_valid must equal 'warn', 'raise', or 'ignore'")
    count = () if size is None else (size,) if isinstance(size, int) else tuple(size)
    drawn = self.standard_normal((*count, mean.shape[0])).astype(dtype)
    return drawn @ _factor(cov, check_valid, tol, method).T + mean


def _seed_state(self: Any, seed: Any = None) -> None:
    _check(self, np.random.RandomState)
    self.seed(_legacy_seed(seed))


def _shuffle(self: Any, a: Any) -> None:
    _check(self, np.random.RandomState)
    self.shuffle(a)


_DTYPES_OF_GENERATOR: Final = frozenset(
    ("random", "standard_normal", "standard_exponential", "standard_gamma", "integers")
)


def _of_generator(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _check(self, np.random.Generator)
        signature = _signature("Generator", name)
        values, rest, dtype = signature.split(args, kwargs)
        values = _prepared(name, values, signature)
        if name in _DTYPES_OF_GENERATOR and dtype is not None:
            # One number comes as Python's own, which has forgotten the dtype.
            return _cast(getattr(self, name)(*values, **rest, dtype=dtype), dtype)
        return _cast(getattr(self, name)(*values, **rest), dtype)

    return method


LEGACY: Final = (
    *("beta", "binomial", "chisquare", "choice", "dirichlet", "exponential", "f"),
    *("gamma", "geometric", "gumbel", "hypergeometric", "laplace", "logistic"),
    *("lognormal", "logseries", "negative_binomial"),
    *("noncentral_chisquare", "noncentral_f", "normal", "pareto", "permutation"),
    *("poisson", "power", "randint", "random_sample", "rayleigh", "standard_cauchy"),
    *("standard_exponential", "standard_gamma", "standard_normal", "standard_t"),
    *("tomaxint", "triangular", "uniform", "vonmises", "wald", "weibull", "zipf"),
)

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
    "cupy.random.RandomState.shuffle": _shuffle,
    "cupy.random.RandomState.multivariate_normal": multivariate_normal,
    **{
        f"cupy.random.{name}.random_raw": _random_raw
        for name in ("XORWOW", "MRG32k3a", "Philox4x3210")
    },
    **{f"cupy.random.RandomState.{name}": _of_state(name) for name in LEGACY},
    **{f"cupy.random.Generator.{name}": _of_generator(name) for name in GENERATOR},
}
