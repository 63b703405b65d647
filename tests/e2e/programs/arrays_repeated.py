"""Calls that are made again are what they were; calls that only look alike differ."""

import cupy as cp
import numpy as np
from array_checks import no_round_trip, refused


def twice(run):
    """The first and the second result, both on the host."""
    first, second = run(), run()
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    return first.get(), second.get()


def same(run, expected):
    """A call is what NumPy's is, at first and when it is known."""
    expected = np.asarray(expected)
    for one in twice(run):
        assert one.dtype == expected.dtype, (one.dtype, expected.dtype)
        np.testing.assert_array_equal(one, expected)


def case_functions_of_several_arrays():
    host = np.arange(12.0).reshape(3, 4)
    a = cp.asarray(host)
    mask, low = a > 5, cp.zeros(4)
    same(lambda: cp.where(mask, a, low), np.where(host > 5, host, 0))
    same(lambda: cp.where(mask, low, a), np.where(host > 5, 0, host))
    same(lambda: cp.concatenate((a, a)), np.concatenate((host, host)))
    same(lambda: cp.concatenate([a, a], axis=1), np.concatenate([host, host], 1))
    same(lambda: cp.stack((a, a + 1)), np.stack((host, host + 1)))
    same(lambda: a.T @ a, host.T @ host)
    same(lambda: cp.tensordot(a, a, axes=2), np.tensordot(host, host, axes=2))


def case_values_that_are_equal_and_differ():
    a = cp.asarray([-1.0, 1.0])
    for _ in range(2):
        zero = cp.full(2, 0.0).get()
        negative = cp.full(2, -0.0).get()
        assert not np.signbit(zero).any()
        assert np.signbit(negative).all()
    same(lambda: cp.full(2, 1), np.full(2, 1))
    same(lambda: cp.full(2, 1.0), np.full(2, 1.0))
    same(lambda: cp.full(2, True), np.full(2, True))
    same(lambda: cp.arange(3), np.arange(3))
    same(lambda: cp.arange(3.0), np.arange(3.0))
    same(lambda: a.clip(0, 1), np.clip([-1.0, 1.0], 0, 1))
    same(lambda: a.astype(int), np.asarray([-1, 1]))
    same(lambda: a.astype("float32"), np.asarray([-1, 1], "f"))
    same(lambda: a.astype(np.float32), np.asarray([-1, 1], "f"))
    same(lambda: a.astype(np.dtype("int8")), np.asarray([-1, 1], "b"))
    same(lambda: a.astype(bool), np.asarray([True, True]))
    same(lambda: cp.zeros(2, dtype=np.int8), np.zeros(2, np.int8))
    same(lambda: cp.zeros(2, dtype="int8"), np.zeros(2, np.int8))
    same(lambda: cp.zeros(2), np.zeros(2))
    same(lambda: cp.sum(a, dtype="float32"), np.float32(0))
    same(lambda: cp.sum(a), np.float64(0))


