"""A fleet of five servers, played whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from xpool_perf.__main__ import SCENARIOS, parser
from xpool_perf.fleet import FLEET, one_run, percentile
from xpool_perf.programs.fleet_load import Load


def test_the_scenario_is_known() -> None:
    assert SCENARIOS["fleet"] is FLEET
    assert parser().parse_args(["fleet", "--nodes", "7"]).nodes == 7


def test_percentiles() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50, 99)
    assert percentile([3.0], 0.99) == 3


def test_a_small_fleet_is_served(tmp_path: Path) -> None:
    load = Load(nodes=5, leases=40, acquires_per_s=20.0, seconds=2.0, seed=1)
    found = one_run(tmp_path, load, lambda text: None)
    assert found["heartbeats_per_s"][0] == pytest.approx(5, rel=0.5)
    assert found["registry_rss_mb"][0] > 10
    assert 0 < found["acquire_p50_ms"][0] <= found["acquire_p99_ms"][0]
