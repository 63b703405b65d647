"""CuPy's functions on the client: with a rule for the result they are queued.

A rule takes the call's arguments and returns the result's ``Geometry``, or a list of
them; with ``NoRule`` the call asks the server, at the price of a round trip, and raises
what CuPy would raise. ``@rule`` in the modules of ``rules`` registers one.
"""

from __future__ import annotations

import ast
import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from xpool.cupy import ndarray as arrays
from xpool.cupy import transfer
from xpool.cupy.described import UnsupportedDtype
from xpool.cupy.device import device
from xpool.cupy.geometry import Geometry, check_dtype
from xpool.cupy.host_arguments import (
    ALL_REMOTE,
    by_method,
    check_remote,
    named,
    places_of,
    taken,
)
from xpool.cupy.indexing import NoRule
from xpool.cupy.known_calls import KnownCalls
from xpool.cupy.ndarray import ndarray

Rule = Callable[..., "Geometry | Sequence[Geometry]"]
F = TypeVar("F", bound=Callable[..., Any])

RULES: Final[dict[str, Rule]] = {}
"""By the function's full name."""

RESULT_NAMES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {}
"""Functions with a rule whose results are a named tuple: its name and fields."""

linalg_errors = threading.local()
"""``is_raised``: in this thread, a matrix that can't be inverted is an error."""

VIEW_RULES: Final[set[str]] = set()
"""Functions with a rule whose results take no memory of their own."""

OWN: Final[dict[str, Callable[..., Any]]] = {}
"""Functions that are written by hand, by full name."""

LOCAL_ONLY: Final = ("cupy.cuda", "cupyx.profiler", "cupy.testing")
"""Modules whose functions are never sent: they are about this process."""


def rule(*names: str, is_view: bool = False) -> Callable[[F], F]:
    """Register a rule for functions."""

    def register(predict: F) -> F:
        RULES.update(dict.fromkeys(names, predict))
        if is_view:
            VIEW_RULES.update(names)
        return predict

    return register


def own(*names: str) -> Callable[[F], F]:
    """Register a function that is written by hand."""

    def register(function: F) -> F:
        OWN.update(dict.fromkeys(names, function))
        return function

    return register


_known: Final[dict[str, KnownCalls]] = {}


