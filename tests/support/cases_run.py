"""Runs a module of end-to-end cases in a pool, and counts what escapes the device."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
COUNTED = str(TESTS / "cuda_wheel" / "programs" / "counted.py")
CASES = str(TESTS / "e2e" / "programs" / "cases.py")

Run = Callable[..., Any]
"""Runs the interpreter with these arguments and ``env``; returns its end."""


def outcomes_of(run: Run, folder: Path, module: str) -> dict[str, Any]:
    """What became of every case of a module that lies in a folder.

    ``*`` is the process itself, ``escapes`` what it sent past the remote device.
    """
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = run(
        *("-m", "xpool", "run", COUNTED, CASES, module, "cuda"),
        env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    lines = ended.stdout.splitlines()
    cases = [json.loads(line[5:]) for line in lines if line[:5] == "CASE "]
    found = {case["name"]: case["error"] for case in cases}
    found["*"] = None if ended.returncode == 0 else ended.stderr[-4000:]
    found["escapes"] = [line for line in lines if line[:8] == "ESCAPED "]
    return found
