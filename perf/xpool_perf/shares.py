"""``shares``: whether each tenant of a device gets what it was promised, and no more.

Real processes: a pool whose one device is the last core of this machine (or a GPU),
and tenants under ``xpool run`` on the other cores. A second pool with the same device
and no arbiter is what the cost is compared with. Tenants say what they have done;
device time is read from the operating system (``shares_tenants.py``).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from xpool_protocol.errors import PoolError
from xpool_registry.slices_cli import wait_until_followed

from xpool_perf.children import Children
from xpool_perf.figures import Figure, Samples
from xpool_perf.pool import own_environment, start_pool
from xpool_perf.scenario import Say, Scenario, Settings
from xpool_perf.shares_plot import plot
from xpool_perf.shares_tenants import (
    SETTLE_S,
    Bench,
    Tenant,
    collector,
    rate,
    step_aside,
)
from xpool_perf.shares_windows import (
    Reading,
    errors_points,
    of_wall_percent,
    percentile,
)

PROMISED: Final = (10, 20, 30, 40)
WINDOW_S: Final = 10
SMALL: Final = ("--memory", "64MiB")
LONGEST_S: Final = 0.02
"""Of the operations that ``programs/tenant.py`` sends, about."""
JOBS: Final = 8


class Shares:
    """Takes the samples; one method for each question."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self.samples: defaultdict[str, list[float]] = defaultdict(list)
        self._settings = settings
        self._say = say
        self.readings: list[Reading] = []
        """Of the four tenants, for the picture."""

    @contextmanager
    def bench(
        self,
        children: Children,
        said: dict[str, list[tuple[float, float]]],
        folder: Path,
        arbiter: str,
    ) -> Iterator[Bench]:
        """A pool on loopback with that policy."""
        self._say(f"starting a pool with the policy {arbiter}")
        is_cpu = self._settings.device == "cpu"
        env = own_environment(self._settings.threads)
        before = os.sched_getaffinity(0)
        own = folder / arbiter
        own.mkdir()
        pool = start_pool(
            children,
            own,
            {**env, "XPOOL_ARBITER": arbiter},
            devices="cpu,cores=1" if is_cpu else "cuda",
        )
        if is_cpu:
            step_aside(1)
        try:
            yield Bench(children, pool, env, said, is_cpu=is_cpu)
        finally:
            os.sched_setaffinity(0, before)
            children.end(pool.child)

    def four(self, bench: Bench, seconds: int) -> tuple[list[Reading], float]:
        """Four tenants that are always busy; readings, and their work per second."""
        tenants = [
            bench.start(
                "saturate", str(share), options=[*SMALL, "--slice", f"{share}%"]
            )
            for share in PROMISED
        ]
        bench.wait(SETTLE_S)
        began_s = time.monotonic()
        readings = bench.watch(tenants, seconds)
        ended_s = time.monotonic()
        work = sum(rate(one.lines, began_s, ended_s) for one in tenants)
        bench.end(*tenants)
        return readings, work

    def keep_four(self, readings: list[Reading]) -> None:
        """Errors of the four, and how much of the device they got."""
        self.readings = readings
        by_ten = errors_points(readings, PROMISED, WINDOW_S)
        worst = max(by_ten, key=statistics.fmean)
        self.samples["worst_error_points_10s"] += [statistics.fmean(worst)]
        by_one = errors_points(readings, PROMISED, 1)
        self.samples["p99_error_points_1s"] += [
            max(percentile(one, 99) for one in by_one)
        ]
        self.samples["device_busy_percent"] += of_wall_percent(readings, WINDOW_S)

    def capped(self, bench: Bench, seconds: int) -> None:
        """A capped 30 % alone on the device, against the time that passes."""
        options = [*SMALL, "--slice", "30%", "--mode", "capped"]
        tenant = bench.start("saturate", "1", options=options)
        bench.wait(SETTLE_S)
        readings = bench.watch([tenant], seconds)
        bench.end(tenant)
        self.samples["capped_error_points_10s"] += [
            abs(got - 30) for got in of_wall_percent(readings, WINDOW_S)
        ]

    def alone(self, bench: Bench, seconds: int, share: int) -> tuple[float, float]:
        """One elastic tenant: percent of the device, and work per second."""
        tenant = bench.start("saturate", "2", options=[*SMALL, "--slice", f"{share}%"])
        bench.wait(SETTLE_S)
        began_s = time.monotonic()
        readings = bench.watch([tenant], seconds)
        work = rate(tenant.lines, began_s, time.monotonic())
        bench.end(tenant)
        return statistics.fmean(of_wall_percent(readings, seconds)), work

    def latency(self, bench: Bench, seconds: int) -> None:
        """A small inference of the high class, alone and beside three of the low."""
        high = [*SMALL, "--slice", "10%", "--priority", "high"]
        asking = bench.start("ask", "10", options=high)
        bench.wait(SETTLE_S)
        alone = self._latencies(bench, asking, seconds)
        low = [*SMALL, "--slice", "30%", "--priority", "low"]
        busy = [bench.start("saturate", str(n), options=low) for n in range(3)]
        bench.wait(SETTLE_S)
        beside = self._latencies(bench, asking, seconds)
        bench.end(asking, *busy)
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

    def neighbour(self, bench: Bench, seconds: int, work_alone: float) -> None:
        """A 50 % tenant beside one that floods, leaks, crashes and comes back."""
        half = [*SMALL, "--slice", "50%"]
        good = bench.start("saturate", "3", options=half)
        bad = [bench.start("misbehave", "3", options=half)]
        bench.wait(SETTLE_S)

        def again() -> None:
            if bad[-1].child.status is not None:
                bad.append(bench.start("misbehave", "3", options=half))

        began_s = time.monotonic()
        bench.watch([good], seconds, again)
        beside = rate(good.lines, began_s, time.monotonic())
        bench.end(good, bad[-1])
        self.samples["neighbour_crashes"] += [float(len(bad) - 1)]
        self.samples["work_beside"] += [beside]
        self.samples["half_of_work_alone"] += [work_alone / 2]

    def packed(self, bench: Bench) -> None:
        """Small training jobs: one after the other, and all at once on slices."""
        share = 100 // JOBS
        options = [*SMALL, "--slice", f"{share}%"]
        one = bench.start("train", "0", options=options)
        bench.wait(SETTLE_S)
        alone = of_wall_percent(bench.watch([one], WINDOW_S), WINDOW_S)
        bench.end(one)
        jobs = [bench.start("train", str(n), options=options) for n in range(JOBS)]
        bench.wait(SETTLE_S)
        together = of_wall_percent(bench.watch(jobs, WINDOW_S), WINDOW_S)
        bench.end(*jobs)
        self.samples["one_job_busy_percent"] += alone
        self.samples["packed_busy_percent"] += together
        self.samples["packed_gain_points"] += [together[0] - alone[0]]

    def resizes(self, bench: Bench) -> None:
        """A running job's slice changes, up and down."""
        tenant = bench.start("saturate", "4", options=[*SMALL, "--slice", "20%"])
        for share, mib in ((60, 512), (30, 256), (90, 1024), (10, 64)):
            with bench.client() as client:
                began_s = time.monotonic()
                reply = client.resize(
                    tenant.lease_id, share_percent=share, memory_nbytes=mib << 20
                )
                try:
                    wait_until_followed(client, tenant.lease_id, reply.number)
                except PoolError as error:
                    self._say(f"a resize failed: {error}")
                    raise
                took_ms = 1000 * (time.monotonic() - began_s)
            self.samples["resize_ms"] += [took_ms]
        self.samples["slowest_resize_ms"] += [max(self.samples["resize_ms"])]
        bench.end(tenant)