def call(full: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function by its rule, or ask."""
    made = repeated(full, args, kwargs)
    return _called(full, args, kwargs, args, kwargs) if made is None else made


def repeated(
    full: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ndarray | None:
    """Make a call once more; None if it has not been made before."""
    known = _known.get(full)
    return None if known is None else known.repeat(args, kwargs)


def _called(
    full: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    given: Sequence[Any],
    given_kwargs: Mapping[str, Any],
) -> Any:
    """A call that is the first of its kind, or asks.

    Args:
        full: the function's name.
        args: as they are sent.
        kwargs: likewise.
        given: as the program gave them.
        given_kwargs: likewise.
    """
    predict = RULES.get(full)
    where = device()
    if predict is None:
        return where.call(full, args, kwargs)
    asked = where.asked
    try:
        found = predict(*args, **kwargs)
    except UnsupportedDtype:
        raise
    except (NoRule, TypeError, ValueError, IndexError, AttributeError):
        # The server says what is wrong with it, if anything is.
        return where.call(full, args, kwargs)
    has_asked = where.asked != asked
    made = _posted(full, found, args, kwargs)
    if type(found) is Geometry and not has_asked:
        known = _known.get(full)
        if known is None:
            known = _known[full] = KnownCalls(full, is_view=full in VIEW_RULES)
        known.keep((given, given_kwargs), found, args, kwargs)
    return made


def _posted(
    full: str, found: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    is_view = full in VIEW_RULES
    if type(found) is Geometry:
        made = arrays.posted(full, found, args, kwargs, charge=0 if is_view else None)
        if is_view and args and type(args[0]) is ndarray:
            made._base = args[0] if args[0]._base is None else args[0]._base
        return made
    many = arrays.posted_many(full, found, args, kwargs, is_view)
    names = RESULT_NAMES.get(full)
    return many if names is None else transfer.named_tuple(*names)(*many)


def function_of(
    module: str, name: str, text: str | None, doc: str
) -> Callable[..., Any]:
    """The function of this name, with CuPy's signature and its first line."""
    full = f"{module}.{name}"
    own_function = OWN.get(full)
    if own_function is not None:
        found = own_function
        if "<locals>" in getattr(found, "__qualname__", ""):
            found.__qualname__ = name  # what a TypeError calls it
        if getattr(found, "__module__", "").startswith("xpool."):
            found = functools.wraps(own_function)(_alias(own_function))
    elif module.startswith(LOCAL_ONLY):
        found = _refused(full)
    else:
        found = _general(full)
    found.__name__ = found.__qualname__ = name
    found.__module__ = module
    found.__doc__ = doc or found.__doc__
    signature = signature_of(text)
    if signature is not None:
        found.__signature__ = signature  # type: ignore[attr-defined]
    return found


def _alias(function: Callable[..., Any]) -> Callable[..., Any]:
    def alias(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return alias


def _refused(full: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"xpool: {full} is not available in the pool")

    return function


def _general(full: str) -> Callable[..., Any]:
    is_linalg = full.startswith("cupy.linalg.")
    places, is_joined = places_of(full), full in ALL_REMOTE

    def function(*args: Any, **kwargs: Any) -> Any:
        is_raising = is_linalg and getattr(linalg_errors, "is_raised", False)
        if not is_raising:
            made = repeated(full, args, kwargs)
            if made is not None:
                return made
        given, keywords = args, kwargs
        for one in args:
            if isinstance(one, np.ndarray):
                found = by_method(full, args, kwargs)
                if found is not NotImplemented:
                    return found
                args = taken(places, args)
                break
        if is_joined and args:
            check_remote(args[0])
        if kwargs:
            kwargs = named(kwargs)
            dtype = kwargs.get("dtype")
            if dtype is not None:
                kwargs["dtype"] = check_dtype(dtype)
        if is_raising:
            return device().call("xpool.raising", (full, *args), kwargs)
        return _called(full, args, kwargs, given, keywords)

    return function


def signature_of(text: str | None) -> inspect.Signature | None:
    """The signature that the table has as text."""
    if text is None:
        return None
    (function,) = ast.parse(f"def f{text}: pass").body
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    missing = [None] * (len(positional) - len(given.defaults))
    parameters = [
        _parameter(
            one,
            _POSITIONAL if at < len(given.posonlyargs) else _EITHER,
            default,
        )
        for at, (one, default) in enumerate(
            zip(positional, [*missing, *given.defaults], strict=True)
        )
    ]
    if given.vararg is not None:
        parameters.append(inspect.Parameter(given.vararg.arg, _REST))
    parameters += [
        _parameter(one, _KEYWORD, default)
        for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.kwarg is not None:
        parameters.append(inspect.Parameter(given.kwarg.arg, _KEYWORDS))
    return inspect.Signature(parameters)


_POSITIONAL: Final = inspect.Parameter.POSITIONAL_ONLY
_EITHER: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD
_REST: Final = inspect.Parameter.VAR_POSITIONAL
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY
_KEYWORDS: Final = inspect.Parameter.VAR_KEYWORD


_TYPES: Final = {kind.__name__: kind for kind in (bool, int, float, complex)}


class _Shown:
    """A default that is an object of CuPy's: shown as the table has it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _parameter(one: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    if default is None:
        return inspect.Parameter(one.arg, kind)
    try:
        value = ast.literal_eval(default)
    except ValueError:
        shown = ast.unparse(default)
        value = _TYPES.get(shown, _Shown(shown))
    return inspect.Parameter(one.arg, kind, default=value)
