"""``cupyx.scipy.sparse`` where CuPy differs from SciPy, and its solvers' limits."""

from __future__ import annotations

import operator
import sys
import warnings

import cupy as cp
import numpy as np
import scipy.sparse as host_sparse
from cupyx.scipy import sparse

WHOLE = np.array([[0, 2.0, 0, -1], [3, 0, 0, 0], [0, -5, 4, 1]])
ROW, COLUMN = np.array([[0, 2.0, 1, 0]]), np.array([[0], [3.0], [-5]])
COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.gt, operator.le)


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


def case_warnings_are_scipys():
    assert sparse.SparseEfficiencyWarning is host_sparse.SparseEfficiencyWarning
    near = sparse.csr_matrix(cp.asarray(WHOLE))
    with warnings.catch_warnings():
        warnings.simplefilter("error", host_sparse.SparseWarning)
        assert refused(
            host_sparse.SparseEfficiencyWarning, lambda: near.__setitem__((0, 0), 7.0)
        )


if __name__ == "__main__":
    for name, case in list(globals().items()):
        if name.startswith("case_") and sys.argv[1:] in ([], [name]):
            case()
            cp.cuda.Device().synchronize()
            print(name.removeprefix("case_"))
