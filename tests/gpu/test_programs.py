"""Whole programs: the same figures in the pool as on this machine's own CUDA device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
sys.path.insert(0, str(PROGRAMS))

from programs import Program, all_programs
from run import Outcome, run_together


@pytest.fixture(scope="module")
def outcomes(pool: Any) -> dict[str, Outcome]:
    """Each program's, run on both sides."""
    return {one.program.name: one for one in run_together(all_programs(), pool)}


@pytest.mark.parametrize("program", all_programs(), ids=lambda one: one.name)
def test_program(program: Program, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[program.name]
    if outcome.skipped:
        pytest.skip(outcome.problem or "")
    assert outcome.problem is None
