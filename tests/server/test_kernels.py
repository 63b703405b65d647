"""A client's own kernels on the server: numbers, checks, poison, sticky faults."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.kernel_driver import FakeLibcuda, RecordingCalls, RecordingDriver
from xpool_protocol.errors import ArgumentInvalid, HandleUnknown
from xpool_protocol.kernel_records import (
    CUDA_IMAGE,
    CUDA_SOURCE,
    ArrayArgument,
    BytesArgument,
    FreeModule,
    KernelAttributes,
    LaunchKernel,
    MakeModule,
    NullArgument,
    SetKernelAttribute,
    StorageArgument,
)
from xpool_protocol.messages import Failure, Fault, Reply
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader
from xpool_server.cupy_kernels import CupyKernelDriver
from xpool_server.failures import Failures
from xpool_server.faults import Poisoned
from xpool_server.kernels import DeviceFault, KernelDriver, Kernels, no_kernels
from xpool_server.storages import Storages

SOURCE = b'extern "C" __global__ void add(float* a, float b) {}'
ONE = (1, 1, 1)


class Arrays:
    """Two arrays, and what became of them."""

    def __init__(self) -> None:
        self.poisoned: dict[int, Fault] = {}

    def address_of(self, number: int) -> int:
        if number in self.poisoned:
            raise Poisoned(self.poisoned[number])
        if number > 2:
            raise HandleUnknown(f"array {number} does not exist")
        return 0x1000 * number

    def poison_written(self, number: int, fault: Fault) -> None:
        self.poisoned[number] = fault


class Desk:
    """One session's kernels, with a storage 7 of 64 bytes."""

    def __init__(self, open_driver: Callable[[], KernelDriver]) -> None:
        self.storages = Storages(1 << 20, torch.device("cpu"))
        self.storage = torch.zeros(64, dtype=torch.uint8).untyped_storage()
        self.storages.adopt(7, self.storage)
        self.arrays, self.failures = Arrays(), Failures("cuda")
        self.kernels = Kernels(self.storages, self.failures, self.arrays, open_driver)

    def fault(self, answers: Sequence[Reply | Failure] | None) -> Fault:
        assert answers is not None
        (failure,) = answers
        assert isinstance(failure, Failure)
        return failure.fault


@pytest.fixture
def driver() -> RecordingDriver:
    return RecordingDriver({"add": (8, 4), "unknown_widths": None, "none": ()})


@pytest.fixture
def desk(driver: RecordingDriver) -> Desk:
    return Desk(lambda: driver)


def launch(*arguments: Any, name: str = "add", module: int = 3) -> LaunchKernel:
    return LaunchKernel(module, name, (4, 2, 1), (32, 1, 1), 128, 0, arguments)


def test_a_launch_reaches_the_driver(desk: Desk, driver: RecordingDriver) -> None:
    assert not desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE, ("-DN=4",), ()))
    number = b"\0\0\x80\x3f"
    record = launch(StorageArgument(7, 16), BytesArgument(number))
    assert not desk.kernels.launch(record)
    address = (desk.storage.data_ptr() + 16).to_bytes(8, "little")
    assert driver.told == [
        ("load", CUDA_SOURCE, SOURCE, ("-DN=4",), ()),
        ("launch", "add", (4, 2, 1), (32, 1, 1), [address, number], 128, False),
    ]
    assert desk.kernels.launches == 1


def test_arrays_and_null_pointers(desk: Desk, driver: RecordingDriver) -> None:
    desk.kernels.make(MakeModule(3, CUDA_IMAGE, b"\x7fELF"))
    record = launch(ArrayArgument(2), NullArgument(), name="unknown_widths")
    assert not desk.kernels.launch(record)
    assert driver.told[-1][4] == [(0x2000).to_bytes(8, "little"), bytes(8)]


