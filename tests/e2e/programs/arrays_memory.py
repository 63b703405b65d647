"""Shared memory, what is written in place, and filters: few of them wait."""

from __future__ import annotations

import contextlib

import cupy as cp
import cupyx as cpx
import cupyx.scipy.ndimage as ndi
import numpy as np
import scipy.ndimage as host_ndi
import scipy.signal as host_signal
from array_checks import no_round_trip, refused, run_cases
from cupyx.scipy import signal
from xpool.cupy.device import device


@contextlib.contextmanager
def round_trips():
    """The names of what waits."""
    where, real, found = device(), device().request, []

    def note(name, arguments):
        if name != "xpool.describe":
            found.append(name)
        return real(name, arguments)

    where.request = note
    try:
        yield found
    finally:
        del where.request


def case_arrays_with_memory_of_their_own():
    a, b, empty = cp.arange(12), cp.ones(3), cp.zeros((0, 3))
    view = b[::2].reshape(2, 1)
    with no_round_trip():
        for one, other, wanted in (
            *((a, a, True), (a, b, False), (a, view, False), (a + 1, a, False)),
            *((empty, empty, False), (a[3:], b, False), (a[:0], a, False)),
        ):
            assert cp.may_share_memory(one, other) is wanted
            assert cp.shares_memory(one, other) is wanted


def case_views_of_one_array_ask_once():
    def views(xp):
        x = xp.arange(60.0).reshape(6, 10)
        kept = [x, x[2:4], x[::-2], x[:, 3:5], x[:, ::-1], x.T, x[4:], x.ravel()[50:]]
        return [*kept, x[2:4].T, xp.diagonal(x, 1), xp.broadcast_to(x[0], (3, 10))]

    near, far = views(cp), views(np)
    with round_trips() as asked:
        for _ in range(2):
            for at, one in enumerate(near):
                for other, host in zip(near, far, strict=True):
                    wanted = np.may_share_memory(far[at], host)
                    assert cp.may_share_memory(one, other) is bool(wanted)
    assert set(asked) == {"xpool.bounds"}
    assert len(asked) == len(near)  # the array is not its reshaped self
    for at, one in enumerate(near):
        for other, host in zip(near, far, strict=True):
            wanted = np.shares_memory(far[at], host)
            assert cp.shares_memory(one, other) is bool(wanted)


def case_what_reshaping_copies_is_no_view():
    a = cp.arange(12.0).reshape(3, 4)
    first, second = a.T.reshape(-1), a.T.reshape(-1)
    assert not cp.may_share_memory(a, first)
    assert not cp.may_share_memory(first, second)
    assert cp.may_share_memory(first[1:5], first[3:])
    assert not cp.may_share_memory(first[1:3], first[3:])
    assert cp.shares_memory(first, first[:2])


def case_bases_and_parts_that_the_server_has_numbered():
    import cupyx.scipy.sparse as sparse

    a = cp.arange(6.0)
    wide = cp.ones((2, 6))
    stretched, same = cp.broadcast_arrays(a, wide)
    assert same is wide  # what has the shape stays as it is
    assert stretched.base is a
    assert cp.may_share_memory(stretched, stretched.base)
    assert not cp.may_share_memory(stretched, wide)
    assert cp.broadcast_arrays(a, a)[0] is a
    matrix = sparse.eye(3, format="csr")
    assert cp.may_share_memory(matrix.data, matrix.data)
    assert not cp.may_share_memory(matrix.data, a)


def case_what_is_refused():
    a = cp.ones(2)
    refused(TypeError, lambda: cp.may_share_memory(a, np.ones(2)))
    refused(NotImplementedError, lambda: cp.may_share_memory(a, a, 1))
    refused(NotImplementedError, lambda: cp.shares_memory(a, a[:1], 1))
    refused(ValueError, lambda: cp.fill_diagonal(a, 1))
    refused(ValueError, lambda: cp.fill_diagonal(cp.ones((2, 3, 2)), 1))
    refused(TypeError, lambda: cp.copyto(cp.ones(2, int), a))
    refused(ValueError, lambda: cp.copyto(a, cp.ones(3)))


