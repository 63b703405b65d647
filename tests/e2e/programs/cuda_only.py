"""What a CUDA program asks of ``torch.cuda`` itself."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset


def case_presence(device: str) -> None:
    assert torch.cuda.is_available()
    assert torch.cuda.is_initialized()
    assert torch.cuda.device_count() == 1
    assert torch.cuda.current_device() == 0
    assert torch.cuda.get_device_name(0).startswith("xpool ")
    assert torch.cuda.get_device_name("cuda:0") == torch.cuda.get_device_name()
    properties = torch.cuda.get_device_properties(0)
    assert properties.total_memory == torch.cuda.mem_get_info()[1]
    assert torch.cuda.get_device_capability() == (properties.major, properties.minor)
    assert torch.accelerator.current_accelerator() == torch.device("cuda")
    try:
        torch.zeros(1, device="cuda:1")
    except RuntimeError:
        pass
    else:
        raise AssertionError("a second device was found")


def case_placement(device: str) -> None:
    x = torch.ones(2).cuda()
    assert x.is_cuda
    assert x.device == torch.device("cuda:0")
    assert x.type() == "torch.cuda.FloatTensor"
    assert x.cuda() is x
    assert torch.ones(2).to("cuda:0", non_blocking=True).is_cuda
    with torch.device("cuda"):
        assert torch.ones(2).is_cuda
    with torch.cuda.device(0):
        assert torch.zeros(1, device="cuda").device.index == 0
    assert torch.nn.Linear(2, 2).cuda().weight.is_cuda
    assert type(x) is torch.Tensor


def case_pinned_memory(device: str) -> None:
    x = torch.arange(4.0).pin_memory()
    assert x.is_pinned()
    assert not torch.arange(4.0).is_pinned()
    assert x.to("cuda", non_blocking=True).sum().item() == 6
    data = TensorDataset(torch.arange(32.0).view(16, 2))
    loader = DataLoader(data, batch_size=4, num_workers=1, pin_memory=True)
    total = 0.0
    for (batch,) in loader:
        assert batch.is_pinned()
        total += batch.cuda(non_blocking=True).sum().item()
    assert total == sum(range(32))


def case_streams_and_events(device: str) -> None:
    stream = torch.cuda.Stream()
    begin = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    begin.record()
    with torch.cuda.stream(stream):
        assert torch.cuda.current_stream() == stream
        x = torch.ones(200, 200, device="cuda")
        for _ in range(20):
            x = (x @ x) * 1e-3
    end.record()
    torch.cuda.current_stream().wait_stream(stream)
    x.record_stream(stream)
    end.synchronize()
    assert end.query()
    assert begin.elapsed_time(end) > 0
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    stream.synchronize()
    torch.cuda.synchronize()
    generic = torch.Event(device="cuda")
    generic.record()
    generic.synchronize()


def case_generators(device: str) -> None:
    generator = torch.Generator(device="cuda").manual_seed(3)
    a = torch.rand(5, device="cuda", generator=generator)
    state = generator.get_state()
    b = torch.rand(5, device="cuda", generator=generator)
    generator.manual_seed(3)
    assert torch.equal(a, torch.rand(5, device="cuda", generator=generator))
    generator.set_state(state)
    assert torch.equal(b, torch.rand(5, device="cuda", generator=generator))
    torch.cuda.manual_seed_all(11)
    c = torch.rand(5, device="cuda")
    kept = torch.cuda.get_rng_state()
    d = torch.rand(5, device="cuda")
    torch.cuda.manual_seed(11)
    assert torch.equal(c, torch.rand(5, device="cuda"))
    torch.cuda.set_rng_state(kept)
    assert torch.equal(d, torch.rand(5, device="cuda"))
    assert torch.cuda.initial_seed() == 11
    try:
        torch.rand(2, device="cuda", generator=torch.Generator())
    except RuntimeError as error:
        assert "generator" in str(error)
    else:
        raise AssertionError("a CPU generator was taken")


def case_memory_statistics(device: str) -> None:
    torch.cuda.reset_peak_memory_stats()
    x = torch.ones(1 << 20, device="cuda")
    assert torch.cuda.max_memory_allocated() >= 4 << 20
    assert torch.cuda.memory_reserved() >= torch.cuda.memory_allocated() >= 4 << 20
    stats = torch.cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    assert isinstance(torch.cuda.memory_summary(), str)
    del x


def case_amp_names(device: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaler = torch.cuda.amp.GradScaler()
        with torch.cuda.amp.autocast():
            y = torch.ones(4, 4, device="cuda") @ torch.ones(4, 4, device="cuda")
    assert y.dtype == torch.float16
    assert scaler.is_enabled()
    assert torch.cuda.is_bf16_supported()


def case_compile_eager(device: str) -> None:
    x = torch.ones(3, device="cuda", requires_grad=True)
    compiled = torch.compile(lambda v: (v * 2).relu().sum(), backend="aot_eager")
    compiled(x).backward()
    assert x.grad is not None
    assert x.grad.sum().item() == 6


def case_an_extension_that_is_loaded_leaves_other_kernels_alone(device: str) -> None:
    library = torch.library.Library("xpool_test_extension", "DEF")
    library.define("double(Tensor x) -> Tensor")
    library.impl("double", lambda x: x + x, "CUDA")
    any_library = Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so"
    torch.ops.load_library(any_library)
    x = torch.nn.Parameter(torch.ones(3)).to(device)
    assert torch.ops.xpool_test_extension.double(x).tolist() == [2.0, 2.0, 2.0]
