"""Programs as people write them, remote and with NumPy."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "array_programs.py"
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("audit", ["0", "1"])
def test_programs_give_what_numpy_gives(xpool_run: Runner, audit: str) -> None:
    ended = xpool_run("--memory", "256MiB", str(PROGRAM), env={"XPOOL_AUDIT": audit})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["page_rank", "jacobi", "logistic", "lloyd"]
    if audit == "1":
        assert " 0 mismatches, 0 late errors" in ended.stderr