def case_written_in_place():
    def run(xp):
        square, tall = xp.zeros((3, 3)), xp.zeros((7, 3), "i")
        cube, small = xp.zeros((2, 2, 2), "F"), xp.ones((3, 3), "f")
        values = xp.arange(3.0)
        mask = values > 0
        with no_round_trip() if xp is cp else contextlib.nullcontext():
            xp.fill_diagonal(square, 2.5)
            xp.fill_diagonal(square[:2, 1:], 7)
            xp.fill_diagonal(tall, 4, wrap=True)
            xp.fill_diagonal(cube, 1j)
            xp.copyto(small, values)
            xp.copyto(small, square, where=mask)
        return [square, tall, cube, small]

    for one, wanted in zip(run(cp), run(np), strict=True):
        np.testing.assert_array_equal(one.get(), wanted)
    ints = cp.zeros((2, 2), "b")
    cp.fill_diagonal(ints, cp.asarray([1, 2], "b"))
    assert ints.get().tolist() == [[1, 0], [0, 2]]
    refused(OverflowError, lambda: cp.fill_diagonal(ints, 300))


def case_convolutions():
    rng = np.random.default_rng(0)
    long, short = rng.normal(size=9), rng.normal(size=4).astype("f")
    image, kernel = rng.normal(size=(6, 7)).astype("f"), rng.normal(size=(3, 2))
    numbers = np.arange(5, dtype="h")
    ways = [
        (np.convolve, cp.convolve, long, short, ("full", "same", "valid")),
        (np.correlate, cp.correlate, short, long, ("full", "same", "valid")),
        (np.convolve, cp.convolve, numbers, numbers, ("same",)),
    ]
    for name in ("convolve", "correlate", "fftconvolve", "oaconvolve"):
        of = getattr(host_signal, name), getattr(signal, name)
        ways.append((*of, image, kernel, ("full", "same", "valid")))
    for name in ("convolve2d", "correlate2d"):
        of = getattr(host_signal, name), getattr(signal, name)
        ways.append((*of, kernel, image, ("full", "same", "valid")))
    for function, ours, a, b, modes in ways:
        near = cp.asarray(a), cp.asarray(b)
        for mode in modes:
            wanted = function(a, b, mode)
            with no_round_trip():
                found = ours(*near, mode)
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
            assert np.allclose(found.get(), wanted, atol=1e-4), (function, mode)
    both = cp.asarray(kernel), cp.asarray(kernel.T)
    refused(ValueError, lambda: signal.convolve2d(*both, "valid"))
    refused(ValueError, lambda: cp.convolve(cp.ones(0), cp.ones(1)))


def case_filters_of_images():
    image = np.random.default_rng(1).normal(size=(8, 9)).astype("f")
    weights = np.arange(9.0).reshape(3, 3)
    near, kernel = cp.asarray(image), cp.asarray(weights)
    for name, args, ours, keywords in (
        ("gaussian_filter", (1.5,), (1.5,), {}),
        ("gaussian_filter", ((1, 2.0),), ((1, 2.0),), {"mode": "wrap"}),
        ("uniform_filter", (4,), (4,), {"mode": "constant", "cval": 1.0}),
        ("median_filter", (3,), (3,), {}),
        ("maximum_filter", (), (), {"size": 12, "mode": "nearest"}),
        ("minimum_filter", (2,), (2,), {"mode": "mirror"}),
        ("convolve", (weights,), (kernel,), {}),
        ("correlate", (weights,), (kernel,), {"mode": "constant"}),
        ("sobel", (0,), (0,), {}),
        ("prewitt", (), (), {}),
        ("laplace", (), (), {}),
    ):
        wanted = getattr(host_ndi, name)(image, *args, **keywords)
        with no_round_trip():
            found = getattr(ndi, name)(near, *ours, **keywords)
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        assert np.allclose(found.get(), wanted, atol=1e-4), name
    refused(RuntimeError, lambda: ndi.gaussian_filter(near, 1, mode="no"))
    refused(RuntimeError, lambda: ndi.convolve(near, cp.ones(3)))


