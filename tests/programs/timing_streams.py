"""Events, streams that wait for one another, memory reports, the generator's states."""

import json
import math

import torch
from torch import nn

on_gpu = torch.cuda.is_available()
device = torch.device("cuda" if on_gpu else "cpu")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
batch = torch.randn(32, 64).to(device)
checks = {}

if on_gpu:
    torch.cuda.set_per_process_memory_fraction(0.9)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.reset_accumulated_memory_stats()
    start = torch.cuda.Event(enable_timing=True)
    middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    side, other = torch.cuda.Stream(), torch.cuda.Stream(priority=-1)
    start.record()
    with torch.cuda.stream(side):
        side.wait_stream(torch.cuda.default_stream())
        left = model(batch)
        middle.record(side)
    other.wait_event(middle)
    with torch.cuda.stream(other):
        right = left.softmax(-1)
        batch.record_stream(other)
    torch.cuda.current_stream().wait_stream(other)
    end.record()
    end.synchronize()
    elapsed = start.elapsed_time(end)
    checks["elapsed"] = math.isfinite(elapsed) and elapsed >= 0
    checks["query"] = end.query() and side.query()
    text = torch.cuda.memory_summary(abbreviated=True)
    checks["summary"] = "Allocated memory" in text
    checks["peak"] = torch.cuda.max_memory_allocated() >= torch.cuda.memory_allocated()
    checks["snapshot"] = isinstance(torch.cuda.memory_stats(), dict)
    free, total = torch.cuda.mem_get_info()
    checks["info"] = 0 < free <= total
    checks["capability"] = len(torch.cuda.get_device_capability()) == 2
    checks["ipc"] = torch.cuda.ipc_collect() is None
    checks["stream"] = torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.nvtx.range_push("phase")
    torch.cuda.nvtx.range_pop()
    with torch.cuda.device(0):
        checks["index"] = torch.cuda.current_device() == 0
    torch.cuda.empty_cache()
else:
    right = model(batch).softmax(-1)

state, host = (
    (torch.cuda.get_rng_state() if on_gpu else torch.get_rng_state()),
    torch.get_rng_state(),
)
first = torch.rand(5, device=device)
torch.cuda.set_rng_state(state) if on_gpu else torch.set_rng_state(state)
again = torch.rand(5, device=device)
with torch.random.fork_rng(devices=[0] if on_gpu else []):
    torch.manual_seed(99)
    torch.rand(3, device=device)
after = torch.rand(5, device=device)
torch.cuda.set_rng_state(state) if on_gpu else torch.set_rng_state(state)
torch.rand(5, device=device)
expected = torch.rand(5, device=device)
torch.use_deterministic_algorithms(True)
torch.backends.cudnn.benchmark = False
torch.backends.cudnn.deterministic = True
torch.backends.cuda.matmul.allow_tf32 = False
torch.set_float32_matmul_precision("high")
index = torch.tensor([0, 0, 1], device=device)
added = torch.zeros(2, device=device).index_add(0, index, torch.ones(3, device=device))
torch.use_deterministic_algorithms(False)
print(
    json.dumps(
        {
            "right": right.sum(0).tolist(),
            "repeat": torch.equal(first, again),
            "forked": torch.equal(after, expected),
            "added": added.tolist(),
            "checks": all(checks.values()) or str(checks),
        }
    )
)
