"""Extrema by a comparison that the program names or has written: it runs here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.axes import normalized_axis
from xpool.cupy.functions import call, own


@own("cupyx.scipy.signal.argrelextrema")
def argrelextrema(
    data: Any,
    comparator: Callable[[Any, Any], Any],
    axis: int = 0,
    order: int = 1,
    mode: str = "clip",
) -> tuple[Any, ...]:
    """Where the comparison with all neighbours holds, one array of numbers an axis.

    Args:
        data: at least one axis.
        comparator: of two arrays; ``cupy.greater`` finds maxima.
        axis: along which.
        order: neighbours on each side.
        mode: past the ends, ``"clip"`` or ``"wrap"``.

    Raises:
        ValueError: the order is no positive integer.
        NotImplementedError: the mode is ``"raise"``.
    """
    if int(order) != order or order < 1:
        raise ValueError("Order must be an int >= 1")
    if mode == "raise":
        raise NotImplementedError("CuPy `take` doesn't support `mode='raise'`.")
    data = transfer.as_array(data)
    at = normalized_axis(axis, data.ndim)
    places = np.arange(data.shape[at])
    found: Any = call("cupy.ones", (data.shape, bool), {})
    for shift in (*range(1, order + 1), *range(-order, 0)):
        there = places + shift
        if mode == "clip":
            there = there.clip(0, len(places) - 1)
        others = call("cupy.take", (data, transfer.upload(there), at), {})
        found = found & comparator(data, others)
    return tuple(call("cupy.nonzero", (found,), {}))
