"""Whole programs: the same figures in the pool as on this machine's own CUDA device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
sys.path.insert(0, str(PROGRAMS))

from programs import Program, all_programs
from run import Outcome, run_one, run_together


@pytest.fixture(scope="module")
def outcomes(pool: Any) -> dict[str, Outcome]:
    """Each program's, run on both sides.

    Alone once more if it failed: another may have ended the process's device.
    """
    together = run_together(all_programs(), pool)
    return {
        one.program.name: one if one.problem is None else run_one(one.program, pool)
        for one in together
    }


@pytest.mark.parametrize("program", all_programs(), ids=lambda one: one.name)
def test_program(program: Program, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[program.name]
    if outcome.skipped:
        pytest.skip(outcome.problem or "")
    if outcome.problem and " here: " in outcome.problem:
        pytest.skip(f"it is not for this device: {outcome.problem}")
    assert outcome.problem is None
