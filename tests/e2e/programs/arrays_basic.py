"""Ordinary CuPy: what a program does first. Run by test_arrays.py."""

import sys

import cupy as cp
import cupyx
import numpy as np
from array_checks import refused

a = cp.arange(12, dtype=cp.float32).reshape(3, 4)
assert isinstance(a, cp.ndarray)
assert (a.shape, a.dtype, a.size, a.nbytes) == ((3, 4), np.float32, 12, 48)
expected = np.arange(12, dtype=np.float32).reshape(3, 4)
np.testing.assert_array_equal((a * 2.0 + a).sum(axis=0).get(), expected.sum(0) * 3)
np.testing.assert_array_equal(cp.asnumpy(a @ a.T), expected @ expected.T)

# Views are real views: what is written through one is seen through the others.
view = a[1:]
view[:, 0] = 99
assert float(a[2, 0]) == 99
assert view.base is a.base
assert a.base.base is None
assert not view.flags.owndata
a.T[3, 0] = -1
assert a[0, 3].item() == -1
a += 1
assert float(view[0, 0]) == 100
cp.add(a, 1, out=a)
assert float(view[0, 0]) == 101

# Data of all sizes there and back, in both orders.
for shape in ((0, 3), (), (7,), (300, 200), (1100, 1000)):
    host = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(cp.asarray(host).get(), host)
    remote = cp.array(np.asfortranarray(host))
    np.testing.assert_array_equal(remote.get(), host)
    assert remote.flags.f_contiguous

# What CuPy refuses.
refused(TypeError, lambda: np.asarray(a), "Implicit conversion")
refused(TypeError, lambda: a + np.ones(4), "Unsupported type")
refused(ValueError, lambda: cp.array(["x"]))
refused(ValueError, lambda: cp.array([object()]))
refused(ValueError, lambda: a + cp.zeros(5), "broadcast")
refused(IndexError, lambda: a[5], "out of bounds")
refused(AttributeError, lambda: cp.no_such_function)
refused(AttributeError, lambda: cp._private)
with cupyx.errstate(linalg="raise"):  # elsewhere the result means nothing, as in CuPy
    refused(np.linalg.LinAlgError, lambda: cp.linalg.inv(cp.zeros((2, 2))), "")
refused(OverflowError, lambda: cp.zeros(3, cp.int8) + 1000)
assert (cp.arange(3) ** -1).tolist() == [0, 1, 0]  # not NumPy's error

# A full slice: an error at the call, and nothing else is harmed.
refused(cp.cuda.memory.OutOfMemoryError, lambda: cp.zeros(1 << 30), "Out of memory")
assert issubclass(cp.cuda.memory.OutOfMemoryError, MemoryError)
big = [cp.zeros(1 << 22) for _ in range(3)]
del big

# del frees, in order: more than the slice holds goes through it.
for _ in range(64):
    cp.zeros(1 << 23)  # 64 MiB each, of 256 MiB
cp.cuda.Device().synchronize()

assert cp.get_array_module(a) is cp
assert cp.get_array_module(expected) is np
assert "torch" not in sys.modules or sys.argv[1] == "beside"
assert cupyx.__version__ == cp.__version__
w, v = cp.linalg.eigh(cp.eye(3))
assert w.shape == (3,)
print("arrays are as they should be")
