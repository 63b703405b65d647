"""Arrays and torch's tensors share memory. Run by test_arrays_more.py."""

import warnings

import cupy as cp
import numpy as np
import torch
from array_checks import refused

tensor = torch.arange(6.0, device="cuda").reshape(2, 3)
array = cp.asarray(tensor)
assert isinstance(array, cp.ndarray)
assert (array.shape, array.dtype) == ((2, 3), np.float32)
array += 1
assert tensor.cpu().tolist() == [[1, 2, 3], [4, 5, 6]]
tensor[0, 0] = 10
assert float(array[0, 0]) == 10
# A part with strides of its own.
part = cp.asarray(tensor.t()[1:])
part[:] = 0
assert tensor.cpu().tolist() == [[10, 0, 0], [4, 0, 0]]

back = cp.arange(4, dtype=cp.int32)
for convert in (torch.as_tensor, torch.from_dlpack, torch.asarray):
    shared = convert(back)
    assert shared.device.type == "cuda"
    shared += 1
assert back.get().tolist() == [3, 4, 5, 6]
copied = torch.tensor(back)
copied += 1
assert back.get().tolist() == [3, 4, 5, 6]
as_double = torch.as_tensor(back, dtype=torch.float64)
assert as_double.cpu().tolist() == [3, 4, 5, 6]
turned = torch.as_tensor(cp.arange(6).reshape(2, 3).T)
assert turned.cpu().tolist() == [[0, 3], [1, 4], [2, 5]]
try:
    torch.as_tensor(cp.arange(6)[::2])
except BufferError as error:
    assert "contiguous" in str(error)
else:
    raise AssertionError("an array with gaps was shared")

# The memory lives as long as either.
lonely = torch.as_tensor(cp.full(3, 7.0))
assert lonely.cpu().tolist() == [7, 7, 7]
other = cp.asarray(torch.full((3,), 8.0, device="cuda"))
assert other.get().tolist() == [8, 8, 8]

from_dlpack = cp.from_dlpack(tensor)
from_dlpack[:] = 2
assert tensor.sum().item() == 12
assert cp.from_dlpack(np.arange(3)).get().tolist() == [0, 1, 2]
assert np.from_dlpack(cp.arange(3), device="cpu").tolist() == [0, 1, 2]
assert cp.asarray(torch.arange(3)).get().tolist() == [0, 1, 2]
needs_grad = torch.ones(2, device="cuda", requires_grad=True)
try:
    cp.asarray(needs_grad)
except RuntimeError as error:
    assert "detach" in str(error)
else:
    raise AssertionError("a tensor with a gradient was shared")


class Holder:
    """Another library's object that hands out one capsule."""

    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, *, stream=None, max_version=None, copy=None):
        return self.capsule

    def __dlpack_device__(self):
        return 2, 0


source = cp.arange(4, dtype=cp.int16)
for version, name in ((None, "dltensor"), ((1, 0), "dltensor_versioned")):
    capsule = source.__dlpack__(max_version=version)
    assert f'"{name}"' in str(capsule)
    taken = cp.from_dlpack(Holder(capsule))
    taken += 1
    refused(ValueError, lambda: cp.from_dlpack(capsule), "multiple times")  # noqa: B023
assert source.get().tolist() == [2, 3, 4, 5]
view = cp.from_dlpack(source)
view[0] = 9
assert source[0] == 9
copied = cp.from_dlpack(source, copy=True)
copied[:] = 0
assert source[0] == 9
assert torch.from_dlpack(source.__dlpack__()).cpu().tolist() == [9, 3, 4, 5]
refused(BufferError, lambda: source.__dlpack__(dl_device=(9, 0)), "unsupported")
refused(BufferError, lambda: source.__dlpack__(dl_device=(2, 1)), "unsupported")
refused(ValueError, lambda: source.__dlpack__(dl_device=(1, 0), copy=False), "copy")
refused(ValueError, lambda: source.__dlpack__(stream=-2), "-2")
refused(ValueError, lambda: cp.from_dlpack(3), "no capsule")
for device in ("cuda", "cpu"):
    brain = torch.ones(2, dtype=torch.bfloat16, device=device)
    for take in (cp.from_dlpack, cp.asarray):
        refused(NotImplementedError, lambda: take(brain), "tensor.float()")  # noqa: B023
    other = brain.to(torch.float8_e5m2)
    refused(TypeError, lambda: cp.asarray(other), "float8_e5m2")  # noqa: B023
refused(NotImplementedError, lambda: cp.from_dlpack(brain.cuda().__dlpack__()))
on_host = np.arange(3).__dlpack__()
assert cp.from_dlpack(on_host).get().tolist() == [0, 1, 2]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert cp.fromDlpack(source.toDlpack()).get().tolist() == [9, 3, 4, 5]
    source.__dlpack__(stream=0)
kinds = [one.category.__name__ for one in said]
assert kinds == ["VisibleDeprecationWarning"] * 2 + ["UserWarning"], kinds
# A stream of one library is one of the other.
stream = cp.cuda.Stream(non_blocking=True)
external = torch.cuda.ExternalStream(stream.ptr)
assert isinstance(external, torch.cuda.Stream)
assert external.cuda_stream == stream.ptr
with torch.cuda.stream(external):
    assert torch.cuda.current_stream() == external
    doubled = torch.ones(3, device="cuda") * 2
external.record_event().synchronize()
with cp.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
    assert cp.asarray(doubled).get().tolist() == [2, 2, 2]
for _ in range(20):
    cp.asarray(torch.empty(1 << 22, device="cuda"))
    torch.as_tensor(cp.empty(1 << 22))
torch.cuda.synchronize()
print("tensors and arrays share memory")
