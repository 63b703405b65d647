"""Arrays on a CUDA device: what only such a device does. Run by test_arrays.py."""

import cupy as cp
import cupyx
import numpy as np

ADD = r"""
extern "C" __global__
void add(const float* a, const float* b, float* out, float factor, int count) {
    int i = blockDim.x * blockIdx.x + threadIdx.x;
    if (i < count) out[i] = a[i] + factor * b[i];
}
"""
TEMPLATES = r"""
template <typename T> __global__ void twice(T* x, int count) {
    int i = blockDim.x * blockIdx.x + threadIdx.x;
    if (i < count) x[i] = x[i] + x[i];
}
"""
SHARED = r"""
extern "C" __global__ void total(const int* x, int* out, int count) {
    extern __shared__ int part[];
    int t = threadIdx.x;
    part[t] = 0;
    for (int i = t; i < count; i += blockDim.x) part[t] += x[i];
    __syncthreads();
    for (int step = blockDim.x / 2; step > 0; step /= 2) {
        if (t < step) part[t] += part[t + step];
        __syncthreads();
    }
    if (t == 0) *out = part[0];
}
"""


def raises(kind, run, text):
    try:
        run()
    except kind as error:
        assert text in str(error), str(error)
        return
    raise AssertionError(f"{kind.__name__} was expected")


def case_the_device_is_named(device):
    properties = cp.cuda.runtime.getDeviceProperties(0)
    assert properties["major"] >= 7
    assert properties["multiProcessorCount"] > 1
    assert int(cp.cuda.Device().compute_capability) >= 70


def case_a_raw_kernel(device):
    add = cp.RawKernel(ADD, "add")
    a, b = cp.arange(1000, dtype=cp.float32), cp.ones(1000, dtype=cp.float32)
    out = cp.empty_like(a)
    for factor in (2, 3):
        add((8,), (128,), (a, b, out, np.float32(factor), np.int32(1000)))
        np.testing.assert_array_equal(out.get(), np.arange(1000) + factor)
    assert add.max_threads_per_block >= 128
    assert add.num_regs > 0


def case_a_raw_kernel_on_a_view(device):
    add = cp.RawKernel(ADD, "add")
    x = cp.arange(100, dtype=cp.float32)
    add((1,), (32,), (x[10:], x[20:], x[50:], np.float32(1), np.int32(5)))
    expected = np.arange(100, dtype=np.float32)
    expected[50:55] = expected[10:15] + expected[20:25]
    np.testing.assert_array_equal(x.get(), expected)


def case_shared_memory(device):
    total = cp.RawKernel(SHARED, "total")
    x, out = cp.arange(5000, dtype=cp.int32), cp.zeros(1, dtype=cp.int32)
    total((1,), (256,), (x, out, np.int32(5000)), shared_mem=256 * 4)
    assert int(out[0]) == 5000 * 4999 // 2


def case_a_module_of_templates(device):
    names = ("twice<float>", "twice<long long>")
    module = cp.RawModule(code=TEMPLATES, name_expressions=names)
    for name, dtype in zip(names, (cp.float32, cp.int64), strict=True):
        x = cp.arange(10, dtype=dtype)
        module.get_function(name)((1,), (32,), (x, np.int32(10)))
        assert x.get().tolist() == list(range(0, 20, 2))


def case_complex_numbers_of_cupy(device):
    code = r"""
    #include <cupy/complex.cuh>
    extern "C" __global__ void turn(complex<float>* x) {
        x[threadIdx.x] = x[threadIdx.x] * complex<float>(0, 1);
    }
    """
    x = cp.array([1, 1j, 2], dtype=cp.complex64)
    cp.RawKernel(code, "turn")((1,), (3,), (x,))
    assert x.get().tolist() == [1j, -1, 2j]


def case_source_that_does_not_compile(device):
    wrong = cp.RawKernel('extern "C" __global__ void f() { nonsense; }', "f")
    raises(cp.cuda.compiler.CompileException, lambda: wrong((1,), (1,), ()), "nonsense")


def case_a_name_that_is_not_there(device):
    add = cp.RawModule(code=ADD).get_function("other")
    raises(Exception, lambda: add((1,), (1,), ()), "")


def case_the_wrong_number_of_arguments(device):
    add = cp.RawKernel(ADD, "add")
    x = cp.ones(4, dtype=cp.float32)
    add((1,), (4,), (x, x))
    raises(Exception, lambda: x.get(), "takes 5 arguments, and was given 2")


def case_an_argument_of_the_wrong_width(device):
    add = cp.RawKernel(ADD, "add")
    x = cp.ones(4, dtype=cp.float32)
    add((1,), (4,), (x, x, x, 2.0, np.int32(4)))
    raises(Exception, lambda: x.get(), "argument 3")


