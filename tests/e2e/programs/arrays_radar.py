"""``cupyx.signal`` on a device: a pulse is found, and nothing is waited for."""

from __future__ import annotations

import cupy as cp
import cupyx
import numpy as np
from array_checks import no_round_trip, refused, run_cases
from cupyx import signal

RNG = np.random.default_rng(1)
PULSES, SAMPLES = 16, 256


def made(shape, dtype="d"):
    drawn = RNG.normal(size=shape) + (1j * RNG.normal(size=shape))
    return cp.asarray((drawn if dtype in "FD" else drawn.real).astype(dtype))


def case_a_target_has_a_distance_and_a_speed():
    chirp = np.exp(1j * np.pi * np.linspace(-4, 4, 32) ** 2)
    echo = 0.05 * (RNG.normal(size=(PULSES, SAMPLES)) + 0j)
    for pulse in range(PULSES):
        echo[pulse, 100:132] += chirp * np.exp(2j * np.pi * 3 * pulse / PULSES)
    with no_round_trip():
        near = signal.pulse_compression(cp.asarray(echo), cp.asarray(chirp), True)
        moved = signal.pulse_doppler(near, window=None)
        found, above = signal.ca_cfar(abs(moved), (1, 4), (2, 8), 1e-4)
    at = np.unravel_index(int(abs(moved).argmax()), moved.shape)
    assert at == (3, 100), at
    assert above[at]
    assert above[3:-3, 12:-12].mean() < 0.02
    assert found.dtype == np.float32, found.dtype


def case_windows():
    x, template = made((4, 60)), made(20)
    by_name = signal.pulse_compression(x, template, window="hamming")
    window = cp.asarray(np.hamming(20))
    assert cp.allclose(by_name, signal.pulse_compression(x, template, False, window))
    by_function = signal.pulse_doppler(x, lambda f: f * 2)
    factors = (np.fft.fftfreq(4) * 2)[:, None]
    assert np.allclose(by_function.get(), np.fft.fft(x.get() * factors, axis=0))
    refused(ValueError, lambda: signal.pulse_doppler(x, cp.ones(5)), "window")


def case_nothing_is_waited_for():
    for kind in "fdFD":
        x, many = made(120, kind), made((3, 120), kind)
        with no_round_trip():
            signal.convolve1d2o(x, made((4, 5), kind))
            signal.convolve1d3o(x, made((4, 5, 3), kind))
            signal.channelize_poly(x, made(16, kind), 8)
            signal.real_cepstrum(many, 32, axis=0)
            signal.complex_cepstrum(x)
            signal.inverse_complex_cepstrum(x, 2)
            signal.minimum_phase(x, 50)
            signal.firfilter_zi(x[:9])
            signal.pulse_compression(many, x[:30], True, x[:30], 64)
            signal.pulse_doppler(many, nfft=8)
            signal.mvdr(many, x[:3])
            if kind == "d":
                signal.freq_shift(x, 3.0, 50)
            if kind in "fd":
                signal.ca_cfar(x, 2, 5)
                signal.ca_cfar(many, (0, 3), (1, 4), pfa=0.1)


def case_host_arrays_and_lists():
    x = RNG.normal(size=64)
    there = cp.asarray(x)
    assert cp.allclose(signal.real_cepstrum(x), signal.real_cepstrum(there))
    assert cp.allclose(signal.minimum_phase(x), signal.minimum_phase(there))
    b = cp.asarray([0.25, 0.5, 0.25])
    assert cp.allclose(signal.firfilter2(b, there)[9:-9], smooth(x)[9:-9])
    refused(TypeError, lambda: signal.mvdr(x.reshape(2, 32), there[:2]))


def smooth(x):
    kernel = np.convolve([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    return cp.asarray(np.convolve(x, kernel, "same"))


def case_names():
    assert cupyx.signal is signal
    assert abs(signal.cfar_alpha(1e-3, 16) - 16 * (1e-3 ** (-1 / 16) - 1)) < 1e-12
    assert cp.allclose(
        signal.cfar_alpha(cp.asarray([0.5, 0.1]), 2), [0.828427, 4.324555]
    )
    refused(NotImplementedError, lambda: signal.channelize_poly(made(99), made(70), 2))


if __name__ == "__main__":
    run_cases(globals())
