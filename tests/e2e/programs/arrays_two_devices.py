"""Arrays on two devices. Run by test_arrays_two_devices.py, with or without torch."""

import os
import sys
import threading

import cupy as cp
import cupyx.scipy.sparse
import numpy as np
from array_checks import refused

CUDARuntimeError = cp.cuda.runtime.CUDARuntimeError
ORDINAL = "cudaErrorInvalidDevice: invalid device ordinal"


def elsewhere(array, current):
    return (
        "Array device must be same as the current device: array device ="
        f" {array} while current = {current}"
    )


# Which device is the current one.
assert cp.cuda.runtime.getDeviceCount() == 2
assert cp.cuda.Device().id == cp.cuda.get_device_id() == 0
with cp.cuda.Device(1) as second:
    assert second == cp.cuda.Device() == 1
    assert cp.cuda.runtime.getDevice() == 1
    with cp.cuda.Device(0):
        assert cp.cuda.get_device_id() == 0
    assert cp.cuda.get_device_id() == 1
assert cp.cuda.get_device_id() == 0
cp.cuda.Device(1).use()
assert cp.cuda.get_device_id() == 1
seen = []
thread = threading.Thread(target=lambda: seen.append(cp.cuda.get_device_id()))
thread.start()
thread.join()
assert seen == [0], "a thread begins on the first device"
cp.cuda.runtime.setDevice(0)
far = cp.cuda.Device(2)
refused(CUDARuntimeError, far.use, ORDINAL)
refused(CUDARuntimeError, far.__enter__, ORDINAL)
refused(CUDARuntimeError, lambda: cp.cuda.runtime.setDevice(-1), ORDINAL)
refused(CUDARuntimeError, lambda: cp.cuda.runtime.getDeviceProperties(2), ORDINAL)

# Work on each, by turns: names of operations and dtypes mean the same on both.
a = cp.arange(6.0)
with cp.cuda.Device(1):
    b = cp.arange(6.0) * 2
    total = b.sum()
    square = b.reshape(2, 3) @ cp.eye(3)
    pairs = cp.zeros(3, dtype=[("x", "f4"), ("y", "i4")])
for index, array in ((0, a), (1, b)):
    with cp.cuda.Device(index):
        for _ in range(200):
            array = array + 1
            array -= 1
        assert array.device == index
        assert array.get().tolist() == (a if index == 0 else b).get().tolist()
assert [one.device.id for one in (a, b, total, square, pairs)] == [0, 1, 1, 1, 1]
with cp.cuda.Device(0):
    again = cp.zeros(2, dtype=[("x", "f4"), ("y", "i4")])
    again["y"] = 3
    assert again.get()["y"].tolist() == [3, 3]

# What CuPy does wherever an array is: copies to the host, views, assignments.
assert float(total) == 30
assert b.get().tolist() == [0, 2, 4, 6, 8, 10]
assert b[1:3].get().tolist() == [2, 4]
assert b[1:3].device == 1
assert repr(b[:2]) == "array([0., 2.])"
assert b.reshape(2, 3).T.shape == (3, 2)
assert b.reshape(2, 3).T.flags.f_contiguous
assert [float(one) for one in b[:2]] == [0, 2]
assert pairs["y"].get().tolist() == [0, 0, 0]
b[0] = 7
b[1:].fill(1)
b.set(b.get() + 1)
assert b.get().tolist() == [8, 2, 2, 2, 2, 2]

# Anything else wants its arrays on the current device, with CuPy's own error.
for wrong in (
    lambda: a + b,
    lambda: b + 1,
    lambda: cp.add(a, b, out=a),
    lambda: cp.concatenate((a, b)),
    lambda: cp.where(b > 0, a, 0),
    lambda: b.sum(),
    lambda: cp.sin(b),
    lambda: a @ b,
    lambda: a.__iadd__(b),
    lambda: cp.linalg.norm(b),
):
    refused(ValueError, wrong, elsewhere(1, 0))
with cp.cuda.Device(1):
    refused(ValueError, lambda: b * a, elsewhere(0, 1))
    matrix = cupyx.scipy.sparse.eye(3, format="csr")
refused(ValueError, lambda: matrix @ cp.ones(3), elsewhere(1, 0))

# Copies from device to device.
with cp.cuda.Device(1):
    here = cp.asarray(a)
    assert here.device == 1
    assert (here + b).get().tolist() == (a.get() + b.get()).tolist()
    assert a.copy().device == 1
    assert cp.array(a, dtype="f4").dtype == np.float32
back = cp.asarray(b)
assert back.device == 0
assert (back + a).get().tolist() == (a.get() + b.get()).tolist()
assert cp.asarray(a) is a
a[...] = b
assert a.get().tolist() == b.get().tolist()
fortran = cp.asfortranarray(cp.arange(6).reshape(2, 3))
with cp.cuda.Device(1):
    moved = cp.asarray(fortran)
    assert moved.flags.f_contiguous
    assert moved.get().tolist() == [[0, 1, 2], [3, 4, 5]]

# Memory is counted on each, and freed there.
pool = cp.get_default_memory_pool()
used = []
for index in (0, 1):
    with cp.cuda.Device(index):
        used.append(pool.used_bytes())
with cp.cuda.Device(1):
    held = cp.zeros(1 << 20)
    assert pool.used_bytes() == used[1] + (8 << 20)
    assert cp.cuda.Device(0).mem_info[1] == cp.cuda.runtime.memGetInfo()[1]
assert pool.used_bytes() == used[0]
del held
with cp.cuda.Device(1):
    assert pool.used_bytes() == used[1]
    half = pool.get_limit() // 4 * 3
    kept = cp.zeros(half, dtype=cp.uint8)
    refused(cp.cuda.memory.OutOfMemoryError, lambda: cp.zeros(half, cp.uint8), "")
on_first = cp.zeros(half, dtype=cp.uint8)
assert int(on_first.sum()) == 0
del kept, on_first

# Random numbers, streams and events.
draws = []
for index in (0, 1):
    with cp.cuda.Device(index) as device:
        cp.random.seed(5)
        draws.append(cp.random.rand(4).get().tolist())
        event = cp.cuda.Event()
        event.record()
        event.synchronize()
        device.synchronize()
assert draws[0] == draws[1]

# Threads, a device each.
found = {}


def work(index):
    with cp.cuda.Device(index):
        x = cp.ones(100)
        for _ in range(100):
            x = x + index
        found[index] = (x.device.id, float(x.sum()))


threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert found == {0: (0, 100.0), 1: (1, 10100.0)}

if os.environ.get("XPOOL_TORCH") != "off":
    import torch

    # One notion of the current device, and memory that is shared on each.
    with torch.cuda.device(1):
        assert cp.cuda.get_device_id() == 1
    with cp.cuda.Device(1):
        assert torch.cuda.current_device() == 1
    t = torch.arange(4.0, device="cuda:1")
    shared = cp.asarray(t, copy=False)
    assert shared.device == 1
    with cp.cuda.Device(1):
        shared *= 2
    assert t.tolist() == [0, 2, 4, 6]
    there = torch.as_tensor(b, device="cuda:1")
    assert there.device.index == 1
    there += 1
    assert b.get().tolist() == [9, 3, 3, 3, 3, 3]
sys.stdout.write("two devices are as they should be\n")