def measure(settings: Settings, say: Say) -> Samples:
    """Take every sample.

    Raises:
        RunFailed: a process failed; which one, and its last words.
    """
    shares = Shares(settings, say)
    said: dict[str, list[tuple[float, float]]] = {}
    seconds = WINDOW_S * settings.runs
    with (
        Children(collector(said)) as children,
        tempfile.TemporaryDirectory(prefix="xpool-shares-") as folder,
    ):
        with shares.bench(children, said, Path(folder), "priority") as bench:
            say(f"four tenants that are always busy, {seconds} s")
            readings, work = shares.four(bench, seconds)
            shares.keep_four(readings)
            say("a capped one alone")
            shares.capped(bench, max(2 * WINDOW_S, seconds // 2))
            say("an elastic 10 % alone")
            busy, work_alone = shares.alone(bench, 2 * WINDOW_S, 10)
            say("an inference beside three that are always busy")
            shares.latency(bench, 2 * WINDOW_S)
            say("a neighbour that misbehaves")
            shares.neighbour(bench, 2 * WINDOW_S, work_alone)
            say("small training jobs, one and then eight at once")
            shares.packed(bench)
            say("resizing")
            shares.resizes(bench)
        with shares.bench(children, said, Path(folder), "null") as bench:
            say("the same four without an arbiter")
            _, free_work = shares.four(bench, 2 * WINDOW_S)
            say("one alone without an arbiter")
            free_busy, _ = shares.alone(bench, 2 * WINDOW_S, 10)
    samples = shares.samples
    samples["work_per_s"] += [work]
    samples["work_per_s_without"] += [free_work]
    samples["overhead_percent"] += [100 * (1 - work / free_work)]
    samples["work_conserving_percent"] += [100 * busy / free_busy]
    if settings.plot:
        plot(shares.readings, PROMISED, Path(settings.plot))
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
            " arbiter, on the same core. Aim: 2.",
        ),
        _figure(
            "high_priority_p99_ratio",
            "ratio",
            "p99 latency of a small inference of the high class beside three tenants"
            " of the low one that are always busy, over alone; one operation of up to"
            " 20 ms is waited for. Aim: 1.3.",
            "p99_beside_s",
            "p99_alone_s",
        ),
        _figure(
            "high_priority_wait_operations",
            "longest operations",
            "What its p99 is longer, in units of the longest operation, 20 ms.",
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
            "resize_ms",
            "ms",
            "From the admin's call until the server of a running job has followed:"
            " the slowest of four changes, up and down. Aim: 1000.",
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
)
