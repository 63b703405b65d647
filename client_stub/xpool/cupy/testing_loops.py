"""What tests written for CuPy use: arrays to test with, and loops over cases.

A decorated test runs once for each case; a failure's notes name the case.
"""

from __future__ import annotations

import functools
import itertools
import math
import unittest
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from xpool.cupy.functions import own
from xpool.cupy.testing_compared import Test, without

FLOATS: Final = (np.float16, np.float32, np.float64)
SIGNED: Final = tuple(np.dtype(char).type for char in "bhilq")
UNSIGNED: Final = tuple(np.dtype(char).type for char in "BHILQ")
COMPLEX: Final = (np.complex64, np.complex128)


# ---- arrays


def _module(xp: Any) -> Any:
    if xp is not None:
        return xp
    import cupy  # type: ignore[import-not-found,unused-ignore]

    return cupy


@own("cupy.testing.shaped_arange")
def shaped_arange(
    shape: Any, xp: Any = None, dtype: Any = np.float32, order: str = "C"
) -> Any:
    """1, 2, 3 and so on; of bools every other one, of complex ones both parts."""
    kind, count = np.dtype(dtype), math.prod(shape)
    items = np.arange(1, count + 1)
    if kind.kind == "b":
        items = items % 2 == 0
    elif kind.kind == "c":
        items = items + items * 1j
    made = items.astype(kind).reshape(shape)
    return _module(xp).array(made, order=order)


@own("cupy.testing.shaped_reverse_arange")
def shaped_reverse_arange(shape: Any, xp: Any = None, dtype: Any = np.float32) -> Any:
    """The items of ``shaped_arange`` from the last to the first."""
    kind = np.dtype(dtype)
    items = np.arange(math.prod(shape), 0, -1)
    if kind.kind == "b":
        items = items % 2 == 0
    elif kind.kind == "c":
        items = items + items * 1j
    return _module(xp).array(items.astype(kind).reshape(shape))


@own("cupy.testing.shaped_random")
def shaped_random(
    shape: Any,
    xp: Any = None,
    dtype: Any = np.float32,
    scale: float = 10,
    seed: int = 0,
    order: str = "C",
) -> Any:
    """Uniform items from 0 to ``scale``, the same for NumPy and for the pool."""
    draws, kind = np.random.RandomState(seed), np.dtype(dtype)
    if kind.kind == "b":
        found: Any = draws.randint(2, size=shape)
    else:
        found = draws.rand(*shape)
        if kind.kind == "c":
            found = found + 1j * draws.rand(*shape)
        found = found * scale
    return _module(xp).asarray(found, dtype=kind, order=order)


@own("cupy.testing.shaped_linspace")
def shaped_linspace(
    start: float, stop: float, shape: Any, xp: Any = None, dtype: Any = np.float32
) -> Any:
    """Evenly spaced items."""
    items = np.linspace(start, stop, math.prod(shape))
    return _module(xp).asarray(items.astype(dtype).reshape(shape))


# ---- loops over cases


def _looped(name: str, values: Iterable[Any]) -> Callable[[Test], Test]:
    cases = list(values)

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            for value in cases:
                try:
                    test(*args, **{**kwargs, name: value})
                except unittest.SkipTest:
                    continue
                except Exception as error:
                    shown = getattr(value, "__name__", value)
                    error.add_note(f"{name} is {shown}")
                    raise

        return without(run, test, name)

    return decorate


@own("cupy.testing.for_dtypes")
def for_dtypes(dtypes: Iterable[Any], name: str = "dtype") -> Callable[[Test], Test]:
    """Run a test for each dtype."""
    return _looped(name, [np.dtype(one).type for one in dtypes])


@own("cupy.testing.for_all_dtypes")
def for_all_dtypes(
    name: str = "dtype",
    no_float16: bool = False,
    no_bool: bool = False,
    no_complex: bool = False,
) -> Callable[[Test], Test]:
    """Run a test for each dtype of numbers."""
    return _looped(name, _all(no_float16, no_bool, no_complex))


def _all(no_float16: bool, no_bool: bool, no_complex: bool) -> tuple[Any, ...]:
    return (
        *(FLOATS[1:] if no_float16 else FLOATS),
        *(*SIGNED, *UNSIGNED),
        *(() if no_bool else (np.bool_,)),
        *(() if no_complex else COMPLEX),
    )


