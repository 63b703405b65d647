"""Numba's kernels become records: compiled here, for an architecture that is told."""

from __future__ import annotations

import gc
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from xpool.kernel_log import KernelLog
from xpool_protocol.arrays.values import LAYOUT_C, LAYOUT_OWN
from xpool_protocol.errors import UsageError
from xpool_protocol.kernel_records import (
    CUDA_IMAGE,
    ArrayArgument,
    BytesArgument,
    FreeModule,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    NullArgument,
)
from xpool_protocol.records import Record, read_record
from xpool_protocol.values import write_value
from xpool_protocol.wire import Reader, Writer

pytest.importorskip("numba", reason="Numba is not installed")
cuda: Any = pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")

from xpool.cupy import raw_kernels
from xpool.cupy.geometry import geometry
from xpool.cupy.ndarray import ndarray
from xpool.numba import install, kernels
from xpool.numba.arguments import passed
from xpool.numba.kernels import Kernel, make_jit

ATTRIBUTES = [1024, 0, 0, 0, 32, 90, 90, 0, 0, 0]


class Desk:
    """The log of a session, and its device."""

    def __init__(self, kind: str) -> None:
        self.records: list[Record] = []
        self.log = KernelLog(self._append, lambda: 7, self._ask)
        properties = {"major": 9, "minor": 0}
        welcome = SimpleNamespace(
            device_kind=kind, properties=properties, device_name="H"
        )
        self.device: Any = SimpleNamespace(
            session=SimpleNamespace(welcome=welcome), current_index=lambda: 0
        )

    def _append(self, record: bytes) -> int:
        self.records.append(read_record(Reader(record)))
        return len(self.records)

    def _ask(self, request: int) -> bytes:
        writer = Writer()
        write_value(writer, [*ATTRIBUTES])
        return bytes(writer.buffer)

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]


def use_device(monkeypatch: pytest.MonkeyPatch, kind: str) -> Desk:
    desk = Desk(kind)
    monkeypatch.setattr(kernels, "current", lambda: desk.device)
    monkeypatch.setattr("xpool.numba.where.current", lambda: desk.device)
    monkeypatch.setattr(raw_kernels, "_logs", {0: desk.log})
    monkeypatch.setattr(raw_kernels, "device", lambda: desk.device)
    # Numba asks for it when a kernel calls a function of the program's.
    dispatcher: Any = __import__("numba.cuda.dispatcher", fromlist=["dispatcher"])
    monkeypatch.setattr(dispatcher, "get_current_device", install._current_device)
    return desk


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return use_device(monkeypatch, "cuda")


jit = make_jit(cuda.jit)


def array(number: int, shape: tuple[int, ...], dtype: str, strides: Any = None) -> Any:
    """An array on the device that nobody has made there."""
    made = object.__new__(ndarray)
    made._number, made._ref, made._charge, made._base = number, b"", 0, None
    made._geo = geometry(shape, np.dtype(dtype))
    dense = np.empty(shape, dtype)
    layout = LAYOUT_C | LAYOUT_OWN if strides is None else 0
    made._layout = (strides or dense.strides, layout)
    return made


def words(*values: int) -> list[BytesArgument]:
    return [BytesArgument(struct.pack("<q", one)) for one in values]


def double(x: Any) -> Any:
    return x + x


def test_a_launch_is_an_image_and_a_launch(desk: Desk) -> None:
    twice = jit(device=True)(double)

    @jit
    def scale(a: Any, x: Any, y: Any, at: Any, z: Any, flag: Any) -> None:
        i = cuda.grid(1)
        if flag and i < x.size:
            y[i, at[0]] = a * twice(x[i]) + z.real

    x, y = array(3, (5,), "f4"), array(4, (5, 2), "f4", (4, 20))
    scale[2, 32](2.5, x, y, (1, 0), np.complex64(1 + 2j), True)
    (made,), (asked,), (launch,) = map(
        desk.of, (MakeModule, KernelAttributes, LaunchKernel)
    )
    assert made.language == CUDA_IMAGE
    assert asked == KernelAttributes(7, made.module, launch.name)
    null = NullArgument()
    assert launch == LaunchKernel(
        made.module,
        launch.name,
        (2, 1, 1),
        (32, 1, 1),
        0,
        0,
        (
            BytesArgument(struct.pack("<d", 2.5)),
            *(null, null, *words(5, 4), ArrayArgument(3), *words(5, 4)),
            *(null, null, *words(10, 4), ArrayArgument(4), *words(5, 2, 4, 20)),
            *words(1, 0),
            BytesArgument(struct.pack("<f", 1)),
            BytesArgument(struct.pack("<f", 2)),
            BytesArgument(b"\1"),
        ),
    )
    # The second one needs no image and asks nothing.
    scale[(1, 2, 3), (4,), 0, 256](2.5, x, y, (1, 0), np.complex64(1), False)
    assert len(desk.of(MakeModule)) == len(desk.of(KernelAttributes)) == 1
    second = desk.of(LaunchKernel)[1]
    assert (second.grid, second.block) == ((1, 2, 3), (4, 1, 1))
    assert second.shared_nbytes == 256


