"""``main_job``: the example, trained in a pool on this machine and locally.

Two pools, one after the other. The first keeps no warm workers: while a job trains,
its server would start the next one, and two seconds of importing torch on the same
cores would be measured as if they were the path. The second keeps one, as by default.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from xpool_perf.children import Child, Children
from xpool_perf.figures import Figure, Samples
from xpool_perf.pool import (
    Pool,
    RunFailed,
    example,
    json_line,
    own_environment,
    run_to_end,
    start_pool,
    wait_until_calm,
    xpool_run,
)
from xpool_perf.scenario import Say, Scenario, Settings

PROGRAMS: Final = Path(__file__).parent / "programs"

FIRST_RESULT_REMOTE: Final = "import torch; torch.ones(1, device='cuda').item()"
FIRST_RESULT_LOCAL: Final = "import torch; torch.ones(1).item()"

FIGURES: Final = (
    Figure(
        name="ratio_remote_local",
        unit="ratio",
        method="Seconds of the example's training loop under xpool run, over the same"
        " loop run locally; alternating, same thread count, medians.",
        sources=("train_remote_s", "train_local_s"),
    ),
    Figure(
        name="train_remote_s",
        unit="s",
        method="The training loop under xpool run, timed by the example itself.",
        sources=("train_remote_s",),
    ),
    Figure(
        name="train_local_s",
        unit="s",
        method="The training loop with plain torch, timed by the example itself.",
        sources=("train_local_s",),
    ),
    Figure(
        name="lease_to_first_result_ms",
        unit="ms",
        method="From sending Acquire to the value of torch.ones(1, device='cuda')"
        ".item() on the host, with a warm worker and torch imported before.",
        sources=("lease_to_first_result_ms",),
    ),
    Figure(
        name="cold_start_s",
        unit="s",
        method=f'Wall time of xpool run -c "{FIRST_RESULT_REMOTE}" with a warm worker,'
        " from starting the process to its exit.",
        sources=("cold_start_s",),
    ),
    Figure(
        name="cold_start_local_s",
        unit="s",
        method=f'Wall time of python -c "{FIRST_RESULT_LOCAL}", the same way.',
        sources=("cold_start_local_s",),
    ),
    Figure(
        name="cold_start_over_plain",
        unit="ratio",
        method="cold_start_s over cold_start_local_s; alternating, medians.",
        sources=("cold_start_s", "cold_start_local_s"),
    ),
    Figure(
        name="client_us_per_op",
        unit="us",
        method="Wall time until the calls of some training steps have returned"
        " while nothing is sent, over the operations that the server then executes.",
        sources=("client_us_per_op",),
    ),
    Figure(
        name="bytes_per_op",
        unit="B",
        method="Bytes of batch messages sent for some training steps whose input"
        " is on the device already, over the operations executed.",
        sources=("bytes_per_op",),
    ),
)


class Bench:
    """Takes samples with processes that it starts."""

    def __init__(
        self, children: Children, folder: Path, settings: Settings, say: Say
    ) -> None:
        self.samples: defaultdict[str, list[float]] = defaultdict(list)
        self._children = children
        self._folder = folder
        self._settings = settings
        self._say = say
        self._env = own_environment(settings.threads)

    @contextmanager
    def pool(self, spares: int) -> Iterator[Pool]:
        """A pool that keeps so many warm workers."""
        self._say(f"starting a pool, xpool up --spares {spares}")
        folder = self._folder / f"pool-{spares}"
        folder.mkdir()
        pool = start_pool(
            self._children,
            folder,
            self._env,
            spares=spares,
            threads=self._settings.threads,
        )
        try:
            yield pool
        finally:
            self._children.end(pool.child)

    def build(self) -> None:
        """Build the native library, if it is not there: once, and on no clock."""
        self._run("build", [sys.executable, "-m", "xpool.native.build"])

    def train(self, pool: Pool) -> None:
        """Pairs of the training loop, remote and local."""
        output = self._folder / "job.json"
        job = [str(example()), "--epochs", str(self._settings.epochs)]
        job += ["--threads", str(self._settings.threads), "--json", str(output)]

        def sample(name: str, argv: Sequence[str]) -> None:
            output.unlink(missing_ok=True)  # the former job's figures are not its own
            self._calm_run(pool, name, argv)
            self._take({name: train_seconds(output)})

        self._in_pairs(
            lambda: sample("train_remote_s", xpool_run(pool.registry, *job)),
            lambda: sample("train_local_s", [sys.executable, *job]),
        )

    def record(self, pool: Pool) -> None:
        """What an operation costs the client, in time and bytes."""
        program = str(PROGRAMS / "training_costs.py")
        steps = str(self._settings.steps)
        argv = xpool_run(pool.registry, program, str(example()), steps)
        for _ in range(self._settings.runs):
            self._take(self._measured(pool, "training costs", argv))

    def lease(self, pool: Pool) -> None:
        """From Acquire to the first result."""
        program = str(PROGRAMS / "lease_to_first_result.py")
        argv = [sys.executable, program, pool.registry]
        for _ in range(self._settings.runs):
            self._take(self._measured(pool, "lease", argv))

    def start(self, pool: Pool) -> None:
        """Pairs of a program's whole life, remote and local."""
        remote = xpool_run(pool.registry, "-c", FIRST_RESULT_REMOTE)
        local = [sys.executable, "-c", FIRST_RESULT_LOCAL]

        def sample(name: str, argv: Sequence[str]) -> None:
            self._take({name: self._calm_run(pool, name, argv)})

        self._in_pairs(
            lambda: sample("cold_start_s", remote),
            lambda: sample("cold_start_local_s", local),
        )

    def _in_pairs(self, remote: Callable[[], None], local: Callable[[], None]) -> None:
        """Alternate, and let each side be the first in turn: drift cancels out."""
        for number in range(self._settings.runs):
            for take in (remote, local) if number % 2 == 0 else (local, remote):
                take()

    def _take(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.samples[name].append(value)
            count = f"{len(self.samples[name])}/{self._settings.runs}"
            self._say(f"{name} {count}: {value:.4g}")

    def _measured(self, pool: Pool, name: str, argv: Sequence[str]) -> dict[str, float]:
        """The figures that a program of ours prints."""
        wait_until_calm(self._children, pool)
        child, _ = self._run(name, argv)
        return {key: float(value) for key, value in json_line(child).items()}

    def _calm_run(self, pool: Pool, name: str, argv: Sequence[str]) -> float:
        wait_until_calm(self._children, pool)
        return self._run(name, argv)[1]

    def _run(self, name: str, argv: Sequence[str]) -> tuple[Child, float]:
        return run_to_end(self._children, name, argv, self._env, self._folder)


def train_seconds(path: Path) -> float:
    """What the example wrote about its training loop.

    Raises:
        RunFailed: nothing, or something else.
    """
    try:
        return float(json.loads(path.read_text())["train_s"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunFailed(f"the example left no readable figures: {error!r}") from error


def measure(settings: Settings, say: Say) -> Samples:
    """Take every sample.

    Raises:
        RunFailed: a process failed; which one, and its last words.
    """
    with (
        tempfile.TemporaryDirectory(prefix="xpool-perf-") as folder,
        Children(lambda _name, _line: None) as children,
    ):
        bench = Bench(children, Path(folder), settings, say)
        bench.build()
        with bench.pool(spares=0) as pool:
            bench.train(pool)
            bench.record(pool)
        with bench.pool(spares=1) as pool:
            bench.lease(pool)
            bench.start(pool)
        return bench.samples


MAIN_JOB: Final = Scenario(
    name="main_job",
    summary="train the example in a pool on this machine and locally",
    figures=FIGURES,
    measure=measure,
)
