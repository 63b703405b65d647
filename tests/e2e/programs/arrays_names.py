"""Names that CuPy has and NumPy no longer has, and names that CuPy has not."""

import copy
import importlib
import math
import pickle  # noqa: TID251  what a program does with its own arrays
import warnings

import cupy as cp
import cupyx
import cupyx.linalg
import numpy as np
import scipy.special
from array_checks import refused, run_cases


def close(found, expected):
    assert type(found) is cp.ndarray, type(found)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-10, atol=1e-12)


def case_what_numpy_has_no_more():
    whole = cp.arange(6).reshape(2, 3)
    close(whole.ptp(), 5)
    close(whole.ptp(axis=1), [2, 2])
    assert cp.asfarray(whole).dtype == np.float64
    assert cp.asfarray(whole, dtype="f").dtype == np.float32
    assert cp.asfarray(whole, dtype="i").dtype == np.float64
    matrix = np.array([[2.0, 1], [1, 3]])
    close(cupyx.linalg.invh(cp.asarray(matrix)), np.linalg.inv(matrix))
    for factor, is_lower in (
        (np.linalg.cholesky(matrix), True),
        (np.linalg.cholesky(matrix).T, False),
    ):
        for right in (np.ones(2), np.eye(2)):
            there = cp.asarray(factor), is_lower
            found = cupyx.linalg.cho_solve(there, cp.asarray(right))
            close(found, np.linalg.solve(matrix, right))
    with cupyx.optimizing.optimize(key="nothing"):
        close(whole.sum(), 15)
    for order in "CF":
        for one in (cp.zeros((2, 3), order=order), np.zeros((2, 3), order=order)):
            assert cp.isfortran(one) is (order == "F")
    close(cupyx.scipy.linalg.kron(whole, whole), np.kron(whole.get(), whole.get()))
    theta, phi = cp.linspace(0, 6, 5), cp.linspace(0, 3, 5)
    found = cupyx.scipy.special.sph_harm(1, 2, theta, phi)
    close(found, scipy.special.sph_harm_y(2, 1, phi.get(), theta.get()))
    x = cp.linspace(0.1, 0.9, 4)
    close(cupyx.scipy.special.btdtr(2.0, 3.0, x), scipy.special.betainc(2, 3, x.get()))
    close(
        cupyx.scipy.special.btdtri(2.0, 3.0, x), scipy.special.betaincinv(2, 3, x.get())
    )


