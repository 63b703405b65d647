"""``cupyx.signal`` in terms of NumPy: radar, polyphase filters, cepstra.

CuPy computes these by kernels of its own. Where one of them counts items in the order
of memory, whatever the axis, the same is done here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from xpool_server.arrays import numpy_linalg, scipy_filters

MAX_TAPS: Final = 32
"""Of each channel: what a block of CuPy's kernel has room for."""

_MAX_PRODUCTS: Final = 1 << 22
"""Items of an intermediate result of ``convolve1d3o`` at a time."""


def convolve1d2o(
    in1: Any, in2: Any, mode: str = "valid", method: str = "direct"
) -> Any:
    """Sums of ``in1[i - x] * in1[i - y] * in2[x, y]``.

    Args:
        in1: the signal, shape (n,).
        in2: the filter, shape (w, h), of the same dtype.
        mode: only "valid".
        method: only "direct".

    Returns:
        Shape (n - max(w, h) + 1,).
    """
    first, second = _reversed_windows(in1, in2, mode, method)
    return np.einsum("iy,iy->i", first @ in2, second)


def convolve1d3o(
    in1: Any, in2: Any, mode: str = "valid", method: str = "direct"
) -> Any:
    """The same of three factors, with a filter of shape (w, h, d)."""
    first, second, third = _reversed_windows(in1, in2, mode, method)
    width, flat = in2.shape[0], in2.reshape(in2.shape[0], -1)
    out = np.empty(len(first), in1.dtype)
    step = max(_MAX_PRODUCTS * max(width, 1) // max(in2.size, 1), 1)
    for at in range(0, len(first), step):
        part = slice(at, at + step)
        found = (first[part] @ flat).reshape(-1, *in2.shape[1:])
        out[part] = np.einsum("iyz,iy,iz->i", found, second[part], third[part])
    return out


def _reversed_windows(in1: Any, in2: Any, mode: str, method: str) -> list[Any]:
    """For each axis of the filter, what stands before each result, latest first.

    Raises:
        ValueError: other numbers of dimensions.
        NotImplementedError: another mode or method.
        TypeError: the dtypes differ.
    """
    if mode in ("same", "full"):
        raise NotImplementedError(f"Mode == {mode} not implemented")
    if method != "direct":
        raise NotImplementedError("Only Direct method implemented")
    if in1.dtype != in2.dtype:
        raise TypeError(f"Type is mismatched. in2 {in2.dtype} {in1.dtype} T")
    count = in1.shape[0] - max(in2.shape) + 1
    if count < 0 or not in2.size:
        raise ValueError("in1 is shorter than the filter")
    view = np.lib.stride_tricks.sliding_window_view
    return [view(in1, size)[:count, ::-1] for size in in2.shape]


def _of_dimensions(function: Callable[..., Any], second: int) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(in1: Any, in2: Any, *args: Any, **kwargs: Any) -> Any:
        if in1.ndim != 1:
            raise ValueError("in1 should have one dimension")
        if in2.ndim != second:
            raise ValueError(f"in2 should have {second} dimensions")
        return function(in1, in2, *args, **kwargs)

    return checked


def firfilter(b: Any, x: Any, axis: int = -1, zi: Any = None) -> Any:
    """Filter along an axis without feedback; with ``zi`` also the state after it."""
    b, x = np.atleast_1d(b), np.asarray(x)
    return scipy_filters.lfilter(b, np.ones(1), x, axis, zi)


def firfilter_zi(b: Any) -> Any:
    """What a filter's delays hold after a long step; shape (len(b) - 1,)."""
    if b.ndim != 1 or len(b) < 2:
        raise ValueError("b must have one dimension, and two coefficients or more")
    kind = np.result_type(b, np.float32)
    return np.cumsum(b[:0:-1], dtype=kind)[::-1].copy()


_EXTENSIONS: Final[dict[str, dict[str, Any]]] = {
    "even": {"mode": "reflect"},
    "odd": {"mode": "reflect", "reflect_type": "odd"},
    "constant": {"mode": "edge"},
}


def firfilter2(
    b: Any,
    x: Any,
    axis: int = -1,
    padtype: str | None = "odd",
    padlen: int | None = None,
    method: str = "pad",
    irlen: int | None = None,
) -> Any:
    """Filter forwards and backwards, so that no phase is shifted."""
    b, x = np.atleast_1d(b), np.asarray(x)
    if method not in ("pad", "gust"):
        raise ValueError("method must be 'pad' or 'gust'.")
    if method == "gust":
        raise NotImplementedError("gust method not supported yet")
    if padtype is not None and padtype not in _EXTENSIONS:
        raise ValueError(
            f"Unknown value '{padtype}' given to padtype. padtype must be 'even',"
            " 'odd', 'constant', or None."
        )
    edge = 0 if padtype is None else 3 * len(b) if padlen is None else padlen
    lines = np.moveaxis(x, axis, -1)
    if lines.shape[-1] <= edge:
        raise ValueError(
            "The length of the input vector x must be greater than padlen, which is"
            f" {edge}."
        )
    if padtype is not None and edge:
        widths = [(0, 0)] * (x.ndim - 1) + [(edge, edge)]
        lines = np.pad(lines, widths, **_EXTENSIONS[padtype])
    state = firfilter_zi(b)
    for _ in range(2):  # forwards, then backwards
        lines, _after = firfilter(b, lines, zi=state * lines[..., :1])
        lines = lines[..., ::-1]
    return np.moveaxis(lines[..., edge : lines.shape[-1] - edge], -1, axis).copy()


def freq_shift(x: Any, freq: float, fs: float) -> Any:
    """The signal times a wave of ``freq`` Hz, sampled with ``fs`` Hz."""
    x = np.asarray(x)
    if x.dtype != np.float64 and x.ndim:
        raise TypeError(f"Type is mismatched. x {x.dtype} float64")
    turn = -2 * math.pi * freq / fs
    return x * np.exp(1j * turn * np.arange(x.size)).reshape(x.shape)


def channelize_poly(x: Any, h: Any, n_chans: int) -> Any:
    """Signals of ``n_chans`` channels, shape (n_chans, len(x) // n_chans).

    Args:
        x: the signal, shape (n,).
        h: the filter, cut into rows of ``n_chans`` taps.
        n_chans: how many channels.

    Raises:
        NotImplementedError: more than 32 taps for a channel, or no floats.
    """
    kind = np.promote_types(x.dtype, h.dtype)
    taps, points = len(h) // n_chans, len(x) // n_chans
    if taps > MAX_TAPS:
        raise NotImplementedError(
            f"The number of calculated taps ({taps}) in each filter is currently"
            f" capped at {MAX_TAPS}. Please reduce filter length or number of channels"
        )
    if kind.char not in "fdFD":
        raise NotImplementedError(f"Data type ({kind}) not allowed.")
    wide = np.dtype("F" if kind.char in "fF" else "D")
    rows = x[: points * n_chans].astype(kind).reshape(points, n_chans)[:, ::-1]
    weights = h[: taps * n_chans].astype(kind).reshape(taps, n_chans)
    sums = np.zeros((points, n_chans), wide)
    for tap in range(min(taps, points)):
        sums[tap:] += weights[tap] * rows[: points - tap]
    return np.conj(np.fft.fft(np.conj(sums))).T


def real_cepstrum(x: Any, n: int | None = None, axis: int = -1) -> Any:
    """The inverse transform of a spectrum's log magnitude."""
    spectrum = np.fft.fft(np.asarray(x), n=n, axis=axis)
    return np.fft.ifft(np.log(np.abs(spectrum)), n=n, axis=axis).real.copy()


def _centre(size: int) -> int:
    return (size + 1) // 2


def complex_cepstrum(x: Any, n: int | None = None, axis: int = -1) -> tuple[Any, Any]:
    """The inverse transform of a spectrum's logarithm, and the delay taken off it.

    Returns:
        The cepstrum, and the samples of delay, which stand at each of its places.
    """
    spectrum = np.fft.fft(np.asarray(x), n=n, axis=axis)
    unwrapped = np.unwrap(np.angle(spectrum))
    centre = _centre(spectrum.size)
    middle = unwrapped.flat[min(centre, spectrum.size - 1)] / math.pi
    delay = np.copysign(np.floor(np.abs(middle) + 0.5), middle)
    ramp = np.arange(spectrum.size).reshape(spectrum.shape) * (math.pi * delay / centre)
    logs = np.log(np.abs(spectrum)) + 1j * (unwrapped - ramp)
    found = np.fft.ifft(logs.astype(spectrum.dtype), n=n, axis=axis).real.copy()
    return found, np.full(spectrum.shape, delay, unwrapped.dtype)


def inverse_complex_cepstrum(ceps: Any, ndelay: Any) -> Any:
    """The sequence that has this cepstrum and this delay.

    Raises:
        TypeError: the delays are an array of other items than int32.
    """
    if isinstance(ndelay, np.ndarray) and ndelay.dtype != np.int32:
        raise TypeError(f"Type is mismatched. ndelay {ndelay.dtype} int32")
    logs = np.fft.fft(np.asarray(ceps))
    places = np.arange(logs.size).reshape(logs.shape)
    turned = math.pi * np.asarray(ndelay) * places / (0.5 * (logs.size + 1))
    spectrum = np.exp(logs.real + 1j * (logs.imag + turned)).astype(logs.dtype)
    return np.fft.ifft(spectrum).real.copy()


def minimum_phase(x: Any, n: int | None = None) -> Any:
    """A sequence of the same magnitudes, and the least delay."""
    ceps = real_cepstrum(x, n=len(x) if n is None else n)
    flat = ceps.reshape(-1)
    odd = flat.size & 1
    end = (flat.size + odd) // 2
    flat[1:end] *= 2
    flat[end : end + 1] *= 1 - odd
    flat[end + 1 :] = 0
    return np.fft.ifft(np.exp(np.fft.fft(ceps))).real.copy()


def _prepared(x: Any, normalize: bool, window: Any) -> Any:
    if window is not None:
        length = x.shape[-1]
        if isinstance(window, np.ndarray):
            if window.shape != (length,):
                raise ValueError("window must have the same length as data")
        else:
            from scipy.signal import get_window

            window = get_window(window, length, False).astype(x.dtype)
        x = x * window
    return x / np.linalg.norm(x) if normalize else x


def pulse_compression(
    x: Any,
    template: Any,
    normalize: bool = False,
    window: Any = None,
    nfft: int | None = None,
) -> Any:
    """Each pulse correlated with the one that was sent.

    Args:
        x: what came back, shape (pulses, samples).
        template: what was sent, shape (m,).
        normalize: whether to give it length 1.
        window: what to multiply it with: a name, or shape (m,).
        nfft: length of the transforms; the samples of a pulse if None.

    Returns:
        Shape (pulses, nfft), real if both are.
    """
    _, samples = x.shape
    count = samples if nfft is None else nfft
    sent = np.fft.fft(_prepared(template, normalize, window), count)
    found = np.fft.ifft(np.fft.fft(x, count) * sent.conj(), count)
    is_complex = "c" in (x.dtype.kind, template.dtype.kind)
    return found if is_complex else found.real.copy()


def pulse_doppler(x: Any, window: Any = None, nfft: int | None = None) -> Any:
    """Transforms across the pulses of each sample, shape (nfft, samples)."""
    pulses, _ = x.shape
    lines = _prepared(x.T, False, window)
    return np.fft.fft(lines, pulses if nfft is None else nfft).T


def ca_cfar(
    array: Any, guard_cells: Any, reference_cells: Any, pfa: float = 1e-3
) -> tuple[Any, Any]:
    """The threshold by the mean of the cells around each one, and what is above it.

    Args:
        array: one or two dimensions.
        guard_cells: cells on each side that are left out, for each dimension.
        reference_cells: cells beyond them whose mean is taken, likewise.
        pfa: probability of a false alarm.

    Returns:
        Thresholds, of float32 and zero at the edges, and where they are exceeded.
    """
    if array.ndim > 2:
        raise TypeError("Only 1D and 2D arrays are currently supported.")
    if array.ndim == 2:
        if len(guard_cells) != 2 or len(reference_cells) != 2:
            raise TypeError("Guard and reference cells must be two dimensional.")
        guards, around = tuple(guard_cells), tuple(reference_cells)
    else:
        guards, around = (guard_cells,), (reference_cells,)
    far = [guard + more for guard, more in zip(guards, around, strict=True)]
    for length, reach in zip(array.shape, far, strict=True):
        if length <= 2 * reach:
            raise ValueError("Array too small for given parameters")
    outer = math.prod(2 * reach + 1 for reach in far)
    cells = outer - math.prod(2 * guard + 1 for guard in guards)
    alpha = cells * (pfa ** (-1.0 / cells) - 1)
    sums = np.pad(np.asarray(array, np.float64), [(1, 0)] * array.ndim)
    for axis in range(array.ndim):
        sums = np.cumsum(sums, axis=axis)
    inside = tuple(
        slice(reach, size - reach) for reach, size in zip(far, array.shape, strict=True)
    )
    found = _box(sums, far, far) - _box(sums, guards, far)
    threshold = np.zeros(array.shape, np.float32)
    threshold[inside] = alpha / cells * found
    return threshold, array - threshold > 0


def _box(sums: Any, reach: Any, margins: Any) -> Any:
    """Sums over boxes around cells, of running sums with a zero in front."""
    for axis, (near, margin) in enumerate(zip(reach, margins, strict=True)):
        lines = np.moveaxis(sums, axis, 0)
        count = len(lines) - 1 - 2 * margin
        above = lines[margin + near + 1 :][:count]
        sums = np.moveaxis(above - lines[margin - near :][:count], 0, axis)
    return sums


_inverse: Final = numpy_linalg.ignoring(np.linalg.inv)


def mvdr(x: Any, sv: Any, calc_cov: bool = True) -> Any:
    """Weights of sensors that let one direction pass, and little else.

    Args:
        x: observations, shape (sensors, samples), or their covariance.
        sv: the direction, shape (sensors,).
        calc_cov: whether ``x`` is observations.
    """
    if x.shape[0] > x.shape[1]:
        raise ValueError(
            "Matrix has more sensors than samples; each row is to be of one sensor"
        )
    if x.shape[0] != sv.shape[0]:
        raise ValueError("Steering Vector and input data do not align")
    if calc_cov:
        x = np.cov(x, dtype=x.dtype)
    passed = _inverse(x).dot(sv)
    return passed / sv.conj().dot(passed)


OWN: Final[dict[str, Callable[..., Any]]] = {
    f"cupyx.signal.{one.__name__}": one
    for one in (
        *(_of_dimensions(convolve1d2o, 2), _of_dimensions(convolve1d3o, 3)),
        *(firfilter, firfilter_zi, firfilter2, freq_shift, channelize_poly),
        *(real_cepstrum, complex_cepstrum, inverse_complex_cepstrum, minimum_phase),
        *(pulse_compression, pulse_doppler, ca_cfar, mvdr),
    )
}
