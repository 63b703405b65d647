"""The wavelet transform with a wavelet of the program's: it runs here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.functions import call, own


@own("cupyx.scipy.signal.cwt")
def cwt(data: Any, wavelet: Callable[..., Any], widths: Sequence[float]) -> Any:
    """A row for each width: the data convolved with the wavelet of that width.

    Args:
        data: shape (n,).
        wavelet: of a number of points and a width.
        widths: as plain numbers, or an array.
    """
    warnings.warn(
        "CuPy will no longer have wavelets, as SciPy has none any more",
        np.exceptions.VisibleDeprecationWarning,
        stacklevel=2,
    )
    rows = []
    for width in np.asarray(widths.get() if hasattr(widths, "get") else widths):
        points = min(10 * int(width), len(data))
        wave = transfer.as_array(wavelet(points, int(width)))
        turned = call("cupy.conj", (wave,), {})[::-1]
        rows.append(call("cupyx.scipy.signal.convolve", (data, turned, "same"), {}))
    return call("cupy.stack", (rows,), {})
