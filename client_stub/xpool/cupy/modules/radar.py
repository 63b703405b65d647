"""``cupyx.signal`` where a window is a function of the program's: it runs here."""

from __future__ import annotations

from typing import Any

from xpool.cupy.functions import call, own


def _windowed(x: Any, window: Any) -> Any:
    """The last axis multiplied with a function of its frequencies."""
    frequencies = call("cupy.fft.fftfreq", (x.shape[-1],), {})
    return x * window(frequencies.astype(x.dtype))


@own("cupyx.signal.pulse_compression")
def pulse_compression(
    x: Any,
    template: Any,
    normalize: Any = False,
    window: Any = None,
    nfft: Any = None,
) -> Any:
    """Each pulse correlated with the one that was sent."""
    if callable(window):
        template, window = _windowed(template, window), None
    name = "cupyx.signal.pulse_compression"
    return call(name, (x, template, normalize, window, nfft), {})


@own("cupyx.signal.pulse_doppler")
def pulse_doppler(x: Any, window: Any = None, nfft: Any = None) -> Any:
    """Transforms across the pulses of each sample."""
    if callable(window):
        x, window = _windowed(x.T, window).T, None
    return call("cupyx.signal.pulse_doppler", (x, window, nfft), {})


@own("cupyx.signal.cfar_alpha")
def cfar_alpha(pfa: Any, N: Any) -> Any:  # noqa: N803  CuPy's name
    """What a mean of so many cells is multiplied with, for so many false alarms.

    Args:
        pfa: probability of a false alarm, a number or an array.
        N: how many cells the mean is of.
    """
    return N * (pfa ** (-1.0 / N) - 1)
