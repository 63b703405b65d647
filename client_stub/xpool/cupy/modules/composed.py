"""Functions put together of others, or that call a function of the program."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from xpool.cupy.functions import call, own
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
