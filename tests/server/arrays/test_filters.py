"""Filters whose state is what went in and came out last."""

from __future__ import annotations

import numpy as np
import scipy.signal
from xpool_server.arrays.scipy_filters import (
    lfilter,
    lfilter_zi,
    lfiltic,
    sosfilt,
    sosfilt_zi,
)

B, A = np.array([0.3, 0.2, 0.1]), np.array([2.0, -0.4, 0.2, 0.1])
X = np.random.default_rng(0).normal(size=(2, 40))


def test_two_parts_are_the_whole() -> None:
    for cut in (1, 2, 25):  # shorter than the state, too
        state = np.zeros((2, 5))
        first, state = lfilter(B, A, X[:, :cut], zi=state)
        second, _ = lfilter(B, A, X[:, cut:], zi=state)
        whole = scipy.signal.lfilter(B, A, X)
        np.testing.assert_allclose(np.hstack([first, second]), whole)


def test_a_step_begins_where_it_ends() -> None:
    found, _ = lfilter(B, A, np.ones(9), zi=lfilter_zi(B, A))
    np.testing.assert_allclose(found, np.full(9, B.sum() / A.sum()))
    sos = scipy.signal.butter(5, 0.3, output="sos")
    found, _ = sosfilt(sos, np.ones(9), zi=sosfilt_zi(sos))
    np.testing.assert_allclose(found, np.ones(9))


def test_sections_go_on_along_any_axis() -> None:
    sos = scipy.signal.butter(4, 0.2, output="sos")
    x = X.T
    first, state = sosfilt(sos, x[:11], axis=0, zi=np.zeros((len(sos), 4, 2)))
    second, _ = sosfilt(sos, x[11:], axis=0, zi=state)
    np.testing.assert_allclose(
        np.vstack([first, second]), scipy.signal.sosfilt(sos, x, axis=0)
    )


def test_a_state_of_what_was() -> None:
    y = scipy.signal.lfilter(B, A, X[0])
    state = lfiltic(B, A, y[19::-1], X[0, 19::-1])
    np.testing.assert_array_equal(state, [*X[0, 18:20], *y[17:20]])
    found, _ = lfilter(B, A, X[0, 20:], zi=state)
    np.testing.assert_allclose(found, y[20:])