def test_equal_source_is_compiled_once(desk: Desk, driver: RecordingDriver) -> None:
    for number in (1, 2):
        desk.kernels.make(MakeModule(number, CUDA_SOURCE, SOURCE))
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE, ("-G",)))
    assert [told[0] for told in driver.told] == ["load", "load"]
    desk.kernels.free(FreeModule(1))
    assert [told[0] for told in driver.told] == ["load", "load"]
    desk.kernels.free(FreeModule(2))
    assert driver.told[-1] == ("unload", SOURCE)
    desk.kernels.make(MakeModule(1, CUDA_SOURCE, SOURCE))
    assert driver.told[-1][0] == "load"


def test_the_compilers_log_reaches_the_client(desk: Desk) -> None:
    fault = desk.fault(desk.kernels.make(MakeModule(3, CUDA_SOURCE, b'#error "no"')))
    assert fault.exception == "CompileException"
    assert fault.text.startswith("kern.cu(1): error")
    # Whoever uses the module is told the same, and nothing new has failed.
    assert not desk.kernels.launch(launch(StorageArgument(7, 0), ArrayArgument(1)))
    with pytest.raises(Poisoned) as poisoned:
        desk.storages.entry(7)
    assert poisoned.value.fault == fault
    assert desk.arrays.poisoned == {1: fault}
    answer = desk.kernels.attributes(KernelAttributes(5, 3, ""))
    assert answer == [Failure(5, fault)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((StorageArgument(7, 0),), "takes 2 arguments, and was given 1"),
        (
            (StorageArgument(7, 0), BytesArgument(b"\1" * 8)),
            "argument 1 .* has 4 bytes",
        ),
        ((BytesArgument(bytes(4)), BytesArgument(bytes(4))), "argument 0 .* has 8"),
        ((StorageArgument(7, 65), BytesArgument(bytes(4))), "outside storage 7"),
        ((StorageArgument(9, 0), BytesArgument(bytes(4))), "storage 9 does not exist"),
        ((ArrayArgument(9), BytesArgument(bytes(4))), "array 9 does not exist"),
    ],
)
def test_arguments_are_checked_before_the_launch(
    desk: Desk, driver: RecordingDriver, arguments: Any, text: str
) -> None:
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    fault = desk.fault(desk.kernels.launch(launch(*arguments)))
    assert fault.exception == "RuntimeError"
    assert re.search(text, fault.text), fault.text
    assert [told[0] for told in driver.told] == ["load"]


def test_poison_passes_on(desk: Desk, driver: RecordingDriver) -> None:
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    fault = Fault(500, "before", "RuntimeError", 1, "x")
    desk.arrays.poisoned[1] = fault
    record = launch(ArrayArgument(1), StorageArgument(7, 0), name="unknown_widths")
    assert not desk.kernels.launch(record)
    with pytest.raises(Poisoned) as poisoned:
        desk.storages.entry(7)
    assert poisoned.value.fault == fault
    assert driver.told[-1][0] == "load"


def test_a_kernel_that_faults_sticks_to_its_session_alone(
    desk: Desk, driver: RecordingDriver
) -> None:
    other = Desk(lambda: driver)
    for one in (desk, other):
        one.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    driver.faulting = {"none"}
    fault = desk.fault(desk.kernels.launch(launch(name="none")))
    assert "ILLEGAL_ADDRESS" in fault.text
    driver.faulting = set()
    before = len(driver.told)
    assert not desk.kernels.launch(launch(name="none"))
    assert not desk.kernels.make(MakeModule(4, CUDA_SOURCE, SOURCE, ("-G",)))
    answer = desk.kernels.attributes(KernelAttributes(5, 4, "add"))
    assert answer == [Failure(5, fault)]
    assert len(driver.told) == before
    assert not other.kernels.launch(launch(name="none"))
    assert len(driver.told) == before + 1


def test_unknown_names_and_numbers(desk: Desk) -> None:
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    assert "not found" in desk.fault(desk.kernels.launch(launch(name="sub"))).text
    assert "module 4" in desk.fault(desk.kernels.launch(launch(module=4))).text
    assert "module 4" in desk.fault(desk.kernels.free(FreeModule(4))).text
    again = desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    assert "exists already" in desk.fault(again).text


