"""Programs of cases with arrays, end to end; most show that nothing waits."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("audit", ["0", "1"])
@pytest.mark.parametrize(
    "name",
    [
        *("arrays_drawn", "arrays_shapes", "arrays_of_scipy", "arrays_memory"),
        *("arrays_sparse", "arrays_from_host", "arrays_names", "arrays_radar"),
        *("arrays_foreign", "arrays_queued", "arrays_masked"),
        "arrays_unwaited",
    ],
)
def test_all_cases_pass(xpool_run: Runner, name: str, audit: str) -> None:
    program = PROGRAMS / f"{name}.py"
    cases = re.findall(r"^def case_(\w+)", program.read_text(), re.MULTILINE)
    env = {"XPOOL_AUDIT": audit, "XPOOL_TORCH": "off" if audit == "1" else "on"}
    ended = xpool_run("--memory", "256MiB", str(program), env=env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == cases
    if audit == "1":
        assert " 0 mismatches, 0 late errors" in ended.stderr