@own("cupy.testing.for_float_dtypes")
def for_float_dtypes(
    name: str = "dtype", no_float16: bool = False
) -> Callable[[Test], Test]:
    """Run a test for each dtype of floating point."""
    return _looped(name, FLOATS[1:] if no_float16 else FLOATS)


@own("cupy.testing.for_int_dtypes")
def for_int_dtypes(
    name: str = "dtype", no_bool: bool = False
) -> Callable[[Test], Test]:
    """Run a test for each dtype of integers, and for bools."""
    return _looped(name, (*SIGNED, *UNSIGNED, *(() if no_bool else (np.bool_,))))


@own("cupy.testing.for_signed_dtypes")
def for_signed_dtypes(name: str = "dtype") -> Callable[[Test], Test]:
    """Run a test for each dtype of signed integers."""
    return _looped(name, SIGNED)


@own("cupy.testing.for_unsigned_dtypes")
def for_unsigned_dtypes(name: str = "dtype") -> Callable[[Test], Test]:
    """Run a test for each dtype of unsigned integers."""
    return _looped(name, UNSIGNED)


@own("cupy.testing.for_complex_dtypes")
def for_complex_dtypes(name: str = "dtype") -> Callable[[Test], Test]:
    """Run a test for each complex dtype."""
    return _looped(name, COMPLEX)


@own("cupy.testing.for_orders")
def for_orders(orders: Iterable[Any], name: str = "order") -> Callable[[Test], Test]:
    """Run a test for each order of items."""
    return _looped(name, orders)


@own("cupy.testing.for_CF_orders")
def for_cf_orders(name: str = "order") -> Callable[[Test], Test]:
    """Run a test for rows and for columns."""
    return _looped(name, "CF")


@own("cupy.testing.for_dtypes_combination")
def for_dtypes_combination(
    types: Iterable[Any], names: Sequence[str] = ("dtype",), full: Any = None
) -> Callable[[Test], Test]:
    """Run a test for all combinations of dtypes."""
    kinds = list(types)

    def decorate(test: Test) -> Test:
        for name in reversed(names):
            test = _looped(name, kinds)(test)
        return test

    return decorate


@own("cupy.testing.for_all_dtypes_combination")
def for_all_dtypes_combination(
    names: Sequence[str] = ("dtype",),
    no_float16: bool = False,
    no_bool: bool = False,
    full: Any = None,
    no_complex: bool = False,
) -> Callable[[Test], Test]:
    """Run a test for all combinations of dtypes of numbers."""
    return for_dtypes_combination(_all(no_float16, no_bool, no_complex), names, full)


# ---- classes with parameters


@own("cupy.testing.product")
def product(parameter: Any) -> list[dict[str, Any]]:
    """All combinations of values by name, or of lists of dicts."""
    if isinstance(parameter, dict):
        keys = sorted(parameter)
        values = [parameter[key] for key in keys]
        return [dict(zip(keys, one, strict=True)) for one in itertools.product(*values)]
    return product_dict(*parameter)


@own("cupy.testing.product_dict")
def product_dict(*parameters: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All combinations of dicts, each merged into one."""
    return [
        {key: value for part in one for key, value in part.items()}
        for one in itertools.product(*parameters)
    ]


@own("cupy.testing.parameterize")
def parameterize(*cases: dict[str, Any]) -> Callable[[type], type]:
    """Run each test of a class for each case, whose values are attributes."""

    def decorate(kind: type) -> type:
        for name in dir(kind):
            test = getattr(kind, name)
            if name.startswith("test") and callable(test):
                setattr(kind, name, _for_cases(test, cases))
        return kind

    return decorate


def _for_cases(test: Test, cases: Sequence[dict[str, Any]]) -> Test:
    @functools.wraps(test)
    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        for case in cases:
            for name, value in case.items():
                setattr(self, name, value)
            try:
                test(self, *args, **kwargs)
            except unittest.SkipTest:
                continue
            except Exception as error:
                error.add_note(f"with {case}")
                raise

    return without(run, test)


@own("cupy.testing.slow", "cupy.testing.multi_gpu")
def _always(test: Any = None, *args: Any) -> Any:
    return test
