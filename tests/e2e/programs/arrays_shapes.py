"""Functions whose results have a known shape and dtype: none of them waits."""

from __future__ import annotations

import cupy as cp
import numpy as np
from array_checks import no_round_trip, run_cases

ROWS = np.arange(12.0).reshape(3, 4)
SQUARE = np.array([[4.0, 1, 0], [1, 3, 1], [0, 1, 2]])
HOST = {
    "a": ROWS,
    "b": ROWS.astype("f") + 1,
    "w": np.arange(5, dtype="l"),
    "v": np.array([3.0, 1, 2, 1]),
    "s": SQUARE,
    "z": SQUARE.astype("F") + 1j * np.eye(3, dtype="F"),
    "h": np.arange(4, dtype="e"),
    "i": np.array([[0, 2], [-1, 1]]),
    "u": np.array([[1, 0, 1], [0, 1, 1]], "H"),
    "t": np.arange(24.0).reshape(2, 3, 4),
}
WAYS = """
xp.fft.rfft(a) | xp.fft.irfft(a) | xp.fft.hfft(a, axis=0) | xp.fft.ihfft(a)
xp.fft.rfft(w, 8) | xp.fft.irfft(z, 7) | xp.fft.fft2(a) | xp.fft.ifft2(z)
xp.fft.fftn(t) | xp.fft.rfftn(t, axes=(0, 1)) | xp.fft.irfft2(a) | xp.fft.rfft2(a)
xp.fft.irfft2(z, s=(3, 5)) | xp.fft.fft2(a, s=(2, 6)) | xp.fft.rfftn(t, (2, 5), (0, 2))
xp.roll(a, (1, -2), axis=(0, 1)) | xp.roll(t, 3, axis=(0, -1)) | xp.roll(a, 5)
xp.fft.fft(h) | xp.fft.rfft(h) | xp.fft.fftfreq(5) | xp.fft.rfftfreq(6, 0.5)
xp.linalg.pinv(a) | xp.linalg.slogdet(z) | xp.linalg.lstsq(a, a[:, 0])
xp.linalg.lstsq(a, a) | xp.linalg.tensorinv(s.reshape(3, 3, 1), 1)
xp.einsum("ij,ij->i", a, b) | xp.einsum("ij,jk,k", s, s.astype("f"), u[0])
xp.hstack((a, b)) | xp.hstack((w, v)) | xp.vstack((v, a)) | xp.dstack((a, b))
xp.column_stack((v, v)) | xp.append(a, v) | xp.append(a, b, 0) | xp.concat((a, b))
xp.inner(a, b) | xp.vdot(z, s) | xp.kron(u, s) | xp.tensordot(a, b, ([1], [1]))
xp.tensordot(s, a, 1)
xp.clip(a, 1, 5) | xp.clip(b, None, v) | xp.clip(w, 1, 2.5) | xp.clip(u, 1, None)
xp.around(a) | xp.round(b, 1) | xp.nan_to_num(b) | xp.isclose(a, b) | xp.isclose(a, 1)
xp.allclose(a, a) | xp.array_equal(a, b) | xp.diff(a) | xp.diff(u, 2, 0)
xp.cumsum(a) | xp.cumsum(u, 1) | xp.cumprod(b, 0) | xp.nanmean(a, 0) | xp.nanstd(b)
xp.nanvar(b, 1, keepdims=True) | xp.count_nonzero(u) | xp.count_nonzero(u, 0)
xp.argsort(v) | xp.argsort(a, 0) | xp.searchsorted(w, v) | xp.take(a, i, 1)
xp.take(a, 2, 0) | xp.take(a, i) | a.take(w - 2) | xp.repeat(a, 2) | xp.repeat(a, 2, 1)
xp.diagonal(a, 1) | a.diagonal(-1) | xp.diag(v, -1) | xp.tri(3, 4, 1)
xp.indices((2, 3)) | xp.linspace(0, 1, 7) | xp.linspace(2, 3, 4, False)
xp.linspace(0, 9, 4, dtype="i") | xp.reshape(a, (4, 3)) | xp.reshape(a, -1, order="F")
xp.ravel(a) | xp.transpose(t) | xp.transpose(t, (1, 0, 2)) | xp.swapaxes(t, 0, 2)
xp.squeeze(a[:1]) | xp.permute_dims(a, (1, 0)) | xp.atleast_1d(w[0]) | xp.atleast_2d(w)
xp.atleast_3d(w) | xp.atleast_3d(a) | w.cumsum() | a.clip(2, 3) | a.argsort()
a.round()
"""


def run(way, xp, values):
    found = eval(way, {"xp": xp, **values})  # our own text
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def case_as_numpy():
    near = {name: cp.asarray(one) for name, one in HOST.items()}
    for way in WAYS.replace("\n", " | ").split("|"):
        if not (way := way.strip()):
            continue
        with no_round_trip():
            found = run(way, cp, near)
        wanted = run(way, np, HOST)
        assert len(found) == len(wanted), way
        for one, other in zip(found, map(np.asarray, wanted), strict=True):
            assert isinstance(one, cp.ndarray), way
            assert (one.shape, one.dtype) == (other.shape, other.dtype), way
            assert np.allclose(one.get(), other, rtol=1e-3), way


