"""The trace is read as its columns say; the experiment is the published one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from xpool_perf import openb
from xpool_perf.fair_reference import within_reach
from xpool_perf.openb_files import NODES_FILE, TASKS_FILE
from xpool_perf.placement_replay import replays, unfairness
from xpool_perf.pool import RunFailed
from xpool_perf.scenario import Settings
from xpool_perf.simulated_day import (
    DAY_S,
    DEVICES,
    NODES,
    Day,
    Job,
    quietly,
    tenants,
)
from xpool_registry.demand import Demand
from xpool_registry.fleet import DeviceFacts, NodeFacts

TASK = "t{i},4000,15000,{count},{milli},,LS,Running,0,1,2\n"
# Single seeds vary by a tenth of a point; a scan of all placements takes minutes.
FLOOR_PER_S = 300


def write_trace(folder: Path) -> None:
    nodes = "sn,cpu_milli,memory_mib,gpu,model\n"
    nodes += "".join(f"n{i},64000,262144,4,T4\n" for i in range(25))
    (folder / NODES_FILE).write_text(nodes)
    head = (
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
        "creation_time,deletion_time,scheduled_time\n"
    )
    forms = [(1, 500)] * 40 + [(1, 300)] * 20 + [(1, 1000)] * 20 + [(2, 1000)] * 5
    rows = [
        TASK.format(i=i, count=count, milli=milli)
        for i, (count, milli) in enumerate([*forms, (0, 0)])
    ]
    (folder / TASKS_FILE).write_text(head + "".join(rows))


def test_a_small_trace_is_replayed_and_fgd_wins(tmp_path: Path) -> None:
    write_trace(tmp_path)
    lines: list[str] = []
    samples = replays(Settings(path=tmp_path), lines.append)
    assert len(samples["allocation_percent_by_seed"]) == 5
    fgd = samples["allocation_percent"][0]
    assert 80 < samples["best_fit_allocation_percent"][0] <= fgd <= 100
    # By the wall clock: the fastest of five is the one least disturbed.
    assert max(samples["placements_per_s"]) > FLOOR_PER_S
    assert len(lines) == 10


def test_the_trace_is_what_its_columns_say(tmp_path: Path) -> None:
    write_trace(tmp_path)
    trace = openb.load(tmp_path)
    assert trace.capacity_milli == 100_000
    assert trace.nodes[0] == NodeFacts(
        name="n0",
        devices=[DeviceFacts(index=i, model="T4") for i in range(4)],
        cpu_milli=64_000,
        host_memory_mib=262_144,
    )
    assert trace.tasks[0] == Demand(
        share_milli=500, cpu_milli=4000, host_memory_mib=15_000, same_node=True
    )
    assert sum(openb.demand_milli(task) for task in trace.tasks) == 56_000
    classes = openb.classes_of(trace.tasks)
    assert [one.weight for one in classes] == [40, 20, 20, 5]
    tasks = openb.inflated(trace, random.Random(1))
    total = sum(openb.demand_milli(task) for task in tasks)
    assert 128_000 <= total <= 130_000
    assert tasks == openb.inflated(trace, random.Random(1))


def test_the_same_seed_allocates_the_same(tmp_path: Path) -> None:
    write_trace(tmp_path)
    trace = openb.load(tmp_path)
    tasks = openb.inflated(trace, random.Random(7))
    runs = {
        openb.replay(trace, tasks, openb.policy_named("fgd", trace)).allocated_percent
        for _ in range(2)
    }
    assert len(runs) == 1


def test_a_folder_without_a_trace_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunFailed, match="no openb trace in"):
            replays(Settings(path=folder), print)


def test_a_small_day_adds_up() -> None:
    quietly()
    jobs = [
        Job(name=f"low-{i}", at_s=0.0, tenant="ada", length_s=3600.0, priority="low")
        for i in range(NODES * DEVICES)
    ]
    jobs += [
        Job(name="high", at_s=600.0, tenant="bob", length_s=60.0, priority="high"),
        Job(name="last", at_s=700.0, tenant="eve", length_s=60.0, limit_s=60.0),
    ]
    day = Day(jobs, tenants()).run()
    assert day.waits_s["high"][0] == pytest.approx(30.5, abs=1)
    assert day.lost_by_class == {"low": pytest.approx(630, abs=2)}
    assert day.used["bob"] == pytest.approx(60)
    assert day.promised == day.kept == 1
    without = Day(jobs, tenants(preemptions_per_hour=0)).run()
    assert without.lost_by_class == {}
    assert without.waits_s["high"][0] == pytest.approx(3000, abs=61)


HOUR_S = 3600.0


def hours(tenant: str, at_hour: int, count: int) -> list[Job]:
    """Jobs of an hour, each on one device."""
    return [
        Job(
            name=f"{tenant}-{at_hour}-{i}",
            at_s=at_hour * HOUR_S,
            tenant=tenant,
            length_s=HOUR_S,
        )
        for i in range(count)
    ]


def test_who_asks_late_cannot_have_what_stood_idle() -> None:
    """Eve has a right to the half, and asks for nothing before hour 20."""
    devices = NODES * DEVICES
    jobs = [*hours("ada", 0, 10 * devices), *hours("eve", 20, 10 * devices)]
    used = within_reach(jobs, {"ada": 1.0, "bob": 2.0, "eve": 3.0})
    assert used == {
        "ada": pytest.approx(10 * HOUR_S * devices),
        "bob": 0,
        "eve": pytest.approx(4 * HOUR_S * devices),
    }
    assert sum(used.values()) <= DAY_S * devices


def test_whoever_is_furthest_behind_is_next() -> None:
    """All ask for all the time: the reference gives weights, by the hour."""
    devices = NODES * DEVICES
    weights = {"ada": 1.0, "bob": 2.0, "eve": 3.0}
    jobs = [job for name in weights for job in hours(name, 0, 24 * devices)]
    used = within_reach(jobs, weights)
    assert sum(used.values()) == pytest.approx(DAY_S * devices)
    for name, weight in weights.items():
        assert used[name] / sum(used.values()) == pytest.approx(weight / 6, abs=0.01)


def test_what_the_morning_used_is_not_forgotten_by_the_evening() -> None:
    """Ada alone all morning, then all of them: she stands back for what she had."""
    quietly()
    devices = NODES * DEVICES
    jobs = [
        *hours("ada", 0, 24 * devices),
        *hours("bob", 4, 24 * devices),
        *hours("eve", 8, 24 * devices),
    ]
    points = unfairness(jobs)
    assert points["fair_share_out_of_reach_points"] < 0.5
    assert points["fair_share_missed_points"] < 1
    assert points["fair_share_error_points"] < 1
