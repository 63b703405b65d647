"""What ``cupyx.scipy`` does with kernels and objects, end to end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "arrays_of_scipy.py"
Runner = Callable[..., subprocess.CompletedProcess[str]]
CASES = re.findall(r"^def case_(\w+)", PROGRAM.read_text(), re.MULTILINE)


@pytest.mark.parametrize("audit", ["0", "1"])
def test_each_is_as_in_scipy(xpool_run: Runner, audit: str) -> None:
    env = {"XPOOL_AUDIT": audit, "XPOOL_TORCH": "off" if audit == "1" else "on"}
    ended = xpool_run("--memory", "256MiB", str(PROGRAM), env=env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == CASES
    if audit == "1":
        assert " 0 mismatches, 0 late errors" in ended.stderr
