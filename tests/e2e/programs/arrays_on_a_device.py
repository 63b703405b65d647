"""Devices, memory, streams and events of CuPy. Run by test_arrays_more.py."""

import sys

import cupy as cp
import cupyx
import cupyx.profiler
import numpy as np
from array_checks import refused

QUOTA = int(sys.argv[1])
assert cp.cuda.runtime.getDeviceCount() == 1
properties = cp.cuda.runtime.getDeviceProperties(0)
if properties["major"]:  # a CUDA device, whose context is of the quota
    assert QUOTA // 2 < properties["totalGlobalMem"] < QUOTA
    QUOTA = properties["totalGlobalMem"]
assert properties["totalGlobalMem"] == QUOTA
assert cp.cuda.runtime.runtimeGetVersion() >= 13000
assert not cp.cuda.runtime.is_hip
assert cp.cuda.Device() == cp.cuda.Device(0) == 0
with cp.cuda.Device(0):
    cp.zeros(3)
for wrong in (cp.cuda.Device(1).use, lambda: cp.cuda.runtime.setDevice(1)):
    refused(cp.cuda.runtime.CUDARuntimeError, wrong, "cudaErrorInvalidDevice: invalid")
refused(ValueError, lambda: cp.zeros(3).to_device(1), "Unsupported device 1")

# The pool tells of the slice; what is dropped is there again.
pool = cp.get_default_memory_pool()
before = pool.used_bytes()
held = cp.zeros(1 << 20)
assert pool.used_bytes() == before + (8 << 20) == pool.total_bytes()
free, total = cp.cuda.Device().mem_info
assert total == QUOTA == pool.get_limit()
assert free <= QUOTA - (8 << 20)
assert cp.cuda.runtime.memGetInfo() == (free, total)
del held
pool.free_all_blocks()
assert pool.used_bytes() == before
assert pool.free_bytes() == pool.n_free_blocks() == 0
pool.set_limit(size=16 << 20)
assert pool.get_limit() == 16 << 20
refused(cp.cuda.memory.OutOfMemoryError, lambda: cp.zeros(4 << 20), "Out of memory")
pool.set_limit(fraction=1.0)
assert pool.get_limit() == QUOTA
cp.zeros(4 << 20)
refused(ValueError, lambda: pool.set_limit(fraction=2.0), "out of range")
cp.get_default_pinned_memory_pool().free_all_blocks()
cp.cuda.set_allocator(cp.cuda.MemoryPool().malloc)
cp.cuda.set_allocator(cp.cuda.MemoryPool(cp.cuda.malloc_managed).malloc)
cp.cuda.set_allocator(cp.cuda.MemoryAsyncPool().malloc)
cp.cuda.set_allocator(cp.cuda.malloc_async)
cp.cuda.set_allocator(None)


def own(*_):
    raise AssertionError("nobody calls it")


with cp.cuda.using_allocator(cp.cuda.MemoryPool().malloc):
    cp.zeros(3)
for name, wrong in (
    ("set_allocator", lambda: cp.cuda.set_allocator(own)),
    ("set_allocator", lambda: cp.cuda.using_allocator(own).__enter__()),
    ("MemoryPool", lambda: cp.cuda.MemoryPool(own)),
    ("PythonFunctionAllocator", lambda: cp.cuda.PythonFunctionAllocator(own, own)),
    ("CFunctionAllocator", lambda: cp.cuda.memory.CFunctionAllocator(1, 2, 3, own)),
):
    refused(NotImplementedError, wrong, f"cupy.cuda.{name}: the server allocates")
refused(TypeError, lambda: cp.cuda.set_allocator(3), "takes a function")
module = cp.RawModule(code="__device__ int x;")
refused(NotImplementedError, lambda: module.get_global("x"), "RawModule.get_global")
refused(NotImplementedError, lambda: cp.cuda.alloc(10), "no address")
mem = cp.cuda.alloc_pinned_memory(16)
np.frombuffer(mem, np.float32)[...] = 2
assert bytes(mem) == np.full(4, 2, np.float32).tobytes()
assert cupyx.empty_pinned(4, np.float32).dtype == np.float32

# Streams are one order, events have times.
first, second = cp.cuda.Stream(), cp.cuda.Stream(non_blocking=True)
assert cp.cuda.get_current_stream() == cp.cuda.Stream.null
with first:
    assert cp.cuda.get_current_stream() == first
    a = cp.arange(10)
    with second:
        assert cp.cuda.get_current_stream() == second
    assert cp.cuda.get_current_stream() == first
assert cp.cuda.get_current_stream() == cp.cuda.Stream.null
begin = first.record()
for _ in range(20):
    a = a + 1
end = first.record()
second.wait_event(end)
assert cp.cuda.get_elapsed_time(begin, end) >= 0
assert begin.done
assert end.done
first.synchronize()
assert a.get().tolist() == list(range(20, 30))
refused(ValueError, lambda: cp.cuda.get_elapsed_time(begin, cp.cuda.Event()), "both")
refused(NotImplementedError, lambda: first.begin_capture(), "captured")
found = cupyx.profiler.benchmark(lambda: a + 1, n_repeat=5, n_warmup=1)
assert found.cpu_times.shape == (5,)
assert found.gpu_times.shape == (1, 5)
cp.cuda.nvtx.RangePush("x")
cp.cuda.nvtx.RangePop()
with cupyx.profiler.time_range("x"), cupyx.profiler.profile():
    cp.cuda.runtime.deviceSynchronize()
print("the device is as it should be")
