"""Runs the programs of this folder in a pool and locally, and compares their figures.

    python tests/programs/run.py [--json] [--only NAME,NAME] [--together] [--document FILE]

Each program is a process of its own, under ``xpool run`` and then under plain Python;
with ``--together`` they share one on each side, which is several times faster.
``--json`` prints one object: ``programs_tried``, ``programs_pass``, and why the others
did not. Exit 0 if all that could be tried have passed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from programs import Program, all_programs, differences, figures_in
from support.pool import Pool

TIMEOUT_S = 300
SERVER = ("--threads", "1", "--devices", "cpu,memory=4GiB")
THREADS = {"OMP_NUM_THREADS": "1"}
"""As many as the server has: sums in another order differ."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``problem`` is None for a program that passed."""

    program: Program
    problem: str | None
    pool_s: float
    local_s: float
    skipped: bool = False


def run_one(program: Program, pool: Pool) -> Outcome:
    lacks = program.lacks()
    if lacks is not None:
        return Outcome(program, f"{lacks} is not installed", 0, 0, skipped=True)
    remote = ("-m", "xpool", "run", "--registry", pool.registry, str(program.path))
    in_pool, pool_s = _run(remote, pool.environment(THREADS))
    local, local_s = _run((str(program.path),), pool.environment(THREADS))
    return Outcome(program, _problem(program, in_pool, local), pool_s, local_s)


def run_together(programs: list[Program], pool: Pool) -> list[Outcome]:
    """Those that may share a process do; the others are run one by one."""
    shared = [one for one in programs if not one.alone and one.lacks() is None]
    paths = [str(one.path) for one in shared]
    argv = (str(HERE / "together.py"), *paths)
    remote = ("-m", "xpool", "run", "--registry", pool.registry, *argv)
    with ThreadPoolExecutor(2) as threads:
        env = pool.environment(THREADS)
        running = [threads.submit(_run, one, env, len(paths)) for one in (remote, argv)]
    in_pool, local = (_shared_outcomes(one.result()[0], paths) for one in running)
    outcomes = []
    for program in programs:
        if program not in shared:
            outcomes.append(run_one(program, pool))
            continue
        (mine, pool_s), (theirs, local_s) = in_pool[program.name], local[program.name]
        problem = _problem(program, mine, theirs)
        outcomes.append(Outcome(program, problem, pool_s, local_s))
    return outcomes


def _shared_outcomes(
    ended: subprocess.CompletedProcess[str], paths: list[str]
) -> dict[str, tuple[subprocess.CompletedProcess[str], float]]:
    """By program: how it would have ended alone, and its seconds."""
    lines = [line for line in ended.stdout.splitlines() if line.startswith("PROGRAM ")]
    found = {
        Path(path).stem: (
            subprocess.CompletedProcess(path, 1, "", f"never ran: {ended.stderr}"),
            0.0,
        )
        for path in paths
    }
    for one in (json.loads(line[len("PROGRAM ") :]) for line in lines):
        error = one["error"]
        status = 0 if error is None else 1
        it = subprocess.CompletedProcess(
            one["name"], status, one["output"], error or ""
        )
        found[one["name"]] = it, one["seconds"]
    return found


def _run(
    arguments: tuple[str, ...], env: Mapping[str, str], programs: int = 1
) -> tuple[subprocess.CompletedProcess[str], float]:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, *arguments]
        try:
            ended = subprocess.run(
                argv,
                env=dict(env),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S * programs,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = str(late.stderr or "")
            ended = subprocess.CompletedProcess(argv, 124, "", f"{said} too slow")
    return ended, time.perf_counter() - started


def _problem(
    program: Program,
    pool: subprocess.CompletedProcess[str],
    local: subprocess.CompletedProcess[str],
) -> str | None:
    for where, ended in (("here", local), ("in the pool", pool)):
        if ended.returncode != 0:
            return f"status {ended.returncode} {where}: {_last_words(ended.stderr)}"
    mine, theirs = figures_in(pool.stdout), figures_in(local.stdout)
    if mine is None or theirs is None:
        return "it printed no figures"
    found = differences(mine, theirs, program.tolerance)
    return "; ".join(found[:4]) or None


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def chosen(only: str) -> list[Program]:
    names = [name for name in only.split(",") if name]
    found = [one for one in all_programs() if not names or one.name in names]
    if len(found) < len(names):
        raise SystemExit(f"no such program: {set(names) - {one.name for one in found}}")
    return found


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    tried = [one for one in outcomes if not one.skipped]
    return {
        "programs_tried": len(tried),
        "programs_pass": sum(one.problem is None for one in tried),
        "failed": {one.program.name: one.problem for one in tried if one.problem},
        "skipped": {one.program.name: one.problem for one in outcomes if one.skipped},
        "seconds": {one.program.name: round(one.pool_s, 1) for one in tried},
        "seconds_local": {one.program.name: round(one.local_s, 1) for one in tried},
    }


def document(outcomes: list[Outcome]) -> str:
    """The table of ``docs/compat/programs.md``."""
    tried = [one for one in outcomes if not one.skipped]
    passed = sum(one.problem is None for one in tried)
    lines = [
        "# Programs tried",
        "",
        "Made by `python tests/programs/run.py --document docs/compat/programs.md`. Each",
        "program is a script in `tests/programs/` with no word of xpool in it. It runs",
        "under `xpool run`, on a server whose device is a CPU, and under plain Python on",
        "the local CPU; the figures that it prints must agree.",
        "",
        f"{passed} of {len(tried)} pass.",
        "",
        "| program | what it does | result |",
        "|---|---|---|",
    ]
    for one in outcomes:
        result = "skipped: " if one.skipped else ""
        result += one.problem or "passes"
        result = result.replace("|", "\\|")
        lines.append(f"| `{one.program.name}` | {one.program.summary} | {result} |")
    return "\n".join(lines) + "\n"


def run_all(programs: list[Program], together: bool) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder, Pool(Path(folder)) as pool:
        pool.start_registry()
        pool.start_server("one", *SERVER, light=False)
        if together:
            return run_together(programs, pool)
        outcomes = []
        for program in programs:
            outcome = run_one(program, pool)
            outcomes.append(outcome)
            said = outcome.problem or f"passes ({outcome.pool_s:.1f} s)"
            print(f"{program.name}: {said}", file=sys.stderr, flush=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--only", default="", help="names, comma-separated")
    parser.add_argument("--document", type=Path, help="write the table of results here")
    parser.add_argument("--together", action="store_true", help="in one process")
    options = parser.parse_args()
    outcomes = run_all(chosen(options.only), options.together)
    if options.document is not None:
        options.document.write_text(document(outcomes))
    totals = summary(outcomes)
    if options.json:
        print(json.dumps(totals))
    return 0 if totals["programs_tried"] == totals["programs_pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
