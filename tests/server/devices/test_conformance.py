"""The suite that defines a device backend: one subclass per implementation.

A new backend inherits ``BackendConformance``, defines ``backend``, and nothing else.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from support.device_module import FakeModule
from xpool_protocol import limits
from xpool_protocol.errors import UsageError
from xpool_server.devices import open_backend
from xpool_server.devices.accelerator import AcceleratorBackend
from xpool_server.devices.base import Backend
from xpool_server.lane import PART_NBYTES

CHUNK = limits.CHUNK_NBYTES


def pattern(nbytes: int) -> bytes:
    return (bytes(range(251)) * (nbytes // 251 + 1))[:nbytes]


def tensor_over(
    backend: Backend, storage: torch.UntypedStorage, dtype: torch.dtype
) -> torch.Tensor:
    return torch.empty(0, dtype=dtype, device=backend.device).set_(storage)


class BackendConformance:
    """Inherit, define ``backend``, and nothing else."""

    max_level: ClassVar[int] = 1

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError("the subclass opens a backend")

    # ---- who it is ----

    def test_it_says_what_it_is(self, backend: Backend) -> None:
        assert backend.kind == backend.device.type
        assert backend.level == self.max_level
        assert backend.name

    def test_properties_are_those_of_a_slice(self, backend: Backend) -> None:
        properties = backend.properties(1 << 30)
        assert properties["name"] == backend.name
        assert properties["total_memory"] == 1 << 30
        assert int(properties["multi_processor_count"]) > 0
        assert {"major", "minor"} <= properties.keys()

    # ---- streams ----

    @pytest.mark.parametrize("nbytes", [0, 1, PART_NBYTES, 4 * PART_NBYTES + 3])
    def test_a_stream_comes_in_and_goes_out(
        self, backend: Backend, nbytes: int
    ) -> None:
        data = memoryview(pattern(nbytes))
        storage = backend.allocate(nbytes + 5)
        destination = backend.destination(storage, 5)
        for at in range(0, nbytes, PART_NBYTES):
            part = data[at : at + PART_NBYTES]
            room = destination.room(at, len(part))
            room[:] = part
            destination.filled(at, len(room))
        destination.close()
        assert backend.read(storage, 5, nbytes) == data
        assert b"".join(map(bytes, backend.parts(storage, 5, nbytes))) == data

    # ---- level 1: memory ----

    @pytest.mark.parametrize("nbytes", [0, 1, 511, 512, 513, 1 << 20])
    def test_a_storage_has_the_size_asked_for(
        self, backend: Backend, nbytes: int
    ) -> None:
        storage = backend.allocate(nbytes)
        assert storage.nbytes() == nbytes
        assert storage.device == backend.device

    @pytest.mark.parametrize("nbytes", [0, 1, 513, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
    def test_bytes_survive_a_round_trip(self, backend: Backend, nbytes: int) -> None:
        storage = backend.allocate(nbytes)
        backend.write(storage, 0, pattern(nbytes))
        assert backend.read(storage, 0, nbytes) == pattern(nbytes)

    @pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
    def test_any_kind_of_payload(self, backend: Backend, wrap: type) -> None:
        storage = backend.allocate(8)
        backend.write(storage, 0, wrap(b"12345678"))
        assert backend.read(storage, 0, 8) == b"12345678"

    def test_writing_changes_its_range_only(self, backend: Backend) -> None:
        storage = backend.allocate(16)
        backend.write(storage, 0, bytes(16))
        backend.write(storage, 5, b"abc")
        backend.write(storage, 16, b"")
        assert backend.read(storage, 0, 16) == bytes(5) + b"abc" + bytes(8)
        assert backend.read(storage, 6, 2) == b"bc"
        assert backend.read(storage, 16, 0) == b""

    def test_what_was_written_may_change_afterwards(self, backend: Backend) -> None:
        storage, data = backend.allocate(4), bytearray(b"1234")
        backend.write(storage, 0, data)
        data[:] = b"5678"
        assert backend.read(storage, 0, 4) == b"1234"

    def test_what_was_read_is_a_copy(self, backend: Backend) -> None:
        storage = backend.allocate(4)
        backend.write(storage, 0, b"1234")
        data = backend.read(storage, 0, 4)
        backend.write(storage, 0, b"5678")
        assert data == b"1234"

    def test_storages_do_not_overlap(self, backend: Backend) -> None:
        storages = [backend.allocate(100) for _ in range(20)]
        for number, storage in enumerate(storages):
            backend.write(storage, 0, bytes([number]) * 100)
        for number, storage in enumerate(storages):
            assert backend.read(storage, 0, 100) == bytes([number]) * 100

    def test_too_much_is_an_error_of_the_framework(self, backend: Backend) -> None:
        with pytest.raises(RuntimeError, match=r"memory"):
            backend.allocate(1 << 46)

    # ---- level 1: ordered launch ----

    def test_operations_write_into_storages(self, backend: Backend) -> None:
        storage = backend.allocate(16)
        tensor_over(backend, storage, torch.float32).fill_(1.5)
        assert backend.read(storage, 0, 4) == b"\x00\x00\xc0\x3f"

    def test_reading_waits_for_what_was_launched(self, backend: Backend) -> None:
        storage = backend.allocate(4)
        number = tensor_over(backend, storage, torch.int32)
        number.zero_()
        for _ in range(1000):
            number.add_(1)
        assert backend.read(storage, 0, 4) == (1000).to_bytes(4, "little")

    def test_writing_waits_for_what_was_launched(self, backend: Backend) -> None:
        storage = backend.allocate(4)
        number = tensor_over(backend, storage, torch.int32)
        for _ in range(1000):
            number.fill_(1)
        backend.write(storage, 0, (7).to_bytes(4, "little"))
        number.add_(1)
        assert backend.read(storage, 0, 4) == (8).to_bytes(4, "little")

    def test_synchronize_returns(self, backend: Backend) -> None:
        torch.ones(100, device=backend.device).add(1)
        backend.synchronize()
        backend.synchronize()

    # ---- random numbers ----

    def test_generators_repeat(self, backend: Backend) -> None:
        draws = []
        for _ in range(2):
            generator = backend.new_generator()
            generator.manual_seed(5)
            draws.append(
                torch.rand(8, device=backend.device, generator=generator).cpu()
            )
        assert torch.equal(*draws)

    def test_the_default_generator_is_the_frameworks(self, backend: Backend) -> None:
        backend.default_generator().manual_seed(5)
        first = torch.rand(8, device=backend.device).cpu()
        backend.default_generator().manual_seed(5)
        assert torch.equal(torch.rand(8, device=backend.device).cpu(), first)

    # ---- time ----

    def test_only_work_is_counted(self, backend: Backend) -> None:
        backend.synchronize()
        before = backend.busy_ns
        torch.rand(200, 200, device=backend.device).sum()
        backend.synchronize()
        assert backend.busy_ns == before
        backend.begin_work()
        torch.rand(200, 200, device=backend.device).sum()
        backend.end_work()
        backend.synchronize()
        assert backend.busy_ns > before
        assert backend.busy_ns == backend.busy_ns

    def test_much_work_is_counted_in_bounded_memory(self, backend: Backend) -> None:
        before = backend.busy_ns
        for _ in range(1000):
            backend.begin_work()
            torch.ones(8, device=backend.device)
            backend.end_work()
        backend.synchronize()
        assert backend.busy_ns > before


class TestCpu(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return open_backend("cpu")


@pytest.mark.gpu
class TestCuda(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        if not torch.cuda.is_available():
            pytest.skip("the framework sees no CUDA device here")
        return open_backend("cuda:0")

    def test_the_allocator_has_a_limit_beneath_the_quota(
        self, backend: Backend
    ) -> None:
        backend.limit_memory(1 << 28)
        try:
            with pytest.raises(torch.OutOfMemoryError):
                backend.allocate(1 << 30)
        finally:
            backend.limit_memory(1 << 60)
        assert backend.allocate(1 << 30).nbytes() == 1 << 30


class TestAcceleratorOfTheCpu(BackendConformance):
    """The general backend over a device module whose time is the test's."""

    @pytest.fixture
    def backend(self) -> Backend:
        module = FakeModule()
        module.cost_ns = 1000
        return AcceleratorBackend(torch.device("cpu"), module)


class TestAcceleratorWithoutEvents(BackendConformance):
    """What a device module may lack, this one does."""

    @pytest.fixture
    def backend(self) -> Backend:
        module = FakeModule(
            *("Event", "mem_get_info", "get_device_properties", "memory_reserved"),
            "set_per_process_memory_fraction",
        )
        return AcceleratorBackend(torch.device("cpu"), module)


@pytest.mark.gpu
class TestCudaAsAnyAccelerator(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        if not torch.cuda.is_available():
            pytest.skip("the framework sees no CUDA device here")
        return AcceleratorBackend(torch.device("cuda", 0), torch.cuda)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cpu:",
        "cpu:0",
        "npu",
        "npu:",
        "npu:x",
        "meta:0",
        "../x:0",
        "cuda",
        "cuda:",
        "cuda:x",
        "cuda:0000",
        "CPU",
    ],
)
def test_what_is_no_device_of_a_worker(name: str) -> None:
    with pytest.raises(UsageError, match=r"write cpu or cuda:0 or npu:0"):
        open_backend(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_here() -> None:
    with pytest.raises(UsageError, match=r"cuda:0 is not here: .* sees 0 CUDA devices"):
        open_backend("cuda:0")
