"""Names of a CUDA build of torch: memory figures, old types, profilers, DLPack."""

from __future__ import annotations

import contextlib
import gc
import re
import tempfile
import warnings
from pathlib import Path

import torch

REFUSALS = ("xpool: ", "Tried to instantiate dummy base class")


def case_every_core_function_answers_or_refuses(device: str) -> None:
    stub = Path(torch.__file__).parent / "_C" / "__init__.pyi"
    names = set(re.findall(r"^def (_cuda_\w+)\(", stub.read_text(), re.MULTILINE))
    assert len(names) > 60
    assert [name for name in sorted(names) if not hasattr(torch._C, name)] == []


def case_every_public_function_answers_or_refuses(device: str) -> None:
    warnings.simplefilter("ignore")
    refused = set()
    for name in sorted(torch.cuda.__all__):
        function = getattr(torch.cuda, name)
        if not callable(function) or isinstance(function, type):
            continue
        try:
            function()
        except TypeError:
            continue  # it wants arguments
        except RuntimeError as error:
            assert str(error).startswith(REFUSALS), f"{name}: {error}"
            refused.add(name)
    assert refused <= {
        *("clock_rate", "current_blas_handle", "current_solver_handle"),
        *("graph_pool_handle", "memory_usage", "power_draw", "temperature"),
    }
    torch.cuda.manual_seed(0)


def case_memory_statistics_have_torchs_keys(device: str) -> None:
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.reset_accumulated_memory_stats()
    before = torch.cuda.memory_stats()
    x = torch.ones(1 << 18, device="cuda")
    stats = torch.cuda.memory_stats()
    for kind in ("allocated_bytes", "reserved_bytes", "active_bytes"):
        for pool in ("all", "small_pool", "large_pool"):
            for what in ("current", "peak", "allocated", "freed"):
                assert f"{kind}.{pool}.{what}" in stats
    grown = stats["allocated_bytes.all.current"] - before["allocated_bytes.all.current"]
    assert grown == 1 << 20
    assert stats["allocated_bytes.all.allocated"] == 1 << 20
    assert stats["allocation.all.current"] == before["allocation.all.current"] + 1
    del x
    after = torch.cuda.memory_stats()
    assert after["allocated_bytes.all.freed"] == 1 << 20
    assert after["allocated_bytes.all.peak"] == stats["allocated_bytes.all.current"]
    assert after["num_alloc_retries"] == 0
    with contextlib.suppress(torch.OutOfMemoryError):
        torch.empty(1 << 40, device="cuda")
    assert torch.cuda.memory_stats()["num_ooms"] == 1
    nested = torch.cuda.memory_stats_as_nested_dict()
    assert nested["segment"]["all"].keys() == {"current", "peak", "allocated", "freed"}
    assert "PyTorch CUDA memory summary" in torch.cuda.memory_summary()
    assert torch.cuda.host_memory_stats()["active_bytes.current"] == 0


def case_memory_snapshot(device: str) -> None:
    x = torch.ones(1 << 18, device="cuda")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.memory._record_memory_history(max_entries=100)
    assert len(caught) == 1
    assert "not recorded" in str(caught[0].message)
    with tempfile.NamedTemporaryFile() as file:
        torch.cuda.memory._dump_snapshot(file.name)
        assert file.read()
    torch.cuda.memory._record_memory_history(enabled=None)
    (segment,) = torch.cuda.memory_snapshot()
    assert segment["allocated_size"] == torch.cuda.memory_allocated()
    del x


