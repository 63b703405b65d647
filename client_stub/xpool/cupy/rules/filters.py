"""Filters of signals: as long as the signal."""

from __future__ import annotations

from typing import Any

from xpool.cupy.axes import normalized_axis
from xpool.cupy.functions import rule
from xpool.cupy.geometry import Geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray


def _signal(x: Any, kinds: str) -> Geometry:
    if type(x) is not ndarray:
        raise NoRule
    geo = x._geo
    if not geo.ndim or not geo.size or geo.dtype.char not in kinds:
        raise NoRule
    return geo


@rule("cupyx.scipy.signal.lfilter")
def lfilter(b: Any, a: Any, x: Any, axis: Any = -1, zi: Any = None) -> Geometry:
    """Filtered along an axis; with a state it is two results."""
    geo = _signal(x, "fdFD")
    for one in (b, a):
        if _signal(one, "fdFD").ndim != 1 or one._geo.dtype != geo.dtype:
            raise NoRule
    if zi is not None:
        raise NoRule
    normalized_axis(axis, geo.ndim)
    return geo


def _check_window(geo: Geometry, kernel_size: Any) -> None:
    """Odd lengths that the signal has; of longer ones the server warns."""
    if kernel_size is None:
        kernel_size = 3
    sizes = kernel_size if type(kernel_size) is tuple else (kernel_size,) * geo.ndim
    if len(sizes) != geo.ndim:
        raise NoRule
    for size, length in zip(sizes, geo.shape, strict=True):
        if type(size) is not int or size % 2 != 1 or not 0 < size <= length:
            raise NoRule


@rule("cupyx.scipy.signal.medfilt")
def medfilt(volume: Any, kernel_size: Any = None) -> Geometry:
    """The median of a window around each item."""
    geo = _signal(volume, "bhilBHILfd")
    _check_window(geo, kernel_size)
    return geo


@rule("cupyx.scipy.signal.medfilt2d")
def medfilt2d(input: Any, kernel_size: Any = 3) -> Geometry:  # noqa: A002  CuPy's name
    """The same, of an image."""
    geo = _signal(input, "Bfd")
    if geo.ndim != 2 or kernel_size is None:
        raise NoRule
    _check_window(geo, kernel_size)
    return geo


@rule("cupyx.scipy.signal.savgol_filter")
def savgol_filter(
    x: Any,
    window_length: Any,
    polyorder: Any,
    deriv: Any = 0,
    delta: Any = 1.0,
    axis: Any = -1,
    mode: Any = "interp",
    cval: Any = 0.0,
) -> Geometry:
    """Polynomials fitted to a window around each item."""
    geo = _signal(x, "fd")
    if any(type(one) is not int for one in (window_length, polyorder, deriv)):
        raise NoRule
    if not 0 <= polyorder < window_length or deriv < 0:
        raise NoRule
    if any(type(one) not in (int, float) for one in (delta, cval)) or not delta:
        raise NoRule
    if mode not in ("interp", "mirror", "constant", "nearest", "wrap"):
        raise NoRule
    length = geo.shape[normalized_axis(axis, geo.ndim)]
    if mode == "interp" and window_length > length:
        raise NoRule
    return geo
