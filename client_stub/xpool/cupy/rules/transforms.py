"""Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool.cupy.axes import normalized_axes, normalized_axis
from xpool.cupy.functions import RULES, rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray

_NORMS: Final = (None, "backward", "ortho", "forward")
_SINGLE: Final = "efF"
"""Dtypes whose transforms are of single precision."""


def _checked(a: Any, norm: Any, *, is_real: bool = False) -> Geometry:
    """The geometry of what can be transformed.

    Raises:
        NoRule: it is another thing, or complex where items must be real.
    """
    if type(a) is not ndarray or norm not in _NORMS or not a._geo.ndim:
        raise NoRule
    if is_real and a._geo.dtype.kind == "c":
        raise NoRule
    return a._geo


def _dtype(geo: Geometry, *, is_complex: bool) -> np.dtype[Any]:
    if not is_complex and geo.dtype.char == "e":
        raise NoRule  # NumPy's result is of half precision, CuPy's is not
    is_single = geo.dtype.char in _SINGLE
    return np.dtype(("F" if is_single else "D") if is_complex else "fd"[not is_single])


def _resized(shape: tuple[int, ...], at: int, length: Any) -> tuple[int, ...]:
    if type(length) is not int or length < 1:
        raise NoRule
    return (*shape[:at], length, *shape[at + 1 :])


def _one_axis(kind: str) -> Callable[..., Geometry]:
    """A transform along one axis.

    Args:
        kind: ``c`` from complex to complex, ``r`` from real items to half of the
            complex ones, ``h`` from those to real ones.
    """

    def predict(a: Any, n: Any = None, axis: Any = -1, norm: Any = None) -> Geometry:
        geo = _checked(a, norm, is_real=kind == "r")
        at = normalized_axis(axis, geo.ndim)
        given = geo.shape[at]
        if not given:
            raise NoRule
        length = n if n is not None else 2 * (given - 1) if kind == "h" else given
        if kind == "r" and type(length) is int and length > 0:
            length = length // 2 + 1
        return geometry(
            _resized(geo.shape, at, length), _dtype(geo, is_complex=kind != "h")
        )

    return predict


def _some_axes(kind: str, usual: tuple[int, ...] | None) -> Callable[..., Geometry]:
    """A transform along some axes; of real items the last one is the halved one."""

    def predict(a: Any, s: Any = None, axes: Any = usual, norm: Any = None) -> Geometry:
        geo = _checked(a, norm, is_real=kind == "r")
        is_of_all = axes is None
        if is_of_all:
            axes = range(geo.ndim)
        over = normalized_axes(tuple(axes), geo.ndim)
        if not over or len(set(over)) != len(over) or not geo.size:
            raise NoRule
        shape, length = geo.shape, geo.shape[over[-1]]
        if s is not None:
            if is_of_all or type(s) not in (tuple, list) or len(s) != len(over):
                raise NoRule  # NumPy warns of some sizes
            for at, size in zip(over, s, strict=True):
                shape = _resized(shape, at, size)
            length = shape[over[-1]]
        if kind == "r":
            shape = _resized(shape, over[-1], length // 2 + 1)
        elif kind == "h" and s is None:
            shape = _resized(shape, over[-1], 2 * (length - 1))
        return geometry(shape, _dtype(geo, is_complex=kind != "h"))

    return predict


for _name, _kind in (
    *(("fft", "c"), ("ifft", "c"), ("rfft", "r"), ("irfft", "h")),
    *(("hfft", "h"), ("ihfft", "r")),
):
    RULES[f"cupy.fft.{_name}"] = _one_axis(_kind)
for _name, _kind in (*(("fft", "c"), ("ifft", "c"), ("rfft", "r"), ("irfft", "h")),):
    RULES[f"cupy.fft.{_name}2"] = _some_axes(_kind, (-2, -1))
    RULES[f"cupy.fft.{_name}n"] = _some_axes(_kind, None)


@rule("cupy.fft.fftfreq")
def frequencies(n: Any, d: Any = 1.0) -> Geometry:
    """All sample frequencies."""
    if type(n) is not int or n < 1 or type(d) not in (int, float) or not d:
        raise NoRule
    return geometry((n,), np.dtype(np.float64))


@rule("cupy.fft.rfftfreq")
def real_frequencies(n: Any, d: Any = 1.0) -> Geometry:
    """The frequencies that are not negative."""
    return geometry((frequencies(n, d).size // 2 + 1,), np.dtype(np.float64))


@rule("cupy.fft.fftshift", "cupy.fft.ifftshift")
def shifted(x: Any, axes: Any = None) -> Geometry:
    """The zero frequency in the middle."""
    if type(x) is not ndarray:
        raise NoRule
    if axes is not None:
        for axis in axes if isinstance(axes, tuple | list) else (axes,):
            normalized_axis(axis, x._geo.ndim)
    return x._geo
