"""The operators of ``ndarray``: the hot path of programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool.cupy import ndarray as arrays
from xpool.cupy.geometry import geometry
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import (
    BINARY,
    BOOL,
    COMPARE,
    UNARY,
    asked_of_other,
    is_operand,
)
from xpool.cupy.plans import NUMBER_ENCODERS
from xpool.cupy.ufunc import ufunc

_COMPARISONS: Final = frozenset(COMPARE.values())
_PLAIN_NE: Final[Any] = object.__ne__


def _binary(uf: ufunc, reflected: bool) -> Callable[[ndarray, Any], Any]:
    plans = uf._plans
    encoders = NUMBER_ENCODERS
    local = getattr(np, uf.__name__)
    is_comparison = uf.__name__ in _COMPARISONS

    def operate(a: ndarray, b: Any) -> Any:
        kind = type(b)
        if kind is ndarray:
            key: Any = (a._geo, b._geo)
            ref = b._ref
        elif kind in encoders:
            key = (a._geo, kind)
            ref = encoders[kind](b)
        elif is_operand(b):
            if is_comparison and isinstance(b, np.ndarray) and not b.ndim:
                b = b.item()  # as CuPy does, which takes no others from the host
            return uf(b, a) if reflected else uf(a, b)
        else:
            return asked_of_other(local, a, b, reflected)
        if reflected:
            key = key[::-1]
        plan = plans.get(key) or uf.plan(key)
        if plan is None:
            return uf(b, a) if reflected else uf(a, b)
        bounds = plan.bounds
        if bounds is not None and not bounds[0] <= b <= bounds[1]:
            return uf(b, a) if reflected else uf(a, b)
        return plan.post(ref + a._ref if reflected else a._ref + ref)

    return operate


def _comparing(uf: ufunc) -> Callable[[ndarray, Any], Any]:
    """``==`` or ``!=``: what can't be equal to a number is equal to no item."""
    operate = _binary(uf, reflected=False)
    is_equal = uf.__name__ == "equal"

    def compare(a: ndarray, b: Any) -> Any:
        found = operate(a, b)
        if found is not NotImplemented:
            return found
        # ``!=`` is made of ``__eq__`` where a class has no other.
        names = ("__eq__",) if is_equal else ("__eq__", "__ne__")
        is_plain = all(getattr(type(b), one) is getattr(object, one) for one in names)
        if is_plain or b is None:
            geo = geometry(a.shape, BOOL)
            maker = "cupy.zeros" if is_equal else "cupy.ones"
            return arrays.posted(maker, geo, (a.shape, BOOL))
        if not is_equal and type(b).__ne__ is _PLAIN_NE:
            # Python would ask the other's __eq__ and take the answer for one bool.
            raise TypeError(f"Unsupported type {type(b)}")
        return found

    return compare


def _in_place(uf: ufunc) -> Callable[[ndarray, Any], Any]:
    def operate(a: ndarray, b: Any) -> Any:
        quick = uf._quick((a, b))
        if quick is not None and quick[0].geo is a._geo:
            quick[0].post_into(quick[1], a)
            return a
        return uf(a, b, out=a) if is_operand(b) else NotImplemented

    return operate


def _forward(uf: ufunc) -> Callable[[ndarray, Any], Any]:
    return _binary(uf, reflected=False)


def _unary(uf: ufunc) -> Callable[[ndarray], Any]:
    return lambda a: uf(a)


def add_operators(ufuncs: dict[str, ufunc]) -> None:
    """Give ``ndarray`` its operators.

    Args:
        ufuncs: those of ``cupy``, by name.
    """
    for operator, name in BINARY.items():
        uf = ufuncs[name]
        setattr(ndarray, f"__{operator}__", _binary(uf, reflected=False))
        setattr(ndarray, f"__r{operator}__", _binary(uf, reflected=True))
        if operator != "divmod":
            setattr(ndarray, f"__i{operator}__", _in_place(uf))
    for operator, name in COMPARE.items():
        make = _comparing if operator in ("eq", "ne") else _forward
        setattr(ndarray, f"__{operator}__", make(ufuncs[name]))
    for operator, name in UNARY.items():
        setattr(ndarray, f"__{operator}__", _unary(ufuncs[name]))
    ndarray.__hash__ = None  # type: ignore[assignment]
