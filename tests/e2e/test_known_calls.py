"""A call that is known by now gives what it would give if it were the first."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = str(Path(__file__).parent / "programs" / "known_calls.py")
CASES = (
    *("default_dtype", "numbers", "overlaps", "same_tensor", "layouts", "offsets"),
    *("promotion", "lists", "indices", "broadcast_failures", "gradients", "warned"),
    "factories",
)


@pytest.fixture(scope="module")
def seen(xpool_run: Callable[..., subprocess.CompletedProcess[str]]) -> dict[str, Any]:
    ended = xpool_run(SCRIPT, env={"OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr[-4000:]
    found: dict[str, Any] = json.loads(ended.stdout)
    assert set(found) == set(CASES)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_call_that_is_known_is_the_same(seen: dict[str, Any], case: str) -> None:
    here, there = seen[case]
    assert there == here