def case_written_in_place_by_number():
    numbers, mask = np.array([[4, 0], [4, -1]]), np.arange(6) % 2 == 0
    near, there = cp.asarray(numbers), cp.asarray(mask)
    out = cp.asarray([7, -8, 3])
    for kind in "dfi":
        a, b = np.arange(6, dtype=kind), np.array([[2, 9], [-4, 5]], kind)
        x, y = cp.asarray(a), cp.asarray(b)
        for which in ("add", "subtract", "maximum", "minimum"):
            with no_round_trip():
                getattr(cp, which).at(x, near, y)
                getattr(cp, which).at(x, (slice(2, 5),), 3)
                getattr(cp, which).at(x, there, 2)
            at = getattr(np, which).at
            at(a, numbers, b), at(a, slice(2, 5), 3), at(a, mask, 2)
            assert np.array_equal(x.get(), a), which
        with no_round_trip():
            x.scatter_add(out, 1)
            cpx.scatter_max(x, near, y[0])
            cpx.scatter_min(x, near, y)
            x.put(near, y)
            cp.put(x, out, y[0], mode="clip")
            cp.put(x[1:], near, 6)
        np.add.at(a, [1, 4, 3], 1)
        np.maximum.at(a, numbers, b[0]), np.minimum.at(a, numbers, b)
        np.put(a, numbers, b, "wrap"), np.put(a, [7, -8, 3], b[0], "clip")
        np.put(a[1:], numbers, 6, "wrap")
        assert np.array_equal(x.get(), a), kind
    refused(ValueError, lambda: x.put(near, 1, "no"))
    refused(ValueError, lambda: cp.add.at(x, near, cp.ones(3, "i")))
    refused(IndexError, lambda: x.scatter_add((near, near), 1))


def case_sorted_in_place():
    for kind in "dfilB?":
        a = np.random.default_rng(2).integers(0, 99, (4, 5)).astype(kind)
        x, row = cp.asarray(a), cp.asarray(a[0])
        assert x.flags.c_contiguous  # CuPy sorts nothing else, so that this is asked
        with no_round_trip():
            x.sort(0)
            x.sort(kind="stable")
            row.sort()
        assert np.array_equal(row.get(), np.sort(a[0]))
        a.sort(0), a.sort()
        assert np.array_equal(x.get(), a)
    refused(NotImplementedError, lambda: row[::2].sort())
    refused(np.exceptions.AxisError, lambda: x.sort(2))
    refused(NotImplementedError, lambda: x.T.sort())


def case_filters_of_signals():
    for kind in "df":
        wave = np.random.default_rng(3).normal(size=(5, 30)).astype(kind)
        b, a = np.array([0.5, 0.25], kind), np.array([1, -0.5], kind)
        near, ours = cp.asarray(wave), (cp.asarray(b), cp.asarray(a))
        for name, here, given, keywords in (
            ("lfilter", (b, a, wave), (*ours, near), {}),
            ("lfilter", (b, a, wave), (*ours, near), {"axis": 0}),
            ("medfilt", (wave,), (near,), {}),
            ("medfilt", (wave, (3, 7)), (near, (3, 7)), {}),
            ("medfilt2d", (wave, 5), (near, 5), {}),
            ("savgol_filter", (wave, 7, 2), (near, 7, 2), {"deriv": 1}),
            ("savgol_filter", (wave, 6, 3), (near, 6, 3), {"mode": "wrap"}),
        ):
            wanted = getattr(host_signal, name)(*here, **keywords)
            with no_round_trip():
                found = getattr(signal, name)(*given, **keywords)
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name
            assert np.allclose(found.get(), wanted, atol=1e-4), name
    refused(ValueError, lambda: signal.savgol_filter(near, 31, 2))
    refused(ValueError, lambda: signal.savgol_filter(near, 5, 5))
    refused(ValueError, lambda: signal.medfilt(near, 4))
    states = signal.lfilter(*ours, near[0], zi=cp.zeros(2, "f"))
    assert [one.shape for one in states] == [(30,), (2,)]


if __name__ == "__main__":
    run_cases(globals())
