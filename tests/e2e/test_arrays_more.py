"""CuPy's callables, files, classes, and memory shared with torch, end to end."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
Runner = Callable[..., subprocess.CompletedProcess[str]]
CASES = re.findall(
    r"^def case_(\w+)", (PROGRAMS / "arrays_more.py").read_text(), re.MULTILINE
)


def test_beyond_functions(xpool_run: Runner) -> None:
    ended = xpool_run("--memory", "256MiB", str(PROGRAMS / "arrays_more.py"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == CASES


def test_predictions_hold_there_too(xpool_run: Runner) -> None:
    ended = xpool_run(
        *("--memory", "256MiB", str(PROGRAMS / "arrays_more.py")),
        env={"XPOOL_AUDIT": "1", "XPOOL_TORCH": "off"},
    )
    assert ended.returncode == 0, ended.stderr
    assert " 0 mismatches" in ended.stderr


def test_arrays_and_tensors_share_memory(xpool_run: Runner) -> None:
    ended = xpool_run("--memory", "256MiB", str(PROGRAMS / "arrays_and_tensors.py"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "tensors and arrays share memory\n"


UPLOADS = """
import cupy, numpy as np
from xpool.cupy.device import device
log, rows = device().log, []
write = log.write
log.write = lambda *given: rows.append(write(*given)) or rows[-1]
for nbytes in map(int, {sizes!r}):
    host = np.arange(nbytes, dtype=np.uint8)
    assert (cupy.asarray(host).get() == host).all()
print(*(after - before for before, after in rows))
"""
"""How many records further the array's own one stands than the one before the bytes."""

MIB = 1 << 20


@pytest.mark.parametrize(
    ("environment", "sizes", "expected"),
    [
        ({}, [40_000, 100_000, MIB - 1, 2 * MIB], "2 2 2 2"),
        ({"XPOOL_LANE": "off"}, [2 * MIB, 17 * MIB], "2 3"),
        ({"XPOOL_TORCH": "off"}, [40_000, 100_000, 2 * MIB, 17 * MIB], "2 2 2 3"),
    ],
    ids=["lane", "messages", "python"],
)
def test_an_upload_is_one_row_of_records(
    xpool_run: Runner, environment: dict[str, str], sizes: list[int], expected: str
) -> None:
    ended = xpool_run(
        *("--memory", "256MiB", "-c", UPLOADS.format(sizes=sizes)), env=environment
    )
    assert ended.stdout.strip() == expected, ended.stderr


@pytest.mark.parametrize(
    "use",
    [
        "cp.RawKernel('extern \"C\" __global__ void f() {}', 'f')((1,), (1,), ())",
        "cp.RawModule(code='...').compile()",
    ],
)
def test_a_cpu_names_the_kernel_feature(xpool_run: Runner, use: str) -> None:
    program = f"""
import cupy as cp
try:
    {use}
except NotImplementedError as error:
    print(error)
"""
    ended = xpool_run("-c", program)
    assert "runs CUDA source, which this slice's device, a cpu, can't" in ended.stdout


def test_kernels_as_far_as_a_cpu_goes(xpool_run: Runner) -> None:
    ended = xpool_run(str(PROGRAMS / "array_kernels.py"), env={"XPOOL_AUDIT": "1"})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "kernels are as they should be\n"
    assert " 0 mismatches" in ended.stderr


@pytest.mark.parametrize("mode", ["on", "off"])
def test_devices_memory_and_streams(xpool_run: Runner, mode: str) -> None:
    program = str(PROGRAMS / "arrays_on_a_device.py")
    ended = xpool_run(
        "--memory", "256MiB", program, str(256 << 20), env={"XPOOL_TORCH": mode}
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "the device is as it should be\n"


def test_scikit_learn_by_array_api_dispatch(xpool_run: Runner) -> None:
    pytest.importorskip("sklearn")
    ended = xpool_run(str(PROGRAMS / "sklearn_arrays.py"))
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    assert len(outcomes) > 50
    assert {name: text for name, text in outcomes.items() if text != "same"} == {}
