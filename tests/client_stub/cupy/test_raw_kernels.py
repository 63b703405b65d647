"""RawKernel and RawModule become records; a device without CUDA says so."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from xpool.cupy import raw_kernels
from xpool.cupy.raw_kernels import RawKernel, RawModule
from xpool.kernel_log import KernelLog
from xpool.session import RemoteFault
from xpool_protocol.kernel_records import (
    CUDA_IMAGE,
    CUDA_SOURCE,
    BytesArgument,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    NullArgument,
    SetKernelAttribute,
)
from xpool_protocol.messages import Fault
from xpool_protocol.records import Record, read_record
from xpool_protocol.values import write_value
from xpool_protocol.wire import Reader, Writer

SOURCE = 'extern "C" __global__ void add(float* a, int n) {}'


class Desk:
    """The log of a session on a CUDA device."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.log = KernelLog(self._append, lambda: 5, self._ask)

    def _append(self, record: bytes) -> int:
        self.records.append(read_record(Reader(record)))
        return len(self.records)

    def _ask(self, request: int) -> bytes:
        asked = self.records[-1]
        assert isinstance(asked, KernelAttributes)
        writer = Writer()
        write_value(writer, list(range(10)) if asked.name else [])
        return bytes(writer.buffer)


def use_device(monkeypatch: pytest.MonkeyPatch, kind: str) -> Desk:
    desk = Desk()
    welcome = SimpleNamespace(device_kind=kind)
    where: Any = SimpleNamespace(
        session=SimpleNamespace(welcome=welcome), current_index=lambda: 0
    )
    where.members = (where,)
    monkeypatch.setattr(raw_kernels, "device", lambda: where)
    monkeypatch.setattr(raw_kernels, "_logs", {0: desk.log})
    return desk


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return use_device(monkeypatch, "cuda")


def test_a_kernel_is_compiled_at_its_first_call(desk: Desk) -> None:
    kernel = RawKernel(SOURCE, "add", ("-DN=4",))
    assert not desk.records
    values = (np.float32(1), 7, 2.0, 1j, True, None, np.int8(3))
    kernel((4,), (32, 2), values, shared_mem=64)
    kernel((4, 1, 1), (32, 2, 1), ())
    made, asked, first, second = desk.records
    assert isinstance(made, MakeModule)
    assert (made.language, made.code) == (CUDA_SOURCE, SOURCE.encode())
    assert (made.options, made.names) == (("-DN=4",), ())
    assert asked == KernelAttributes(5, made.module, "add")
    assert first == LaunchKernel(
        made.module,
        "add",
        (4, 1, 1),
        (32, 2, 1),
        64,
        0,
        (
            BytesArgument(struct.pack("<f", 1)),
            BytesArgument(struct.pack("<q", 7)),
            BytesArgument(struct.pack("<d", 2)),
            BytesArgument(struct.pack("<dd", 0, 1)),
            BytesArgument(b"\1"),
            NullArgument(),
            BytesArgument(b"\3"),
        ),
    )
    assert isinstance(second, LaunchKernel)
    assert second.arguments == ()


def test_a_structure_goes_by_value(desk: Desk) -> None:
    pair = np.array((1, 2.0), dtype=[("a", "<i4"), ("b", "<f4")])
    assert raw_kernels.argument(pair) == BytesArgument(struct.pack("<if", 1, 2))
    with pytest.raises(TypeError, match="Unsupported type"):
        raw_kernels.argument("text")


def test_modules_and_name_expressions(desk: Desk, tmp_path: Any) -> None:
    module = RawModule(code="...", name_expressions=("f<int>",))
    module.compile()
    module.get_function("f<int>")((1,), (1,), ())
    made, waited, asked, launch = desk.records
    assert isinstance(made, MakeModule)
    assert made.names == ("f<int>",)
    assert waited == KernelAttributes(5, made.module, "")
    assert asked == KernelAttributes(5, made.module, "f<int>")
    assert isinstance(launch, LaunchKernel)
    image = tmp_path / "kernels.cubin"
    image.write_bytes(b"\x7fELF")
    RawModule(path=str(image)).compile()
    assert any(
        isinstance(one, MakeModule) and one.language == CUDA_IMAGE
        for one in desk.records
    )


def test_attributes(desk: Desk) -> None:
    kernel = RawKernel(SOURCE, "add")
    assert kernel.num_regs == 4
    assert kernel.attributes["max_dynamic_shared_size_bytes"] == 8
    kernel.max_dynamic_shared_size_bytes = 98304
    (setting,) = [one for one in desk.records if isinstance(one, SetKernelAttribute)]
    assert (setting.attribute, setting.value) == (8, 98304)
    with pytest.raises(AttributeError):
        kernel.num_regs = 3


@pytest.mark.parametrize(
    ("grid", "block"), [((0,), (1,)), ((1,), (1 << 31,)), ((1,) * 4, (1,))]
)
def test_extents_that_no_device_has(desk: Desk, grid: Any, block: Any) -> None:
    with pytest.raises(ValueError, match="launch"):
        RawKernel(SOURCE, "add")(grid, block, ())


def test_what_a_server_does_not_do(desk: Desk) -> None:
    for wrong in (
        {"jitify": True},
        {"translate_cucomplex": True},
        {"backend": "nvcc"},
    ):
        with pytest.raises(NotImplementedError, match="does not support"):
            RawModule(code="...", **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Exactly one"):
        RawModule()
    with pytest.raises(NotImplementedError, match=r"RawModule\.get_global"):
        RawModule(code="...").get_global("x")


def test_the_compilers_log_reaches_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpool.cupy.modules import kernels

    log = 'kern.cu(1): error: identifier "nonsense" is undefined'
    fault = Fault(500, log, "CompileException", 3, "make_module")

    def wait(request: int) -> Any:
        raise RemoteFault(fault, f"{log} [make_module, operation 3, on server one]")

    session = SimpleNamespace(
        welcome=SimpleNamespace(device_kind="cuda"),
        wait=wait,
        noted=lambda what, run: run(),
    )
    posted: list[bytes] = []
    where: Any = SimpleNamespace(
        session=session,
        current_index=lambda: 0,
        post=posted.append,
        log=SimpleNamespace(next_request=lambda: 5),
    )
    where.members = (where,)
    monkeypatch.setattr(raw_kernels, "device", lambda: where)
    monkeypatch.setattr(raw_kernels, "_logs", {})
    for use in (
        lambda: RawKernel("nonsense", "f")((1,), (1,), ()),
        lambda: RawModule(code="nonsense").compile(),
    ):
        with pytest.raises(kernels.CompileException, match="nonsense") as raised:
            use()
        assert log in raised.value.get_message()
    records = [read_record(Reader(one)) for one in posted]
    assert [one for one in records if isinstance(one, MakeModule)]
    assert not [one for one in records if isinstance(one, LaunchKernel)]


def test_a_cpu_names_the_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = use_device(monkeypatch, "cpu")
    for use in (
        lambda: RawKernel(SOURCE, "add")((1,), (1,), ()),
        lambda: RawKernel(SOURCE, "add").compile(),
        lambda: RawKernel(SOURCE, "add").num_regs,
    ):
        with pytest.raises(NotImplementedError, match=r"cupy\.RawKernel runs CUDA"):
            use()
    with pytest.raises(NotImplementedError, match=r"cupy\.RawModule runs CUDA"):
        RawModule(code="...").compile()
    assert not desk.records
