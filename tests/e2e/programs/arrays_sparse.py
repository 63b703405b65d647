"""``cupyx.scipy.sparse`` where CuPy differs from SciPy, and its solvers' limits."""

from __future__ import annotations

import operator
import warnings

import cupy as cp
import numpy as np
import scipy.sparse as host_sparse
from array_checks import no_round_trip, run_cases
from cupyx.scipy import sparse
from cupyx.scipy.sparse import linalg

WHOLE = np.array([[0, 2.0, 0, -1], [3, 0, 0, 0], [0, -5, 4, 1]])
ROW, COLUMN = np.array([[0, 2.0, 1, 0]]), np.array([[0], [3.0], [-5]])
COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.gt, operator.le)


SYMMETRIC = np.diag(np.arange(1.0, 21)) + np.diag(np.full(19, 0.5), 1)
SYMMETRIC = (SYMMETRIC + SYMMETRIC.T) / 2
RIGHT = np.linspace(-1, 1, 20)


def refused(kind, call):
    """Whether a call raises an error of this kind."""
    try:
        call()
    except kind:
        return True
    return False


def case_a_row_or_a_column_is_stretched():
    near = sparse.csr_matrix(cp.asarray(WHOLE))
    for other in (ROW, COLUMN, np.array([[2.0]])):
        beside = sparse.coo_matrix(cp.asarray(other))
        assert np.array_equal(
            near.maximum(beside).toarray().get(), np.maximum(WHOLE, other)
        )
        assert np.array_equal(
            beside.minimum(near).toarray().get(), np.minimum(WHOLE, other)
        )
        for compare in COMPARISONS:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = compare(near, beside)
            assert sparse.issparse(found)
            assert np.array_equal(found.toarray().get(), compare(WHOLE, other))
            wanted = {sparse.SparseEfficiencyWarning} if compare(0, 0) else set()
            assert {one.category for one in said} == wanted


def case_other_shapes_are_not_compared():
    near = sparse.csr_matrix(cp.asarray(WHOLE))
    for shape in ((3, 5), (2, 4), (3, 0)):
        other = sparse.csr_matrix(shape, dtype="d")
        for run in (*COMPARISONS, type(near).maximum):
            assert refused(ValueError, lambda run=run, other=other: run(near, other))


def case_a_matrix_is_divided_by_zero():
    holed = np.array([[0, 2.0, -1], [1, 0, 0]])
    for kind in ("csr", "csc", "coo", "dia"):
        matrix = getattr(sparse, f"{kind}_matrix")(cp.asarray(holed))
        for zero in (0, 0.0, np.float64(0), cp.array(0)):
            found = (matrix / zero).toarray().get()
            expected = np.where(holed, np.copysign(np.inf, holed), 0)
            np.testing.assert_array_equal(found, expected)
        assert (matrix / 2).toarray().get().tolist() == (holed / 2).tolist()
    stored = sparse.csr_matrix((cp.zeros(1), cp.array([1]), cp.array([0, 1])), (1, 2))
    np.testing.assert_array_equal((stored / 0).toarray().get(), [[0, np.nan]])
    single = sparse.csr_matrix(cp.asarray(holed, "f4"))
    assert (single / 2).dtype == (single / 0).dtype == "f8"
    assert (single.astype("F") / 2).dtype == "F"


def case_warnings_are_scipys():
    assert sparse.SparseEfficiencyWarning is host_sparse.SparseEfficiencyWarning
    near = sparse.csr_matrix(cp.asarray(WHOLE))
    with warnings.catch_warnings():
        warnings.simplefilter("error", host_sparse.SparseWarning)
        assert refused(
            host_sparse.SparseEfficiencyWarning, lambda: near.__setitem__((0, 0), 7.0)
        )


def case_the_second_product_with_a_vector_does_not_wait():
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix):
        near, x, y = kind(cp.asarray(WHOLE)), cp.arange(4.0), cp.arange(4.0) - 1
        single = x.astype("f")
        assert np.array_equal((near @ x).get(), WHOLE @ x.get())
        with no_round_trip():
            found = near @ y
        assert np.array_equal(found.get(), WHOLE @ y.get())
        assert (near @ single).dtype == (near @ single).dtype == np.float64
        assert refused(ValueError, lambda near=near: near @ cp.arange(3.0))
        near.data = near.data.astype("D") * 1j
        assert np.array_equal((near @ y).get(), WHOLE * 1j @ y.get())
    near = sparse.csr_array(cp.asarray(WHOLE))
    for _ in range(2):
        assert (near * cp.arange(4.0)).shape == (3, 4)
        assert np.array_equal((cp.arange(3.0) @ near).get(), np.arange(3.0) @ WHOLE)


