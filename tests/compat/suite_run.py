"""Runs the suites' program through a pool of real processes, past crashes and hangs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from entries import SUITES
from results import read_lines
from support.pool import Pool

PROGRAM = str(HERE / "suite_program.py")
SILENT_S = 240.0
"""An entry that takes longer hangs; most take less than a second."""

WAIT_S = 0.5
SAY_S = 15.0
MAX_STARTS = 200
"""A suite in which everything crashes comes to an end, too."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which entries to run, and how much of each."""

    suites: tuple[str, ...] = SUITES
    dtypes: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    first: int = 0
    every: int = 1
    samples: int = 8


@dataclass(slots=True)
class Part:
    """One process's share of the entries."""

    options: dict[str, Any]
    path: Path
    process: subprocess.Popen[str] | None = None
    errors: Path = field(default_factory=Path)
    starts: int = 0
    size: int = -1
    heard: float = 0.0
    is_done: bool = False


def run_suites(
    folder: Path,
    choice: Choice,
    parts: int,
    say: Callable[[str], None],
    program: str = PROGRAM,
    server_python: str = sys.executable,
) -> list[dict[str, Any]]:
    """Run everything chosen; the programs' lines, and one for every crash.

    The server runs in ``server_python``, whose torch may be another build.
    """
    with Pool(folder, ttl="15s") as pool:
        pool.start_registry()
        # One thread on both sides: sums in another order differ.
        server = ("--threads", "1", "--devices", f"cpu,memory={3 * parts}GiB")
        pool.start_server("suites", *server, light=False, python=server_python)
        shares = [made_part(folder, choice, i, parts) for i in range(parts)]
        said = time.monotonic()
        try:
            while not all(part.is_done for part in shares):
                for part in shares:
                    tend(pool, part, parts, program)
                if time.monotonic() - said > SAY_S:
                    said = time.monotonic()
                    say(progress(shares))
                time.sleep(WAIT_S)
        finally:
            for part in shares:
                stop(part)
    return [line for part in shares for line in read_lines(part.path)]


def made_part(folder: Path, choice: Choice, index: int, parts: int) -> Part:
    path = folder / f"suites.{index}.jsonl"
    path.touch()
    options = {
        "out": str(path),
        "suites": choice.suites,
        "dtypes": choice.dtypes,
        "only": choice.only,
        "first": choice.first,
        "every": choice.every,
        "samples": choice.samples,
        "shard": [index, parts],
    }
    return Part(options, path, errors=folder / f"suites.{index}.err")


def tend(pool: Pool, part: Part, parts: int, program: str) -> None:
    """Start a part, see what it does, start it again behind a crash."""
    if part.is_done:
        return
    if part.process is None:
        start(pool, part, parts, program)
        return
    size = part.path.stat().st_size
    if size != part.size:
        part.size, part.heard = size, time.monotonic()
    status = part.process.poll()
    if status is None and time.monotonic() - part.heard > SILENT_S:
        stop(part)
        note_crash(part, f"hangs: nothing within {SILENT_S:.0f} s")
    elif status is not None:
        part.process = None
        lines = read_lines(part.path)
        part.is_done = bool(lines) and lines[-1]["state"] == "end"
        if not part.is_done:
            note_crash(part, f"status {status}: {part.errors.read_text()[-300:]}")


def start(pool: Pool, part: Part, parts: int, program: str) -> None:
    if part.starts == MAX_STARTS:
        raise SystemExit(f"the suites ended {MAX_STARTS} times; see {part.path}")
    part.starts += 1
    share = ("--slice", f"{100 // parts}%", "--memory", "2GiB")
    with part.errors.open("w") as errors:
        part.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "xpool", "run", "--registry", pool.registry),
                *(*share, program, json.dumps(part.options)),
            ],
            env=pool.environment({"OMP_NUM_THREADS": "1"}),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
    part.heard = time.monotonic()


def note_crash(part: Part, how: str) -> None:
    """Write the end that the program could not write."""
    lines = read_lines(part.path)
    if not lines:
        raise SystemExit(f"the suites did not start: {how}")
    if lines[-1]["state"] != "begun":
        return  # it has said so itself
    crash = {
        "entry": lines[-1]["entry"],
        "state": "crash",
        "samples": 0,
        "reason": how,
        "seconds": 0.0,
        "escapes": None,  # it could not say
    }
    with part.path.open("a") as file:
        file.write(json.dumps(crash) + "\n")


def stop(part: Part) -> None:
    if part.process is not None and part.process.poll() is None:
        part.process.terminate()
        try:
            part.process.wait(10)
        except subprocess.TimeoutExpired:
            part.process.kill()
            part.process.wait()
    part.process = None


def progress(parts: list[Part]) -> str:
    """How far it is, in one line."""
    lines = [line for part in parts for line in read_lines(part.path)]
    states = [line["state"] for line in lines]
    failed = states.count("fail") + states.count("crash")
    last = ", ".join(
        line["entry"]
        for part in parts
        if not part.is_done
        for line in read_lines(part.path)[-1:]
    )
    return f"{states.count('pass')} agree, {failed} do not; now {last}"
