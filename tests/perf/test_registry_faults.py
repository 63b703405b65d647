"""The storm in which registries are killed, once for each kind of store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from xpool_perf import etcd
from xpool_perf.__main__ import SCENARIOS
from xpool_perf.children import Children
from xpool_perf.pool import repository
from xpool_perf.registry_faults import (
    REGISTRY_FAULTS,
    Trial,
    Watch,
    over_etcd,
    over_file,
)


def test_the_scenario_is_known() -> None:
    assert SCENARIOS["registry_faults"] is REGISTRY_FAULTS


def test_what_lines_tell() -> None:
    watch = Watch()
    watch.line("storm", "grant 10 20")
    watch.line("storm", "grant 15 40")
    watch.line("registry-1", "2026-01-01 [info     ] leading                 term=7")
    watch.line("registry-2", "2026-01-01 [info     ] no longer leading       term=7")
    watch.line("storm", '{"lost": 1}')
    assert watch.leader == "registry-1"
    assert watch.first_grant_after_ns(9) == 20
    assert watch.first_grant_after_ns(12) == 40
    assert watch.first_grant_after_ns(15) is None
    assert watch.verdict == {"lost": 1}


@pytest.mark.parametrize("course", [over_file, over_etcd])
def test_a_kill_loses_nothing(
    course: Callable[[Trial, int], None], tmp_path: Path
) -> None:
    if course is over_etcd and etcd.binary(repository()) is None:
        pytest.skip(etcd.MISSING)
    watch = Watch()
    with Children(watch.line) as children:
        trial = Trial(children, watch, tmp_path, lambda text: None)
        course(trial, 1)
    assert watch.verdict["granted"] > 0
    assert (watch.verdict["lost"], watch.verdict["twice"]) == (0, 0)
    assert len(trial.failovers_s) == 1
