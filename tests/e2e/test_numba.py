"""``numba.cuda`` through real processes, on a device that runs no CUDA kernels."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "numba_on_a_cpu.py"
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
@pytest.mark.parametrize("torch", ["on", "off"])
def test_numba_on_a_cpu(xpool_run: Runner, torch: str) -> None:
    ended = xpool_run(str(PROGRAM), env={"XPOOL_TORCH": torch})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "numba is as it should be\n"
