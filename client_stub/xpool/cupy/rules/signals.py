"""Convolutions and correlations: how long they are, and of which dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool.cupy.functions import RULES
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray

_KINDS: Final = "fdFD"
_INTEGERS: Final = "bhilBHIL"


def _lengths(
    first: tuple[int, ...], second: tuple[int, ...], mode: Any
) -> tuple[int, ...]:
    """What comes out of two arrays of these sizes.

    Raises:
        NoRule: there is no such mode, or neither holds the other.
    """
    pairs = list(zip(first, second, strict=True))
    if mode == "full":
        return tuple([m + n - 1 for m, n in pairs])
    if mode == "same":
        return first
    if mode != "valid":
        raise NoRule
    if not all(m >= n for m, n in pairs) and not all(n >= m for m, n in pairs):
        raise NoRule
    return tuple([abs(m - n) + 1 for m, n in pairs])


def _both(a: Any, b: Any, kinds: str) -> tuple[Geometry, Geometry, np.dtype[Any]]:
    if type(a) is not ndarray or type(b) is not ndarray:
        raise NoRule
    first, second = a._geo, b._geo
    if first.ndim != second.ndim or not first.ndim or not first.size * second.size:
        raise NoRule
    if first.dtype.char not in kinds or second.dtype.char not in kinds:
        raise NoRule
    return first, second, np.result_type(first.dtype, second.dtype)


def _of_vectors(usual: str) -> Callable[..., Geometry]:
    """NumPy's function of two vectors, the longer one first."""

    def predict(a: Any, v: Any, mode: Any = usual) -> Geometry:
        first, second, dtype = _both(a, v, _KINDS + _INTEGERS)
        if first.ndim != 1:
            raise NoRule
        sizes = sorted((first.shape, second.shape), reverse=True)
        return geometry(_lengths(sizes[0], sizes[1], mode), dtype)

    return predict


def _of_signals(kinds: str) -> Callable[..., Geometry]:
    """SciPy's function of two signals of the same number of dimensions."""

    def predict(
        in1: Any, in2: Any, mode: Any = "full", method: Any = "auto"
    ) -> Geometry:
        first, second, dtype = _both(in1, in2, kinds)
        if method not in ("auto", "direct", "fft"):
            raise NoRule
        return geometry(_lengths(first.shape, second.shape, mode), dtype)

    return predict


def _by_transforms(
    in1: Any, in2: Any, mode: Any = "full", axes: Any = None
) -> Geometry:
    first, second, dtype = _both(in1, in2, _KINDS)
    if axes is not None:
        raise NoRule
    return geometry(_lengths(first.shape, second.shape, mode), dtype)


def _of_images(
    in1: Any, in2: Any, mode: Any = "full", boundary: Any = "fill", fillvalue: Any = 0
) -> Geometry:
    first, second, dtype = _both(in1, in2, _KINDS)
    if first.ndim != 2 or boundary not in ("fill", "wrap", "symm"):
        raise NoRule
    if type(fillvalue) not in (int, float):
        raise NoRule
    return geometry(_lengths(first.shape, second.shape, mode), dtype)


RULES["cupy.convolve"] = _of_vectors("full")
RULES["cupy.correlate"] = _of_vectors("valid")
for _name in ("convolve", "correlate"):
    RULES[f"cupyx.scipy.signal.{_name}"] = _of_signals(_KINDS)
    RULES[f"cupyx.scipy.signal.{_name}2d"] = _of_images
for _name in ("fftconvolve", "oaconvolve"):
    RULES[f"cupyx.scipy.signal.{_name}"] = _by_transforms
