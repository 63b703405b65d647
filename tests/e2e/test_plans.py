"""Automatic plans change what travels, and nothing that a program can see."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

SCRIPT = str(Path(__file__).parent / "programs" / "repeated.py")

Runner: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def both(xpool_run: Runner) -> dict[str, Any]:
    found = {}
    for plans in ("on", "off"):
        ended = xpool_run(SCRIPT, env={"XPOOL_PLANS": plans, "OMP_NUM_THREADS": "1"})
        assert ended.returncode == 0, ended.stderr[-4000:]
        found[plans] = json.loads(ended.stdout)
    return found


LOOPS = (
    *("trained", "decoded", "changed_before_it_is_read"),
    *("fails_in_the_middle", "sliced", "in_two_threads"),
)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_computes_the_same(both: dict[str, Any], loop: str) -> None:
    assert both["on"]["seen"][loop] == both["off"]["seen"][loop]


def test_the_failure_is_at_its_iteration(both: dict[str, Any]) -> None:
    seen = both["on"]["seen"]["fails_in_the_middle"]
    failed = [number for number, one in enumerate(seen) if "Error" in one]
    assert failed == [20]
    assert "index out of range" in seen[20]


def test_most_of_it_travels_in_runs(both: dict[str, Any]) -> None:
    counters = both["on"]["counters"]
    assert counters["replayed"] > counters["records"] / 2
    assert counters["early_answers"] > 100
    assert not any(both["off"]["counters"].values())


def test_the_line_of_a_failure_is_right_within_a_run(xpool_run: Runner) -> None:
    """Operation numbers are those of the single operations."""
    ended = xpool_run("-c", LATE, env={"XPOOL_TRACE": "1"})
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout == "line 9\n"


LATE = """import torch
import xpool
table = torch.arange(12.0, device="cuda").reshape(6, 2)
for number in range(20):
    index = torch.full((2,), 1 + 50 * (number == 15), device="cuda")
    x = table
    for _ in range(20):
        x = x + 1
    found = torch.nn.functional.embedding(index, x)
    try:
        found.sum().item()
    except IndexError as error:
        assert number == 15
        print("line", str(error).split("<string>:")[1].split()[0].strip(",])"))
assert xpool.current_remote().library.replay_counters()["replayed"] > 100
"""


def test_an_unknown_choice_is_refused(xpool_run: Runner) -> None:
    ended = xpool_run("-c", "import torch", env={"XPOOL_PLANS": "maybe"})
    assert ended.returncode != 0
    assert "XPOOL_PLANS is 'maybe': write on or off" in ended.stderr
