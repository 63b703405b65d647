"""Numba's CUDA kernels where there is no CUDA device. Run by test_numba.py."""

import cupy as cp
import numpy as np
from array_checks import refused
from numba import cuda


@cuda.jit
def scale(x, factor):
    i = cuda.grid(1)
    if i < x.size:
        x[i] *= factor


@cuda.jit("void(float32[:])")
def named(x):
    x[cuda.grid(1)] = 1


assert not cuda.is_available()
x = cp.arange(4, dtype=cp.float32)
feature = (
    "a kernel of numba.cuda, needs a CUDA device, and this slice's device is a cpu"
)
refused(NotImplementedError, lambda: scale[1, 32](x, 2.0), "scale, " + feature)
refused(NotImplementedError, lambda: scale[1, 32](x.get(), 2.0), "scale, " + feature)
refused(NotImplementedError, lambda: named[1, 32](x), "named, " + feature)
refused(NotImplementedError, lambda: scale.forall(4)(x, 2.0), feature)
refused(ValueError, lambda: scale(x, 2.0), "launch configuration")
refused(NotImplementedError, lambda: cuda.mapped_array(3), "numba.cuda.mapped_array")

# Arrays are the pool's, whatever runs on them.
there = cuda.to_device(np.arange(6.0).reshape(2, 3))
assert there.copy_to_host().tolist() == [[0, 1, 2], [3, 4, 5]]
assert there[1, 2] == 5
assert there[1].copy_to_host().tolist() == [3, 4, 5]
there[0] = 7
into = np.zeros((2, 3))
assert there.copy_to_host(into) is into
assert into[0].tolist() == [7, 7, 7]
empty = cuda.device_array_like(there)
empty.copy_to_device(np.ones((2, 3)))
assert float(cp.asarray(empty).sum()) == 6
assert cuda.device_array((3,), np.int32).dtype == np.int32
assert cuda.is_cuda_array(there)
stream, begin, end = cuda.stream(), cuda.event(), cuda.event()
begin.record(stream)
with stream.auto_synchronize():
    end.record(stream)
cuda.synchronize()
assert cuda.event_elapsed_time(begin, end) >= 0
cuda.select_device(0)
print("numba is as it should be")
