"""Where CuPy takes NumPy arrays, and where it refuses them."""

import cupy as cp
import cupyx.scipy.signal as signal
import cupyx.scipy.sparse as sparse
import cupyx.scipy.sparse.linalg as solvers
import numpy as np
from array_checks import is_real_gpu, refused, run_cases

HOST = np.arange(6.0).reshape(2, 3)
row = cp.arange(5.0)


def same(found, expected):
    """An array of the device with these items."""
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        return
    assert type(found) is cp.ndarray, type(found)
    np.testing.assert_allclose(found.get(), expected)


def case_numbers_that_say_how():
    host = row.get()
    there = cp.asarray(HOST)
    some = np.array([10, 90])
    same(cp.percentile(row, some), np.percentile(host, some))
    same(cp.percentile(row, q=some), np.percentile(host, some))
    same(cp.quantile(row, some / 100), np.quantile(host, some / 100))
    at = np.array([1, 3])
    same(cp.split(row, at), np.split(host, at))
    same(cp.array_split(row, at), np.array_split(host, at))
    same(cp.hsplit(row, at), np.split(host, at))
    same(cp.roll(there, np.array([1, 1]), (0, 1)), np.roll(HOST, (1, 1), (0, 1)))
    same(cp.tile(there, np.array([2, 1])), np.tile(HOST, (2, 1)))
    same(cp.transpose(there, np.array([1, 0])), HOST.T)
    same(cp.broadcast_to(there, np.array([2, 2, 3])), np.stack([HOST, HOST]))
    for make in (cp.zeros, cp.ones, cp.empty):
        assert make(np.array([2, 3])).shape == (2, 3)
    found = cp.unravel_index(cp.array([3]), np.array([2, 3]))
    same(found, ([1], [0]))


def case_data_that_becomes_an_array():
    other = HOST[::-1] / 7
    same(cp.isclose(HOST, other), np.isclose(HOST, other))
    same(cp.allclose(cp.asarray(HOST), HOST), True)
    for name in ("tril", "triu", "diff", "around", "round", "cov", "corrcoef"):
        same(getattr(cp, name)(HOST), getattr(np, name)(HOST))
    for name in ("diag", "real", "imag", "isreal", "iscomplex", "fft.fftshift"):
        run, theirs = cp, np
        for part in name.split("."):
            run, theirs = getattr(run, part), getattr(theirs, part)
        same(run(HOST), theirs(HOST))
    same(cp.diff(row, prepend=np.zeros(2)), np.diff(row.get(), prepend=[0, 0]))
    same(cp.vander(np.arange(3)), np.vander(np.arange(3)))
    same(cp.resize(HOST, (3, 3)), np.resize(HOST, (3, 3)))
    same(cp.tile(HOST, 2), np.tile(HOST, 2))
    same(cp.atleast_2d(HOST[0]), HOST[:1])
    same(cp.atleast_3d(HOST), np.atleast_3d(HOST))
    made = cp.atleast_1d(HOST[0], 3, row)
    assert type(made) is list
    same(made, [HOST[0], [3], row.get()])
    same(cp.linspace(np.zeros(2), np.ones(2), 3), np.linspace([0, 0], [1, 1], 3))
    same(cp.compress(np.array([True, False]), cp.asarray(HOST), axis=0), HOST[:1])
    same(cp.polyval(cp.array([1.0, 2]), np.array([1.0, 2])), [3, 4])
    taken = cp.arange(5.0)
    cp.put(taken, np.array([0, 1]), np.array([7.0, 8]))
    same(taken, [7, 8, 2, 3, 4])


def case_large_ones_are_uploaded():
    large = np.arange(1 << 20) / 7
    same(cp.average(large), large.mean())
    same(cp.average(large, weights=large), np.average(large, weights=large))
    same(cp.around(large, 1), np.around(large, 1))
    same(cp.take(cp.asarray(large), np.arange(1 << 20)[::-1].copy()), large[::-1])


def case_numpys_own_answer_where_cupy_asks_a_method():
    for name in ("ravel", "squeeze", "copy", "sort", "argsort", "trace", "ptp"):
        found = getattr(cp, name)(HOST)
        assert type(found) is not cp.ndarray
        np.testing.assert_array_equal(found, getattr(np, name)(HOST))
    assert type(cp.clip(HOST, 1, 2)) is np.ndarray
    assert type(cp.take(HOST, 0)) is np.float64


def case_items_of_one_list_are_all_on_the_device():
    there = cp.asarray(HOST)
    for run in (cp.concatenate, cp.stack, cp.column_stack):
        refused(TypeError, lambda run=run: run([there, HOST]))
        refused(TypeError, lambda run=run: run((HOST, HOST)))
    refused(TypeError, lambda: np.concatenate([there, HOST]))
    for name in ("hstack", "vstack", "dstack"):
        same(getattr(cp, name)([there, HOST]), getattr(np, name)([HOST, HOST]))


def case_comparing_with_an_item_of_the_host():
    limit = np.array(2.0)
    same(row < limit, row.get() < 2)
    same(limit <= row, row.get() >= 2)
    same(row == limit, row.get() == 2)
    same(row != limit, row.get() != 2)
    refused(TypeError, lambda: row + limit, "Unsupported type")
    refused(TypeError, lambda: row < np.array([2.0]), "Unsupported type")
    refused(TypeError, lambda: cp.sin(HOST), "Unsupported type")


def case_numbers_out_of_range_wrap_around():
    same(cp.take(row, 9), 4)
    same(cp.take(row, -6), 4)
    same(cp.take(row, [9, -6]), [4, 4])
    same(row.take(7), 2)
    same(cp.asarray(HOST).take(4, axis=1), HOST[:, 1])
    same(row[cp.array([9, -6])], [4, 4])
    if not is_real_gpu():
        refused(IndexError, lambda: cp.take(cp.zeros(0), 0))


def case_extrema_by_a_comparison():
    line = cp.array([2, 1, 2, 3, 2, 0, 1, 0])
    same(signal.argrelextrema(line, cp.greater), ([3, 6],))
    same(signal.argrelextrema(line, cp.less, mode="wrap"), ([1, 5, 7],))
    same(signal.argrelextrema(line, cp.less, order=2), ([1],))
    same(signal.argrelextrema(line, lambda a, b: a > b), ([3, 6],))
    rows = cp.array([[1, 2, 1, 2], [2, 2, 0, 0], [5, 3, 4, 4]])
    same(signal.argrelextrema(rows, cp.less, axis=1), ([0, 2], [2, 1]))
    refused(ValueError, lambda: signal.argrelextrema(line, cp.less, order=0), "Order")
    refused(
        NotImplementedError, lambda: signal.argrelextrema(line, cp.less, mode="raise")
    )


def case_a_matrix_is_decomposed_once():
    whole = np.diag(np.arange(1.0, 6)) + np.eye(5, k=1)
    solve = solvers.factorized(sparse.csc_matrix(cp.asarray(whole)))
    for right in (np.ones(5), np.arange(5.0)):
        same(solve(cp.asarray(right)), np.linalg.solve(whole, right))


if __name__ == "__main__":
    run_cases(globals())
