"""Kernels of the program's own, as far as a CPU goes. Run by test_arrays_more.py."""

import cupy as cp
import numpy as np
from array_checks import is_real_gpu

squared_diff = cp.ElementwiseKernel(
    "float32 x, float32 y", "float32 z", "z = (x - y) * (x - y)", "squared_diff"
)
x = cp.arange(10, dtype=np.float32).reshape(2, 5)
y = cp.arange(5, dtype=np.float32)
expected = (x.get() - y.get()) ** 2
for _ in range(3):  # asked once, then queued
    found = squared_diff(x, y)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.get(), expected)
z = cp.empty((2, 5), dtype=np.float32)
for _ in range(2):
    z[...] = 0
    assert squared_diff(x, y, z) is z
    np.testing.assert_array_equal(z.get(), expected)
np.testing.assert_array_equal(squared_diff(x, 5).get(), (x.get() - 5) ** 2)

reverse = cp.ElementwiseKernel("raw T x", "T y", "y = x[_ind.size() - i - 1]")
assert reverse(cp.arange(4), size=4).get().tolist() == [3, 2, 1, 0]
assert reverse(cp.arange(4), size=4).get().tolist() == [3, 2, 1, 0]

summing = cp.ElementwiseKernel(
    "float32 x, raw float32 total",
    "",
    "mine += x",
    "summing",
    loop_prep="float mine = 0",
    after_loop="atomicAdd(&total[0], mine)",
)
total = cp.zeros(1, np.float32)
for _ in range(2):
    summing(x, total)
assert total.item() == 2 * x.get().sum()

l2norm = cp.ReductionKernel(
    "T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "l2norm"
)
np.testing.assert_allclose(
    l2norm(x, axis=1).get(), np.linalg.norm(x.get(), axis=1), rtol=1e-6
)
np.testing.assert_allclose(float(l2norm(x)), np.linalg.norm(x.get()), rtol=1e-6)


@cp.fuse(kernel_name="poly")
def poly(a, b):
    return a * a + b


np.testing.assert_array_equal(poly(x, 1.0).get(), x.get() ** 2 + 1)
assert cp.fuse(lambda a: cp.sum(a))(x).item() == x.get().sum()


def refused(kind, run, text):
    try:
        run()
    except kind as error:
        assert text in str(error), str(error)
        return
    raise AssertionError(f"{kind.__name__} was expected")


escape = cp.ElementwiseKernel(
    "complex128 c, int32 most",
    "int32 n",
    """
    complex<double> z = 0;
    for (n = 0; n < most; ++n) {
        z = square(z) + c;
        if (z.real() * z.real() + z.imag() * z.imag() > BOUND) break;
    }
    """,
    preamble="""
    #define BOUND 4
    __device__ complex<double> square(complex<double> z) { return z * z; }
    """,
)


def steps(c, most):
    z = 0
    for n in range(most):
        z = z * z + c
        if abs(z) > 2:
            return n
    return most


points = np.linspace(-2, 1, 12)[:, None] + 1j * np.linspace(-1, 1, 9)
for _ in range(2):  # asked once, then queued
    np.testing.assert_array_equal(
        escape(cp.asarray(points), 50).get(),
        [[steps(c, 50) for c in row] for row in points],
    )

choose = cp.ElementwiseKernel(
    "int32 x", "int32 z", "switch (x) { case 0: z = 5; break; default: z = -x; }"
)
assert choose(cp.arange(3, dtype=np.int32)).get().tolist() == [5, -1, -2]

if not is_real_gpu():
    jump = cp.ElementwiseKernel("T x", "T z", "goto end; end: z = x;")
    refused(NotImplementedError, lambda: jump(x), "CUDA device")
    forever = cp.ElementwiseKernel("T x", "T z", "while (true) { z = x; }")
    refused(NotImplementedError, lambda: forever(x), "too long")
    beyond = cp.ElementwiseKernel("raw T x", "T y", "y = x[i]")
    refused(IndexError, lambda: beyond(x, size=11), "outside of x")
refused(TypeError, lambda: squared_diff(x), "Wrong number")
refused(TypeError, lambda: squared_diff(x, np.ones(5)), "Unsupported type")
refused(TypeError, lambda: squared_diff(x, cp.arange(5)), "mismatched")
refused(ValueError, lambda: squared_diff(x, cp.ones(4, np.float32)), "")
print("kernels are as they should be")
