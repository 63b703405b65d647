"""Tests that run with NumPy and with the pool: ``cupy.testing``'s comparisons.

What differs between the two is an ``AssertionError``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpool.cupy.answers import RemoteObject
from xpool.cupy.functions import own
from xpool.cupy.ndarray import ndarray

Test = Callable[..., Any]


def host(value: Any) -> Any:
    """A value with all its arrays on this host."""
    if isinstance(value, list | tuple):
        return type(value)(host(one) for one in value)
    if isinstance(value, ndarray):
        return value.get()
    if isinstance(value, RemoteObject) and hasattr(value, "toarray"):
        return value.toarray().get()
    return value.toarray() if hasattr(value, "toarray") else value


def without(run: Test, test: Test, *names: str) -> Test:
    """A test that is not asked for parameters which its decorators pass.

    pytest would look for a fixture of each.
    """
    given = inspect.signature(test)
    kept = [one for name, one in given.parameters.items() if name not in names]
    vars(run).pop("__wrapped__", None)
    run.__signature__ = given.replace(parameters=kept)  # type: ignore[attr-defined]
    return run


def _compared(
    check: Callable[[Any, Any], None], name: str, type_check: Any, accepted: Any = False
) -> Callable[[Test], Test]:
    """Run a test with NumPy and with the pool, and compare what it returns.

    Args:
        check: takes the pool's result and NumPy's, both on this host.
        name: the test's parameter that is the module.
        type_check: whether dtypes must be the same.
        accepted: errors that both may raise.
    """
    allowed: Any = Exception if accepted is True else accepted or ()

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            import cupy

            found = _outcome(test, args, {**kwargs, name: cupy}, allowed)
            expected = _outcome(test, args, {**kwargs, name: np}, allowed)
            if isinstance(found, Exception) or isinstance(expected, Exception):
                if type(found) is not type(expected):
                    raise AssertionError(f"{found!r} in the pool, {expected!r} here")
                return
            for one, other in zip(_parts(found), _parts(expected), strict=True):
                _check_kind(one, other, type_check)
                check(host(one), host(other))

        return without(run, test, name)

    return decorate


def _outcome(test: Test, args: Any, kwargs: Any, allowed: Any) -> Any:
    try:
        return test(*args, **kwargs)
    except allowed as error:
        return error


def _parts(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _check_kind(found: Any, expected: Any, type_check: Any) -> None:
    if isinstance(found, np.ndarray):
        raise AssertionError("the pool's result lies on this host")
    kinds = [getattr(one, "dtype", None) for one in (found, expected)]
    if not type_check or any(one is None for one in kinds):
        return  # a dtype equals None if it is float64
    if kinds[0] != kinds[1]:
        raise AssertionError(f"ndarrays of different dtypes: {kinds[0]}, {kinds[1]}")


def _assertion(name: str) -> Callable[..., None]:
    found: Callable[..., None] = getattr(np.testing, name)
    return found


def _tolerance(given: Any, dtype: Any) -> Any:
    if not isinstance(given, dict):
        return given
    for kind, value in given.items():
        if kind != "default" and np.dtype(kind) == dtype:
            return value
    return given["default"]


@own("cupy.testing.numpy_cupy_allclose")
def numpy_cupy_allclose(
    rtol: Any = 1e-7,
    atol: Any = 0,
    err_msg: str = "",
    verbose: bool = True,
    name: str = "xp",
    type_check: bool = True,
    accept_error: Any = False,
    sp_name: Any = None,
    scipy_name: Any = None,
    contiguous_check: bool = True,
    *,
    _check_sparse_format: bool = True,
) -> Callable[[Test], Test]:
    """What the test returns must be close; tolerances may go by dtype."""
    _check_names(sp_name, scipy_name)

    def check(found: Any, expected: Any) -> None:
        kind = np.asarray(found).dtype
        np.testing.assert_allclose(
            *(found, expected, _tolerance(rtol, kind), _tolerance(atol, kind)),
            err_msg=err_msg,
            verbose=verbose,
        )

    return _compared(check, name, type_check, accept_error)


def _check_names(*given: Any) -> None:
    if any(given):
        raise NotImplementedError(
            "xpool: decorators of cupy.testing pass the module of arrays alone"
        )


@own("cupy.testing.numpy_cupy_array_equal")
def numpy_cupy_array_equal(
    err_msg: str = "",
    verbose: bool = True,
    name: str = "xp",
    type_check: bool = True,
    accept_error: Any = False,
    sp_name: Any = None,
    scipy_name: Any = None,
    strides_check: bool = False,
) -> Callable[[Test], Test]:
    """What the test returns must be the same."""
    _check_names(sp_name, scipy_name)
    check = functools.partial(_assertion("assert_array_equal"), err_msg=err_msg)
    return _compared(check, name, type_check, accept_error)


@own("cupy.testing.numpy_cupy_array_almost_equal")
def numpy_cupy_array_almost_equal(
    decimal: int = 6,
    err_msg: str = "",
    verbose: bool = True,
    name: str = "xp",
    type_check: bool = True,
    accept_error: Any = False,
    sp_name: Any = None,
    scipy_name: Any = None,
) -> Callable[[Test], Test]:
    """What the test returns must agree to some decimals."""
    _check_names(sp_name, scipy_name)
    check = functools.partial(_assertion("assert_array_almost_equal"), decimal=decimal)
    return _compared(check, name, type_check, accept_error)


@own("cupy.testing.numpy_cupy_equal")
def numpy_cupy_equal(
    name: str = "xp", sp_name: Any = None, scipy_name: Any = None
) -> Callable[[Test], Test]:
    """What the test returns, no array, must be equal."""
    _check_names(sp_name, scipy_name)

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            import cupy

            found = test(*args, **{**kwargs, name: cupy})
            expected = test(*args, **{**kwargs, name: np})
            if found != expected:
                raise AssertionError(f"{found!r} in the pool, {expected!r} here")

        return without(run, test, name)

    return decorate
