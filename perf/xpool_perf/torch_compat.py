"""``torch_compat``: how much of PyTorch runs in the pool as it does on the local CPU.

torch's own suites (``tests/compat``) and whole programs (``tests/programs``), each by
its own runner, which starts a pool of its own. A sample is a count; the names of the
samples that say what was skipped hold why.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from xpool_perf.children import Children, ChildTimeout
from xpool_perf.figures import Figure, Samples
from xpool_perf.pool import RunFailed, json_line, own_environment, repository
from xpool_perf.scenario import Say, Scenario, Settings

SUITES: Final = ("op_db", "module_db", "optim_db")
TIMEOUT_S: Final = 3 * 3600.0
"""The suites take half an hour on two quiet cores."""


def _figures() -> tuple[Figure, ...]:
    figures = []
    for suite in SUITES:
        figures += [
            Figure(
                name=f"{suite}_pass_percent",
                unit="%",
                method=f"Entries of torch's {suite} that agree with the local CPU, of"
                " those that run there; known failures count as failures.",
                sources=(f"{suite}_pass_percent",),
            ),
            Figure(
                name=f"{suite}_run",
                unit="entries",
                method=f"Entries of {suite} of which a sample runs on the local CPU.",
                sources=(f"{suite}_run",),
            ),
            Figure(
                name=f"{suite}_skipped",
                unit="entries",
                method=f"Entries of {suite} of which none does; the samples say why.",
                sources=(f"{suite}_skipped",),
            ),
        ]
    for name, what in (
        ("programs_pass", "Programs whose figures agree with a run on the local CPU."),
        ("programs_tried", "Programs of tests/programs that could be run here."),
    ):
        figures.append(Figure(name=name, unit="programs", method=what, sources=(name,)))
    return tuple(figures)


def measure(settings: Settings, say: Say) -> Samples:
    """Run the suites and the programs.

    Raises:
        RunFailed: a runner ended without figures.
    """
    tests = repository() / "tests"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def show(child: str, line: str) -> None:
            if not line.startswith("{"):
                say(f"{child}: {line}")

        with Children(show) as children:
            env = own_environment(settings.threads)
            suites = ran(
                children,
                "suites",
                [str(tests / "compat" / "run_suites.py"), "--json"],
                env,
                folder,
            )
            programs = ran(
                children,
                "programs",
                [str(tests / "programs" / "run.py"), "--json", "--together"],
                env,
                folder,
            )
    return samples_from(suites, programs)


def ran(
    children: Children,
    name: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
) -> dict[str, Any]:
    """The object that a runner prints; that something failed is in it.

    Raises:
        RunFailed: it printed none, or took too long.
    """
    child = children.start(name, [sys.executable, *argv], env, folder)
    try:
        children.wait(child, TIMEOUT_S)
    except ChildTimeout as error:
        raise RunFailed(f"the {name} run is stuck: {error}") from error
    return json_line(child)


def samples_from(suites: Mapping[str, Any], programs: Mapping[str, Any]) -> Samples:
    """The runners' objects as samples.

    Raises:
        RunFailed: a suite did not run.
    """
    samples: dict[str, list[float]] = {}
    for suite in SUITES:
        counts = suites.get(suite)
        if counts is None or not counts["run"]:
            raise RunFailed(f"{suite} did not run")
        skipped: Mapping[str, int] = counts["skipped"]
        samples[f"{suite}_pass_percent"] = [100 * counts["passed"] / counts["run"]]
        samples[f"{suite}_run"] = [counts["run"]]
        samples[f"{suite}_known_failures"] = [counts["expected_failures"]]
        samples[f"{suite}_other_failures"] = [counts["failed"]]
        samples[f"{suite}_skipped"] = [sum(skipped.values())]
        for why, count in skipped.items():
            samples[f"{suite}_skipped: {why}"] = [count]
    samples["programs_pass"] = [programs["programs_pass"]]
    samples["programs_tried"] = [programs["programs_tried"]]
    for what in ("failed", "skipped"):
        for program, why in programs.get(what, {}).items():
            samples[f"programs_{what}: {program}: {one_line(why)}"] = [1]
    return samples


def one_line(text: str) -> str:
    """A reason as part of a sample's name."""
    return re.sub(r"\s+", " ", text)[:200]


TORCH_COMPAT: Final = Scenario(
    name="torch_compat",
    summary="torch's own suites and whole programs, in the pool and on the local CPU",
    figures=_figures(),
    measure=measure,
)
