"""The scenario of array calls as a user runs it, small."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from xpool_perf.__main__ import SCENARIOS
from xpool_perf.array_ops import AIMS_US, ARRAY_OPS


def test_the_scenario_is_known() -> None:
    assert SCENARIOS["array_ops"] is ARRAY_OPS


@pytest.mark.slow
def test_the_scenario_gives_every_figure() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "xpool_perf", "array_ops", "--json", "--runs", "1"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    figures = json.loads(ended.stdout)["figures"]
    assert set(figures) == {one.name for one in ARRAY_OPS.figures}
    assert all(value > 0 for value in figures.values())
    assert {f"client_us_per_call_{name}" for name in AIMS_US} <= set(figures)
