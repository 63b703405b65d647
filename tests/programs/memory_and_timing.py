"""What programs print about their device: memory, properties, times, seeds, streams."""

import gc
import json
import time

import torch

has_gpu = torch.cuda.is_available()
device = torch.device("cuda", 0) if has_gpu else torch.device("cpu")


class Timer:
    def __enter__(self):
        if has_gpu:
            torch.cuda.synchronize()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        if has_gpu:
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start


if has_gpu:
    print(f"Using {torch.cuda.get_device_name(0)}, {torch.cuda.device_count()} devices")
    properties = torch.cuda.get_device_properties(device)
    print(properties, properties.total_memory // 2**20, "MiB", properties.major)
    print("capability", torch.cuda.get_device_capability(), torch.version.cuda)
    print("cudnn", torch.backends.cudnn.version(), torch.backends.cudnn.is_available())
    print("bf16", torch.cuda.is_bf16_supported(), "arch", torch.cuda.get_arch_list())
    torch.cuda.empty_cache()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    big = torch.empty(1 << 20, device=device)
    assert torch.cuda.memory_allocated() - before == 4 << 20
    del big
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= before + (4 << 20)
    free, total = torch.cuda.mem_get_info()
    assert 0 < free <= total
    print(f"{torch.cuda.memory_reserved() / 1e6:.1f} MB reserved")
    print(torch.cuda.memory_summary(abbreviated=True)[:80])
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    start.record()
    a = torch.randn(64, 64, device=device)
    for _ in range(10):
        a = torch.tanh(a @ a)
    end.record()
    torch.cuda.synchronize()
    assert start.elapsed_time(end) >= 0
    assert end.query()
    side = torch.cuda.Stream(device=device, priority=-1)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        b = a * 2
        assert torch.cuda.current_stream() == side
    torch.cuda.current_stream().wait_stream(side)
    event = side.record_event()
    event.synchronize()
    assert torch.equal(b, a * 2)
    torch.cuda.manual_seed_all(5)
    state = torch.cuda.get_rng_state()
    first = torch.rand(3, device=device)
    torch.cuda.set_rng_state(state)
    assert torch.equal(first, torch.rand(3, device=device))
    with torch.cuda.device(0), torch.cuda.device_of(a):
        assert torch.cuda.current_device() == 0
    assert torch.cuda.is_initialized()
    assert a.get_device() == 0
    assert a.is_cuda
    assert str(a.device) == "cuda:0"
    with torch.random.fork_rng(devices=[0]):
        torch.rand(2, device=device)
    with torch.cuda.nvtx.range("work") if False else Timer():
        a.sum().item()
    try:
        torch.empty(1 << 50, device=device)
    except torch.cuda.OutOfMemoryError as error:
        print("out of memory:", str(error)[:40])
    else:
        raise AssertionError("a petabyte was given")
    try:
        a @ torch.randn(3, 3, device=device)
    except RuntimeError as error:
        assert "shapes cannot be multiplied" in str(error), error
    try:
        a + torch.randn(64, 64)
    except RuntimeError as error:
        assert "same device" in str(error), error
with Timer() as timer:
    x = torch.arange(1000.0, device=device)
    total = sum((x * i).sum() for i in range(5))
assert timer.seconds > 0
print(x[:3], x[:3].requires_grad, repr(x.device))
print(json.dumps({"total": total.item(), "shape": list(x.shape)}))
