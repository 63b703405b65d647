"""Fourier transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpool.cupy.functions import rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray, normalized_axis


@rule("cupy.fft.fft", "cupy.fft.ifft")
def fft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None) -> Geometry:
    """One axis, complex to complex."""
    if type(a) is not ndarray or norm not in (None, "backward", "ortho", "forward"):
        raise NoRule
    at = normalized_axis(axis, a._geo.ndim)
    length = a._geo.shape[at] if n is None else n
    if type(length) is not int or length < 1:
        raise NoRule
    dtype = np.dtype("F" if a._geo.dtype.char in "efF" else "D")
    shape = a._geo.shape
    return geometry((*shape[:at], length, *shape[at + 1 :]), dtype)


@rule("cupy.fft.fftshift", "cupy.fft.ifftshift")
def shifted(x: Any, axes: Any = None) -> Geometry:
    """The zero frequency in the middle."""
    if type(x) is not ndarray:
        raise NoRule
    if axes is not None:
        for axis in axes if isinstance(axes, tuple | list) else (axes,):
            normalized_axis(axis, x._geo.ndim)
    return x._geo
