"""``cupyx.signal``: shapes and dtypes of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from xpool.cupy.axes import normalized_axis
from xpool.cupy.functions import rule
from xpool.cupy.geometry import Geometry, geometry
from xpool.cupy.indexing import NoRule
from xpool.cupy.ndarray import ndarray
from xpool.cupy.rules.solvers import REAL

_COMPLEX: Final = {one: np.dtype(one.upper()) for one in "fdFD"}


def _floats(x: Any, ndim: int | None = None) -> Geometry:
    """The geometry of an array of floats or complex numbers that is not empty."""
    if type(x) is not ndarray:
        raise NoRule
    geo = x._geo
    if geo.dtype.char not in "fdFD" or not geo.size or not geo.ndim:
        raise NoRule
    if ndim is not None and geo.ndim != ndim:
        raise NoRule
    return geo


def _length(n: Any, usual: int) -> int:
    if n is None:
        return usual
    if type(n) is not int or n < 1:
        raise NoRule
    return n


def _spectrum(x: Any, n: Any, axis: Any = -1) -> tuple[int, ...]:
    geo = _floats(x)
    at = normalized_axis(axis, geo.ndim)
    return (*geo.shape[:at], _length(n, geo.shape[at]), *geo.shape[at + 1 :])


def _real(x: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = x._geo.dtype
    return REAL.get(dtype.char, dtype)


@rule("cupyx.signal.real_cepstrum")
def real_cepstrum(x: Any, n: Any = None, axis: Any = -1) -> Geometry:
    """As long as the transform."""
    return geometry(_spectrum(x, n, axis), _real(x))


@rule("cupyx.signal.complex_cepstrum")
def complex_cepstrum(x: Any, n: Any = None, axis: Any = -1) -> Sequence[Geometry]:
    """The cepstrum, and its delays."""
    return [real_cepstrum(x, n, axis)] * 2


@rule("cupyx.signal.inverse_complex_cepstrum")
def inverse_complex_cepstrum(ceps: Any, ndelay: Any) -> Geometry:
    """As long as the cepstrum."""
    if type(ndelay) is not int or not -(1 << 31) <= ndelay < 1 << 31:
        raise NoRule
    return real_cepstrum(ceps)


@rule("cupyx.signal.minimum_phase")
def minimum_phase(x: Any, n: Any = None) -> Geometry:
    """As long as the transform."""
    _floats(x, 1)
    return real_cepstrum(x, n)


def _convolved(in1: Any, in2: Any, order: int, mode: Any, method: Any) -> Geometry:
    first, second = _floats(in1, 1), _floats(in2, order)
    if first.dtype != second.dtype or (mode, method) != ("valid", "direct"):
        raise NoRule
    count = first.shape[0] - max(second.shape) + 1
    if count < 1:
        raise NoRule
    return geometry((count,), first.dtype)


@rule("cupyx.signal.convolve1d2o")
def convolve1d2o(
    in1: Any, in2: Any, mode: Any = "valid", method: Any = "direct"
) -> Geometry:
    """Where the filter lies within the signal."""
    return _convolved(in1, in2, 2, mode, method)


@rule("cupyx.signal.convolve1d3o")
def convolve1d3o(
    in1: Any, in2: Any, mode: Any = "valid", method: Any = "direct"
) -> Geometry:
    """Likewise."""
    return _convolved(in1, in2, 3, mode, method)


@rule("cupyx.signal.freq_shift")
def freq_shift(x: Any, freq: Any, fs: Any) -> Geometry:
    """As many complex items."""
    geo = _floats(x)
    if geo.dtype.char != "d":
        raise NoRule
    if any(type(one) not in (int, float) for one in (freq, fs)) or not fs:
        raise NoRule
    return geometry(geo.shape, np.dtype("D"))


@rule("cupyx.signal.channelize_poly")
def channelize_poly(x: Any, h: Any, n_chans: Any) -> Geometry:
    """A row for each channel."""
    first, second = _floats(x, 1), _floats(h, 1)
    if type(n_chans) is not int or not 0 < n_chans <= first.size:
        raise NoRule
    if not 0 < second.size // n_chans <= 32:
        raise NoRule
    dtype = np.result_type(first.dtype, second.dtype)
    return geometry((n_chans, first.size // n_chans), _COMPLEX[dtype.char])


def _check_window(window: Any, dtype: np.dtype[Any], length: int) -> None:
    if window is None:
        return
    geo = _floats(window, 1)
    if geo.dtype != dtype or geo.size != length:
        raise NoRule


@rule("cupyx.signal.pulse_compression")
def pulse_compression(
    x: Any,
    template: Any,
    normalize: Any = False,
    window: Any = None,
    nfft: Any = None,
) -> Geometry:
    """A row for each pulse."""
    first, second = _floats(x, 2), _floats(template, 1)
    _check_window(window, second.dtype, second.size)
    dtype = np.result_type(first.dtype, second.dtype)
    return geometry((first.shape[0], _length(nfft, first.shape[1])), dtype)


@rule("cupyx.signal.pulse_doppler")
def pulse_doppler(x: Any, window: Any = None, nfft: Any = None) -> Geometry:
    """A column for each sample."""
    geo = _floats(x, 2)
    _check_window(window, geo.dtype, geo.shape[0])
    shape = _length(nfft, geo.shape[0]), geo.shape[1]
    return geometry(shape, _COMPLEX[geo.dtype.char])


@rule("cupyx.signal.ca_cfar")
def ca_cfar(
    array: Any, guard_cells: Any, reference_cells: Any, pfa: Any = 1e-3
) -> Sequence[Geometry]:
    """Thresholds, and what is above them."""
    geo = _floats(array)
    if geo.ndim > 2 or geo.dtype.kind == "c":
        raise NoRule
    cells = guard_cells, reference_cells
    guards, around = cells if geo.ndim == 2 else [(one,) for one in cells]
    for guard, more, size in zip(guards, around, geo.shape, strict=True):
        if type(guard) is not int or type(more) is not int or guard < 0 or more < 1:
            raise NoRule
        if 2 * (guard + more) >= size:
            raise NoRule
    if type(pfa) is not float or not 0 < pfa < 1:
        raise NoRule
    thresholds = geometry(geo.shape, np.dtype(np.float32))
    return [thresholds, geometry(geo.shape, np.dtype(bool))]


@rule("cupyx.signal.firfilter_zi")
def firfilter_zi(b: Any) -> Geometry:
    """One item less."""
    geo = _floats(b, 1)
    if geo.size < 2:
        raise NoRule
    return geometry((geo.size - 1,), geo.dtype)


@rule("cupyx.signal.mvdr")
def mvdr(x: Any, sv: Any, calc_cov: Any = True) -> Geometry:
    """A weight for each sensor."""
    first, second = _floats(x, 2), _floats(sv, 1)
    if first.dtype != second.dtype or type(calc_cov) is not bool:
        raise NoRule
    sensors, samples = first.shape
    if sensors != second.size or not 1 < sensors <= samples:
        raise NoRule
    if not calc_cov and sensors != samples:
        raise NoRule
    return second