def case_minres_with_functions_of_the_program():
    near, b, seen = cp.asarray(SYMMETRIC), cp.asarray(RIGHT), []
    operator_of = linalg.LinearOperator((20, 20), lambda x: near @ x, dtype="d")
    before = cp.diag(1 / cp.diag(near))
    x0, shift = cp.ones(20), 0.25
    for matrix in (near, sparse.csr_matrix(near), operator_of):
        for given in ({}, {"M": before}, {"x0": x0, "shift": shift}):
            found, info = linalg.minres(
                matrix, b, tol=1e-10, callback=seen.append, check=True, **given
            )
            wanted = SYMMETRIC - given.get("shift", 0.0) * np.eye(20)
            assert info == 0
            assert np.allclose(found.get(), np.linalg.solve(wanted, RIGHT), atol=1e-7)
    assert len(seen) > 9
    assert linalg.minres(near, b, maxiter=2, callback=seen.append)[1] == 2
    lopsided = cp.triu(cp.ones((20, 20)))
    assert refused(
        ValueError, lambda: linalg.minres(lopsided, b, callback=seen.append, check=True)
    )


def case_eigenvalues_as_far_as_they_are_known():
    near = cp.asarray(SYMMETRIC)
    whole = np.linalg.eigvalsh(SYMMETRIC)
    for matrix in (near, sparse.csc_matrix(near), near.astype("D")):
        for which, wanted in (("LA", whole[-3:]), ("SA", whole[:3])):
            for given in ({}, {"maxiter": 500}, {"maxiter": 500, "ncv": 4}):
                values, vectors = linalg.eigsh(matrix, 3, which=which, **given)
                assert np.allclose(np.sort(values.get()), wanted, atol=1e-5), given
                assert cp.allclose(matrix @ vectors, vectors * values, atol=1e-4)
    start = linalg.eigsh(near, 1)[1][:, 0]
    value, vector = linalg.eigsh(near, 1, v0=start, ncv=1, maxiter=0)
    assert np.allclose(value.get(), whole[-1])
    assert np.allclose(abs(vector[:, 0].get()), abs(start.get()))
    rough = linalg.eigsh(near, 1, ncv=1, maxiter=0, return_eigenvectors=False)
    assert whole[0] < float(rough[0]) <= whole[-1] + 1e-9


def case_formats_that_cupy_has_not_are_refused():
    matrix = sparse.csr_matrix(cp.asarray(WHOLE))
    for layout in ("bsr", "lil", "dok"):
        for make in (
            lambda layout: matrix.asformat(layout),
            lambda layout: getattr(matrix, f"to{layout}")(),
            lambda layout: sparse.eye(3, format=layout),
            lambda layout: sparse.kron(matrix, matrix, layout),
            lambda layout: sparse.vstack([matrix, matrix], format=layout),
        ):
            try:
                make(layout)
            except NotImplementedError as error:
                assert f"the format '{layout}'" in str(error), error
            else:
                raise AssertionError(layout)
    for right in (matrix, sparse.csr_matrix(cp.ones((2, 2)))):
        made = sparse.kron(matrix, right)
        assert type(made) is sparse.coo_matrix
        expected = np.kron(WHOLE, right.toarray().get())
        np.testing.assert_array_equal(made.toarray().get(), expected)
    assert sparse.kron(matrix, matrix, "csc").format == "csc"


def case_what_solvers_refuse():
    near, b = cp.asarray(SYMMETRIC), cp.asarray(RIGHT)
    whole = near.astype("i")
    for kind, call in (
        *(
            (TypeError, lambda run=run: run(whole, b))
            for run in (linalg.cg, linalg.gmres)
        ),
        *(
            (TypeError, lambda run=run: run(whole))
            for run in (linalg.eigsh, linalg.svds)
        ),
        (ValueError, lambda: linalg.eigsh(cp.ones(3))),
        (ValueError, lambda: linalg.eigsh(cp.ones((2, 1)))),
        (ValueError, lambda: linalg.eigsh(near, k=0)),
        (ValueError, lambda: linalg.eigsh(near, k=20)),
        (ValueError, lambda: linalg.eigsh(near, k=2, which="SM")),
        (ValueError, lambda: linalg.svds(cp.ones(3))),
        (ValueError, lambda: linalg.svds(near, k=20)),
        (ValueError, lambda: linalg.svds(near, k=2, which="SM")),
    ):
        assert refused(kind, call)
    assert linalg.cg(near, b, atol=None)[1] == 0


if __name__ == "__main__":
    run_cases(globals())
