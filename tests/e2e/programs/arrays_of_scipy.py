"""What ``cupyx.scipy`` makes of a program's kernels, and classes of its objects."""

from __future__ import annotations

from functools import partial

import cupy as cp
import cupyx.scipy.ndimage as ndi
import numpy as np
import scipy.fft as host_fft
import scipy.interpolate as host_interpolate
import scipy.ndimage as host_ndi
import scipy.signal as host_signal
import scipy.sparse as host_sparse
from array_checks import refused, run_cases
from cupyx import scipy
from cupyx.scipy import fft, interpolate, signal, sparse, spatial

ROWS = np.random.default_rng(0).normal(size=(5, 6)) * 9
MEAN = cp.ReductionKernel(
    "X x", "Y y", "x", "a + b", "y = a / _in_ind.size()", "0", "mean"
)
BELOW = cp.ReductionKernel(
    *("T x", "int32 y", "_raw_x[_in_ind.size() / 2] > x"),
    *("a + b", "y = a", "0", "below"),
)
SQUARES = cp.RawKernel(
    """extern "C" __global__
    void squares(const double* x, int count, double* y) {
        double sum = 0;
        for (int k = 0; k < count; ++k) { sum += x[k] * x[k]; }
        y[0] = sum / count;
    }""",
    "squares",
)
SHIFT = cp.RawKernel(
    """extern "C" __global__
    void shift(const double* in, ptrdiff_t longer, double* out, ptrdiff_t length) {
        for (int k = 0; k < length; ++k) { out[k] = in[k]; }
    }""",
    "shift",
)
MODES = ("reflect", "mirror", "nearest", "wrap", "constant")


def case_cosine_transforms_are_of_types_two_and_three():
    near = cp.asarray(ROWS)
    for name in ("dct", "idct", "dst", "idst", "dctn", "idctn", "dstn", "idstn"):
        ours, theirs = getattr(fft, name), getattr(host_fft, name)
        for kind in (2, 3):
            assert np.allclose(ours(near, kind).get(), theirs(ROWS, kind)), name
        for kind, error in ((1, NotImplementedError), (4, NotImplementedError)):
            refused(error, partial(ours, near, type=kind))
        refused(ValueError, partial(ours, near, 5))


def case_lengths_suit_cufft():
    """Products of 2, 3, 5 and 7; SciPy's library takes 11, too."""
    fast = {2**a * 3**b * 5**c * 7**d for a, b, c, d in np.ndindex(12, 8, 6, 5)}
    for least in (0, 1, 2, 11, 13, 121, 1025, 2003):
        wanted = min(one for one in fast | {0} if one >= least) if least else 0
        assert fft.next_fast_len(least) == wanted
    assert fft.next_fast_len(10**15 + 1, real=True) < 1.001 * 10**15
    refused(ValueError, partial(fft.next_fast_len, -1))
    refused(TypeError, partial(fft.next_fast_len, 2.5))


