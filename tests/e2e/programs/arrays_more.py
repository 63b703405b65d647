"""CuPy beyond functions: callables, files, classes. Run by test_arrays_more.py."""

import copy
import io
import pickle  # noqa: TID251  what programs do with arrays
import sys
import tempfile
from pathlib import Path

import cupy as cp
import cupyx
import cupyx.scipy.ndimage
import cupyx.scipy.sparse
import cupyx.scipy.sparse.linalg
import cupyx.scipy.special
import numpy as np
from array_checks import is_real_gpu, refused


def same(remote, host):
    assert isinstance(remote, cp.ndarray), type(remote)
    np.testing.assert_allclose(remote.get(), host, rtol=1e-6)
    assert remote.dtype == np.asarray(host).dtype, (
        remote.dtype,
        np.asarray(host).dtype,
    )


def case_callables():
    same(
        cp.fromfunction(lambda i, j: i * 10 + j, (3, 4), dtype=int),
        np.fromfunction(lambda i, j: i * 10 + j, (3, 4), dtype=int),
    )
    host = np.arange(12.0).reshape(3, 4)
    remote = cp.asarray(host)
    for axis in (0, 1, -1):
        same(
            cp.apply_along_axis(lambda line: line * line.sum(), axis, remote),
            np.apply_along_axis(lambda line: line * line.sum(), axis, host),
        )
        same(
            cp.apply_along_axis(lambda line: line.max(), axis, remote),
            np.apply_along_axis(lambda line: line.max(), axis, host),
        )
    same(
        cp.apply_over_axes(cp.sum, remote, [0, 1]),
        np.apply_over_axes(np.sum, host, [0, 1]),
    )
    same(
        cp.piecewise(remote, [remote < 4, remote > 8], [-1, 1]),
        np.piecewise(host, [host < 4, host > 8], [-1, 1]),
    )
    refused(
        NotImplementedError, lambda: cp.piecewise(remote, [remote < 4], [lambda x: x])
    )

    @cp.vectorize
    def clipped(a, b):
        return min(b, a)

    same(clipped(remote, 5.0), np.minimum(host, 5.0))


def case_files():
    host = np.random.default_rng(0).random((5, 7))
    remote = cp.asarray(host)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        cp.save(path, remote)
        same(cp.load(path), host)
        np.testing.assert_array_equal(np.load(path), host)
        cp.savez(Path(folder) / "b.npz", remote, x=remote * 2)
        cp.savez_compressed(Path(folder) / "c.npz", y=remote)
        with cp.load(Path(folder) / "b.npz") as found:
            same(found["arr_0"], host)
            same(found["x"], host * 2)
        with cp.load(Path(folder) / "c.npz") as found:
            same(found["y"], host)
        cp.savetxt(Path(folder) / "d.txt", remote)
        same(cp.loadtxt(Path(folder) / "d.txt"), host)
        same(cp.genfromtxt(Path(folder) / "d.txt"), host)
        remote.tofile(Path(folder) / "e.bin")
        same(cp.fromfile(Path(folder) / "e.bin"), host.ravel())
    file = io.BytesIO()
    cp.save(file, remote)
    file.seek(0)
    same(cp.load(file), host)
    same(cp.frombuffer(host.tobytes()), host.ravel())
    same(cp.fromiter(range(4), dtype=np.int32), np.arange(4, dtype=np.int32))


def case_copies():
    remote = cp.arange(6).reshape(2, 3)
    same(pickle.loads(pickle.dumps(remote)), np.arange(6).reshape(2, 3))
    other = copy.deepcopy(remote)
    other += 1
    same(remote, np.arange(6).reshape(2, 3))
    same(other, np.arange(1, 7).reshape(2, 3))


def case_random():
    cp.random.seed(3)
    first = cp.random.rand(5).get()
    cp.random.seed(3)
    np.testing.assert_array_equal(cp.random.rand(5).get(), first)
    state = cp.random.RandomState(7)
    a = state.normal(size=(3, 2), dtype=np.float32)
    assert (a.shape, a.dtype) == ((3, 2), np.float32)
    assert state.lognormal(0.0, 1.0, 4, np.float32).dtype == np.float32
    assert state.hypergeometric(cp.array([5.0]), 5.0, 3).shape == (1,)
    again = cp.random.RandomState(7).normal(size=(3, 2), dtype=np.float32)
    np.testing.assert_array_equal(a.get(), again.get())
    for bits in (cp.random.XORWOW, cp.random.MRG32k3a, cp.random.Philox4x3210):
        draws = cp.random.Generator(bits(5)).random(4).get()
        np.testing.assert_array_equal(
            cp.random.Generator(bits(5)).random(4).get(), draws
        )
    rng = cp.random.default_rng(1)
    assert isinstance(rng, cp.random.Generator)
    found = rng.integers(0, 10, 1000).get()
    assert found.min() == 0
    assert found.max() == 9
    assert rng.standard_normal(3, dtype=np.float32).dtype == np.float32
    held = cp.random.get_random_state()
    assert isinstance(held, cp.random.RandomState)
    cp.random.set_random_state(cp.random.RandomState(3))
    np.testing.assert_array_equal(cp.random.rand(5).get(), first)
    cp.random.set_random_state(held)