def case_an_elementwise_kernel_of_cuda(device):
    lane = cp.ElementwiseKernel("T x", "int32 y", "y = threadIdx.x * 0 + __popc(x)")
    x = cp.arange(16, dtype=cp.int32)
    assert lane(x).get().tolist() == [i.bit_count() for i in range(16)]


def case_a_kernel_with_a_switch(device):
    choose = cp.ElementwiseKernel(
        "int32 x", "int32 y", "switch (x) { case 0: y = 5; break; default: y = -x; }"
    )
    for _ in range(2):
        assert choose(cp.arange(4, dtype=cp.int32)).get().tolist() == [5, -1, -2, -3]


def case_a_reduction_kernel(device):
    norm = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "n")
    x = cp.arange(12, dtype=cp.float64).reshape(3, 4)
    for axis in (None, 0, 1):
        found = norm(x, axis=axis).get()
        np.testing.assert_allclose(found, np.sqrt((x.get() ** 2).sum(axis=axis)))


def case_fused(device):
    @cp.fuse
    def both(a, b):
        return cp.where(a > b, a - b, cp.exp(b))

    a, b = cp.linspace(0, 1, 50), cp.linspace(1, 0, 50)
    x, y = a.get(), b.get()
    np.testing.assert_allclose(both(a, b).get(), np.where(x > y, x - y, np.exp(y)))


def case_libraries(device):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 40))
    remote = cp.asarray(a)
    np.testing.assert_allclose((remote @ remote).get(), a @ a, atol=1e-10)
    np.testing.assert_allclose(cp.fft.fft2(remote).get(), np.fft.fft2(a), atol=1e-9)
    np.testing.assert_allclose(
        cp.linalg.solve(remote, remote[0]).get(), np.linalg.solve(a, a[0]), atol=1e-8
    )
    u, s, vh = cp.linalg.svd(remote)
    np.testing.assert_allclose(((u * s) @ vh).get(), a, atol=1e-9)
    np.testing.assert_array_equal(cp.argsort(remote, axis=0).get(), a.argsort(axis=0))
    with cupyx.errstate(linalg="raise"):
        raises(np.linalg.LinAlgError, lambda: cp.linalg.cholesky(-cp.eye(3)), "")


def case_sparse(device):
    from cupyx.scipy import sparse

    dense = cp.array([[0, 1.0, 0], [2, 0, 3], [0, 0, 4]])
    matrix = sparse.csr_matrix(dense)
    assert matrix.nnz == 4
    assert (matrix @ cp.ones(3)).get().tolist() == [1, 5, 4]


def case_random_numbers_repeat(device):
    draws = []
    for _ in range(2):
        cp.random.seed(7)
        draws.append((cp.random.rand(5).get(), cp.random.randint(0, 10, 5).get()))
    np.testing.assert_array_equal(draws[0], draws[1])
    generator = cp.random.default_rng(3)
    normal = generator.standard_normal(100_000).get()
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02


def case_scatter(device):
    x = cp.zeros(4)
    cupyx.scatter_add(x, cp.array([0, 1, 1, 3]), cp.ones(4))
    assert x.get().tolist() == [1, 2, 0, 1]


def case_events_have_the_devices_time(device):
    x = cp.random.rand(2000, 2000)
    cp.cuda.Device().synchronize()
    begin, end = cp.cuda.Event(), cp.cuda.Event()
    begin.record()
    for _ in range(20):
        x = x @ x
        x /= x.max()
    end.record()
    end.synchronize()
    assert cp.cuda.get_elapsed_time(begin, end) > 0


def case_tensors_and_arrays_share_memory(device):
    import torch

    t = torch.arange(6.0, device="cuda")
    a = cp.asarray(t)
    a *= 2
    assert t.tolist() == [0, 2, 4, 6, 8, 10]
    back = torch.as_tensor(a, device="cuda")
    back += 1
    assert a.get().tolist() == [1, 3, 5, 7, 9, 11]
    add = cp.RawKernel(ADD, "add")
    add((1,), (32,), (a, a, a, np.float32(1), np.int32(6)))
    assert t.tolist() == [2, 6, 10, 14, 18, 22]


def case_a_big_array_there_and_back(device):
    data = np.random.default_rng(1).integers(0, 255, 40 << 20, dtype=np.uint8)
    there = cp.asarray(data)
    np.testing.assert_array_equal((there + 1).get(), data + np.uint8(1))


def case_memory_runs_out_cleanly(device):
    pool = cp.get_default_memory_pool()
    limit = pool.get_limit()
    raises(
        cp.cuda.memory.OutOfMemoryError, lambda: cp.zeros(limit + 1, dtype=cp.uint8), ""
    )
    assert cp.ones(3).sum() == 3
