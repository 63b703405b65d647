"""Functions that only call the method of the same name, which does not wait."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from xpool.cupy import ndarray as arrays
from xpool.cupy.functions import call, own
from xpool.cupy.host_arguments import by_method, places_of, taken, without_host
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import result_shape


def _method(name: str, positional: Callable[..., tuple[Any, ...]]) -> None:
    """Let a function be an array's method.

    Args:
        name: of both.
        positional: gives the method's arguments for the function's own.
    """
    full = f"cupy.{name}"

    def function(a: Any, *args: Any, **kwargs: Any) -> Any:
        if type(a) is ndarray:
            given = positional(*args, **kwargs)
            return getattr(a, name)(*given[0], **given[1])
        found = by_method(full, (a, *args), kwargs)
        if found is not NotImplemented:
            return found
        return call(full, (without_host(a), *args), kwargs)

    own(full)(function)


def _reshape(newshape: Any, order: Any = "C", *, copy: Any = None) -> Any:
    return (newshape,), {"order": order, "copy": copy}


def _ravel(order: Any = "C") -> Any:
    return (order,), {}


def _transpose(axes: Any = None) -> Any:
    given = tuple(axes) if isinstance(axes, np.ndarray) else axes
    return (() if given is None else (given,)), {}


def _swapaxes(axis1: Any, axis2: Any) -> Any:
    return (axis1, axis2), {}


def _copy(order: Any = "K") -> Any:
    return (order,), {}


def _squeeze(axis: Any = None) -> Any:
    return (axis,), {}


for _name, _positional in (
    ("reshape", _reshape),
    ("ravel", _ravel),
    ("transpose", _transpose),
    ("swapaxes", _swapaxes),
    ("squeeze", _squeeze),
    ("copy", _copy),
):
    _method(_name, _positional)


@own("cupy.permute_dims")
def permute_dims(a: Any, axes: Any = None) -> Any:
    """As ``transpose``."""
    if type(a) is ndarray:
        return a.transpose() if axes is None else a.transpose(axes)
    return call("cupy.permute_dims", (without_host(a),), {"axes": axes})


def _at_least(ndim: int, shape_of: Callable[[tuple[int, ...]], Any]) -> None:
    name = f"cupy.atleast_{ndim}d"
    places = places_of(name)

    def function(*arys: Any) -> Any:
        arys = taken(places, arys)
        if any(type(one) is not ndarray for one in arys) or not arys:
            made = call(name, arys, {})
            return list(made) if isinstance(made, tuple) else made
        found = [
            one if one.ndim >= ndim else one.reshape(shape_of(one.shape))
            for one in arys
        ]
        return found[0] if len(found) == 1 else found

    own(name)(function)


_at_least(1, lambda shape: (1,))
_at_least(2, lambda shape: (1, *(shape or (1,))))
_at_least(3, lambda shape: (*((1, *shape) if len(shape) == 1 else shape or (1, 1)), 1))


@own("cupy.lib.stride_tricks.sliding_window_view")
def sliding_window_view(*args: Any, writeable: bool = False, **kwargs: Any) -> Any:
    """Windows of an array, which is not copied.

    Raises:
        NotImplementedError: they are to be written: they have their items in common.
    """
    if writeable:
        raise NotImplementedError("windows that may be written are not supported")
    return call("cupy.lib.stride_tricks.sliding_window_view", args, kwargs)


@own("cupy.astype")
def astype(x: Any, dtype: Any, /, *, copy: Any = True) -> Any:
    """The items in another dtype."""
    if not isinstance(x, ndarray):
        raise TypeError(f"Input should be a CuPy array. It is a {type(x)} instead.")
    return x.astype(dtype, copy=copy)


@own("cupy.broadcast_arrays")
def broadcast_arrays(*args: Any) -> tuple[Any, ...]:
    """Views of one shape; what are no arrays stay as they are."""
    given = [one for one in args if isinstance(one, ndarray)]
    shape = result_shape([one.shape for one in given])
    return tuple([_stretched(one, shape) for one in args])


def _stretched(one: Any, shape: tuple[int, ...]) -> Any:
    if not isinstance(one, ndarray) or one.shape == shape:
        return one
    return arrays.posted_view(one, "cupy.broadcast_to", shape, (one, shape))


@own("cupy.diag")
def diag(v: Any, k: Any = 0) -> Any:
    """A matrix's diagonal, or a matrix with a vector as its diagonal."""
    if type(v) is ndarray and v.ndim == 2:
        return v.diagonal(k)
    return call("cupy.diag", taken(places_of("cupy.diag"), (v, k)), {})


def _part(name: str) -> None:
    full = f"cupy.{name}"

    def function(val: Any) -> Any:
        if isinstance(val, ndarray):
            return getattr(val, name)
        return call(full, taken(places_of(full), (val,)), {})

    own(full)(function)


_part("real")
_part("imag")


def _split(name: str) -> None:
    full = f"cupy.{name}"

    def function(ary: Any, indices_or_sections: Any, axis: Any = 0) -> Any:
        if type(ary) is ndarray and type(axis) is int and -ary.ndim <= axis < ary.ndim:
            at = axis % ary.ndim
            cuts = _cuts(ary.shape[at], indices_or_sections)
            if cuts is not None:
                around = (slice(None),) * at
                return [ary[(*around, slice(*one))] for one in pairwise(cuts)]
        given = taken(places_of(full), (ary, indices_or_sections, axis))
        return call(full, given, {})

    own(full)(function)


def _cuts(length: int, given: Any) -> list[Any] | None:
    """Where an axis is cut, its ends included; None if the server has to say."""
    if type(given) is int:
        if given < 1 or length % given:
            return None
        return list(range(0, length + 1, length // given)) if length else None
    if type(given) not in (list, tuple) or any(type(one) is not int for one in given):
        return None
    if [0, *given] != sorted([0, *given]):
        return None
    return [None, *given, None]


_split("split")
_split("array_split")