def case_legacy_tensors(device: str) -> None:
    x = torch.cuda.FloatTensor([1, 2, 3])
    assert x.is_cuda
    assert x.tolist() == [1, 2, 3]
    assert torch.cuda.LongTensor(2, 3).shape == (2, 3)
    assert torch.cuda.DoubleTensor(x.double()).dtype == torch.float64
    assert torch.cuda.ByteTensor().numel() == 0
    assert isinstance(x, torch.cuda.FloatTensor)
    assert not isinstance(x, torch.FloatTensor)
    assert not isinstance(x, torch.cuda.LongTensor)
    assert not isinstance(x.cpu(), torch.cuda.FloatTensor)
    assert x.type() == "torch.cuda.FloatTensor"
    assert x.type(torch.cuda.LongTensor).tolist() == [1, 2, 3]
    assert x.cpu().type(torch.cuda.HalfTensor).is_cuda
    assert x.type("torch.FloatTensor").device.type == "cpu"
    assert x.new(2, 2).is_cuda
    assert x.new([5]).tolist() == [5]
    assert x.new_tensor([5]).is_cuda
    assert torch.cuda.HalfTensor.dtype is torch.float16
    assert torch.cuda.FloatTensor.is_cuda
    assert "torch.cuda.FloatTensor" in str(torch.cuda.FloatTensor)


def case_default_tensor_type(device: str) -> None:
    warnings.simplefilter("ignore")
    try:
        torch.set_default_tensor_type(torch.cuda.DoubleTensor)
        assert torch.zeros(2).is_cuda
        assert torch.tensor([1.0]).dtype == torch.float64
        torch.set_default_tensor_type("torch.cuda.FloatTensor")
        assert torch.nn.Linear(2, 2).weight.is_cuda
        try:
            torch.set_default_tensor_type(torch.cuda.LongTensor)
        except TypeError as error:
            assert "floating-point" in str(error)
        else:
            raise AssertionError("an integer type became the default")
    finally:
        torch.set_default_tensor_type(torch.FloatTensor)
    assert torch.zeros(2).device.type == "cpu"
    assert torch.tensor([1.0]).dtype == torch.float32


def case_storages_by_hand(device: str) -> None:
    warnings.simplefilter("ignore")
    assert torch.cuda.FloatStorage(3).nbytes() == 12
    assert torch.UntypedStorage(12, device="cuda").device.type == "cuda"
    x = torch.arange(8.0, device="cuda")
    view = x[2:4]
    before = torch.cuda.memory_allocated()
    x.untyped_storage().resize_(1 << 20)
    assert torch.cuda.memory_allocated() - before == (1 << 20) - 512
    assert view.tolist() == [2, 3]
    x.untyped_storage().resize_(0)
    assert x.untyped_storage().size() == 0
    x.untyped_storage().resize_(32)
    assert torch.cuda.memory_allocated() == before
    x.copy_(torch.arange(8.0) + 1)
    assert view.tolist() == [3, 4]
    assert torch.UntypedStorage(4).resize_(8).nbytes() == 8


def case_dlpack_shares_the_storage(device: str) -> None:
    x = torch.arange(12.0, device="cuda").view(3, 4)
    view = torch.from_dlpack(x[1:, ::2])
    view += 100
    assert x.tolist()[1] == [104, 5, 106, 7]
    assert view.stride() == (4, 2)
    assert view.data_ptr() == x.data_ptr() + 16
    assert x.__dlpack_device__() == (2, 0)
    capsule = torch.utils.dlpack.to_dlpack(x[2])
    assert torch.utils.dlpack.from_dlpack(capsule).tolist() == [108, 9, 110, 11]
    copied = torch.from_dlpack(x, copy=True)
    copied.zero_()
    assert x[0, 1].item() == 1
    assert torch.from_dlpack(x, device="cpu").device.type == "cpu"
    assert torch.from_dlpack(torch.ones(0, 3, device="cuda")).add(1).shape == (0, 3)
    assert torch.from_dlpack(torch.ones(2)).device.type == "cpu"


def case_dlpack_frees_once(device: str) -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    x = torch.ones(1000, device="cuda")
    capsule = torch.utils.dlpack.to_dlpack(x)
    del x
    assert torch.cuda.memory_allocated() == before + 4096
    y = torch.from_dlpack(capsule)
    del capsule
    assert y.sum().item() == 1000
    del y
    assert torch.cuda.memory_allocated() == before
    capsule = torch.utils.dlpack.to_dlpack(torch.ones(1000, device="cuda"))
    del capsule
    assert torch.cuda.memory_allocated() == before
    torch.cuda.synchronize()


