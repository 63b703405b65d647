"""The registry's placement over a published trace of a large cluster."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping
from typing import Final

from xpool_perf import openb
from xpool_perf.fair_reference import within_reach
from xpool_perf.figures import Figure, Samples
from xpool_perf.pool import RunFailed, repository
from xpool_perf.scenario import Say, Scenario, Settings
from xpool_perf.simulated_day import (
    RIGHTS,
    Day,
    Job,
    bursty_day,
    mixed_day,
    quietly,
    tenants,
)

FIRST_SEED: Final = 42
MIN_SEEDS: Final = 5
"""Single seeds differ by 0.4 points; the published figures are means."""

MIN_DAYS: Final = 12
"""Days differ more than policies do: from 0.1 to 5 % of the low class's work lost."""

FOLDER: Final = "../shared/traces/openb"
"""Beside the checkout; the trace's terms forbid to ship it."""


def measure(settings: Settings, say: Say) -> Samples:
    """Replay the trace, and play simulated days.

    Raises:
        RunFailed: there is no trace.
    """
    return {
        **replays(settings, say),
        **simulated_days(max(settings.runs, MIN_DAYS), say),
    }


def replays(settings: Settings, say: Say) -> dict[str, list[float]]:
    """Replay the trace with each seed and both policies.

    Raises:
        RunFailed: there is no trace.
    """
    folder = settings.path or (repository() / FOLDER)
    try:
        trace = openb.load(folder)
    except ValueError as error:
        raise RunFailed(str(error)) from error
    allocated: dict[str, list[float]] = {}
    speeds: list[float] = []
    for seed in range(FIRST_SEED, FIRST_SEED + max(settings.runs, MIN_SEEDS)):
        tasks = openb.inflated(trace, random.Random(seed))  # noqa: S311  an experiment
        for name in ("fgd", "node-best-fit"):
            replayed = openb.replay(trace, tasks, openb.policy_named(name, trace))
            allocated.setdefault(name, []).append(replayed.allocated_percent)
            if name == "fgd":
                speeds.append(replayed.placements_per_s)
            say(
                f"seed {seed}, {name}: {replayed.allocated_percent:.2f} % allocated,"
                f" {replayed.placements_per_s:,.0f} placements/s"
            )
    return {
        "allocation_percent": [statistics.mean(allocated["fgd"])],
        "allocation_percent_by_seed": allocated["fgd"],
        "best_fit_allocation_percent": [statistics.mean(allocated["node-best-fit"])],
        "best_fit_allocation_percent_by_seed": allocated["node-best-fit"],
        "placements_per_s": speeds,
    }


def simulated_days(days: int, say: Say) -> dict[str, list[float]]:
    """Days in virtual time: fair shares, promises, preemption.

    What is lost and how long is waited varies tenfold between days: means of many.
    """
    quietly()
    samples: dict[str, list[float]] = {}
    lost, low_used = 0.0, 0.0

    def note(name: str, value: float) -> None:
        samples.setdefault(name, []).append(value)
        say(f"simulated day: {name} {value:.3f}")

    for seed in range(FIRST_SEED, FIRST_SEED + days):
        rng = random.Random(seed)  # noqa: S311  an experiment
        for name, points in unfairness([*bursty_day(rng)]).items():
            note(name, points)
        jobs = [*mixed_day(rng)]
        with_it = Day(jobs, tenants()).run()
        without = Day(jobs, tenants(preemptions_per_hour=0)).run()
        promised = with_it.promised + without.promised
        note(
            "backfill_promise_kept_percent",
            100 * (with_it.kept + without.kept) / promised,
        )
        waits = [statistics.mean(one.waits_s["high"]) for one in (with_it, without)]
        note("high_priority_wait_s_by_day", waits[0])
        note("high_priority_wait_without_s_by_day", waits[1])
        low = with_it.used_by_class["low"]
        lost_today = with_it.lost_by_class.get("low", 0.0)
        note("low_priority_lost_percent_by_day", 100 * lost_today / low)
        lost, low_used = lost + lost_today, low_used + low
    for name in ("high_priority_wait_s", "high_priority_wait_without_s"):
        samples[name] = [statistics.mean(samples[f"{name}_by_day"])]
    samples["low_priority_lost_percent"] = [100 * lost / low_used]
    for name in ("fair_share_error", "fair_share_out_of_reach", "fair_share_missed"):
        samples[f"{name}_worst_points"] = [max(samples[f"{name}_points"])]
    return samples


