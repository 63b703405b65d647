"""``shares``: whether each tenant of a device gets what it was promised, and no more.

Real processes: a pool whose one device is the last core of this machine (or a GPU),
and tenants under ``xpool run`` on the other cores. A second pool with the same device
and no arbiter is what the cost is compared with. Tenants say what they have done;
device time is read from the operating system (``shares_tenants.py``). Each question is
a part that can be asked alone; METHODOLOGY.md says how.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xpool_protocol.errors import PoolError

from xpool_perf.children import Children, ChildTimeout
from xpool_perf.figures import Figure, Samples
from xpool_perf.pool import RunFailed
from xpool_perf.scenario import Say, Scenario, Settings
from xpool_perf.shares_plot import plot
from xpool_perf.shares_stage import PROMISED, SMALL, Stage
from xpool_perf.shares_tenants import Bench, Tenant, collector, rate
from xpool_perf.shares_windows import (
    errors_points,
    of_wall_percent,
    percentile,
)

WINDOW_S: Final = 10
WINDOWS: Final = 2
"""Of ``WINDOW_S``, for each run of ``promised``."""
RUNS: Final = 3
"""By default: what is counted then takes seven minutes, and starting it some more."""
LONGEST_S: Final = 0.022
"""Of the operations that ``programs/tenant.py`` sends, about."""
JOBS: Final = 8
TURN_S: Final = 5
"""With the arbiter and without, in turn."""


class Shares:
    """Takes the samples; one method for each question."""

    def __init__(self, settings: Settings, say: Say, stage: Stage) -> None:
        self.samples: defaultdict[str, list[float]] = defaultdict(list)
        self._settings = settings
        self._say = say
        self._stage = stage
        self._runs = settings.runs

    def promised(self) -> None:
        """Four tenants that are always busy: errors, and how much of it they got."""
        stage = self._stage
        tenants = stage.four()
        stage.reshape(tenants, PROMISED)
        with stage.running(*tenants):
            readings = tenants[0].bench.watch(tenants, WINDOWS * WINDOW_S * self._runs)
        by_ten = errors_points(readings, PROMISED, WINDOW_S)
        worst = max(by_ten, key=statistics.fmean)
        self.samples["error_points_10s"] += worst
        self.samples["worst_error_points_10s"] += [statistics.fmean(worst)]
        by_one = errors_points(readings, PROMISED, 1)
        self.samples["p99_error_points_1s"] += [
            max(percentile(one, 99) for one in by_one)
        ]
        self.samples["device_busy_percent"] += of_wall_percent(readings, WINDOW_S)
        if self._settings.plot:
            plot(readings, PROMISED, Path(self._settings.plot))

    def capped(self) -> None:
        """A capped 30 % alone on the device, against the time that passes."""
        stage = self._stage
        tenant = stage.four()[2]
        stage.reshape(stage.four(), PROMISED)
        stage.resize(tenant, mode="capped")
        with stage.running(tenant):
            readings = tenant.bench.watch([tenant], WINDOW_S * self._runs)
        stage.resize(tenant, mode="elastic")
        got = of_wall_percent(readings, WINDOW_S)
        self.samples["capped_percent"] += got
        errors = [abs(one - 30) for one in got]
        self.samples["capped_error_points_10s"] += [statistics.fmean(errors)]

    def overhead(self) -> None:
        """The same work of four with the arbiter and without, in turn."""
        stage = self._stage
        both = {policy: stage.four(policy) for policy in ("priority", "null")}
        stage.reshape(both["priority"], PROMISED)
        for _ in range(2 * self._runs):
            for policy, tenants in both.items():
                self.samples[f"work_per_s_{policy}"] += [self._work(tenants)[0]]

    def alone(self) -> None:
        """One elastic 10 % alone, with the arbiter and without, in turn."""
        stage = self._stage
        both = {policy: stage.four(policy)[:1] for policy in ("priority", "null")}
        stage.reshape(stage.four(), PROMISED)
        for _ in range(self._runs):
            for policy, tenants in both.items():
                _, busy = self._work(tenants)
                self.samples[f"alone_percent_{policy}"] += [busy]

    def _work(self, tenants: list[Tenant]) -> tuple[float, float]:
        """Work per second of tenants for ``TURN_S``, and percent of the device."""
        with self._stage.running(*tenants):
            began_s = time.monotonic()
            readings = tenants[0].bench.watch(tenants, TURN_S)
            ended_s = time.monotonic()
        work = sum(rate(one.lines, began_s, ended_s) for one in tenants)
        return work, of_wall_percent(readings, TURN_S)[0]

    def priority(self) -> None:
        """A small inference of the high class, alone and beside three of the low."""
        stage = self._stage
        bench, busy = stage.bench(), stage.four()[1:]
        stage.reshape(stage.four(), (1, 30, 30, 29))
        options = (*SMALL, "--slice", "10%", "--priority", "high")
        asking = bench.start("ask", "10", options=options)
        for tenant in busy:
            stage.resize(tenant, priority="low")
        for _ in range(self._runs):
            alone = self._latencies(bench, asking, WINDOW_S)
            with stage.running(*busy):
                beside = self._latencies(bench, asking, WINDOW_S)
            self._add_latencies(alone, beside)
        for tenant in busy:
            stage.resize(tenant, priority="normal")
        stage.end(asking)

    def _add_latencies(self, alone: list[float], beside: list[float]) -> None:
        p99_alone, p99_beside = percentile(alone, 99), percentile(beside, 99)
        self.samples["p99_alone_s"] += [p99_alone]
        self.samples["p99_beside_s"] += [p99_beside]
        self.samples["p50_alone_s"] += [statistics.median(alone)]
        self.samples["p50_beside_s"] += [statistics.median(beside)]
        self.samples["p99_wait_operations"] += [(p99_beside - p99_alone) / LONGEST_S]

    def _latencies(self, bench: Bench, asking: Tenant, seconds: int) -> list[float]:
        began_s = time.monotonic()
        bench.wait(seconds)
        return [took for at_s, took in asking.lines if at_s >= began_s]

    def neighbour(self) -> None:
        """A 50 % tenant beside one that floods, leaks, crashes and comes back."""
        stage = self._stage
        bench, good = stage.bench(), stage.four()[3]
        stage.reshape(stage.four(), (1, 1, 1, 50))
        half = [*SMALL, "--slice", "47%"]
        there: list[bool] = []
        crashes = 0
        for _ in range(self._runs):
            work_alone, _busy = self._work([good])
            bad = [bench.start("misbehave", "3", options=half)]

            def again(bad: list[Tenant] = bad) -> None:
                there.append(bad[-1].child.status is None)
                if not there[-1]:
                    bad.append(bench.start("misbehave", "3", options=half))

            with stage.running(good):
                began_s = time.monotonic()
                bench.watch([good], WINDOW_S, again)
                beside = rate(good.lines, began_s, time.monotonic())
            bench.end(bad[-1])
            crashes += len(bad) - 1
            self.samples["work_beside"] += [beside]
            self.samples["half_of_work_alone"] += [work_alone / 2]
        self.samples["neighbour_crashes"] += [float(crashes)]
        self.samples["neighbour_there_percent"] += [100 * statistics.fmean(there)]

    def packed(self) -> None:
        """Small training jobs: one that has the device, and eight at once on slices."""
        stage = self._stage
        bench = stage.bench()
        stage.end_four()
        share = 100 // JOBS
        jobs = bench.start_all(
            [(("train", str(n)), (*SMALL, "--slice", f"{share}%")) for n in range(JOBS)]
        )
        stage.pause(*jobs)
        for _ in range(self._runs):
            alone, steps_alone = self._steps(bench, jobs[:1])
            together, steps_together = self._steps(bench, jobs)
            self.samples["one_job_busy_percent"] += [alone]
            self.samples["packed_busy_percent"] += [together]
            self.samples["packed_gain_points"] += [together - alone]
            self.samples["steps_per_s_packed"] += [steps_together]
            self.samples["steps_per_s_one_job"] += [steps_alone]
        stage.end(*jobs)

    def _steps(self, bench: Bench, jobs: list[Tenant]) -> tuple[float, float]:
        """Percent of the device that jobs use together, and their steps per second."""
        with self._stage.running(*jobs):
            began_s = time.monotonic()
            readings = bench.watch(jobs, WINDOW_S)
            ended_s = time.monotonic()
        steps = sum(rate(one.lines, began_s, ended_s) for one in jobs)
        return of_wall_percent(readings, WINDOW_S)[0], steps

    def resizes(self) -> None:
        """The slice of a job that is always busy beside three others, up and down."""
        stage = self._stage
        tenants = stage.four()
        stage.reshape(tenants, (10, 20, 20, 20))
        with stage.running(*tenants):
            for share, mib in ((40, 512), (5, 256), (30, 1024), (10, 64)):
                took_ms = stage.resize(
                    tenants[0], share_percent=share, memory_nbytes=mib << 20
                )
                self.samples["resize_ms"] += [took_ms]
        self.samples["slowest_resize_ms"] += [max(self.samples["resize_ms"])]


PARTS: Final[dict[str, tuple[Callable[[Shares], None], tuple[str, ...]]]] = {
    "promised": (
        Shares.promised,
        ("mean_error_points_10s", "p99_error_points_1s", "device_busy_percent"),
    ),
    "capped": (Shares.capped, ("capped_error_points_10s",)),
    "resize": (Shares.resizes, ("resize_ms",)),
    "alone": (Shares.alone, ("work_conserving_percent",)),
    "overhead": (Shares.overhead, ("overhead_percent",)),
    "priority": (
        Shares.priority,
        ("high_priority_p99_ratio", "high_priority_wait_operations"),
    ),
    "neighbour": (Shares.neighbour, ("noisy_neighbour_ratio",)),
    "packed": (Shares.packed, ("packed_gain_points", "packed_work_ratio")),
}
"""By name: what takes its samples, and its figures."""


def measure(settings: Settings, say: Say) -> Samples:
    """Take the samples of the parts that were chosen; a part that fails says why."""
    said: dict[str, list[tuple[float, float]]] = {}
    affinity = os.sched_getaffinity(0)
    with (
        Children(collector(said)) as children,
        tempfile.TemporaryDirectory(prefix="xpool-shares-") as folder,
    ):
        stage = Stage(settings, say, children, said, Path(folder))
        shares = Shares(settings, say, stage)
        chosen = settings.only or tuple(PARTS)
        try:
            for at, name in enumerate(chosen, 1):
                began_s = time.monotonic()
                say(f"part {at} of {len(chosen)}: {name}")
                before = {key: len(of) for key, of in shares.samples.items()}
                try:
                    PARTS[name][0](shares)
                except (RunFailed, PoolError, ChildTimeout, OSError) as error:
                    say(f"{name} failed: {error}")
                    for line in stage.last_words():
                        say(f"  {line}")
                    continue
                say(f"{name} took {time.monotonic() - began_s:.0f} s")
                _tell(say, shares.samples, before)
        finally:
            os.sched_setaffinity(0, affinity)
    return _with_differences(dict(shares.samples))


def _tell(say: Say, samples: Samples, before: dict[str, int]) -> None:
    for name, values in samples.items():
        new = values[before.get(name, 0) :]
        if new:
            say(f"  {name}: {', '.join(f'{value:.4g}' for value in new)}")


def _with_differences(samples: dict[str, list[float]]) -> Samples:
    """With what is computed from two kinds of samples, and is no plain ratio."""
    with_arbiter = samples.get("work_per_s_priority", [])
    without = samples.get("work_per_s_null", [])
    if with_arbiter and len(with_arbiter) == len(without):
        samples["overhead_percent"] = [
            100 * (1 - mine / free)
            for mine, free in zip(with_arbiter, without, strict=True)
            if free
        ]
    busy = samples.get("alone_percent_priority", [])
    free_busy = samples.get("alone_percent_null", [])
    if busy and len(busy) == len(free_busy):
        samples["work_conserving_percent"] = [
            100 * mine / free
            for mine, free in zip(busy, free_busy, strict=True)
            if free
        ]
    return samples


def _figure(name: str, unit: str, method: str, *sources: str) -> Figure:
    return Figure(name=name, unit=unit, method=method, sources=sources or (name,))


SHARES: Final = Scenario(
    name="shares",
    summary="whether tenants of a device get what they were promised, and no more",
    devices=("cpu", "cuda"),
    figures=(
        _figure(
            "mean_error_points_10s",
            "points",
            "Four tenants of 10, 20, 30 and 40 % that are always busy, operations of"
            " about 0.05 to 20 ms: mean over windows of 10 s of how far the worst"
            " tenant's share of the device time that all got is off. Aim: 1.",
            "worst_error_points_10s",
        ),
        _figure(
            "p99_error_points_1s",
            "points",
            "The same over windows of 1 s: of the worst tenant the value that 99 % of"
            " the windows do not exceed. Aim: 3.",
        ),
        _figure(
            "capped_error_points_10s",
            "points",
            "A capped 30 % alone on the device: how far its device time over 10 s is"
            " from 30 % of the time that passed. Aim: 1.",
        ),
        _figure(
            "work_conserving_percent",
            "%",
            "Device time of an elastic 10 % alone, over the same without an arbiter."
            " Aim: 98.",
        ),
        _figure(
            "overhead_percent",
            "%",
            "Work per second that the four tenants lose against the same without an"
            " arbiter, on the same core, 5 s of each in turn. Aim: 2.",
        ),
        _figure(
            "high_priority_p99_ratio",
            "ratio",
            "p99 latency of a small inference of the high class beside three tenants"
            " of the low one that are always busy with operations of up to 20 ms, over"
            " alone. Aim: 1.3.",
            "p99_beside_s",
            "p99_alone_s",
        ),
        _figure(
            "high_priority_wait_operations",
            "longest operations",
            "By what its p99 is longer, in units of the longest operation, 22 ms.",
            "p99_wait_operations",
        ),
        _figure(
            "noisy_neighbour_ratio",
            "ratio",
            "Work per second of a 50 % tenant beside one that floods, leaks, crashes"
            " and comes back, over half of its work alone. Aim: 0.95.",
            "work_beside",
            "half_of_work_alone",
        ),
        _figure(
            "packed_gain_points",
            "points",
            "How much more of the device's time is used with eight small training"
            " jobs on slices at once than with one of them on the device. Aim: 30.",
        ),
        _figure(
            "packed_work_ratio",
            "ratio",
            "Training steps per second of the eight at once, over the one's.",
            "steps_per_s_packed",
            "steps_per_s_one_job",
        ),
        _figure(
            "resize_ms",
            "ms",
            "From the admin's call until the server has followed, for a job that is"
            " always busy beside three others: the slowest of four changes, up and"
            " down. Aim: 1000.",
            "slowest_resize_ms",
        ),
        _figure(
            "device_busy_percent",
            "%",
            "Of the time that passed, device time of the four tenants together: the"
            " rest is the arbiter's, or was taken by others on this machine.",
        ),
    ),
    measure=measure,
    default_runs=RUNS,
    parts={name: figures for name, (_, figures) in PARTS.items()},
)