def case_addresses_are_given_to_nobody(device: str) -> None:
    import numpy

    x = torch.ones(3, device="cuda")
    assert not hasattr(x, "__cuda_array_interface__")
    try:
        numpy.from_dlpack(x)
    except (RuntimeError, BufferError) as error:  # NumPy 2.5 raises the latter
        assert "device" in str(error)
    else:
        raise AssertionError("numpy took an address of the remote device")
    assert x.sum().item() == 3


def case_quantized_is_refused_and_the_session_lives(device: str) -> None:
    warnings.simplefilter("ignore")
    x = torch.ones(3, device="cuda")
    for make in (
        lambda: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        lambda: torch.empty(3, dtype=torch.bits8, device="cuda").fill_(0),
    ):
        try:
            make()
        except NotImplementedError as error:
            assert "not supported on the remote device" in str(error)
        else:
            raise AssertionError("a dtype that can't cross the wire was taken")
    assert x.sum().item() == 3


def case_profiler(device: str) -> None:
    from torch.profiler import (
        ProfilerActivity,
        profile,
        record_function,
        schedule,
        tensorboard_trace_handler,
    )

    warnings.simplefilter("ignore")
    both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    x = torch.ones(8, 8, device="cuda", requires_grad=True)
    found = profile(activities=both, profile_memory=True, record_shapes=True)
    with found, record_function("my_step"):
        (x @ x).sum().backward()
    names = {event.key for event in found.key_averages()}
    assert {"my_step", "aten::mm"} <= names
    assert "my_step" in found.key_averages().table(sort_by="cuda_time_total")
    with tempfile.TemporaryDirectory() as folder:
        found.export_chrome_trace(f"{folder}/trace.json")
        assert "my_step" in Path(f"{folder}/trace.json").read_text()
        with profile(
            activities=both,
            schedule=schedule(wait=1, warmup=1, active=2),
            on_trace_ready=tensorboard_trace_handler(folder),
        ) as stepped:
            for _ in range(5):
                x @ x
                stepped.step()
        assert list(Path(folder).glob("*.pt.trace.json"))
    with torch.autograd.profiler.profile(use_device="cuda") as old:
        x @ x
    assert "aten::mm" in {event.key for event in old.key_averages()}
    with profile(activities=[ProfilerActivity.CUDA]):
        x @ x


def case_nvtx(device: str) -> None:
    assert torch.cuda.nvtx.range_push("outer") == 0
    assert torch.cuda.nvtx.range_push("inner") == 1
    torch.cuda.nvtx.mark("here")
    assert torch.cuda.nvtx.range_pop() == 1
    assert torch.cuda.nvtx.range_pop() == 0
    torch.cuda.nvtx.range_end(torch.cuda.nvtx.range_start("across threads"))
    with torch.cuda.nvtx.range("a {}", 1), torch.autograd.profiler.emit_nvtx():
        torch.ones(2, device="cuda").sum().item()
    torch.cuda.profiler.start()
    torch.cuda.profiler.stop()


def case_utilization_is_measured(device: str) -> None:
    torch.cuda.utilization()
    x = torch.ones(400, 400, device="cuda")
    for _ in range(20):
        x = (x @ x) * 1e-3
    assert 0 < torch.cuda.utilization() <= 100
    torch.cuda.set_sync_debug_mode("warn")
    assert torch.cuda.get_sync_debug_mode() == 1
    torch.cuda.set_sync_debug_mode(0)


def case_jagged_nested_tensors(device: str) -> None:
    warnings.simplefilter("ignore")
    rows = [torch.ones(2, 3), torch.ones(4, 3)]
    nested = torch.nested.nested_tensor(
        rows, layout=torch.jagged, device="cuda", requires_grad=True
    )
    layer = torch.nn.Linear(3, 5).cuda()
    found = torch.nn.functional.relu(layer(nested))
    assert [part.shape for part in found.unbind()] == [(2, 5), (4, 5)]
    padded = torch.nested.to_padded_tensor(nested.detach(), 0.0)
    assert padded.sum().item() == 18
    found.values().sum().backward()
    assert nested.grad is not None
    assert layer.weight.grad is not None