def unfairness(jobs: list[Job]) -> dict[str, float]:
    """How far tenants are from their rights after a day, in points of all use.

    Of the registry; of the scheduler of ``fair_reference``: what that one misses is out
    of reach of all who cannot see the day to come; and of the registry from that one.
    """
    weights = sum(RIGHTS.values())
    rights = {tenant: 100 * right / weights for tenant, right in RIGHTS.items()}
    got = _parts(Day(jobs, tenants()).run().used)
    best = _parts(within_reach(jobs, RIGHTS))
    return {
        "fair_share_error_points": _furthest(got, rights),
        "fair_share_out_of_reach_points": _furthest(best, rights),
        "fair_share_missed_points": _furthest(got, best),
    }


def _parts(used: Mapping[str, float]) -> dict[str, float]:
    total = sum(used.values())
    return {tenant: 100 * used.get(tenant, 0.0) / total for tenant in RIGHTS}


def _furthest(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return max(abs(one[tenant] - other[tenant]) for tenant in RIGHTS)


PLACEMENT_REPLAY: Final = Scenario(
    name="placement_replay",
    summary="the registry's placement over the openb trace of 1,213 nodes",
    figures=(
        Figure(
            name="allocation_percent",
            unit="%",
            method="openb's tasks inflated to 130 % of the devices, main memory"
            " enforced, until arrived demand reaches 100 %: devices allocated by the"
            " fragmentation policy, mean over the seeds.",
            sources=("allocation_percent",),
        ),
        Figure(
            name="best_fit_allocation_percent",
            unit="%",
            method="The same with the published best-fit baseline.",
            sources=("best_fit_allocation_percent",),
        ),
        Figure(
            name="placements_per_s",
            unit="1/s",
            method="Decisions of the fragmentation policy over all 1,213 nodes, booking"
            " included, in one thread of one process, by wall clock.",
            sources=("placements_per_s",),
        ),
        Figure(
            name="fair_share_error_points",
            unit="points",
            method="A simulated day of 16 devices; three tenants of weights 1, 2 and 3"
            " ask in bursts for 1.25 times their right. The largest difference between"
            " a tenant's part of all use and its right; median of the days.",
            sources=("fair_share_error_points",),
        ),
        Figure(
            name="fair_share_error_worst_points",
            unit="points",
            method="The same of the worst day.",
            sources=("fair_share_error_worst_points",),
        ),
        Figure(
            name="fair_share_out_of_reach_worst_points",
            unit="points",
            method="The same of a scheduler of the same jobs that gives what is free to"
            " whoever is furthest behind its right; worst day. A tenant that asks late"
            " cannot have what it did not ask for.",
            sources=("fair_share_out_of_reach_worst_points",),
        ),
        Figure(
            name="fair_share_missed_worst_points",
            unit="points",
            method="The largest difference between a tenant's part with the registry"
            " and with that scheduler; worst day.",
            sources=("fair_share_missed_worst_points",),
        ),
        Figure(
            name="backfill_promise_kept_percent",
            unit="%",
            method="Two simulated days at 110 % demand with gangs, time limits and"
            " three priorities, with and without preemption: requests that started at"
            " their first promised time or before.",
            sources=("backfill_promise_kept_percent",),
        ),
        Figure(
            name="high_priority_wait_ratio",
            unit="ratio",
            method="Mean wait of the high class with preemption, over the same without"
            " it; means over the days.",
            sources=("high_priority_wait_s", "high_priority_wait_without_s"),
        ),
        Figure(
            name="low_priority_lost_percent",
            unit="%",
            method="Device time of low leases that had to leave, and whose work is"
            " lost, of the device time of all low leases, over all the days.",
            sources=("low_priority_lost_percent",),
        ),
    ),
    measure=measure,
    path_help=f"folder with the trace (default: {FOLDER} of the checkout)",
)
