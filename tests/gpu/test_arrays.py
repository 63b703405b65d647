"""CuPy's drop-in on a CUDA server, where real CuPy executes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.cases_run import outcomes_of

HERE = Path(__file__).resolve().parent
E2E = HERE.parent / "e2e" / "programs"
sys.path.insert(0, str(E2E))

from cases import case_names

RUN_S = 300
MODULES = {
    "array_cases": "cupy",
    "triton_cases": "triton",
    "numba_cases": "numba_cuda",
}
"""Files with cases, and what they need."""

CASES = [
    (module, name)
    for module in MODULES
    for name in [*case_names(HERE / "programs" / f"{module}.py"), "*"]
]
QUOTA = 2 << 30
"""The context alone has some 600 MiB."""

PROGRAMS = {
    "arrays_basic.py": (("beside",), "arrays are as they should be\n"),
    "arrays_more.py": ((), None),
    "arrays_and_tensors.py": ((), "tensors and arrays share memory\n"),
    "arrays_on_a_device.py": ((str(QUOTA),), "the device is as it should be\n"),
    "arrays_hostile.py": ((), "refused what has to be\n"),
    "array_kernels.py": ((), "kernels are as they should be\n"),
    "arrays_drawn.py": ((), None),
}
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run(pool: Any) -> Runner:
    """Runs ``xpool run`` in the pool."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
        return subprocess.run(
            [sys.executable, *arguments],
            env=pool.environment({"XPOOL_REGISTRY": pool.registry, **(env or {})}),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def outcomes(run: Runner) -> Callable[[str], dict[str, Any]]:
    """What became of every case of a module; run once, kept."""

    @cache
    def of(module: str) -> dict[str, Any]:
        return outcomes_of(run, HERE / "programs", module)

    return of


@pytest.mark.parametrize(("module", "name"), CASES)
def test_case(module: str, name: str, outcomes: Any) -> None:
    """``*`` is the process itself: it ended well, after all its cases."""
    pytest.importorskip(MODULES[module])
    found = outcomes(module)
    assert name in found, f"{name} never ran: {found['*']}"
    assert found[name] is None, found[name]


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str, run: Runner) -> None:
    """Those of the CPU device, with each prediction compared with CuPy's truth."""
    arguments, output = PROGRAMS[program]
    ended = run(
        *("-m", "xpool", "run", "--slice", "20%", "--memory", "2GiB"),
        *(str(E2E / program), *arguments),
        env={"XPOOL_AUDIT": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert output in (None, ended.stdout)
    assert " 0 mismatches" in ended.stderr


FAULT = r"""
import sys, cupy as cp
code = 'extern "C" __global__ void f(int* x) { *(int*)16 = 1; }'
x = cp.zeros(4, dtype=cp.int32)
cp.RawKernel(code, "f")((1,), (1,), (x,))
for _ in range(2):
    try: print(x.get())
    except Exception as error: print("told:", type(error).__name__, error)
"""
STEADY = r"""
import sys, cupy as cp
x = cp.zeros(4)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100): x += 1
print(x.get().tolist())
"""


def test_a_fault_is_its_sessions_alone(pool: Any, run: Runner) -> None:
    slice_of = ("-m", "xpool", "run", "--slice", "20%", "--memory", "1GiB", "-c")
    neighbour = subprocess.Popen(
        [sys.executable, *slice_of, STEADY],
        env=pool.environment({"XPOOL_REGISTRY": pool.registry}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert neighbour.stdout is not None
        assert neighbour.stdout.readline() == "ready\n"
        ended = run(*slice_of, FAULT)
        said = ended.stdout.splitlines()
        assert len(said) == 2, ended.stderr
        assert all(line.startswith("told:") for line in said), said
        assert "illegal" in said[0].lower() or "misaligned" in said[0].lower(), said
        out, _ = neighbour.communicate("go\n", timeout=RUN_S)
        assert out == "[100.0, 100.0, 100.0, 100.0]\n"
        assert neighbour.returncode == 0
    finally:
        neighbour.kill()
        neighbour.wait()
    assert run(*slice_of, "import cupy; print(cupy.ones(3).sum())").stdout == "3.0\n"
