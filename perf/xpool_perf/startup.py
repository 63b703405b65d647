"""``startup``: what a cold job waits for before its first operation.

The same job starts by turns near its pool and behind a round trip; registry, node and
worker all stand at the far end. What the far job takes longer, in round trips, is what
it was blocked for: a wait that passes while the process imports torch blocks nobody.
TCP's, gRPC's and ZeroMQ's own handshakes count like everything else.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

from xpool_perf.figures import Figure, Samples
from xpool_perf.path_scenarios import PROGRAMS, Course, course
from xpool_perf.pool import Pool, xpool_run
from xpool_perf.scenario import Say, Scenario, Settings

ROUND_TRIP_MS: Final = 100
"""So long that the noise of starting a process, some tens of ms, is a fraction."""


def round_trips(near_s: list[float], far_s: list[float], trip_s: float) -> list[float]:
    """How many round trips each far start took longer than the near one beside it."""
    return [(far - near) / trip_s for near, far in zip(near_s, far_s, strict=True)]


def _start(one: Course, pool: Pool, where: str) -> None:
    def argv() -> list[str]:
        program = str(PROGRAMS / "startup.py")
        return xpool_run(pool.registry, program, str(time.monotonic_ns()))

    one.sample(pool, where, argv)


def measure(settings: Settings, say: Say) -> Samples:
    """Take every sample.

    Raises:
        RunFailed: a process failed; which one, and its last words.
    """
    with (
        course(settings, say) as one,
        one.near(spares=1) as near,
        one.far(ROUND_TRIP_MS, spares=1) as far,
    ):
        pools = [(near, "near"), (far, "far")]
        for number in range(settings.runs):
            for pool, where in pools if number % 2 == 0 else reversed(pools):
                _start(one, pool, where)
        samples = one.samples
        trip_s = statistics.median(samples[f"round_trip_{ROUND_TRIP_MS}ms_s"])
        for what in ("first_op", "first_result"):
            near_s, far_s = samples[f"near_{what}_s"], samples[f"far_{what}_s"]
            samples[f"{what}_round_trips"] = round_trips(near_s, far_s, trip_s)
        return samples


STARTUP: Final = Scenario(
    name="startup",
    summary="what a cold job waits for before its first operation",
    figures=(
        Figure(
            name="blocking_round_trips",
            unit="round trips",
            method="Seconds from the start of the command to the program's first"
            f" operation behind {ROUND_TRIP_MS} ms less the same on loopback, over the"
            " measured round trip. Registry, node and worker are far away; a worker is"
            " warm. Aim: 4.",
            sources=("first_op_round_trips",),
        ),
        Figure(
            name="round_trips_to_first_result",
            unit="round trips",
            method="The same until the operation's result has been read.",
            sources=("first_result_round_trips",),
        ),
        Figure(
            name="first_op_s",
            unit="s",
            method="Seconds from the start of the command to the program's first"
            " operation, on loopback.",
            sources=("near_first_op_s",),
        ),
    ),
    measure=measure,
)
