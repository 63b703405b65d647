"""``cupy.random``: generators live on the server, and the module's functions use one.

As in CuPy, each device has one ``RandomState`` that the module's functions draw from;
it is made at its first use, with the seed in ``CUPY_SEED`` if there is one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy.finder import module
from xpool.cupy.functions import call, own, signature_of
from xpool.cupy.ndarray import as_size, ndarray
from xpool.cupy.remote_classes import RemoteClass, remote_class
from xpool.cupy.transfer import as_array

states: dict[int, Any] = {}
"""What the module's functions draw from, by the device's number."""


class _Seeded(RemoteClass):
    """NumPy's seeds travel by value."""

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        def plain(value: Any) -> Any:
            if isinstance(value, np.random.SeedSequence):
                return int(value.generate_state(1, np.uint64)[0])
            return value

        return (
            tuple(plain(one) for one in args),
            {name: plain(one) for name, one in kwargs.items()},
        )


class _Bits(_Seeded):
    """A bit generator: what it was seeded from may seed others, by ``spawn``."""

    def __init__(self, seed: Any = None, *_: Any, **__: Any) -> None:
        if not isinstance(seed, np.random.SeedSequence):
            host = seed.get() if isinstance(seed, ndarray) else seed
            seed = np.random.SeedSequence(host)
        self._seed_seq = seed


class _WithBits(_Seeded):
    """A ``Generator``: its bit generator may be another one from some call on."""

    def __init__(self, bit_generator: Any = None, *_: Any, **__: Any) -> None:
        self._bits = bit_generator

    @property
    def bit_generator(self) -> Any:
        """Where its bits come from."""
        return self._bits

    @bit_generator.setter
    def bit_generator(self, value: Any) -> None:
        made = type(self)(value)
        # The other object takes this one's place, and this one's number goes with it.
        self._number, made._number = made._number, self._number
        self._ref, made._ref = made._ref, self._ref
        self._bits = value


BIT_GENERATORS = tuple(
    remote_class(f"cupy.random.{_name}", _Bits)
    for _name in ("XORWOW", "MRG32k3a", "Philox4x3210", "BitGenerator")
)
Generator = remote_class("cupy.random.Generator", _WithBits)
RandomState = remote_class("cupy.random.RandomState", _Seeded)


@module("cupy.random")
def fill(m: ModuleType) -> None:
    """A name that ``dir`` of CuPy's module does not tell."""
    m.Generator = Generator  # type: ignore[attr-defined]


@own("cupy.random.default_rng")
def default_rng(seed: Any = None) -> Any:
    """A generator of this seed, or over these bits; a generator itself."""
    if isinstance(seed, Generator):
        return seed
    return Generator(
        seed if isinstance(seed, BIT_GENERATORS) else BIT_GENERATORS[0](seed)
    )


@own("cupy.random.get_random_state")
def get_random_state() -> Any:
    """The state that the module's functions draw from on the current device."""
    from xpool.cupy.cuda import Device

    number = Device().id
    found = states.get(number)
    if found is None:
        seed = os.environ.get("CUPY_SEED")
        made = RandomState(None if seed is None else int(seed))
        found = states.setdefault(number, made)
    return found


@own("cupy.random.set_random_state")
def set_random_state(rs: Any) -> None:
    """Let the module's functions draw from another state.

    Raises:
        TypeError: it is none.
    """
    from xpool.cupy.cuda import Device

    if not isinstance(rs, RandomState):
        raise TypeError(
            f"Random state must be an instance of RandomState. Actual: {type(rs)}"
        )
    states[Device().id] = rs


@own("cupy.random.reset_states")
def reset_states() -> None:
    """Forget the states: the next call makes a new one."""
    states.clear()


@own("cupy.random.seed")
def seed(seed: Any = None) -> None:
    """Begin the current device's sequence anew."""
    get_random_state().seed(seed)


@own("cupy.random.bytes")
def bytes_(length: int) -> bytes:
    """Random bytes, made on the host as in CuPy."""
    return np.random.bytes(length)


@own("cupy.random.random_integers")
def random_integers(low: Any, high: Any = None, size: Any = None) -> Any:
    """Integers from ``low`` to ``high``, both included."""
    if high is None:
        low, high = 1, low
    return get_random_state().randint(low, high + 1, size)


@own("cupy.random.multinomial")
def multinomial(n: Any, pvals: Any, size: Any = None) -> Any:
    """How often each of several outcomes came, in ``n`` trials each."""
    shape = () if size is None else as_size(size)
    count, outcomes = math.prod(shape), len(pvals)
    if not count:
        return call("cupy.zeros", ((*shape, outcomes), np.dtype("l")), {})
    drawn = get_random_state().choice(outcomes, n * count, True, as_array(pvals))
    trial = call("cupy.arange", (n * count,), {}) // max(n, 1)
    found = call(
        "cupy.bincount",
        (drawn + trial * outcomes,),
        {"minlength": count * outcomes},
    )
    return found.reshape(*shape, outcomes)


_SAME_NAME = [
    "beta",
    "binomial",
    "chisquare",
    "choice",
    "dirichlet",
    "exponential",
    "f",
    "gamma",
    "geometric",
    "gumbel",
    "hypergeometric",
    "laplace",
    "logistic",
    "lognormal",
    "logseries",
    "multivariate_normal",
    "negative_binomial",
    "noncentral_chisquare",
    "noncentral_f",
    "normal",
    "pareto",
    "permutation",
    "poisson",
    "power",
    "rand",
    "randint",
    "randn",
    "random_sample",
    "rayleigh",
    "shuffle",
    "standard_cauchy",
    "standard_exponential",
    "standard_gamma",
    "standard_normal",
    "standard_t",
    "triangular",
    "uniform",
    "vonmises",
    "wald",
    "weibull",
    "zipf",
]
_ALIASES = {"random": "random_sample", "ranf": "random_sample"}
_ALIASES["sample"] = "random_sample"


def _drawing(name: str) -> Callable[..., Any]:
    """The module's function that calls the state's method."""
    signature = signature_of(api()["cupy.random"][name][1])
    method = _ALIASES.get(name, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        assert signature is not None
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # By position, as CuPy's functions pass their arguments on.
        return getattr(get_random_state(), method)(*bound.args, **bound.kwargs)

    function.__doc__ = f"As ``RandomState.{method}``."
    return function


for _name in (*_SAME_NAME, *_ALIASES):
    own(f"cupy.random.{_name}")(_drawing(_name))


def _shuffle(self: Any, a: Any) -> None:
    if not isinstance(a, ndarray):
        raise TypeError("The array must be cupy.ndarray")
    if not a.ndim:
        raise TypeError("An array whose ndim is 0 is not supported")
    call("cupy.random.RandomState.shuffle", (self, a), {})


def _shorthand(name: str, method: str) -> Callable[..., Any]:
    def draw(self: Any, *size: Any, **kwargs: Any) -> Any:
        dtype = kwargs.pop("dtype", float)
        if kwargs:
            raise TypeError(
                f"{name}() got unexpected keyword arguments {', '.join(kwargs)}"
            )
        return getattr(self, method)(size=size, dtype=dtype)

    draw.__name__, draw.__qualname__ = name, f"RandomState.{name}"
    return draw


RandomState.shuffle = _shuffle
RandomState.rand = _shorthand("rand", "random_sample")
RandomState.randn = _shorthand("randn", "normal")