def test_registers_may_be_limited(desk: Desk) -> None:
    limits: tuple[dict[str, Any], ...] = (
        {"max_registers": 40},
        {"max_registers": 40, "launch_bounds": 64},
    )
    for options in limits:

        @jit(**options)
        def first(x: Any) -> None:
            x[0] = 1

        first[1, 1](array(3, (5,), "f4"))
    limited, bound = (made.code for made in desk.of(MakeModule))
    assert limited
    assert limited != bound


def test_other_types_are_another_kernel(desk: Desk) -> None:
    @jit
    def fill(x: Any, value: Any) -> None:
        x[cuda.grid(1)] = value

    fill[1, 4](array(1, (4,), "f8"), 1)
    fill[1, 4](array(1, (4,), "i4"), 1)
    fill[1, 4](array(1, (4,), "i4"), 2.0)
    assert len(desk.of(MakeModule)) == 3
    before = {one.module for one in desk.of(MakeModule)}
    del fill
    gc.collect()
    jit(lambda x: None)[1, 1](array(1, (4,), "f8"))
    assert before <= {one.module for one in desk.of(FreeModule)}


def test_types_that_the_program_names(desk: Desk) -> None:
    @jit("void(float32[:], int32, float64)")
    def fill(x: Any, count: Any, value: Any) -> None:
        if cuda.grid(1) < count:
            x[cuda.grid(1)] = value

    fill[1, 4](array(1, (4,), "f4"), 3, 2)
    assert desk.of(LaunchKernel)[0].arguments[-2:] == (
        BytesArgument(struct.pack("<i", 3)),
        BytesArgument(struct.pack("<d", 2)),
    )
    with pytest.raises(TypeError, match="No matching definition"):
        fill[1, 4](array(1, (4,), "f8"), 3, 2)
    with pytest.raises(TypeError, match="No matching definition"):
        fill[1, 4](array(1, (4,), "f4"), 3)
    with pytest.raises(TypeError, match="can't convert"):
        fill[1, 4](array(1, (4,), "f4"), 2.5, 2)


def test_over_so_many_threads(desk: Desk) -> None:
    @jit
    def fill(x: Any) -> None:
        i = cuda.grid(1)
        if i < x.size:
            x[i] = i

    fill.forall(1000)(array(1, (1000,), "f4"))
    fill.forall(0)(array(1, (0,), "f4"))
    (launch,) = desk.of(LaunchKernel)
    assert launch.grid == (4, 1, 1)
    assert launch.block == (256, 1, 1)


def test_mistakes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    @jit
    def nothing(x: Any) -> None:
        pass

    with pytest.raises(ValueError, match="launch configuration"):
        nothing(1)
    with pytest.raises(ValueError, match="at least the griddim"):
        nothing[1](1)
    with pytest.raises(TypeError, match="takes no str"):
        nothing[1, 1]("text")
    with pytest.raises(NotImplementedError, match="with link"):
        jit(link=["x.cu"])
    with pytest.raises(NotImplementedError, match="with debug"):
        jit(debug=True)
    with pytest.raises(NotImplementedError, match="does not know novelty"):
        jit(novelty=1)
    assert not desk.records
    monkeypatch.setattr(kernels, "parameters", lambda kind, one: words(1, 2, 3))
    with pytest.raises(UsageError, match="in a way that xpool does not know"):
        nothing[1, 1](5)
    assert not desk.of(LaunchKernel)


def test_what_does_not_compile_says_so_at_the_call(desk: Desk) -> None:
    @jit
    def wrong(x: Any) -> None:
        x[0] = no_such_name  # noqa: F821

    with pytest.raises(Exception, match="no_such_name"):
        wrong[1, 1](array(1, (4,), "f4"))
    assert not desk.records


def test_a_cpu_names_the_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = use_device(monkeypatch, "cpu")

    @jit
    def fill(x: Any) -> None:
        x[cuda.grid(1)] = 1

    @jit("void(float32[:])")
    def named(x: Any) -> None:
        x[cuda.grid(1)] = 1

    for kernel in (fill, named):
        assert isinstance(kernel, Kernel)
        with pytest.raises(
            NotImplementedError, match=r"a kernel of numba\.cuda, needs"
        ):
            kernel[1, 4](array(1, (4,), "f4"))
    assert not desk.records


def test_numbers_keep_their_types(desk: Desk) -> None:
    after: list[Any] = []
    for value, name in ((True, "bool"), (3, "int64"), (1j, "complex128")):
        assert str(passed(value, after).kind) in (name, "boolean")
    assert str(passed(np.uint8(3), after).kind) == "uint8"
    assert not after
