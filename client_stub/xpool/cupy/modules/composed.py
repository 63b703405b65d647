"""Functions put together of others, or that call a function of the program."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from xpool.cupy.functions import call, own
from xpool.cupy.geometry import check_dtype
from xpool.cupy.host_arguments import by_method, without_host
from xpool.cupy.ndarray import ndarray


@own("cupy.tril_indices")
def tril_indices(n: Any, k: Any = 0, m: Any = None) -> Any:
    """Indices of a lower triangle."""
    size = operator.index(n)
    return call("cupy.tril_indices", (size, k, m), {})


@own("cupy.triu_indices")
def triu_indices(n: Any, k: Any = 0, m: Any = None) -> Any:
    """Indices of an upper triangle."""
    size = operator.index(n)
    return call("cupy.triu_indices", (size, k, m), {})


@own("cupy.mask_indices")
def mask_indices(n: Any, mask_func: Any, k: Any = 0) -> Any:
    """Indices of what a function of the program keeps of a square."""
    square = call("cupy.ones", ((n, n), np.dtype(np.int8)), {})
    return mask_func(square, k).nonzero()


@own("cupy.select")
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """Items of the first choice whose condition holds."""
    if len(condlist) != len(choicelist):
        raise ValueError("list of cases must be same length as list of conditions")
    if len(condlist) == 0:
        raise ValueError("select with an empty condition list is not possible")
    if not np.isscalar(default):
        raise TypeError("default only accepts scalar values")
    for one in choicelist:
        if not isinstance(one, ndarray):
            raise TypeError("choicelist only accepts lists of cupy ndarrays")
    for one in condlist:
        if one.dtype.kind != "b":
            raise ValueError("invalid entry in condlist: should be a boolean ndarray")
    return call("cupy.select", (list(condlist), list(choicelist), default), {})


@own("cupy.pad")
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    """An array with more items around it; the mode may be the program's function."""
    if not callable(mode):
        return call("cupy.pad", (array, pad_width, mode), kwargs)
    widths = np.broadcast_to(np.asarray(pad_width), (array.ndim, 2)).tolist()
    padded = call("cupy.pad", (array, [tuple(one) for one in widths]), {})
    for axis in range(array.ndim):
        order = [at for at in range(array.ndim) if at != axis] + [axis]
        view = padded.transpose(order)
        for index in np.ndindex(view.shape[:-1]):
            vector = view[index]
            found = mode(vector, tuple(widths[axis]), axis, kwargs)
            if found is not None:
                vector[...] = found
    return padded


@own("cupy.clip")
def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    """Items within bounds; both have to be given, unlike the method's."""
    if isinstance(a, np.ndarray):
        found = by_method("cupy.clip", (a, a_min, a_max), {"out": out})
        if found is not NotImplemented:
            return found
    given = [without_host(one) for one in (a, a_min, a_max)]
    return call("cupy.clip", given, {} if out is None else {"out": out})


@own("cupy.einsum")
def einsum(*operands: Any, **kwargs: Any) -> Any:
    """Sums of products; subscripts may also be lists, or host arrays, behind each."""
    if operands and not isinstance(operands[0], str):
        last = len(operands) - 1
        operands = tuple(
            one.tolist()
            if isinstance(one, np.ndarray) and (at % 2 or at == last)
            else one
            for at, one in enumerate(operands)
        )
    if kwargs.get("dtype") is not None:
        kwargs["dtype"] = check_dtype(kwargs["dtype"])
    return call("cupy.einsum", operands, kwargs)


@own("cupy.meshgrid")
def meshgrid(*xi: Any, **kwargs: Any) -> tuple[Any, ...]:
    """Coordinates of a grid, one array for each vector."""
    return tuple(call("cupy.meshgrid", xi, kwargs)) if xi else ()


@own("cupy.repeat")
def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    """Each item so many times."""
    if isinstance(repeats, list | tuple) and np.ndim(repeats) > 1:
        raise ValueError("object too deep for desired array")
    if isinstance(repeats, ndarray) and repeats.ndim and isinstance(a, ndarray):
        length = a.size if axis is None else a.shape[axis]
        if repeats.size not in (1, length):
            raise ValueError("'a' and 'repeats' must be of the same length")
    return call("cupy.repeat", (a, repeats), {"axis": axis})


@own("cupy.lexsort")
def lexsort(keys: Any) -> Any:
    """The order by several keys, the last one first."""
    if isinstance(keys, ndarray) and keys.ndim > 2:
        raise NotImplementedError(
            "Keys with the rank of three or more is not supported in lexsort"
        )
    return call("cupy.lexsort", (keys,), {})


def _of_arrays_alone(name: str) -> Any:
    def function(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        if not isinstance(a, ndarray):
            raise TypeError(f"Unsupported type {type(a)}")
        keywords: dict[str, Any] = {"axis": axis}
        if dtype is not None:
            keywords["dtype"] = check_dtype(dtype)
        if out is not None:
            keywords["out"] = out
        return call(f"cupy.{name}", (a,), keywords)

    return function


for _name in ("cumsum", "cumprod"):
    own(f"cupy.{_name}")(_of_arrays_alone(_name))
