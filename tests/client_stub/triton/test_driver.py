"""Triton's kernels become records: compiled here, for an architecture that is told."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from xpool.kernel_log import KernelLog
from xpool_protocol.kernel_records import (
    CUDA_IMAGE,
    BytesArgument,
    FreeModule,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    NullArgument,
    StorageArgument,
)
from xpool_protocol.records import Record, read_record
from xpool_protocol.values import write_value
from xpool_protocol.wire import Reader, Writer

triton: Any = pytest.importorskip(
    "triton", reason="the extra `triton` is not installed"
)

HOPPER = {
    "major": 9,
    "minor": 0,
    "shared_memory_per_block_optin": 232448,
    "multi_processor_count": 132,
}
ATTRIBUTES = [1024, 0, 0, 0, 32, 90, 90, 0, 0, 0]


class Float32:
    """A dtype as Triton reads it: by its name."""

    def __str__(self) -> str:
        return "torch.float32"

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Float32)


class RemoteTensor:
    """What Triton asks of a tensor, and where it is."""

    dtype = Float32()

    def __init__(self, storage: int, offset: int) -> None:
        self.storage, self.offset = storage, offset

    def data_ptr(self) -> int:
        return (self.storage << 20) + self.offset


class Desk:
    """Records what leaves; answers questions about kernels."""

    def __init__(self, properties: dict[str, int]) -> None:
        from xpool.triton.driver import Device, RemoteDriver

        self.records: list[Record] = []
        self.kernels = KernelLog(self._append, lambda: 77, self._ask)
        device = Device(self.kernels, properties, lambda t: (t.storage, t.offset))
        self.driver = RemoteDriver(lambda index: device, lambda: 0)

    def _append(self, record: bytes) -> int:
        reader = Reader(record)
        self.records.append(read_record(reader))
        assert reader.is_exhausted
        return len(self.records)

    def _ask(self, request: int) -> bytes:
        assert request == 77
        writer = Writer()
        write_value(writer, [*ATTRIBUTES])
        return bytes(writer.buffer)

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]


@pytest.fixture
def desk(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    from triton.runtime import driver

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    desk = Desk(HOPPER)
    before = driver._active
    driver.set_active(desk.driver)
    yield desk
    driver._active = before


def scale_kernel() -> Any:
    from kernels_for_triton import scale_and_shift

    return scale_and_shift


@pytest.fixture(autouse=True)
def kernels_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")


def test_a_launch_is_an_image_and_a_launch(desk: Desk) -> None:
    kernel = scale_kernel()
    kernel.device_caches.clear()
    out, x = RemoteTensor(3, 0), RemoteTensor(4, 512)
    kernel[(4, 2)](out, x, 2.5, -7, 4000, BLOCK=1024, num_warps=8)
    (made,), (asked,), (launch,) = map(
        desk.of, (MakeModule, KernelAttributes, LaunchKernel)
    )
    assert made.language == CUDA_IMAGE
    assert made.code.startswith(b"\x7fELF")
    assert asked == KernelAttributes(77, made.module, "scale_and_shift")
    assert launch == LaunchKernel(
        made.module,
        "scale_and_shift",
        (4, 2, 1),
        (256, 1, 1),
        launch.shared_nbytes,
        0,
        (
            StorageArgument(3, 0),
            StorageArgument(4, 512),
            BytesArgument(struct.pack("<f", 2.5)),
            BytesArgument(struct.pack("<i", -7)),
            BytesArgument(struct.pack("<i", 4000)),
            NullArgument(),
            NullArgument(),
        ),
    )
    # The second one needs no image and asks nothing.
    kernel[(1,)](out, x, 2.5, -7, 4000, BLOCK=1024, num_warps=8)
    assert len(desk.of(MakeModule)) == len(desk.of(KernelAttributes)) == 1
    assert [one.grid for one in desk.of(LaunchKernel)] == [(4, 2, 1), (1, 1, 1)]
    kernel[(0,)](out, x, 2.5, -7, 4000, BLOCK=1024, num_warps=8)
    assert len(desk.of(LaunchKernel)) == 2


def test_the_image_has_the_parameters_that_are_sent(desk: Desk) -> None:
    kernel = scale_kernel()
    kernel.device_caches.clear()
    x = RemoteTensor(4, 0)
    compiled = kernel[(1,)](x, x, 2.5, 9, 4000, BLOCK=64)
    entry = compiled.asm["ptx"].split(".entry", 1)[1].split(")", 1)[0]
    widths = [
        {".u64": 8, ".u32": 4, ".b32": 4, ".f32": 4, ".b64": 8}[word]
        for line in entry.splitlines()
        if ".param" in line
        for word in line.split()
        if word in {".u64", ".u32", ".b32", ".f32", ".b64"}
    ]
    (launch,) = desk.of(LaunchKernel)
    sent = [
        len(one.data) if isinstance(one, BytesArgument) else 8
        for one in launch.arguments
    ]
    assert widths == sent


def test_a_kernel_that_goes_frees_its_module(desk: Desk) -> None:
    kernel = scale_kernel()
    kernel.device_caches.clear()
    x = RemoteTensor(4, 0)
    kernel[(1,)](x, x, 2.5, 9, 4000, BLOCK=128)
    (made,) = desk.of(MakeModule)
    kernel.device_caches.clear()
    import gc

    gc.collect()
    kernel[(1,)](x, x, 2.5, 9, 4000, BLOCK=128)
    assert FreeModule(made.module) in desk.records


def test_a_cpu_has_no_triton(tmp_path: Any) -> None:
    from triton.runtime import driver

    desk = Desk({"major": 0, "minor": 0})
    before = driver._active
    driver.set_active(desk.driver)
    try:
        kernel = scale_kernel()
        kernel.device_caches.clear()
        with pytest.raises(NotImplementedError, match="need a CUDA device"):
            kernel[(1,)](RemoteTensor(1, 0), RemoteTensor(2, 0), 1.0, 2, 3, BLOCK=64)
    finally:
        driver._active = before
    assert not desk.records


def test_a_number_is_no_pointer(desk: Desk) -> None:
    from xpool.triton.arguments import argument

    with pytest.raises(TypeError, match="remote tensors"):
        argument("*fp32", 4096, lambda tensor: (0, 0))
    with pytest.raises(NotImplementedError, match="tensordesc"):
        argument("tensordesc<fp16[64]>", object(), lambda tensor: (0, 0))


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        ("i1", True, b"\x01"),
        ("u8", 255, b"\xff"),
        ("i64", -1, b"\xff" * 8),
        ("fp16", 1.0, b"\x00\x3c"),
        ("bf16", 1.0, b"\x80\x3f"),
        ("bf16", 1.00390625, b"\x80\x3f"),
        ("bf16", 1.01171875, b"\x82\x3f"),
        ("bf16", float("nan"), b"\xc0\x7f"),
        ("fp64", 1.0, struct.pack("<d", 1.0)),
    ],
)
def test_numbers(kind: str, value: Any, data: bytes) -> None:
    from xpool.triton.arguments import argument

    assert argument(kind, value, lambda tensor: (0, 0)) == BytesArgument(data)
