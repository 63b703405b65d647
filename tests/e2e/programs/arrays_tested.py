"""A module of tests as people write them with ``cupy.testing``."""

import unittest

import cupy as cp
import numpy as np
from cupy import testing

SEEN = []


class Arrays(unittest.TestCase):
    @testing.for_all_dtypes(no_complex=True, no_bool=True)
    @testing.numpy_cupy_allclose(rtol={np.float16: 1e-2, "default": 1e-6})
    def test_sums(self, xp, dtype):
        SEEN.append((xp, dtype))
        return testing.shaped_arange((2, 3, 4), xp, dtype).sum(axis=1)

    @testing.for_dtypes_combination("bfD", names=("first", "second"))
    @testing.numpy_cupy_array_equal()
    def test_pairs(self, xp, first, second):
        one = testing.shaped_reverse_arange((3, 4), xp, first)
        return one + testing.shaped_random((3, 4), xp, second, seed=3)

    @testing.for_CF_orders()
    @testing.numpy_cupy_equal()
    def test_orders(self, xp, order):
        return bool(xp.ones((2, 3), order=order).flags.f_contiguous)

    @testing.numpy_cupy_array_almost_equal(accept_error=ValueError)
    def test_errors(self, xp):
        return xp.ones(3).reshape(2, 2)


@testing.parameterize(*testing.product({"shape": [(2,), (2, 3)], "axis": [0, -1]}))
class Parameters(unittest.TestCase):
    @testing.numpy_cupy_allclose()
    def test_each_case(self, xp):
        SEEN.append((self.shape, self.axis))
        return xp.cumsum(testing.shaped_linspace(0, 1, self.shape, xp), self.axis)


class Wrong(unittest.TestCase):
    @testing.for_dtypes("if")
    @testing.numpy_cupy_array_equal()
    def test_values(self, xp, dtype):
        return xp.arange(3, dtype=dtype) + (xp is cp and dtype is np.float32)

    @testing.numpy_cupy_array_equal()
    def test_dtypes(self, xp):
        return xp.zeros(2, "f" if xp is cp else "d")

    @testing.numpy_cupy_array_equal()
    def test_host(self, xp):
        return np.zeros(2)

    @testing.numpy_cupy_array_equal(accept_error=True)
    def test_error_here_alone(self, xp):
        return xp.ones(2) if xp is cp else xp.ones(2).reshape(3)


def run(kind):
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(kind)
    found = unittest.TestResult()
    suite.run(found)
    return found


def case_what_agrees_passes():
    for kind, count in ((Arrays, 4), (Parameters, 1)):
        found = run(kind)
        assert found.wasSuccessful(), found.failures + found.errors
        assert found.testsRun == count
    assert (cp, np.float16) in SEEN
    assert (np, np.uint64) in SEEN
    assert {one for one in SEEN if isinstance(one[0], tuple)} == {
        ((2,), 0),
        ((2,), -1),
        ((2, 3), 0),
        ((2, 3), -1),
    }


def case_what_differs_fails():
    found = run(Wrong)
    said = {test.id().split(".")[-1]: text for test, text in found.failures}
    assert sorted(said) == [
        "test_dtypes",
        "test_error_here_alone",
        "test_host",
        "test_values",
    ]
    assert "dtype is float32" in said["test_values"]
    assert "float32, float64" in said["test_dtypes"]
    assert "lies on this host" in said["test_host"]
    assert not found.errors


for _name, _case in list(globals().items()):
    if _name.startswith("case_"):
        _case()
        print(_name.removeprefix("case_"))