def case_polynomials():
    host, remote = np.poly1d([1, -3, 2]), cp.poly1d([1, -3, 2])
    same(remote.coeffs, host.coeffs)
    same(remote(cp.arange(4)), host(np.arange(4)))
    same((remote * remote + 1).coeffs, (host * host + 1).coeffs)
    if not is_real_gpu():  # CuPy itself has none
        same(remote.deriv().coeffs, host.deriv().coeffs)
    assert remote.order == 2
    assert str(remote) == str(host)
    assert remote.get() == host
    same(cp.polyval(remote, cp.arange(3.0)), np.polyval(host, np.arange(3.0)))
    x = np.linspace(0, 1, 20)
    same(cp.polyfit(cp.asarray(x), cp.asarray(x**2), 2), np.polyfit(x, x**2, 2))


def case_a_polynomial_is_an_array_to_functions():
    host, remote = np.poly1d([1, -3, 2]), cp.poly1d([1, -3, 2])
    same(cp.add(remote, remote), np.add(host, host))
    same(cp.multiply(remote, 2), np.multiply(host, 2))
    same(cp.arange(3) - remote, np.arange(3) - host)
    same(np.subtract(remote, cp.arange(3)), np.subtract(host, np.arange(3)))
    assert isinstance(remote + cp.arange(3), cp.poly1d)
    named = np.poly1d([1, 2], variable="z")
    assert cp.poly1d(named).variable == "z"
    assert cp.poly1d(named, variable="y").variable == "y"
    assert cp.poly1d(named, False, "y").variable == "y"
    remote.set(named)
    assert remote.get().variable == "z"
    assert remote.get() == named


def case_modules_that_come_with_cupy():
    for name in ("cuda", "exceptions", "fft", "lib", "linalg", "polynomial", "random"):
        assert name in dir(cp), name
    assert cp.exceptions.AxisError is cp.AxisError
    import cupy.typing as cpt

    made = cpt.NDArray[np.float32]
    assert made.__origin__ is cp.ndarray
    assert made.__args__[1] == np.dtype[np.float32]


def case_what_cupy_refuses_of_windows_and_axes():
    windows = cp.lib.stride_tricks.sliding_window_view
    assert windows(cp.arange(6), 3).shape == (4, 3)
    refused(NotImplementedError, lambda: windows(cp.arange(6), 3, writeable=True))
    refused(cp.exceptions.AxisError, lambda: cp.apply_over_axes(cp.sum, cp.array(4), 0))
    same(
        cp.apply_over_axes(cp.sum, cp.ones((2, 3, 4)), [0, -1]),
        np.apply_over_axes(np.sum, np.ones((2, 3, 4)), [0, -1]),
    )


def case_flat_and_grids():
    remote = cp.arange(6).reshape(2, 3)
    assert [int(one) for one in remote.flat] == list(range(6))
    remote.T.flat[1:3] = 9
    same(remote, _flat_expected())
    assert int(remote.flat[2]) == int(remote[0, 2])
    assert len(remote.flat) == 6
    same(cp.r_[1:4, 0, cp.arange(2)], np.r_[1:4, 0, np.arange(2)])
    same(cp.c_[cp.arange(3), cp.arange(3)], np.c_[np.arange(3), np.arange(3)])
    same(cp.mgrid[0:3, 0:2], np.mgrid[0:3, 0:2])
    same(cp.ogrid[0:1:5j], np.ogrid[0:1:5j])
    for one, other in zip(cp.ogrid[0:3, 0:2], np.ogrid[0:3, 0:2], strict=True):
        same(one, other)
    for one, other in zip(cp.ix_([0, 1], [2, 4]), np.ix_([0, 1], [2, 4]), strict=True):
        same(one, other)


def _flat_expected():
    host = np.arange(6).reshape(2, 3)
    host.T.flat[1:3] = 9
    return host