def case_transforms_of_the_last_axes_do_not_warn():
    cube = cp.arange(24.0).reshape(2, 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("fftn", "ifftn", "rfftn", "irfftn"):
            found = getattr(cp.fft, name)(cube, (2, 4))
            theirs = getattr(np.fft, name)(cube.get(), (2, 4), axes=(-2, -1))
            close(found, theirs)


def case_diagonals_of_integers_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = cupyx.scipy.sparse.diags([1, -2, 1], [-1, 0, 1], shape=(4, 4))
    assert made.dtype == np.float64
    close(made.toarray()[0], [-2, 1, 0, 0])


def case_wavelets():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        hat = cupyx.scipy.signal.ricker(5, 2.0)
        height = 2 / (math.sqrt(6.0) * math.pi**0.25)
        close(hat[2], height)
        close(hat[0], height * (1 - 1.0) * math.exp(-0.5))
        wave = cupyx.scipy.signal.morlet2(7, 1.5)
        close(wave[3], math.pi**-0.25 / math.sqrt(1.5))
        close(cupyx.scipy.signal.morlet(9)[4], math.pi**-0.25 * (1 - math.exp(-12.5)))
        close(cupyx.scipy.signal.qmf(cp.array([1.0, 2, 3])), [3, -2, 1])
        line = cp.sin(cp.arange(40.0) / 3)
        rows = cupyx.scipy.signal.cwt(line, cupyx.scipy.signal.ricker, [1, 3])
        wide = cupyx.scipy.signal.ricker(30, 3)
    close(rows[1], np.convolve(line.get(), wide.get()[::-1], "same"))
    assert {one.category.__name__ for one in warned} == {"VisibleDeprecationWarning"}


def case_submodules_are_there_without_an_import():
    for name in ("special", "fftpack", "signal", "stats", "interpolate", "linalg"):
        assert getattr(cupyx.scipy, name).__name__ == f"cupyx.scipy.{name}"
    assert cp.cuda.get_cuda_path() is None
    assert cp.cuda.get_nvcc_path() is None


def case_kernels_of_python_are_refused_when_they_start():
    from cupyx import jit

    @jit.rawkernel()
    def double(x, y, size):
        at = jit.grid(1)
        if at < size:
            y[at] = 2 * x[at]

    assert double.__name__ == "double"
    x = cp.arange(3.0)
    for start in (lambda: double((1,), (3,), (x, x, 3)), lambda: double[1, 3](x, x, 3)):
        refused(NotImplementedError, start, "use cupy.RawKernel on a CUDA device")
    refused(NotImplementedError, jit.syncthreads, "cupyx.jit")


def case_what_can_be_pickled():
    poly = cp.poly1d([1.0, 2, 3], variable="z")
    for made in (pickle.loads(pickle.dumps(poly)), copy.deepcopy(poly)):
        assert str(made) == str(poly)
        close(made(cp.array([2.0])), [11])
    for one in (cp.random.default_rng(1), cp.random.RandomState(1)):
        refused(TypeError, lambda: pickle.dumps(one), "cannot pickle")  # noqa: B023


def case_generators_tell_their_bits():
    for made in (cp.random.default_rng(5), cp.random.Generator(cp.random.XORWOW(5))):
        assert type(made.bit_generator) is cp.random.XORWOW
        assert cp.random.default_rng(made) is made
    bits = cp.random.Philox4x3210(5)
    assert cp.random.default_rng(bits).bit_generator is bits
    first, second = (cp.random.default_rng(5).random(3) for _ in range(2))
    assert (first == second).all()


def case_a_name_that_is_missing_says_what_else():
    for module, name, text in (
        (cp, "insert", "use cupy.concatenate"),
        (cp, "geomspace", "use cupy.logspace"),
        (cp, "errstate", "use cupyx.errstate"),
        (cp, "sparse", "use cupyx.scipy.sparse"),
        (cp, "busday_count", "use numpy.busday_count on the host, with array.get()"),
        (cp, "datetime64", "CuPy has none"),
        (cp.linalg, "einsum_path", "has no attribute"),
        (cp.random, "PCG64", "use cupy.random.XORWOW"),
        (cp.random, "SeedSequence", "use numpy.random.SeedSequence"),
        (cupyx.scipy.special, "ellipe", "use scipy.special.ellipe on the host"),
        (cp, "no_such_name", "module 'cupy' has no attribute 'no_such_name'"),
    ):
        assert not hasattr(module, name)
        refused(AttributeError, lambda: getattr(module, name), text)  # noqa: B023
    for run, name in ((cp.max, "max"), (cp.sum, "sum"), (cp.cumsum, "cumsum")):
        text = f"{name}() got an unexpected keyword argument 'initial'"
        refused(TypeError, lambda: run(cp.arange(3), initial=9), text)  # noqa: B023
    try:
        cp.argmux  # noqa: B018
    except AttributeError as error:
        assert (error.name, error.obj) == ("argmux", cp)
    refused(ModuleNotFoundError, lambda: importlib.import_module("cupyx.scipy.io"))


def case_equations_of_cublas():
    import cupy.cublas as blas

    a = np.random.default_rng(0).random((3, 2, 2)) + np.eye(2)
    for shape in ((3, 2), (3, 2, 4)):
        b = np.random.default_rng(1).random(shape)
        found = blas.batched_gesv(cp.asarray(a), cp.asarray(b))
        columns = b if b.ndim == 3 else b[..., None]
        expected = np.linalg.solve(a, columns).reshape(shape)
        np.testing.assert_allclose(found.get(), expected)
    refused(
        np.linalg.LinAlgError,
        lambda: blas.batched_gesv(cp.ones((2, 3)), cp.ones(2)),
        "square",
    )
    for shape in ((2,), (2, 2), (4, 2, 2)):
        b = cp.ones(shape)
        refused(
            ValueError,
            lambda b=b: blas.batched_gesv(cp.asarray(a), b),
            "for matrices of shape",
        )
    assert blas.get_batched_gesv_limit() == 256
    blas.set_batched_gesv_limit(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        blas.batched_gesv(cp.asarray(a), cp.ones((3, 2)))
    assert "exceeds the set limit" in str(caught[0].message)
    blas.set_batched_gesv_limit(256)


def case_products_of_cublas():
    import cupy.cublas as blas

    x, y = cp.asarray([3.0, -4.0]), cp.asarray([1.0, 2.0])
    z = cp.asarray([1 + 1j, -3j])
    assert [float(blas.nrm2(x)), float(blas.asum(z)), float(blas.dot(x, y))] == [
        5,
        5,
        -5,
    ]
    assert [int(blas.iamax(x)), int(blas.iamin(x)), int(blas.iamax(z))] == [2, 1, 2]
    assert [complex(blas.dotu(z, z)), complex(blas.dotc(z, z))] == [-9 + 2j, 11]
    out = np.zeros(())
    assert blas.nrm2(x, out) is out
    assert out == 5
    blas.axpy(2, x, y)
    blas.scal(0.5, x)
    assert [*y.tolist(), *x.tolist()] == [7, -6, 1.5, -2]
    a = cp.arange(6.0).reshape(2, 3)
    made = blas.gemm("N", "T", a, a, alpha=2)
    assert made.flags.f_contiguous
    assert made.tolist() == (2 * a @ a.T).tolist()
    assert blas.gemm("T", "N", a, a, out=cp.ones((3, 3)), beta=3)[0, 0] == 12
    assert blas.geam("T", "N", 1, a, 2, cp.ones((3, 2))).tolist() == (a.T + 2).tolist()
    blas.gemv("N", 1.0, a, cp.ones(3), 0.0, y)
    assert y.tolist() == [3, 12]
    blas.ger(1.0, cp.ones(2), cp.ones(3), a)
    assert a.tolist() == [[1, 2, 3], [4, 5, 6]]
    for call, error in (
        (lambda: blas.nrm2(a), ValueError),
        (lambda: blas.nrm2(cp.arange(3)), TypeError),
        (lambda: blas.dot(x, cp.ones(3)), ValueError),
        (lambda: blas.dot(z, z), TypeError),
        (lambda: blas.gemm("X", "N", made, made), TypeError),
    ):
        try:
            call()
        except error:
            continue
        raise AssertionError(error)


if __name__ == "__main__":
    run_cases(globals())