def case_a_reduction_over_each_window():
    near, chosen = cp.asarray(ROWS), np.array([[0, 1, 1], [1, 1, 0]], bool)
    for mode in MODES:
        where = {"footprint": chosen, "mode": mode, "cval": 2.0, "origin": (0, -1)}
        wanted = host_ndi.generic_filter(ROWS, np.mean, **where)
        assert np.allclose(ndi.generic_filter(near, MEAN, **where).get(), wanted), mode
    whole = (near * 10).astype("i")
    found = ndi.generic_filter(whole, BELOW, 3, output=cp.uint8)
    wanted = host_ndi.generic_filter(
        whole.get(), lambda x: (x[len(x) // 2] > x).sum(), 3, output=np.uint8
    )
    assert found.dtype == np.uint8
    assert np.array_equal(found.get(), wanted)


def case_source_over_each_window():
    near, out = cp.asarray(ROWS), cp.zeros(ROWS.shape, "f")
    for where in ({"size": 3}, {"size": (4,), "axes": (-1,), "mode": "wrap"}):
        assert ndi.generic_filter(near, SQUARES, output=out, **where) is out
        wanted = host_ndi.generic_filter(ROWS, lambda x: (x * x).mean(), **where)
        assert np.allclose(out.get(), wanted, rtol=1e-5)
    whole = near.astype("i")
    found = ndi.generic_filter(whole, SQUARES, 2, output=whole)
    wanted = host_ndi.generic_filter(
        ROWS.astype("i"), lambda x: (x * x).mean(), 2, output="i"
    )
    assert found is whole
    assert np.array_equal(whole.get(), wanted)


def case_source_over_each_line():
    def shift(line, out):
        out[:] = line[: len(out)]

    near = cp.asarray(ROWS)
    for mode in MODES:
        for axis, origin in ((0, 0), (-1, 1)):
            where = {"axis": axis, "mode": mode, "origin": origin}
            found = ndi.generic_filter1d(near, SHIFT, 3, **where)
            wanted = host_ndi.generic_filter1d(ROWS, shift, 3, **where)
            assert np.allclose(found.get(), wanted), where


def case_what_filters_refuse():
    near = cp.asarray(ROWS)
    elementwise = cp.ElementwiseKernel("T x", "T y", "y = x")
    jumping = cp.RawKernel(
        'extern "C" __global__ void f(double* x, int n, double* y) { goto out; }', "f"
    )
    for kind, call in (
        (TypeError, lambda: ndi.generic_filter(near, np.mean, 3)),
        (TypeError, lambda: ndi.generic_filter(near, elementwise, 3)),
        (TypeError, lambda: ndi.generic_filter1d(near, MEAN, 3)),
        (ValueError, lambda: ndi.generic_filter(near, MEAN, 3, origin=2)),
        (ValueError, lambda: ndi.generic_filter(near, MEAN, footprint=[[0]])),
        (RuntimeError, lambda: ndi.generic_filter(near, MEAN)),
        (RuntimeError, lambda: ndi.generic_filter(near, MEAN, footprint=[1])),
        (RuntimeError, lambda: ndi.generic_filter(near, MEAN, 3, mode="no")),
        (NotImplementedError, lambda: ndi.generic_filter(near, jumping, 3)),
    ):
        try:
            call()
        except kind:
            continue
        raise AssertionError(f"it was not refused: {kind}")


def case_polynomials_made_by_methods_of_the_class():
    knots, at, items = np.arange(8.0), np.array([3.1, 3.9]), np.array([1.0, 2, 4, 3])
    near = interpolate.PPoly.from_spline((cp.asarray(knots), cp.asarray(items), 3))
    far = host_interpolate.PPoly.from_spline((knots, items, 3))
    assert np.allclose(near(cp.asarray(at)).get(), far(at))
    back = interpolate.BPoly.from_power_basis(near)
    assert isinstance(back, interpolate.BPoly)
    assert np.allclose(back(cp.asarray(at)).get(), far(at))
    given = [0, 1, 3], [[1, 2], [3, 4], [5, 6]]
    near = interpolate.BPoly.from_derivatives(
        cp.asarray(given[0], float), cp.asarray(given[1], float)
    )
    far = host_interpolate.BPoly.from_derivatives(*given)
    assert np.allclose(near(cp.asarray([0.5, 2])).get(), far([0.5, 2]))


def case_attributes_of_interpolators():
    near = interpolate.interp1d(cp.arange(3.0), cp.arange(3.0) ** 2, fill_value=7.0)
    assert near.y.get().tolist() == [0, 1, 4]
    near.bounds_error = False
    near.fill_value = 9.0
    assert near(cp.asarray([5.0])).get().tolist() == [9]
    spline = interpolate.BSpline.basis_element(cp.arange(4.0))
    before = spline(cp.asarray([1.5])).get()
    spline.c = spline.c * 2
    assert np.allclose(spline(cp.asarray([1.5])).get(), 2 * before)
    spline.extrapolate = False
    assert np.isnan(spline(cp.asarray([9.0])).get()).all()
    spline.c.shape = (1, -1)
    assert np.isnan(spline(cp.asarray([9.0])).get()).all()
    for wrong in (cp.zeros(99), spline.c.astype("f"), 1.0):
        try:
            spline.c = wrong
        except ValueError:
            continue
        raise AssertionError("it was not refused")
    weights = interpolate.BarycentricInterpolator(cp.arange(3.0)).wi
    assert weights.shape == (3,)


def case_systems_know_their_classes():
    num, den = cp.asarray([1.0]), cp.asarray([1.0, 0.5])
    system = signal.dlti(num, den, dt=0.1)
    assert isinstance(system, signal.TransferFunction)
    assert isinstance(system, signal.dlti)
    assert not isinstance(system, signal.lti)
    assert system.poles.get().tolist() == [-0.5]
    assert isinstance(system.to_ss(), signal.StateSpace)
    made = signal.TransferFunction(num, den).to_ss().to_discrete(0.5)
    assert isinstance(made, signal.dlti)
    assert made.dt == 0.5


def case_results_in_a_bundle():
    poles = np.array([-1.0, -3.0])
    found = signal.place_poles(cp.asarray([[0.0, 1], [0, 0]]), cp.eye(2), poles)
    assert np.allclose(np.sort(found.computed_poles.get().real), [-3, -1])
    assert found.gain_matrix.shape == (2, 2)


def case_special_values():
    inf, nan = np.inf, np.nan
    x = cp.asarray([inf, -inf, inf, 1.0, -1.0, 5.5, 1.0, nan])
    y = cp.asarray([2.0, 2.0, -2.0, -inf, inf, -2.0, 0.1, 1.0])
    found = (x // y).get()
    assert np.array_equal(found, [inf, -inf, -inf, -0.0, -0.0, -3, 10, nan], True)
    assert np.signbit(found[3:5]).all()
    x //= y
    assert np.array_equal(x.get(), found, equal_nan=True)
    assert (cp.asarray([7], "e") // 2).dtype == np.float16
    assert (cp.asarray([7, -7]) // 2).get().tolist() == [3, -4]
    z = cp.asarray([complex(inf, 0), complex(-0.0, 0), complex(1e-12, 0)], "D")
    found = cp.expm1(z).get()
    assert found[0] == complex(inf, 0)
    assert not np.signbit(found[1].real)
    assert np.allclose(found[2], 1e-12, rtol=1e-9)


def case_spectra_of_segments_that_the_program_detrends():
    x, y = (np.random.default_rng(n).normal(size=(2, 70)) for n in (0, 1))

    def flat(library):
        return lambda part: part - library.median(part, axis=-1, keepdims=True)

    def flat_first(library):
        return lambda part: part - library.median(part, axis=0, keepdims=True)

    for name, given in (("welch", (x,)), ("csd", (x, y)), ("coherence", (x, y))):
        near, far = getattr(signal, name), getattr(host_signal, name)
        for ways in ({"nperseg": 16}, {"nperseg": 20, "noverlap": 5, "nfft": 32}):
            found = near(*map(cp.asarray, given), detrend=flat(cp), **ways)
            wanted = far(*given, detrend=flat(np), **ways)
            for one, other in zip(found, wanted, strict=True):
                assert np.allclose(one.get(), other), (name, ways)
        found = near(*(cp.asarray(o.T) for o in given), detrend=flat_first(cp), axis=0)
        wanted = far(*given, detrend=flat(np))[1].T
        assert np.allclose(found[1].get(), wanted), name


def case_responses_are_plotted_here():
    seen = []
    found = signal.freqz(cp.ones(3), worN=8, plot=lambda *both: seen.append(both))
    analog = signal.freqs(cp.ones(1), cp.ones(2), 8, lambda *both: seen.append(both))
    assert [one.shape for one in found] == [(8,), (8,)]
    assert [one is two for one, two in zip(seen[0], found, strict=True)] == [True] * 2
    assert seen[1][1] is analog[1]


def case_a_smoothing_filter_is_double():
    row = np.sin(np.arange(16))
    expected = host_signal.symiirorder2(row, 0.1, 0.3, 1e-10)
    for kind in (np.float32, np.float64):
        found = signal.symiirorder2(cp.asarray(row.astype(kind)), 0.1, 0.3, 1e-10)
        assert found.dtype == np.float64
        assert np.allclose(found.get(), expected, rtol=1e-5)


def case_a_signal_and_itself():
    x = cp.asarray(np.random.default_rng(0).normal(size=50))
    _, found = signal.csd(x, x, nperseg=10, detrend=lambda part: part)
    assert found.dtype == np.float64
    wanted = host_signal.welch(x.get(), nperseg=10, detrend=False)[1]
    assert np.allclose(found.get(), wanted)


def case_one_plan_at_a_time():
    x = cp.ones(8)
    plan = fft.get_fft_plan(x)
    assert fft.fft(x, plan=plan).get()[0] == 8
    try:
        with plan:
            fft.fft(x, plan=plan)
    except RuntimeError as error:
        assert "either" in str(error)
    else:
        raise AssertionError("it was not refused")
    assert fft.fft(x, plan=plan).get()[0] == 8


def case_no_integer_stands_for_points_outside():
    whole = cp.arange(6)
    assert np.isinf(ndi.shift(whole, 1, output=float, cval=np.inf).get()[0])
    assert ndi.shift(whole, 1, mode="nearest", cval=np.nan).get()[0] == 0
    for output in (None, "i", cp.zeros(6, "i")):
        try:
            ndi.shift(whole, 1, output=output, cval=np.nan)
        except NotImplementedError:
            continue
        raise AssertionError("it was not refused")


def case_statistics_of_arrays_of_the_device():
    near, labels = cp.asarray(ROWS), cp.asarray(np.arange(30).reshape(5, 6) % 3)
    wanted = host_ndi.mean(ROWS, labels.get(), [1, 2])
    assert np.allclose(ndi.mean(near, labels, cp.asarray([1, 2])).get(), wanted)
    assert np.allclose(ndi.sum(near).get(), ROWS.sum())
    for given in ((ROWS, None, None), (near, labels.get(), 1), (near, labels, [1])):
        try:
            ndi.variance(*given)
        except TypeError:
            continue
        raise AssertionError("it was not refused")


def case_indices_of_matrices_can_be_set():
    matrix = sparse.csr_matrix(cp.asarray([[1.0, 0, 2], [0, 3, 0]]))
    matrix.indices = cp.asarray([1, 0, 2], "i")
    assert matrix.toarray().get().tolist() == [[2, 1, 0], [0, 0, 3]]
    for wrong in (cp.asarray([1, 0, 9], "i"), cp.zeros(2, "i"), cp.zeros(3)):
        try:
            matrix.indices = wrong
        except ValueError:
            continue
        raise AssertionError("it was not refused")
    assert matrix.toarray().get().tolist() == [[2, 1, 0], [0, 0, 3]]
    matrix = matrix.tocoo()
    matrix.row = cp.asarray([1, 1, 0])
    assert matrix.toarray().get().tolist() == [[0, 0, 3], [2, 1, 0]]
    assert isinstance(sparse.spmatrix(), sparse.spmatrix)


def case_matrices_of_the_host_keep_their_kind():
    rows = np.array([[1.26, 0, 2], [0, 3, 0]])
    near = sparse.csr_array(host_sparse.coo_array(rows))
    assert isinstance(near, sparse.sparray)
    line = sparse.coo_array(host_sparse.coo_array(rows[0]))
    assert line.get().toarray().tolist() == rows[0].tolist()
    assert round(near, 1).toarray().get()[0].tolist() == [1.3, 0, 2]
    assert near.mT.shape == sparse.matrix_transpose(near).shape == (3, 2)
    assert sparse.get_index_dtype(maxval=10) == np.int32
    assert sparse.csr_array(near, maxprint=3).maxprint == 3
    assert scipy.get_array_module(near) is scipy.get_array_module(cp.ones(1)) is scipy
    assert scipy.get_array_module(rows).__name__ == "scipy"
    assert sparse.csr_array[float].__origin__ is sparse.csr_array


def case_neighbours_in_another_tree():
    first, second = cp.asarray([[0.0, 0], [5, 5]]), cp.asarray([[0.1, 0], [0, 0.1]])
    found = spatial.KDTree(first).query_ball_tree(spatial.KDTree(second), 1.0)
    assert [one.get().tolist() for one in found] == [[0, 1], []]


def case_an_item_takes_an_array_of_one_item():
    a = cp.zeros((2, 2))
    a[1, 0] = cp.ones((1, 1))
    a[(0, 1)] = cp.full(1, 2.0)
    assert a.get().tolist() == [[0, 2], [1, 0]]


if __name__ == "__main__":
    run_cases(globals())