def test_attributes(desk: Desk, driver: RecordingDriver) -> None:
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    (reply,) = desk.kernels.attributes(KernelAttributes(5, 3, "add"))
    assert isinstance(reply, Reply)
    assert read_value(Reader(reply.value)) == list(range(10))
    assert not desk.kernels.set_attribute(SetKernelAttribute(3, "add", 8, 98304))
    assert driver.told[-1] == ("set", "add", 8, 98304)


def test_a_device_without_kernels_says_so() -> None:
    def refuse() -> KernelDriver:
        raise no_kernels("cpu")

    desk = Desk(refuse)
    fault = desk.fault(desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE)))
    assert fault.exception == "NotImplementedError"
    assert "cupy.RawKernel" in fault.text
    assert "is a cpu" in fault.text


# ---- the CUDA device, its driver's calls written down


@pytest.fixture
def calls() -> RecordingCalls:
    return RecordingCalls()


def cuda_driver(calls: RecordingCalls, made: list[Any]) -> CupyKernelDriver:
    class RawModule:
        def __init__(self, **named: Any) -> None:
            made.append(named)

        def compile(self) -> None:
            made.append("compiled")

        def get_function(self, name: str) -> Any:
            return SimpleNamespace(kernel=SimpleNamespace(ptr=len(name)))

    cupy = SimpleNamespace(cuda=SimpleNamespace(driver=calls), RawModule=RawModule)
    return CupyKernelDriver(cupy, FakeLibcuda(calls))


def test_an_image_goes_to_the_driver_as_it_is(calls: RecordingCalls) -> None:
    driver = cuda_driver(calls, [])
    module = driver.load(CUDA_IMAGE, b"\x7fELF...", (), ())
    kernel = driver.kernel(module, "add")
    calls.parameters = [8, 4, 1]
    assert driver.parameter_sizes(kernel) == (8, 4, 1)
    values = [bytes(range(8)), b"abcd", b"x"]
    driver.launch(kernel, (4, 2, 1), (32, 1, 1), values, 128, False)
    driver.launch(kernel, ONE, ONE, values, 0, True)
    driver.unload(module)
    assert calls.told == [
        ("moduleLoadData", b"\x7fELF..."),
        ("moduleGetFunction", 1000, "add"),
        ("launchKernel", 2000, (4, 2, 1, 32, 1, 1), 128, 0, values),
        ("cooperative", 2000, (1, 1, 1, 1, 1, 1), 0, 0, values),
        ("moduleUnload", 1000),
    ]


def test_ptx_ends_with_a_zero(calls: RecordingCalls) -> None:
    cuda_driver(calls, []).load(CUDA_IMAGE, b".version 8.0", (), ())
    assert calls.told == [("moduleLoadData", b".version 8.0\0")]


def test_source_is_compiled_by_cupy(calls: RecordingCalls) -> None:
    made: list[Any] = []
    driver = cuda_driver(calls, made)
    module = driver.load(CUDA_SOURCE, b"...", ("-G",), ("f<int>",))
    options = ("-G", "--no-source-include")
    assert made == [
        {"code": "...", "options": options, "name_expressions": ("f<int>",)},
        "compiled",
    ]
    kernel = driver.kernel(module, "f<int>")
    driver.launch(kernel, ONE, ONE, [], 0, False)
    assert calls.told == [("launchKernel", 6, (1, 1, 1, 1, 1, 1), 0, 0, [])]


@pytest.mark.parametrize("status", [700, 716, 719])
def test_errors_that_end_a_context_are_faults(
    calls: RecordingCalls, status: int
) -> None:
    driver = cuda_driver(calls, [])
    calls.status = status
    with pytest.raises(DeviceFault):
        driver.launch(2000, ONE, ONE, [], 0, False)


def test_other_errors_are_no_faults(calls: RecordingCalls) -> None:
    driver = cuda_driver(calls, [])
    calls.status = 1
    with pytest.raises(RuntimeError, match="CUDA_ERROR_1") as raised:
        driver.launch(2000, ONE, ONE, [], 0, False)
    assert not isinstance(raised.value, DeviceFault)


def test_a_driver_that_does_not_tell_parameters(calls: RecordingCalls) -> None:
    cupy = SimpleNamespace(cuda=SimpleNamespace(driver=calls))
    assert CupyKernelDriver(cupy, object()).parameter_sizes(2000) is None


