"""Classes that a program derives from ``cupy.ndarray``.

Their operators leave the fast path: what takes part is seen as plain arrays, and the
result becomes an object of the first such class, as in CuPy. Functions other than
ufuncs return plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xpool.cupy import ndarray as arrays
from xpool.cupy.array_protocols import by_ufunc
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import BINARY, COMPARE, UNARY

SLOTS = tuple(one for one in ndarray.__slots__ if not one.startswith("__"))


class Moved(ndarray, is_ours=True):
    """What is left of an array whose number another object has taken over."""

    __slots__ = ()

    def __del__(self) -> None:
        """Nothing: the number is the other's to free."""


def reseated(array: ndarray, kind: type[ndarray], source: Any) -> ndarray:
    """The same array as an object of a derived class.

    Args:
        array: of the plain class; nobody else has it, and it is not to be used again.
        kind: the class.
        source: what ``__array_finalize__`` is told; None: nothing there was before.
    """
    found = object.__new__(kind)
    for name in SLOTS:
        setattr(found, name, getattr(array, name))
    array.__class__ = Moved
    found.__array_finalize__(source)
    return found


def is_derived(value: Any) -> bool:
    """Whether it is an array of a derived class."""
    return type(value) is not ndarray and isinstance(value, ndarray)


def plain(value: Any) -> Any:
    """A derived array as a plain one over the same memory; others as they are."""
    if not is_derived(value):
        return value
    view = arrays.posted("ndarray.view", value._geo, (value,), charge=0)
    view._base = value if value._base is None else value._base
    return view


def in_kind(found: Any, inputs: Sequence[Any]) -> Any:
    """New arrays as objects of the first derived class among the inputs."""
    source = next((one for one in inputs if is_derived(one)), None)
    if source is None:
        return found
    if isinstance(found, tuple):
        return tuple([in_kind(one, inputs) for one in found])
    if type(found) is not ndarray:
        return found
    return reseated(found, type(source), source)


def _operator(original: Callable[..., Any], is_in_place: bool) -> Callable[..., Any]:
    def operate(self: Any, *others: Any, **kwargs: Any) -> Any:
        inputs = (self, *others)
        found = original(*map(plain, inputs), **kwargs)
        if found is NotImplemented:
            return found
        return self if is_in_place else in_kind(found, inputs)

    return operate


def _finalizer(own: Callable[[Any], None]) -> Callable[[Any], None]:
    def finalize(self: Any) -> None:
        try:
            own(self)
        finally:
            ndarray.__del__(self)

    return finalize


def takes_part(value: Any) -> bool:
    """Whether it is a derived array that leaves ufuncs to CuPy."""
    own = type(value).__array_ufunc__
    return is_derived(value) and own is by_ufunc


def prepare(kind: type[ndarray]) -> None:
    """Give a derived class operators that keep it, where it has none of its own."""
    names = [*BINARY, *COMPARE, *UNARY, *(f"r{one}" for one in BINARY)]
    in_place = [f"i{one}" for one in BINARY]
    for name in (*(f"__{one}__" for one in (*names, *in_place)), "reshape"):
        original = getattr(ndarray, name, None)
        if original is not None and getattr(kind, name) is original:
            setattr(kind, name, _operator(original, name.strip("_") in in_place))
    finalize = kind.__dict__.get("__del__")
    if finalize is not None:
        # The number is freed, whatever else is done: CuPy's class has no ``__del__``.
        kind.__del__ = _finalizer(finalize)  # type: ignore[method-assign]
