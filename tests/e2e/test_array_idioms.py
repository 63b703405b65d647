"""What programs do around their arrays, end to end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "arrays_idioms.py"
Runner = Callable[..., subprocess.CompletedProcess[str]]
CASES = re.findall(r"^def case_(\w+)", PROGRAM.read_text(), re.MULTILINE)


@pytest.mark.parametrize("torch", ["on", "off"])
def test_idioms(xpool_run: Runner, torch: str) -> None:
    ended = xpool_run("--memory", "256MiB", str(PROGRAM), env={"XPOOL_TORCH": torch})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == CASES