def case_eigenvalues_are_complex():
    for name, kind in (("s", "D"), ("b", "F")):
        square = cp.asarray(HOST[name][:3, :3])
        with no_round_trip():
            values, vectors = cp.linalg.eig(square)
            alone = cp.linalg.eigvals(square)
        assert values.dtype == vectors.dtype == alone.dtype == kind
        assert cp.allclose(square @ vectors, vectors * values, atol=1e-3)


def case_draws_over_arrays():
    state, generator = cp.random.RandomState(1), cp.random.default_rng(1)
    cp.random.seed(0)
    means, counts = cp.asarray([[0.0], [10.0]]), cp.asarray([1, 5])
    with no_round_trip():
        drawn = [
            state.normal(means, 1.0, (2, 300)),
            state.uniform(means, means + 1),
            state.binomial(counts, 0.5),
            cp.random.poisson(means, dtype=np.int32),
            generator.gamma(means + 1, 2.0),
            generator.binomial(counts, 0.5, (3, 2)),
        ]
    shapes = [(2, 300), (2, 1), (2,), (2, 1), (2, 1), (3, 2)]
    assert [one.shape for one in drawn] == shapes
    assert [one.dtype.char for one in drawn] == list("ddlidl")
    assert abs(drawn[0].mean(axis=1).get() - [0, 10]).max() < 0.5


def case_numbers_out_of_bounds_wrap_around():
    a = cp.arange(5)
    assert cp.take(a, cp.asarray([5, -6, 12])).get().tolist() == [0, 4, 2]


def case_filters_whose_derivatives_the_program_takes():
    import cupyx.scipy.ndimage as ndi
    import scipy.ndimage as host

    near = cp.asarray(HOST["a"])

    def second(library):
        def derivative(given, axis, output, mode, cval, factor):
            weights = [factor, -2 * factor, factor]
            return library.correlate1d(given, weights, axis, output, mode, cval)

        return derivative

    for name in ("generic_laplace", "generic_gradient_magnitude"):
        found = getattr(ndi, name)(near, second(ndi), extra_arguments=(2.0,))
        wanted = getattr(host, name)(HOST["a"], second(host), extra_arguments=(2.0,))
        assert np.allclose(found.get(), wanted), name


def case_axes_may_be_numbered():
    near, axes = cp.asarray(HOST["u"]), np.array([1, 0])
    for one in (axes, axes.tolist()):
        found = cp.einsum(near, one, near.astype("f"), [1, 0], [0])
        assert found.dtype == np.float32
        assert found.get().tolist() == [1, 1, 2]


def case_splines_are_made_by_methods_of_the_class():
    import scipy.interpolate as host
    from cupyx.scipy.interpolate import BSpline

    knots, at, items = np.arange(8.0), np.array([3.1, 3.9]), np.array([1.0, 2, 4, 3])
    near = BSpline.construct_fast(cp.asarray(knots), cp.asarray(items), 3)
    far = host.BSpline.construct_fast(knots, items, 3)
    assert np.allclose(near(cp.asarray(at)).get(), far(at))
    near, far = (one.basis_element(knots) for one in (BSpline, host.BSpline))
    assert np.allclose(near(cp.asarray(at)).get(), far(at))
    assert cp.fft.irfft(cp.asarray(HOST["h"])).dtype == np.float16


def case_results_of_many_lengths():
    import cupyx.scipy.ndimage as ndi

    image, labels = cp.arange(6.0), cp.asarray([1, 1, 2, 2, 2, 0])
    found = ndi.histogram(image, 0, 6, 2, labels, cp.asarray([1, 2]))
    assert [one.get().tolist() for one in found] == [[2, 0], [1, 2]]


def case_normal_numbers_that_vary_together():
    state = cp.random.RandomState(3)
    mean, cov = cp.asarray([1.0, -1.0]), cp.asarray([[2.0, 0.5], [0.5, 1.0]])
    for method in ("cholesky", "eigh", "svd"):
        drawn = state.multivariate_normal(mean, cov, 4000, method=method).get()
        assert np.allclose(drawn.mean(axis=0), mean.get(), atol=0.2)
        assert np.allclose(np.cov(drawn.T), cov.get(), atol=0.2)
    one = state.multivariate_normal(mean, cov, dtype=np.float32)
    assert (one.shape, one.dtype) == ((2,), np.float32)


def case_grids_over_arrays():
    low, high = cp.zeros((2, 1)), cp.ones((2, 1))
    wanted = np.mgrid[low.get() : high.get() : 3j]
    assert np.allclose(cp.mgrid[low:high:3j].get(), wanted)


if __name__ == "__main__":
    run_cases(globals())
