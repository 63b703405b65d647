"""Arrays of dtypes with fields, end to end, by the native path and by Python's."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "arrays_structured.py"
Runner = Callable[..., subprocess.CompletedProcess[str]]
CASES = re.findall(r"^def case_(\w+)", PROGRAM.read_text(), re.MULTILINE)


@pytest.mark.parametrize("torch", ["on", "off"])
def test_structured_arrays_are_numpys(xpool_run: Runner, torch: str) -> None:
    ended = xpool_run(
        *("--memory", "256MiB", str(PROGRAM)),
        env={"XPOOL_AUDIT": "1", **({"XPOOL_TORCH": "off"} if torch == "off" else {})},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == CASES
    assert " 0 mismatches, 0 late errors" in ended.stderr


def test_without_an_audit_too(xpool_run: Runner) -> None:
    ended = xpool_run("--memory", "256MiB", str(PROGRAM))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == CASES
