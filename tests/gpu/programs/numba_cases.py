"""Numba's kernels on a CUDA device. Run by test_arrays.py."""

import cupy as cp
import numpy as np
from numba import cuda, float32


@cuda.jit(device=True)
def twice(x):
    return x + x


@cuda.jit
def saxpy(a, x, y):
    i = cuda.grid(1)
    if i < x.size:
        y[i] += a * twice(x[i]) / 2


@cuda.jit
def totals(x, out):
    part = cuda.shared.array(128, dtype=float32)
    t = cuda.threadIdx.x
    i = cuda.grid(1)
    part[t] = x[i] if i < x.size else 0
    cuda.syncthreads()
    step = 64
    while step:
        if t < step:
            part[t] += part[t + step]
        cuda.syncthreads()
        step //= 2
    if t == 0:
        cuda.atomic.add(out, 0, part[0])


@cuda.jit
def transposed(x, y, at):
    i, j = cuda.grid(2)
    if i < x.shape[0] and j < x.shape[1]:
        y[j, i] = x[i, j] + at[0] * at[1]


@cuda.jit("void(float32[:], int32)")
def beyond(x, distance):
    x[cuda.grid(1) + distance] = 1


def case_there_is_a_device(device):
    assert cuda.is_available()
    assert cuda.get_current_device().compute_capability >= (7, 0)


def case_over_arrays(device):
    x, y = cp.arange(1000, dtype=cp.float32), cp.ones(1000, dtype=cp.float32)
    for _ in range(2):
        saxpy[8, 128](2.0, x, y)
    np.testing.assert_array_equal(y.get(), 1 + 4 * np.arange(1000))
    saxpy.forall(10)(1.0, x[990:], y[:10])
    assert y[:2].get().tolist() == [991, 996]


def case_over_tensors(device):
    import torch

    x = torch.arange(100.0, device="cuda")
    y = torch.zeros(200, device="cuda")
    saxpy[1, 128](3.0, x, y[::2])
    assert y[::2].tolist() == (3 * x).tolist()
    assert y[1::2].sum() == 0


def case_over_host_arrays(device):
    x, y = np.arange(10, dtype=np.float32), np.zeros(10, dtype=np.float32)
    saxpy[1, 32](2.0, x, y)
    assert y.tolist() == (2 * x).tolist()
    saxpy[1, 32](2.0, cuda.In(x), cuda.InOut(y))
    assert y.tolist() == (4 * x).tolist()


def case_shared_memory_and_atomics(device):
    x = np.random.default_rng(0).integers(0, 9, 5000).astype(np.float32)
    out = cuda.to_device(np.zeros(1, np.float32))
    totals[40, 128](cuda.to_device(x), out)
    assert out.copy_to_host()[0] == x.sum()


def case_strides_and_tuples(device):
    x = cp.arange(12.0).reshape(3, 4)
    y = cp.zeros((3, 4)).T
    transposed[(1, 1), (4, 4)](x, y, (2, 5))
    np.testing.assert_array_equal(y.get(), x.get().T + 10)


def case_types_that_are_named(device):
    x = cp.zeros(4, dtype=cp.float32)
    beyond[1, 2](x, 1)
    assert x.get().tolist() == [0, 1, 1, 0]
