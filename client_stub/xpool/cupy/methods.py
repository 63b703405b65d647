"""The methods of ``ndarray`` that functions of the same name do, or that only ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from xpool_protocol.arrays.api import api

from xpool.cupy import functions, writing
from xpool.cupy.array_items import index_of
from xpool.cupy.device import device
from xpool.cupy.functions import RULES, signature_of
from xpool.cupy.ndarray import ndarray
from xpool.cupy.operands import asked_of_other, check_operands

IN_PLACE = frozenset({"sort", "partition", "put", "fill", "scatter_add"})


def _by_function(name: str) -> Callable[..., Any]:
    full = f"cupy.{name}"

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        return functions.call(full, (self, *args), kwargs)

    return method


def _asking(name: str) -> Callable[..., Any]:
    full = f"ndarray.{name}"
    takes_index = name.startswith("scatter_")

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if takes_index and args:
            args = (index_of(args[0]), *args[1:])
            if len(args) == 2 and not kwargs and writing.post_at(full, self, *args):
                return None
        return device().call(full, (self, *args), kwargs)

    return method


def _sort(self: ndarray, axis: int = -1, *, kind: Any = None) -> None:
    _check_sortable(self, "Sorting", kind)
    if not writing.post_sort(self, axis):
        device().call("ndarray.sort", (self, axis), {})


def _put(self: ndarray, indices: Any, values: Any, mode: Any = "wrap") -> None:
    if not writing.post_put("ndarray.put", self, indices, values, mode):
        device().call("ndarray.put", (self, indices, values, mode), {})


def _partition(self: ndarray, kth: Any, axis: int = -1) -> None:
    _check_sortable(self, "Partitioning", None)
    if isinstance(kth, tuple):
        kth = list(kth)
    device().call("ndarray.partition", (self, kth, axis), {})


def _check_sortable(array: ndarray, what: str, kind: Any) -> None:
    if kind not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")
    if array.ndim == 0:
        raise np.exceptions.AxisError(
            f"{what} arrays with the rank of zero is not supported"
        )
    has_own_memory = array._base is None and array._charge > 0
    if array.ndim == 1 and has_own_memory:
        return  # whatever its layout is, which is not asked for
    if not array.flags.c_contiguous:
        raise NotImplementedError(f"{what} non-contiguous array is not supported.")


def _clip(
    self: ndarray,
    min: Any = None,  # noqa: A002
    max: Any = None,  # noqa: A002
    out: Any = None,
) -> Any:
    keywords = {} if out is None else {"out": out}
    return functions.call("cupy.clip", (self, min, max), keywords)


def _conjugate(self: ndarray) -> Any:
    """The items conjugated; the array itself if none is complex."""
    import cupy  # type: ignore[import-not-found,unused-ignore]

    return cupy.conjugate(self) if self.dtype.kind == "c" else self


def _matmul(a: ndarray, b: Any, reflected: bool = False) -> Any:
    check_operands((b,))
    if not isinstance(b, ndarray):
        found = asked_of_other(np.matmul, a, b, reflected)
        # A sparse matrix, say, which knows what to do with an array before it.
        priority = getattr(b, "__array_priority__", 0)
        if found is not NotImplemented or priority > ndarray.__array_priority__:
            return found
    return functions.call("cupy.matmul", (b, a) if reflected else (a, b), {})


def _matmul_in_place(a: Any, b: Any) -> Any:
    return functions.call("cupy.matmul", (a, b), {"out": a})


def complete() -> None:
    """Give ``ndarray`` every public method that CuPy's has."""
    for name, operator in (
        ("__matmul__", _matmul),
        ("__rmatmul__", lambda a, b: _matmul(a, b, reflected=True)),
        ("__imatmul__", _matmul_in_place),
        ("clip", _clip),
        ("conj", _conjugate),
        ("conjugate", _conjugate),
        ("sort", _sort),
        ("put", _put),
        ("partition", _partition),
    ):
        setattr(ndarray, name, operator)
    members = api()["cupy"]["ndarray"][3]
    for name, what in members.items():
        if name in ndarray.__dict__ or what is None:
            continue
        has_rule = f"cupy.{name}" in RULES and name not in IN_PLACE
        method = _by_function(name) if has_rule else _asking(name)
        method.__name__, method.__qualname__ = name, f"ndarray.{name}"
        method.__doc__ = what[1]
        signature = signature_of(what[0])
        if signature is not None:
            method.__signature__ = signature  # type: ignore[attr-defined]
        setattr(ndarray, name, method)
