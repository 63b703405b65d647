"""Eigenvalue and least-squares solvers of operators of a program's own functions."""

import io
import warnings
from contextlib import redirect_stdout

import cupy as cp
import cupyx.scipy.sparse as sparse
import cupyx.scipy.sparse.linalg as solvers
import numpy as np
import scipy.sparse.linalg as theirs
from array_checks import refused
from numpy.exceptions import ComplexWarning

KINDS = "fdFD"
NEAR = {"f": 2e-4, "F": 2e-4, "d": 1e-10, "D": 1e-10}


def drawn(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    found = rng.standard_normal(shape)
    if kind in "FD":
        found = found + 1j * rng.standard_normal(shape)
    return found.astype(kind)


def hermitian(size, kind):
    half = drawn((size, size), kind)
    return half @ half.conj().T / size + np.diag(np.arange(size)).astype(kind)


def operator(matrix, seen=None):
    """What calls a function of this program for each product, and says so."""
    there = cp.asarray(matrix)

    def product(v):
        if seen is not None:
            seen.append(v.shape)
        return there @ v

    return solvers.LinearOperator(
        matrix.shape,
        matvec=product,
        rmatvec=lambda v: there.conj().T @ v,
        matmat=product,
        dtype=matrix.dtype,
    )


def case_eigenvalues_are_scipys():
    for kind in KINDS:
        matrix, seen = hermitian(60, kind) - 30 * np.eye(60, dtype=kind), []
        for which in ("LM", "LA", "SA"):
            expected = theirs.eigsh(matrix, 4, which=which)[0]
            values, vectors = solvers.eigsh(operator(matrix, seen), 4, which=which)
            assert values.dtype == kind.lower()
            assert vectors.dtype == kind
            np.testing.assert_allclose(
                values.get(), np.sort(expected), atol=60 * NEAR[kind]
            )
            left = matrix @ vectors.get() - vectors.get() * values.get()
            assert np.abs(left).max() < 60 * NEAR[kind]
            alone = solvers.eigsh(
                operator(matrix), 4, which=which, return_eigenvectors=False
            )
            np.testing.assert_allclose(alone.get(), values.get(), atol=60 * NEAR[kind])
        assert set(seen) == {(60,)}


def case_eigenvalues_restart_and_give_up():
    matrix = hermitian(200, "d")
    seen = []
    values, _ = solvers.eigsh(operator(matrix, seen), 3, which="SA", ncv=12)
    expected = np.linalg.eigvalsh(matrix)[:3]
    np.testing.assert_allclose(values.get(), expected, atol=1e-9)
    assert 40 < len(seen) < 2000
    begun = []
    solvers.eigsh(operator(matrix, begun), 3, which="SA", ncv=12, maxiter=20)
    assert 20 <= len(begun) < 40
    start = cp.asarray(np.linalg.eigh(matrix)[1][:, -1])
    kept = start.copy()
    again = []
    found, _ = solvers.eigsh(operator(matrix, again), 1, v0=start)
    np.testing.assert_allclose(found.get(), np.linalg.eigvalsh(matrix)[-1:])
    assert (start == kept).all()


def case_eigenvalues_that_stand_twice():
    for matrix in (np.eye(50), np.zeros((50, 50)), np.diag([1.0] * 25 + [2.0] * 25)):
        values, vectors = solvers.eigsh(operator(matrix), 4)
        np.testing.assert_allclose(values.get(), [matrix.max()] * 4, atol=1e-12)
        product = vectors.get().T @ vectors.get()
        np.testing.assert_allclose(product, np.eye(4), atol=1e-10)
    values, _ = solvers.eigsh(operator(np.diag(np.arange(5.0))), 4)
    np.testing.assert_allclose(values.get(), [1, 2, 3, 4], atol=1e-12)


def case_singular_values_are_scipys():
    for kind in KINDS:
        for shape in ((40, 25), (25, 40)):
            matrix = drawn(shape, kind)
            expected = np.sort(theirs.svds(matrix, 3)[1])
            u, s, vt = solvers.svds(operator(matrix), 3)
            assert s.dtype == kind.lower()
            assert (u.shape, vt.shape) == ((shape[0], 3), (3, shape[1]))
            np.testing.assert_allclose(s.get(), expected, rtol=10 * NEAR[kind])
            left = matrix @ vt.get().conj().T - u.get() * s.get()
            assert np.abs(left).max() < 100 * NEAR[kind]
            alone = solvers.svds(operator(matrix), 3, return_singular_vectors=False)
            np.testing.assert_allclose(alone.get(), expected, rtol=10 * NEAR[kind])


def case_a_tolerance_is_the_residuals_length():
    for scale in (1e4, 1e-4):
        matrix = hermitian(60, "d") * scale
        for given in (operator(matrix), cp.asarray(matrix)):
            w, x = solvers.eigsh(given, 3, which="SA", tol=1e-6 * scale, ncv=20)
            far = np.linalg.norm(matrix @ x.get() - x.get() * w.get())
            assert far < 2e-6 * scale, far
            rough, _ = solvers.eigsh(given, 3, which="SA", tol=1e9, ncv=5)
            assert np.abs(rough.get() - w.get()).max() > 1e-3 * scale
    wide = drawn((20, 50), "d")
    for kind in "dDF":
        for matrix in (wide.astype(kind), wide.T.astype(kind)):
            for given in ({"tol": 1e-4}, {"maxiter": 200}, {"ncv": 12, "tol": 1e-4}):
                for each in (operator(matrix), cp.asarray(matrix)):
                    u, s, vt = solvers.svds(each, 3, **given)
                    expected = np.linalg.svd(matrix)[1][2::-1]
                    np.testing.assert_allclose(s.get(), expected, rtol=1e-4)
                    left = matrix @ vt.get().conj().T - u.get() * s.get()
                    assert np.abs(left).max() < 1e-3
            alone = solvers.svds(
                cp.asarray(matrix), 3, tol=1e-4, return_singular_vectors=False
            )
            np.testing.assert_allclose(alone.get(), expected, rtol=1e-4)
    thin = drawn((30, 2), "d") @ drawn((2, 20), "d", 1)
    u, s, vt = solvers.svds(cp.asarray(thin), 4, maxiter=300)
    np.testing.assert_allclose(u.get().T @ u.get(), np.eye(4), atol=1e-8)
    np.testing.assert_allclose((u * s @ vt).get(), thin, atol=1e-6)


def case_singular_values_that_are_none():
    matrix = drawn((30, 2), "d") @ drawn((2, 20), "d", 1)
    u, s, vt = solvers.svds(operator(matrix), 4)
    expected = np.linalg.svd(matrix)[1][:2][::-1]
    np.testing.assert_allclose(s.get(), [*expected, 0, 0], atol=1e-6)
    np.testing.assert_allclose(u.get().T @ u.get(), np.eye(4), atol=1e-8)
    np.testing.assert_allclose(vt.get() @ vt.get().T, np.eye(4), atol=1e-8)
    np.testing.assert_allclose((u * s @ vt).get(), matrix, atol=1e-6)


def case_blocks_of_eigenvalues_are_scipys():
    for kind in KINDS:
        matrix = hermitian(60, kind)
        start = cp.asarray(drawn((60, 3), kind, 1))
        inverse = operator(np.linalg.inv(matrix))
        right = hermitian(60, kind) + 9 * np.eye(60, dtype=kind)
        inverse_right = np.linalg.inv(right)
        for is_largest, before in ((True, None), (False, inverse)):
            for b, values in (
                (None, np.linalg.eigvalsh(matrix)),
                (right, np.sort(np.linalg.eigvals(inverse_right @ matrix).real)),
            ):
                w, v, values_seen, norms_seen = solvers.lobpcg(
                    operator(matrix),
                    start,
                    B=None if b is None else operator(b),
                    M=before,
                    largest=is_largest,
                    maxiter=200,
                    tol=2e-3 if kind in "fF" else 1e-6,
                    retLambdaHistory=True,
                    retResidualNormsHistory=True,
                )
                expected = values[:-4:-1] if is_largest else values[:3]
                np.testing.assert_allclose(w.get(), expected, rtol=1e-3, atol=1e-3)
                of_b = v.get() if b is None else b @ v.get()
                left = matrix @ v.get() - of_b * w.get()
                assert np.linalg.norm(left) < (0.01 if kind in "fF" else 1e-5)
                assert len(values_seen) == len(norms_seen) > 2
                assert (values_seen[-1] == w).all()


def case_blocks_take_constraints_and_matrices():
    matrix = hermitian(60, "d")
    values, vectors = np.linalg.eigh(matrix)
    kept, y = drawn((60, 2), "d", 2), vectors[:, :2]
    for given in (
        operator(matrix),
        cp.asarray(matrix),
        sparse.csr_matrix(cp.asarray(matrix)),
    ):
        start = cp.asarray(kept)
        w, _ = solvers.lobpcg(
            given,
            start,
            M=operator(np.linalg.inv(matrix)),
            Y=cp.asarray(vectors[:, :2].copy()),
            largest=False,
            tol=1e-7,
            maxiter=40,
        )
        np.testing.assert_allclose(w.get(), values[2:4], rtol=1e-8)
        # As CuPy does it: the constraints are taken from the program's own array.
        np.testing.assert_allclose(start.get(), kept - y @ (y.T @ kept), atol=1e-12)
    weights = np.diag(np.arange(1.0, 61))
    for given in (operator, cp.asarray):
        start = cp.asarray(kept)
        solvers.lobpcg(given(matrix), start, given(weights), Y=cp.asarray(y))
        np.testing.assert_allclose(y.T @ weights @ start.get(), 0, atol=1e-9)
    w, v = solvers.lobpcg(operator(matrix[:8, :8]), start[:8], largest=True)
    np.testing.assert_allclose(w.get(), np.linalg.eigvalsh(matrix[:8, :8])[:-3:-1])
    assert v.shape == (8, 2)
    for given in (operator, cp.asarray):
        with redirect_stdout(io.StringIO()) as text, warnings.catch_warnings():
            warnings.simplefilter("error")  # CuPy does not warn if it ends early
            for level in (0, 1):
                w, *histories = solvers.lobpcg(
                    given(matrix),
                    start,
                    maxiter=1,
                    verbosityLevel=level,
                    retLambdaHistory=True,
                    retResidualNormsHistory=True,
                )
                assert type(w) is cp.ndarray
                assert [type(one) for one in histories] == [cp.ndarray, list, list]
        assert text.getvalue().count("residual norm(s)") >= 1


def case_least_squares_are_scipys():
    for kind in KINDS:
        for shape in ((30, 12), (12, 30), (12, 12)):
            matrix, right = drawn(shape, kind), drawn(shape[0], kind, 1)
            matrix += 3 * np.eye(*shape, dtype=kind)
            start = drawn(shape[1], kind, 2)
            for given in (
                {},
                {"damp": 0.5},
                {"x0": start},
                {"maxiter": 3},
                {"atol": 0, "btol": 0},
                {"conlim": 2.0},
            ):
                there = {
                    key: cp.asarray(value) if key == "x0" else value
                    for key, value in given.items()
                }
                with warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always")
                    both = [
                        solvers.lsmr(given_as(matrix), cp.asarray(right), **there)
                        for given_as in (operator, cp.asarray)
                    ]
                found = both[0]
                # CuPy casts the solution to float64, whatever the system is of.
                kinds = {one.category for one in warned}
                assert kinds == ({ComplexWarning} if kind in "FD" else set()), kinds
                assert both[0][0].dtype == both[1][0].dtype == np.float64
                wide = matrix.astype("D" if kind in "FD" else "d")
                if "x0" in given:
                    given = {"x0": start.astype(wide.dtype)}
                given = {"maxiter": 5 * min(shape), **given}  # CuPy's default
                expected = theirs.lsmr(wide, right.astype(wide.dtype), **given)
                if kind in "dD" and given.get("atol", 1):
                    assert found[1:3] == expected[1:3], (given, found, expected)
                    np.testing.assert_allclose(found[3:], expected[3:], 1e-4, 1e-4)
                for x, *_ in both:
                    np.testing.assert_allclose(
                        x.get(), expected[0].real, rtol=1e-3, atol=1e-3
                    )
    zeros = solvers.lsmr(operator(matrix), cp.zeros(12))
    assert zeros[1:3] == (0, 0)
    assert not zeros[0].any()
    column, reason, *_ = solvers.lsmr(operator(matrix), cp.asarray(right)[:, None])
    assert column.shape == (12,)
    assert reason in (1, 2)


def case_what_looks_like_an_operator_is_one():
    class Twice:
        shape, dtype = (9, 9), np.dtype(float)

        def matvec(self, x):
            return 2 * x

        rmatvec = matvec

    found = solvers.lsmr(Twice(), cp.arange(9.0))
    np.testing.assert_allclose(found[0].get(), np.arange(9) / 2, atol=1e-12)
    solved, info = solvers.cg(Twice(), cp.arange(9.0))
    assert info == 0
    np.testing.assert_allclose(solved.get(), np.arange(9) / 2)


def case_matrices_go_to_the_servers_own():
    matrix = cp.asarray(hermitian(30, "d"))
    both = [
        solvers.eigsh(one, 3, which="LA", return_eigenvectors=False)
        for one in (matrix, operator(matrix.get()))
    ]
    np.testing.assert_allclose(both[0].get(), both[1].get(), rtol=1e-9)
    right = cp.arange(30.0)
    x = solvers.lsmr(matrix, right, right, 0.0, 1e-10, 1e-10)[0]
    np.testing.assert_allclose((matrix @ x).get(), right.get(), atol=1e-5)


def case_what_is_wrong_is_said():
    square, wide = operator(hermitian(9, "d")), operator(drawn((3, 4), "d"))
    whole = solvers.LinearOperator((9, 9), lambda v: v, dtype=int)
    for kind, text, run in (
        (ValueError, "square", lambda: solvers.eigsh(wide, 1)),
        (ValueError, "greater than 0", lambda: solvers.eigsh(square, 0)),
        (ValueError, "smaller than 9", lambda: solvers.eigsh(square, 9)),
        (ValueError, "which", lambda: solvers.eigsh(square, 2, which="SM")),
        (TypeError, "dtype", lambda: solvers.eigsh(whole, 2)),
        (TypeError, "dtype", lambda: solvers.svds(whole, 2)),
        (ValueError, "smaller than 3", lambda: solvers.svds(wide, 3)),
        (ValueError, "which", lambda: solvers.svds(square, 2, which="SM")),
        (ValueError, "rank-2", lambda: solvers.lobpcg(square, cp.ones(9))),
        (ValueError, "shape", lambda: solvers.lobpcg(square, cp.ones((8, 1)))),
        (
            NotImplementedError,
            "constraints",
            lambda: solvers.lobpcg(square, cp.ones((9, 2)), Y=cp.ones((9, 1))),
        ),
        (ValueError, "b has", lambda: solvers.lsmr(square, cp.ones(8))),
        (
            ValueError,
            "x0 has",
            lambda: solvers.lsmr(square, cp.ones(9), cp.ones(3)),
        ),
        (TypeError, "argument", lambda: solvers.lsmr(square)),
        (TypeError, "argument", lambda: solvers.eigsh(square, 2, "LM")),
        (TypeError, "nearness", lambda: solvers.svds(square, nearness=1)),
    ):
        refused(kind, run, text)
    failing = solvers.LinearOperator((9, 9), lambda v: 1 // 0, dtype=float)
    refused(ZeroDivisionError, lambda: solvers.eigsh(failing, 2))


for _name, _case in list(globals().items()):
    if _name.startswith("case_"):
        _case()
        print(_name.removeprefix("case_"), flush=True)