def case_sparse():
    import scipy.sparse

    dense = np.array([[0, 1.0, 0], [2, 0, 3], [0, 0, 4]])
    host = scipy.sparse.csr_matrix(dense)
    remote = cupyx.scipy.sparse.csr_matrix(cp.asarray(dense))
    same(remote.toarray(), dense)
    assert remote.shape == (3, 3)
    assert remote.nnz == 4
    assert remote.dtype == np.float64
    same(remote.data, host.data)
    same(remote.indices, host.indices)
    same(remote @ cp.arange(3.0), dense @ np.arange(3.0))
    same((remote * remote).toarray(), (host * host).toarray())
    same((remote + remote.T).toarray(), (host + host.T).toarray())
    same(remote.sum(axis=0), np.asarray(host.sum(axis=0)))
    assert float(remote.sum()) == 10
    assert type(remote.tocsc()) is cupyx.scipy.sparse.csc_matrix
    assert cupyx.scipy.sparse.issparse(remote)
    same(remote[1].toarray(), dense[1:2])
    assert (remote.get() != host).nnz == 0
    same(cupyx.scipy.sparse.csr_matrix(host).toarray(), dense)
    row, col = cp.array([0, 1]), cp.array([1, 2])
    coo = cupyx.scipy.sparse.coo_matrix((cp.ones(2), (row, col)), shape=(3, 3))
    same(coo.tocsr().toarray(), np.array([[0, 1.0, 0], [0, 0, 1], [0, 0, 0]]))
    wrong = (cp.ones(2), cp.array([0, 7]), cp.array([0, 1, 2]))
    refused(ValueError, lambda: cupyx.scipy.sparse.csr_matrix(wrong, shape=(2, 3)))
    b = cp.arange(1.0, 4)
    matrix = cupyx.scipy.sparse.csr_matrix(cp.asarray(dense + 5 * np.eye(3)))
    same(
        cupyx.scipy.sparse.linalg.spsolve(matrix, b),
        np.linalg.solve(dense + 5 * np.eye(3), np.arange(1.0, 4)),
    )
    same(pickle.loads(pickle.dumps(remote)).toarray(), dense)


def case_scipy():
    import scipy.ndimage
    import scipy.special

    x = np.linspace(0.1, 2, 7)
    same(cupyx.scipy.special.gamma(cp.asarray(x)), scipy.special.gamma(x))
    image = np.random.default_rng(0).random((9, 9))
    same(
        cupyx.scipy.ndimage.gaussian_filter(cp.asarray(image), 1.0),
        scipy.ndimage.gaussian_filter(image, 1.0),
    )
    from cupyx.scipy.interpolate import CubicSpline
    from scipy.interpolate import CubicSpline as Host

    spline = CubicSpline(cp.asarray(x), cp.asarray(x**2))
    same(spline(cp.asarray(x + 0.05)), Host(x, x**2)(x + 0.05))
    same(cupyx.rsqrt(cp.asarray(x)), 1 / np.sqrt(x))
    counts = cp.zeros(4)
    cupyx.scatter_add(counts, cp.array([1, 1, 2]), 1.0)
    same(counts, np.array([0, 2.0, 1, 0]))


def case_testing():
    cp.testing.assert_array_equal(cp.arange(3), np.arange(3))
    cp.testing.assert_allclose(cp.ones(2), [1, 1 + 1e-9])
    refused(
        AssertionError, lambda: cp.testing.assert_array_equal(cp.zeros(2), cp.ones(2))
    )


def case_what_a_server_does_not_call():
    from xpool.cupy.device import device

    for name, arguments in (
        ("cupy.load", ("/etc/passwd",)),
        ("cupy.fromfile", ("/etc/passwd", "u1")),
        ("cupy.save", ("/tmp/x", cp.ones(2))),
        ("ndarray.tofile", (cp.ones(2), "/tmp/x")),
        ("ndarray.dump", (cp.ones(2), "/tmp/x")),
        ("cupy.RawModule", ()),
        ("cupy.loadtxt", ("/etc/passwd",)),
        ("cupy.genfromtxt", ("/etc/passwd",)),
        ("cupy.DataSource", ("/etc",)),
        ("cupy.cuda.runtime.malloc", (4,)),
        ("cupyx.scipy.sparse.load_npz", ("/etc/passwd",)),
    ):
        refused(
            NotImplementedError,
            lambda name=name, arguments=arguments: device().call(name, arguments, {}),
            "not among",
        )
    a = cp.arange(8)
    same(
        cp.lib.stride_tricks.as_strided(a, (3, 2), (16, 8)),
        np.lib.stride_tricks.as_strided(np.arange(8), (3, 2), (16, 8)),
    )
    for shape, strides in (((9,), (8,)), ((2,), (-8,)), ((1 << 40, 2), (8, 8))):
        refused(
            ValueError,
            lambda shape=shape, strides=strides: cp.lib.stride_tricks.as_strided(
                a, shape, strides
            ),
        )
    matrix = cupyx.scipy.sparse.csr_matrix(cp.eye(3))
    refused(AttributeError, lambda: matrix._attribute("__dict__"))
    refused(AttributeError, lambda: matrix._attribute("__class__"))


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for name, run in list(globals().items()):
        if name.startswith("case_") and (not wanted or name in wanted):
            run()
            print(name.removeprefix("case_"))
