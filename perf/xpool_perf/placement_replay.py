"""The registry's placement over a published trace of a large cluster."""

from __future__ import annotations

import random
import statistics
from typing import Final

from xpool_perf import openb
from xpool_perf.figures import Figure, Samples
from xpool_perf.pool import RunFailed, repository
from xpool_perf.scenario import Say, Scenario, Settings

FIRST_SEED: Final = 42
MIN_SEEDS: Final = 5
"""Single seeds differ by 0.4 points; the published figures are means."""

FOLDER: Final = "../shared/traces/openb"
"""Beside the checkout; the trace's terms forbid to ship it."""


def measure(settings: Settings, say: Say) -> Samples:
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
    ),
    measure=measure,
    path_help=f"folder with the trace (default: {FOLDER} of the checkout)",
)
