"""The backend of every accelerator with a device module: measured time, what it says.

The device module here is one whose clock the test drives; on a CUDA device the general
backend is held against CUDA's own (``make test-gpu``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.device_module import TOTAL_NBYTES, FakeModule
from xpool_protocol.errors import OperationUnknown, UsageError
from xpool_server.arrays.opening import library_opener
from xpool_server.cli import vendor_label
from xpool_server.devices import discover, open_backend
from xpool_server.devices.accelerator import AcceleratorBackend, dispatch_keys
from xpool_server.devices.accelerators import accelerator_devices
from xpool_server.devices.cuda import CudaBackend
from xpool_server.devices.device_info import DeviceInfo
from xpool_server.devices.kinds import (
    KINDS,
    check_kind,
    device_module,
    total_memory_nbytes,
    vendor_of,
)
from xpool_server.devices.spans import MAX_OPEN_SPANS, HostEvent
from xpool_server.group_backends import made_backend
from xpool_server.lacking import lacking

MS = 1_000_000


def opened(module: FakeModule) -> AcceleratorBackend:
    backend = AcceleratorBackend(torch.device("cpu"), module)
    backend.synchronize()
    return backend


def piece(backend: AcceleratorBackend, module: FakeModule, cost_ns: int) -> None:
    """A piece of work that the device needs so long for."""
    module.cost_ns = 0
    backend.begin_work()
    module.cost_ns = cost_ns
    backend.end_work()


# ---- measured device time ----


def test_time_is_the_devices_own_and_comes_when_work_is_over() -> None:
    module = FakeModule()
    backend, clock = opened(module), module.clock
    piece(backend, module, 5 * MS)
    piece(backend, module, 7 * MS)
    assert (backend.busy_ns, backend.take_spans()) == (0, [])
    clock.run_until(clock.now_ns + 6 * MS)
    assert (backend.busy_ns, backend.take_spans()) == (5 * MS, [5 * MS])
    clock.run_until(clock.queued_until_ns)
    assert (backend.busy_ns, backend.take_spans()) == (12 * MS, [7 * MS])
    assert backend.take_spans() == []


def test_an_idle_device_is_not_charged() -> None:
    module = FakeModule()
    backend, clock = opened(module), module.clock
    piece(backend, module, 2 * MS)
    clock.run_until(clock.now_ns + 900 * MS)
    piece(backend, module, 3 * MS)
    clock.run_until(clock.queued_until_ns)
    assert backend.take_spans() == [2 * MS, 3 * MS]


@pytest.mark.parametrize("in_flight", [0, 1, 2])
def test_several_pieces_are_under_way_and_no_more_than_allowed(in_flight: int) -> None:
    module = FakeModule()
    backend, clock = opened(module), module.clock
    began_ns = clock.now_ns
    clock.waits.clear()
    for _ in range(in_flight):
        piece(backend, module, 4 * MS)
        backend.wait_for_chunks(in_flight)
    assert clock.waits == [], "nobody waits while there is room"
    piece(backend, module, 4 * MS)
    backend.wait_for_chunks(in_flight)
    assert clock.now_ns == began_ns + 4 * MS, "for the oldest one alone"
    assert backend.take_spans() == [4 * MS]


def test_many_pieces_are_kept_in_bounded_memory() -> None:
    module = FakeModule()
    backend = opened(module)
    for _ in range(3 * MAX_OPEN_SPANS):
        piece(backend, module, MS)
    module.clock.run_until(module.clock.queued_until_ns)
    assert backend.busy_ns == 3 * MAX_OPEN_SPANS * MS


def test_a_failed_devices_clock_does_not_raise() -> None:
    module = FakeModule()
    backend = opened(module)
    piece(backend, module, MS)
    module.has_failed = True
    backend.begin_work()
    backend.end_work()
    backend.wait_for_chunks(0)
    assert (backend.busy_ns, backend.take_spans()) == (0, [])
    with pytest.raises(RuntimeError, match="the device has failed"):
        backend.synchronize()


def test_without_times_of_its_own_each_piece_is_waited_for() -> None:
    module = FakeModule("Event")
    backend, clock = opened(module), module.clock
    assert any("waited for" in one for one in backend.remarks)
    clock.waits.clear()
    backend.begin_work()
    backend.end_work()
    assert len(clock.waits) == 2
    assert backend.busy_ns > 0


def test_a_mark_of_the_host_lies_behind_the_work() -> None:
    waits: list[str] = []
    first, last = (HostEvent(lambda: waits.append("wait")) for _ in range(2))
    first.record()
    last.record()
    assert waits == ["wait", "wait"]
    assert first.elapsed_time(last) > 0 > last.elapsed_time(first)
    assert first.query()


# ---- memory ----


def test_the_allocators_limit_is_the_quotas_part_of_the_device() -> None:
    module = FakeModule()
    backend = opened(module)
    backend.limit_memory(TOTAL_NBYTES // 4)
    assert module.fraction == 0.25
    backend.limit_memory(4 * TOTAL_NBYTES)
    assert module.fraction == 1.0


def test_the_allocators_cache_is_counted() -> None:
    assert opened(FakeModule()).overhead_nbytes == 2 << 20
    assert opened(FakeModule("memory_reserved")).overhead_nbytes == 0


def test_what_cannot_be_known_is_said() -> None:
    full = opened(FakeModule())
    assert not any("limit" in one or "size" in one for one in full.remarks)
    module = FakeModule(
        "get_device_properties", "mem_get_info", "set_per_process_memory_fraction"
    )
    backend = opened(module)
    backend.limit_memory(1 << 30)  # nothing to limit it by
    assert any("no limit" in one for one in backend.remarks)
    assert any("memory's size" in one for one in backend.remarks)
    assert backend.properties(7)["multi_processor_count"] == 1


def test_processors_are_counted_as_the_vendor_names_them() -> None:
    properties = opened(FakeModule()).properties(1 << 20)
    assert properties["multi_processor_count"] == 24
    assert (properties["major"], properties["minor"]) == (0, 0)


def test_who_lacks_generators_is_refused() -> None:
    with pytest.raises(UsageError, match="no default_generators"):
        opened(FakeModule("default_generators"))


# ---- which devices there are ----


@pytest.fixture
def npu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModule]:
    """Two devices under a name that torch itself knows but has none of here."""
    module = FakeModule(count=2)
    torch.get_device_module.cache_clear()
    monkeypatch.setattr(torch, "mtia", module)
    yield module
    torch.get_device_module.cache_clear()


def test_devices_of_a_kind_are_found(npu: FakeModule) -> None:
    first, second = discover("mtia")
    assert (first.kind, first.name, first.memory_nbytes) == (
        "mtia",
        "Abacus 910",
        TOTAL_NBYTES,
    )
    assert (first.index, first.torch_device) == (0, "mtia:0")
    assert (second.index, second.torch_device) == (1, "mtia:1")
    assert vendor_label([first, second]) == {"vendor": "meta"}
    assert discover("mtia:1")[0].torch_device == "mtia:1"
    assert discover(None, "mtia") == [first, second]


def test_the_memory_to_offer_can_be_less(npu: FakeModule) -> None:
    both = discover("mtia:0,1,memory=1GiB")
    assert [one.memory_nbytes for one in both] == [1 << 30, 1 << 30]
    with pytest.raises(UsageError, match="has 17179869184 bytes"):
        discover("mtia,memory=17GiB")


def test_memory_that_nobody_tells_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    module = FakeModule("get_device_properties", "mem_get_info")
    monkeypatch.setattr(torch, "mtia", module)
    torch.get_device_module.cache_clear()
    try:
        with pytest.raises(UsageError, match="--devices mtia:0,memory=32GiB"):
            discover("mtia")
        (one,) = accelerator_devices("mtia", memory_nbytes=5)
        assert one.memory_nbytes == 5
    finally:
        torch.get_device_module.cache_clear()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("mtia:2", r"sees 2 MTIA devices here.*out of range"),
        ("mtia:0,0", "names a device twice"),
        ("mtia,cores=2", "is not a device list"),
        ("mtia,1", "is not a device list"),
        ("mtia:0,memory=1GiB,1", "is not a device list"),
        ("mtia:", "is not a device list"),
        ("abacus:0", "is not a device list"),
    ],
)
def test_what_is_not_there(npu: FakeModule, spec: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        discover(spec)


def test_a_kind_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "mtia", FakeModule(count=0))
    torch.get_device_module.cache_clear()
    try:
        with pytest.raises(UsageError, match="sees no MTIA device here"):
            discover(None, "mtia")
    finally:
        torch.get_device_module.cache_clear()


# ---- what is imported ----


def test_a_vendors_module_that_is_not_installed_is_named() -> None:
    with pytest.raises(UsageError, match=r"no device type 'npu' here.*torch_npu"):
        open_backend("npu:0")
    with pytest.raises(UsageError, match="name it with --accelerator-module"):
        device_module("abacus")


def test_the_module_that_the_operator_named_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "abacus_for_torch.py").write_text("import torch\n")
    (tmp_path / "broken_for_torch.py").write_text("raise OSError('no driver')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert device_module("xpu", ["abacus_for_torch"]) is torch.xpu
    assert "abacus_for_torch" in sys.modules
    with pytest.raises(UsageError, match=r"broken_for_torch.*no driver"):
        device_module("xpu", ["broken_for_torch"])
    with pytest.raises(UsageError, match="no_such_module_here"):
        device_module("xpu", ["no_such_module_here"])


@pytest.mark.parametrize("name", ["", "a b", "a-b", "../x", "a..b", "os;x", "a.1"])
def test_what_is_no_module(name: str) -> None:
    with pytest.raises(UsageError, match="is no name of a Python module"):
        device_module("xpu", [name])


@pytest.mark.parametrize("kind", ["", "cpu", "meta", "NPU", "npu:0", "x" * 40, "a.b"])
def test_what_is_no_kind(kind: str) -> None:
    with pytest.raises(UsageError, match="is no kind of accelerator"):
        check_kind(kind)


def test_every_known_kind_has_a_vendor() -> None:
    assert all(check_kind(kind) and vendor_of(kind) for kind in KINDS)
    assert vendor_of("npu") == "huawei"


# ---- what other parts make of a kind ----


def test_keys_are_those_of_the_kind() -> None:
    assert dispatch_keys("cuda") == CUDA_KEYS
    assert dispatch_keys("hpu") == ("HPU",)
    vendors_name = torch._C._get_privateuse1_backend_name()
    assert dispatch_keys(vendors_name)[0] == "PrivateUse1"
    assert "SparsePrivateUse1" in dispatch_keys(vendors_name)


CUDA_KEYS = ("CUDA", "SparseCUDA", "SparseCsrCUDA")


def test_what_a_device_lacks_is_asked_by_its_keys() -> None:
    backend = opened(FakeModule())
    assert backend.dispatch_keys == ("CPU", "SparseCPU", "SparseCsrCPU")
    assert set(lacking(backend)) <= set(lacking(open_backend("cpu")))


def test_arrays_need_a_library_for_the_device() -> None:
    with pytest.raises(OperationUnknown, match="of the kind npu"):
        library_opener("npu")()


def test_collectives_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(OperationUnknown, match="collectives among abacus devices"):
        made_backend("abacus", None, 0, 2, None, "")  # type: ignore[arg-type]


def test_a_vendor_label_of_several_is_none() -> None:
    def info(vendor: str) -> DeviceInfo:
        return DeviceInfo(
            index=0,
            kind="x",
            name="",
            memory_nbytes=1,
            torch_device="x:0",
            vendor=vendor,
        )

    assert vendor_label([info("a"), info("b")]) == {}
    assert vendor_label([info("")]) == {}


# ---- against CUDA's own backend ----


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_cuda_as_any_accelerator_measures_what_cudas_backend_does() -> None:
    general = AcceleratorBackend(torch.device("cuda", 0), torch.cuda)
    cuda = CudaBackend(0)
    assert general.remarks == ()
    assert (general.kind, general.dispatch_keys) == (cuda.kind, cuda.dispatch_keys)
    matrix = torch.rand(4096, 4096, device="cuda")
    torch.mm(matrix, matrix)
    ratios = []
    for _ in range(5):
        took_ns = []
        for backend in (general, cuda):
            backend.synchronize()
            before_ns = backend.busy_ns
            for _ in range(4):
                backend.begin_work()
                for _ in range(20):
                    torch.mm(matrix, matrix)
                backend.end_work()
                backend.wait_for_chunks(2)
            backend.synchronize()
            assert len(backend.take_spans()) == 4
            took_ns.append(backend.busy_ns - before_ns)
        assert min(took_ns) > 10 * MS
        ratios.append(took_ns[0] / took_ns[1])
    assert 0.97 < sorted(ratios)[2] < 1.03, ratios


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_cuda_as_any_accelerator_tells_its_memory() -> None:
    total_nbytes = total_memory_nbytes(torch.cuda, 0)
    assert total_nbytes == torch.cuda.get_device_properties(0).total_memory
    general = AcceleratorBackend(torch.device("cuda", 0), torch.cuda)
    kept = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    del kept
    assert general.overhead_nbytes >= 64 << 20
    torch.cuda.empty_cache()
