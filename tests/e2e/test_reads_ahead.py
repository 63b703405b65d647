"""Small arrays are read many at once, end to end."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("torch", ["on", "off"])
def test_reads_ahead(xpool_run: Runner, torch: str) -> None:
    ended = xpool_run(
        *("--memory", "256MiB", str(PROGRAMS / "reads_ahead.py")),
        env={} if torch == "on" else {"XPOOL_TORCH": "off"},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "read\n"
