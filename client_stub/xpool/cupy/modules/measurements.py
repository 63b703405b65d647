"""Functions of ``cupyx.scipy.ndimage`` that take a function, or tell more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.functions import call, own
from xpool.cupy.ndarray import ndarray


def _of_arrays(name: str) -> Any:
    """A function of ``cupyx.scipy.ndimage`` that takes arrays of the device alone."""

    def measure(
        input: Any,  # noqa: A002  CuPy's name
        labels: Any = None,
        index: Any = None,
    ) -> Any:
        if not isinstance(input, ndarray):
            raise TypeError("input must be cupy.ndarray")
        if labels is not None:
            if not isinstance(labels, ndarray):
                raise TypeError("label must be cupy.ndarray")
            if index is not None and not isinstance(index, ndarray | int):
                raise TypeError("index must be cupy.ndarray or a scalar int")
        return call(f"cupyx.scipy.ndimage.{name}", (input, labels, index), {})

    measure.__doc__ = "A number for each label that is asked for, or for all items."
    return measure


for _name in (
    *("sum", "sum_labels", "mean", "variance", "standard_deviation"),
    "center_of_mass",
):
    own(f"cupyx.scipy.ndimage.{_name}")(_of_arrays(_name))


@own("cupyx.scipy.ndimage.value_indices")
def value_indices(
    arr: Any, *, ignore_value: Any = None, adaptive_index_dtype: bool = False
) -> dict[int, Any]:
    """Where each integer of an array stands."""
    given = {"ignore_value": ignore_value, "adaptive_index_dtype": adaptive_index_dtype}
    found = call("cupyx.scipy.ndimage.value_indices", (arr,), given)
    return {int(value): at for value, at in found.items()}


@own("cupyx.scipy.ndimage.labeled_comprehension")
def labeled_comprehension(
    input: Any,  # noqa: A002  CuPy's name
    labels: Any,
    index: Any,
    func: Callable[..., Any],
    out_dtype: Any,
    default: Any,
    pass_positions: bool = False,
) -> Any:
    """What ``func``, which runs here, makes of the items under each label."""
    values = transfer.as_array(input)
    positions = call("cupy.arange", (values.size,), {}).reshape(values.shape)

    def applied(mask: Any) -> Any:
        given = (values, positions) if pass_positions else (values,)
        return func(*(one.ravel() if mask is None else one[mask] for one in given))

    if labels is None:
        if index is not None:
            raise ValueError("index without defined labels")
        return applied(None)
    try:
        values, labels, positions = call(
            "cupy.broadcast_arrays", (values, transfer.as_array(labels), positions), {}
        )
    except ValueError as error:
        raise ValueError(
            "input and labels must have the same shape (excepting dimensions with"
            " width 1)"
        ) from error
    if index is None:
        return applied(labels > 0)
    wanted = index.get() if isinstance(index, ndarray) else np.asarray(index)
    if np.any(wanted.astype(labels.dtype).astype(wanted.dtype) != wanted):
        raise ValueError(
            f"Cannot convert index values from <{wanted.dtype}> to <{labels.dtype}>"
            " (labels.dtype) without loss of precision"
        )
    found = np.full(wanted.size, default, out_dtype)
    for at, one in enumerate(wanted.ravel()):
        mask = labels == one
        if bool(mask.any()):
            value = transfer.as_array(applied(mask)).get()
            found[at] = value.astype(out_dtype).item()  # it wraps around, as a cast
    made = transfer.as_array(found.reshape(wanted.shape))
    return made[()] if not wanted.ndim else made
