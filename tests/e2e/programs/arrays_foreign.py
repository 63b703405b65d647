"""Arrays of other libraries that wrap ours, and threads that share the device."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cupy as cp
import numpy as np
from array_checks import no_round_trip, refused, run_cases

row = cp.arange(6.0)
HOST = row.get()


class Labelled:
    """Wraps an array, and says so by NumPy's protocols: no operator of its own."""

    def __init__(self, data):
        self.data = data

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        assert ufunc.signature is None or ufunc is np.matmul
        plain = [one.data if isinstance(one, Labelled) else one for one in inputs]
        return Labelled(getattr(ufunc, method)(*plain, **kwargs))

    def __array_function__(self, function, types, args, kwargs):
        return Labelled(function(*map(self.unlabelled, args), **kwargs))

    @classmethod
    def unlabelled(cls, value):
        if isinstance(value, list | tuple):
            return type(value)(map(cls.unlabelled, value))
        return value.data if isinstance(value, Labelled) else value


class Unwilling:
    """Takes part in nothing."""

    __array_ufunc__ = None


def same(found, expected):
    assert type(found) is Labelled
    assert type(found.data) is cp.ndarray
    np.testing.assert_allclose(found.data.get(), expected)


def case_operators_ask_the_other_array():
    other = Labelled(row)
    same(row + other, HOST + HOST)
    same(other - row, HOST - HOST)
    same(2.0 * row / Labelled(row + 1), 2 * HOST / (HOST + 1))
    same(row > other, HOST > HOST)
    same(row == other, HOST == HOST)
    same(row @ other, HOST @ HOST)
    same(other @ row, HOST @ HOST)
    assert divmod(row, Labelled(row + 1)).data[0].tolist() == [0.0] * 6


def case_ufuncs_of_numpy_ask_the_other_array():
    other = Labelled(row)
    same(np.add(row, other), HOST + HOST)
    same(np.multiply(other, row), HOST * HOST)
    same(np.add.outer(row, other), np.add.outer(HOST, HOST))
    same(np.add.reduce(other), HOST.sum())


def case_functions_of_numpy_ask_the_other_array():
    other = Labelled(row)
    same(np.where(row > 2, other, row), HOST)
    same(np.concatenate([row, other]), np.concatenate([HOST, HOST]))
    same(np.clip(row, other, None), HOST)


def case_what_nobody_takes_is_refused():
    refused(TypeError, lambda: cp.add(row, Labelled(row)), "Unsupported type")
    refused(TypeError, lambda: cp.where(row > 2, Labelled(row), row), "Unsupported")
    refused(TypeError, lambda: row + Unwilling(), "unsupported operand")
    refused(TypeError, lambda: row @ Unwilling(), "Unwilling")
    refused(TypeError, lambda: np.add(row, object()), "NotImplemented")
    refused(TypeError, lambda: np.add(row, None), "NotImplemented")
    assert not hasattr(row, "__array_namespace__")  # nor have CuPy's arrays


def case_indices_of_ufuncs_are_no_operands():
    found = row.copy()
    np.add.at(found, ([0, 0, 1],), 1.0)
    assert found.tolist() == [2.0, 2.0, 2.0, 3.0, 4.0, 5.0]
    assert np.add.reduceat(row, [0, 3]).tolist() == [3.0, 12.0]


def case_ufuncs_give_the_dtype_that_is_asked_for():
    whole = cp.arange(3)
    with no_round_trip():
        found = [
            cp.add(whole, whole, dtype="f8"),
            np.add(row, row, dtype="f4"),
            cp.sqrt(row, dtype="f4"),
            cp.multiply(whole, whole, dtype=cp.complex64),
        ]
    found.append(cp.add(whole, 1.5, dtype="f4"))
    assert [one.dtype.str[1:] for one in found] == ["f8", "f4", "f4", "c8", "f4"]
    assert cp.add(row, row, dtype="f4").tolist() == (HOST + HOST).tolist()
    refused(TypeError, lambda: cp.add(row, row, dtype="i4"), "")
    refused(ValueError, lambda: cp.add(row, row[:2], dtype="f4"), "broadcast")


def case_arrays_are_stretched_and_numbers_stay():
    left, number, right = cp.broadcast_arrays(row[None], 1, row[:, None])
    assert left.shape == right.shape == (6, 6)
    assert number == 1
    assert left.get().tolist() == np.broadcast_to(HOST, (6, 6)).tolist()
    assert cp.broadcast_arrays(row, 2)[0] is row
    assert cp.broadcast_arrays(1, 2) == (1, 2)
    assert np.broadcast_arrays(row, 1)[0].shape == (6,)
    refused(ValueError, lambda: cp.broadcast_arrays(row, row[:2]), "broadcast")


def case_astype_takes_arrays_of_the_device():
    assert cp.astype(row, "i4").dtype == "i4"
    assert cp.astype(row, float, copy=False) is row
    refused(TypeError, lambda: cp.astype(HOST, "f4"), "Input should be a CuPy array")


def case_axes_may_be_a_host_array():
    cube = cp.zeros((2, 3, 4))
    assert cp.moveaxis(cube, np.array([0, 1]), np.array([2, 0])).shape == (3, 4, 2)
    assert np.moveaxis(cube, np.array([0]), np.array([-1])).shape == (3, 4, 2)


def case_truth_values_are_no_lengths():
    for make in (
        cp.zeros,
        cp.ones,
        cp.empty,
        cp.ndarray,
        cp.random.random,
        lambda shape: cp.zeros_like(row, shape=shape),
        lambda shape: cp.full(shape, 1.0),
        lambda shape: cp.broadcast_to(row[:1], shape),
    ):
        for length in (True, np.True_):
            refused(TypeError, lambda make=make, one=length: make((one, 2)), "integer")
    refused(TypeError, lambda: cp.zeros(True), "integer")
    refused(TypeError, lambda: cp.zeros(None), "shape")
    assert row.reshape(True, 6).shape == (1, 6)


def case_seeds_are_spawned_from_bit_generators():
    bits = cp.random.XORWOW(7)
    seeds = bits._seed_seq.spawn(2)
    first, second = (
        cp.random.Generator(cp.random.XORWOW(one)).random(5).tolist() for one in seeds
    )
    again = cp.random.XORWOW(7)._seed_seq.spawn(1)[0]
    assert cp.random.default_rng(again).random(5).tolist() == first != second
    given = np.random.SeedSequence(3)
    assert cp.random.Philox4x3210(given)._seed_seq is given


def case_threads_share_the_device():
    many = cp.arange(4000.0).reshape(40, 100)
    meet = threading.Barrier(8)

    def work(at):
        if at < 8:
            meet.wait()
        part = many[at * 5 % 40 : at * 5 % 40 + 5]
        found = (part - part.mean(axis=0)) @ part.T
        return float(cp.add(found, found, dtype="f8").sum()), part.get()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(64)))
    host = many.get()
    for at, (total, part) in enumerate(results):
        expected = host[at * 5 % 40 : at * 5 % 40 + 5]
        np.testing.assert_array_equal(part, expected)
        product = (expected - expected.mean(axis=0)) @ expected.T
        np.testing.assert_allclose(total, 2 * product.sum(), rtol=1e-9, atol=1e-6)


if __name__ == "__main__":
    run_cases(globals())
