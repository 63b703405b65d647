"""Dtypes with fields, derived classes, and powers as CuPy has them, end to end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
Runner = Callable[..., subprocess.CompletedProcess[str]]


def check(run: Runner, name: str, env: dict[str, str]) -> None:
    program = PROGRAMS / f"arrays_{name}.py"
    cases = re.findall(r"^def case_(\w+)", program.read_text(), re.MULTILINE)
    ended = run("--memory", "256MiB", str(program), env=env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == cases
    if env:
        assert " 0 mismatches, 0 late errors" in ended.stderr


@pytest.mark.parametrize("name", ["structured", "derived"])
def test_by_the_native_path(xpool_run: Runner, name: str) -> None:
    check(xpool_run, name, {})


@pytest.mark.parametrize("name", ["structured", "derived"])
def test_by_pythons_path_with_every_prediction_compared(
    xpool_run: Runner, name: str
) -> None:
    check(xpool_run, name, {"XPOOL_AUDIT": "1", "XPOOL_TORCH": "off"})