def case_a_length_that_an_array_holds():
    for length in (2, 3):
        size = cp.asarray(length)
        assert cp.zeros(size).shape == (length,)
        assert cp.ones(6).reshape(size, -1).shape == (length, 6 // length)
    for axis in (0, 1):
        found = cp.ones((2, 3)).sum(axis=cp.asarray(axis))
        assert found.shape == (3 - axis,)


def case_views_know_their_owner():
    for _ in range(2):
        a = cp.zeros((2, 3))
        a.T[0, 1] = 1
        a.reshape(3, 2)[2, 1] = 2
        a.ravel()[2] = 3
        a.transpose(1, 0)[1, 1] = 4
        cp.moveaxis(a, 0, 1)[1, 0] = 5
        assert a.get().tolist() == [[0, 5, 3], [1, 4, 2]]
        assert a.T.base is a
        assert a[1:].T.base is a
        assert a.copy().base is None


def case_copies_are_copies():
    for _ in range(2):
        a = cp.zeros((2, 3))
        for one in (a.copy(), a.T.copy(), a.astype(float), a.astype("f")):
            one[...] = 7
        assert not a.any()
        assert a.T.copy().flags.c_contiguous
        assert a.T.copy("K").flags.f_contiguous


def case_slices_in_all_their_forms():
    host = np.arange(5000 * 3).reshape(5000, 3)
    a = cp.asarray(host)
    keys = [
        *(np.s_[2:8, 1], np.s_[-3:], np.s_[:-3, ::2], np.s_[4990:9999], np.s_[8:2]),
        *(np.s_[::-1], np.s_[4500], np.s_[-4500, 1:], np.s_[None, 4096:4100, None]),
        *(np.s_[..., 0], np.s_[..., -1:], np.s_[:, None], np.s_[4999:0:-7, 2]),
        np.s_[4095:4097, ...],
    ]
    for key in keys:
        same(lambda key=key: a[key], host[key])
        a[key] = -1
        host[key] = -1
        np.testing.assert_array_equal(a.get(), host)
    refused(IndexError, lambda: a[5000])
    refused(IndexError, lambda: a[0, 3])
    refused(ValueError, lambda: a[::0])


def case_items_that_arrays_pick():
    host = np.arange(24).reshape(4, 6)
    a, first, second = cp.asarray(host), cp.asarray([3, 0]), cp.asarray([1, 2])
    rows, columns = first.get(), second.get()
    same(lambda: a[first], host[rows])
    same(lambda: a[second], host[columns])
    same(lambda: a[first, 1:3], host[rows, 1:3])
    same(lambda: a[first, 2:4], host[rows, 2:4])
    same(lambda: a[1:, second], host[1:, columns])
    same(lambda: a[first, second], host[rows, columns])
    same(lambda: a[..., first, None], host[..., rows, None])
    same(lambda: a[[0, 2]], host[[0, 2]])
    same(lambda: a[a % 2 == 0], host[host % 2 == 0])
    refused(IndexError, lambda: a[first, second, first])


def case_results_go_where_they_are_to_go():
    a, b = cp.arange(3.0), cp.ones(3)
    out = cp.empty(3)
    for _ in range(2):
        assert cp.add(a, b, out=out) is out
        assert out.get().tolist() == [1, 2, 3]
        assert cp.multiply(b, 1, out=b) is b
    assert cp.multiply(a, 2, out=a) is a
    assert a.get().tolist() == [0, 2, 4]
    refused(TypeError, lambda: cp.add(a, b, out=cp.empty(3, dtype=int)))
    refused(ValueError, lambda: cp.add(a, b, out=cp.empty(2)))
    assert cp.add(a, b, out=cp.empty((2, 3))).shape == (2, 3)


def case_errors_come_each_time():
    a = cp.ones((2, 3))
    for _ in range(3):
        refused(ValueError, lambda: a.reshape(4, 2), "cannot reshape")
        refused(ValueError, lambda: a.transpose(0, 1, 2))
        refused(np.exceptions.AxisError, lambda: a.sum(axis=2))
        refused(TypeError, lambda: cp.where(a > 0, a, np.ones((2, 3))))
        refused(ValueError, lambda: cp.concatenate((a, a[:, :2])))


def case_complex_casts_warn_each_time():
    import warnings

    a = cp.ones(2, dtype=complex)
    for _ in range(2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            a.astype(float)
        assert [one.category for one in said] == [np.exceptions.ComplexWarning]


def case_streams_of_different_calls():
    """More of them than are remembered."""
    a = cp.arange(5000)
    with no_round_trip():
        found = [a.clip(0, limit).sum() for limit in range(4200)]
    assert int(found[7]) == 7 * 5000 - sum(range(1, 8))
    with no_round_trip():
        again = a.clip(0, 7)
    assert again.get().tolist() == np.arange(5000).clip(0, 7).tolist()


for _name, _case in list(globals().items()):
    if _name.startswith("case_"):
        _case()
        print(_name.removeprefix("case_"))