# ---- what the compiler is not given


def refusal(code: bytes, *options: str) -> str | None:
    desk = Desk(lambda: RecordingDriver({}))
    answers = desk.kernels.make(MakeModule(3, CUDA_SOURCE, code, options))
    if not answers:
        return None
    fault = desk.fault(answers)
    assert fault.code == ArgumentInvalid.code
    return fault.text


@pytest.mark.parametrize(
    "code",
    [
        b"#include <cupy/complex.cuh>\n",
        b'  #  include "cupy/carray.cuh" // with a comment\n',
        b"// what this file will include: nothing\nint include;\n",
        b"#pragma unroll\n#define X 1\n",
    ],
)
def test_ordinary_source_is_compiled(code: bytes) -> None:
    assert refusal(code) is None


@pytest.mark.parametrize(
    "code",
    [
        b'#include "/etc/passwd"\n',
        b"#include </etc/passwd>\n",
        b'#include "../secrets"\n',
        b"#include <a/../../b>\n",
        b"#define X </etc/passwd>\n#include X\n",
        b'# /* x */ include "/etc/passwd"\n',
        b'#inc\\\nlude "/etc/passwd"\n',
        b'#include "/et\\\nc/passwd"\n',
        b'%:include "/etc/passwd"\n',
        b'??=include "/etc/passwd"\n',
        b'R"(/*)"\n#include "/etc/passwd"\n/**/',
        b'// x \\ \n#include "/etc/passwd"\n',
        b'#embed "/etc/passwd"\n',
        b"#include_next <vector>\n",
        b"#if __has_include(</etc/passwd>)\n#endif\n",
        b"\xff\xfe",
    ],
)
def test_source_that_reads_files_is_refused(code: bytes) -> None:
    assert refusal(code)


@pytest.mark.parametrize(
    "option",
    [
        "-DN=4",
        "-std=c++17",
        "--std=c++11",
        "--use_fast_math",
        "-use_fast_math",
        "-maxrregcount=32",
        "--fmad=false",
        "-lineinfo",
        "-G",
    ],
)
def test_options_that_change_code(option: str) -> None:
    assert refusal(SOURCE, option) is None


@pytest.mark.parametrize(
    "option",
    [
        "-I/etc",
        "--include-path=/etc",
        "-include",
        "--pre-include=/etc/passwd",
        "-I",
        "--time=/tmp/x",
        "-DX\n-I/etc",
        "@file",
        "--options-file=/etc/passwd",
        "",
    ],
)
def test_options_that_name_files(option: str) -> None:
    if option == "-DX\n-I/etc":
        assert refusal(SOURCE, option) is not None
    else:
        assert "is not allowed here" in (refusal(SOURCE, option) or "")


@pytest.mark.parametrize("value", [5, -5, 2**31 - 1, 2**32 - 1, -(2**31)])
def test_a_python_integer_fits_where_its_value_does(
    desk: Desk, driver: RecordingDriver, value: int
) -> None:
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    wide = value.to_bytes(8, "little", signed=True)
    assert not desk.kernels.launch(launch(ArrayArgument(1), BytesArgument(wide)))
    assert driver.told[-1][4][1] == wide[:4]


@pytest.mark.parametrize(
    "wide", [struct.pack("<d", 2.0), (2**32).to_bytes(8, "little"), bytes(5), bytes(2)]
)
def test_a_value_that_does_not_fit_is_refused(desk: Desk, wide: bytes) -> None:
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    fault = desk.fault(
        desk.kernels.launch(launch(ArrayArgument(1), BytesArgument(wide)))
    )
    assert "argument 1 of kernel add has 4 bytes" in fault.text


def test_a_pointer_is_never_cut(desk: Desk) -> None:
    desk.kernels.make(MakeModule(3, CUDA_SOURCE, SOURCE))
    fault = desk.fault(desk.kernels.launch(launch(ArrayArgument(1), NullArgument())))
    assert "argument 1 of kernel add has 4 bytes" in fault.text
