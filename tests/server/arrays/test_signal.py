"""``cupyx.signal`` without CuPy's kernels: each against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
from xpool_server.arrays import numpy_signal as ours

RNG = np.random.default_rng(0)
X = RNG.normal(size=90)


@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (7, 1)])
def test_a_filter_of_two_factors(shape: tuple[int, int]) -> None:
    weights = RNG.normal(size=shape)
    run = ours.OWN["cupyx.signal.convolve1d2o"]
    width, height = shape
    wanted = [
        sum(
            X[i + width - x - 1] * X[i + height - y - 1] * weights[x, y]
            for x, y in np.ndindex(shape)
        )
        for i in range(90 - max(shape) + 1)
    ]
    np.testing.assert_allclose(run(X, weights), wanted)
    np.testing.assert_allclose(run(np.repeat(X, 2)[::2], weights.T.copy().T), wanted)


def test_a_filter_of_three_factors_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = RNG.normal(size=(3, 4, 2))
    run = ours.OWN["cupyx.signal.convolve1d3o"]
    whole = run(X, weights)
    first, second, third = (
        np.lib.stride_tricks.sliding_window_view(X, size)[:87, ::-1]
        for size in weights.shape
    )
    wanted = np.einsum("ix,iy,iz,xyz->i", first, second, third, weights)
    np.testing.assert_allclose(whole, wanted)
    monkeypatch.setattr(ours, "_MAX_PRODUCTS", 40)
    np.testing.assert_allclose(run(X, weights), wanted)


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        (((4, 4), (2, 2)), ValueError),
        (((4,), (2,)), ValueError),
        (((4,), (2, 6)), ValueError),
    ],
)
def test_filters_that_do_not_fit(shapes: Any, error: type[Exception]) -> None:
    signal, weights = map(np.ones, shapes)
    with pytest.raises(error):
        ours.OWN["cupyx.signal.convolve1d2o"](signal, weights)


def test_of_one_dtype_and_valid_alone() -> None:
    run, weights = ours.OWN["cupyx.signal.convolve1d2o"], np.ones((2, 2))
    with pytest.raises(TypeError, match="mismatched"):
        run(X.astype("f"), weights)
    with pytest.raises(NotImplementedError, match="full"):
        run(X, weights, mode="full")
    with pytest.raises(NotImplementedError, match="Direct"):
        run(X, weights, method="fft")


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("padtype", ["odd", "even", "constant", None])
def test_forwards_and_backwards(axis: int, padtype: str | None) -> None:
    b, rows = scipy.signal.firwin(7, 0.3), RNG.normal(size=(40, 50))
    found = ours.firfilter2(b, rows, axis=axis, padtype=padtype)
    assert found.shape == rows.shape
    wanted = scipy.signal.filtfilt(b, 1, rows, axis=axis, padtype=padtype)
    inner = (slice(10, -10),) * 2 if padtype is None else slice(None)
    np.testing.assert_allclose(found[inner], wanted[inner])
    np.testing.assert_allclose(ours.firfilter_zi(b), scipy.signal.lfilter_zi(b, 1))
    with pytest.raises(ValueError, match="padlen"):
        ours.firfilter2(b, rows[:, :5], padlen=5)


def test_channels_are_sums_of_every_nth() -> None:
    x = X + 1j * X[::-1]
    taps = RNG.normal(size=12)
    found = ours.channelize_poly(x, taps, 4)
    assert found.shape == (4, 22)
    padded = np.concatenate([np.zeros(8), x])
    for point in range(22):
        part = padded[4 * point : 4 * point + 12].reshape(3, 4)[::-1, ::-1]
        sums = (part * taps.reshape(3, 4)).sum(0).conj()
        np.testing.assert_allclose(found[:, point], np.fft.fft(sums).conj())
    with pytest.raises(NotImplementedError, match="capped"):
        ours.channelize_poly(X, np.ones(132), 4)


@pytest.mark.parametrize("size", [32, 33])
def test_a_cepstrum_and_back(size: int) -> None:
    x = np.exp(-np.arange(size) / 2.0)
    cepstrum, delays = ours.complex_cepstrum(x)
    assert set(delays) == {delays[0]}
    if size % 2:  # where the middle is the same for both ways, as in CuPy
        back = ours.inverse_complex_cepstrum(cepstrum, int(delays[0]))
        np.testing.assert_allclose(back, x, atol=1e-12)
    # A sequence of the least delay is its own.
    np.testing.assert_allclose(ours.minimum_phase(x), x, atol=1e-3)
    with pytest.raises(TypeError, match="int32"):
        ours.inverse_complex_cepstrum(cepstrum, delays)


@pytest.mark.parametrize("shape", [(30,), (9, 11)])
def test_a_threshold_is_the_mean_around(shape: tuple[int, ...]) -> None:
    array = RNG.random(shape)
    guards, around = ((1, 2), (2, 1)) if len(shape) == 2 else (1, 3)
    found, above = ours.ca_cfar(array, guards, around, 1e-2)
    assert found.dtype == np.float32
    outer = np.add(guards, around)
    middle = tuple(size // 2 for size in shape)

    def box(reach: Any) -> Any:
        reach = np.atleast_1d(reach)
        return array[
            tuple(slice(m - r, m + r + 1) for m, r in zip(middle, reach, strict=True))
        ]

    cells = box(outer).size - box(guards).size
    mean = (box(outer).sum() - box(guards).sum()) / cells
    wanted = mean * cells * (1e-2 ** (-1 / cells) - 1)
    np.testing.assert_allclose(found[middle], wanted, rtol=1e-6)
    assert above[middle] == (array[middle] > found[middle])
    assert found[(0,) * len(shape)] == 0
    with pytest.raises(ValueError, match="small"):
        ours.ca_cfar(array, np.multiply(guards, 15), around)


def test_what_passes_undistorted_is_one() -> None:
    x = RNG.normal(size=(3, 50)) + 1j * RNG.normal(size=(3, 50))
    direction = np.exp(1j * np.arange(3))
    weights = ours.mvdr(x, direction)
    np.testing.assert_allclose(direction.conj() @ weights, 1)
    with pytest.raises(ValueError, match="sensors"):
        ours.mvdr(x.T, direction)
