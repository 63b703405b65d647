"""What programs do around their arrays, end to end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("name", "torch"),
    [
        ("arrays_idioms", "on"),
        ("arrays_idioms", "off"),
        ("arrays_operators", "off"),
        ("arrays_eigen", "off"),
        ("arrays_tested", "off"),
        ("arrays_repeated", "on"),
        ("arrays_repeated", "off"),
    ],
)
def test_idioms(xpool_run: Runner, name: str, torch: str) -> None:
    program = PROGRAMS / f"{name}.py"
    cases = re.findall(r"^def case_(\w+)", program.read_text(), re.MULTILINE)
    ended = xpool_run("--memory", "256MiB", str(program), env={"XPOOL_TORCH": torch})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == cases
