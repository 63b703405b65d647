"""A whole pool on this machine, and jobs that run in it or beside it.

What is measured must not be disturbed by what is not: ``wait_until_calm`` waits until
the pool's server has exactly the warm workers that it keeps, all of them ready and
none left over from the job before.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from xpool_perf.children import Child, Children, ChildTimeout

READY_TIMEOUT_S = 120.0
"""Importing torch from a cold disk takes up to a minute."""

JOB_TIMEOUT_S = 600.0
"""The longest job takes about 10 s; a machine sixty times slower still passes."""

POOL_READY = re.compile(r"pool ready: registry (\S+:\d+)")
WORKER_MODULE = "xpool_server.worker"

KEPT_VARIABLES = {"XPOOL_CACHE"}
"""Where the native library lies; every other setting of ours would change a figure."""


class RunFailed(Exception):  # noqa: N818  a state, as the project's errors are
    """One sentence: what failed, where, and what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A running pool."""

    child: Child
    registry: str
    """``HOST:PORT``."""

    spares: int
    """Warm workers that its server keeps."""


def job_environment(
    environment: Mapping[str, str], threads: int | None
) -> dict[str, str]:
    """For every process of a run; with ``threads``, the same count for all of them."""
    env = {
        name: value
        for name, value in environment.items()
        if not name.startswith("XPOOL_") or name in KEPT_VARIABLES
    }
    env["PYTHONUNBUFFERED"] = "1"
    if threads is not None:
        env.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    return env


def xpool_run(registry: str, *program: str) -> list[str]:
    """The command that runs a program in the pool."""
    return [sys.executable, "-m", "xpool", "run", "--registry", registry, *program]


def start_pool(
    children: Children,
    folder: Path,
    env: Mapping[str, str],
    *,
    spares: int = 1,
    threads: int | None = None,
    devices: str = "cpu",
) -> Pool:
    """Start ``xpool up`` with a store of its own and a free port; wait for it.

    Raises:
        RunFailed: the pool ended or said nothing in time.
    """
    argv = [sys.executable, "-m", "xpool", "up", "--registry-listen", "127.0.0.1:0"]
    argv += ["--store", str(folder / "registry.db"), "--spares", str(spares)]
    argv += ["--devices", devices]
    if threads is not None:
        argv += ["--threads", str(threads)]
    child = children.start("pool", argv, env, folder)

    def is_ready_or_over() -> bool:
        return _registry_of(child) is not None or child.status is not None

    try:
        children.pump(is_ready_or_over, READY_TIMEOUT_S, "'pool ready'")
    except ChildTimeout as error:
        raise RunFailed(f"the pool did not start: {error}") from error
    registry = _registry_of(child)
    if registry is None:
        raise RunFailed(
            f"the pool did not start: `xpool up` ended with status {child.status}:"
            f" {last_words(child)}"
        )
    return Pool(child=child, registry=registry, spares=spares)


def run_to_end(
    children: Children,
    name: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> tuple[Child, float]:
    """Run one process to its end; it, and its seconds from start to exit.

    Raises:
        RunFailed: it took too long or ended with an error.
    """
    started = time.perf_counter()
    child = children.start(name, argv, env, cwd)
    try:
        status = children.wait(child, JOB_TIMEOUT_S)
    except ChildTimeout as error:
        raise RunFailed(f"the {name} run is stuck: {error}") from error
    elapsed_s = time.perf_counter() - started
    if status != 0:
        raise RunFailed(
            f"the {name} run ended with status {status}: {last_words(child)}"
        )
    return child, elapsed_s


def json_line(child: Child) -> dict[str, Any]:
    """The last line that is a JSON object.

    Raises:
        RunFailed: the process wrote none.
    """
    for line in reversed(child.lines):
        if line.startswith("{"):
            try:
                found: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            return found
    raise RunFailed(f"the {child.name} run wrote no figures: {last_words(child)}")


def last_words(child: Child) -> str:
    """The end of what a child said, for a sentence."""
    lines = [line.strip() for line in child.lines if line.strip()]
    return " / ".join(lines[-3:]) or "it said nothing"


def wait_until_calm(children: Children, pool: Pool) -> None:
    """Wait until the server's workers are its warm spares and nobody else.

    Raises:
        RunFailed: that did not happen in time, or the pool ended.
    """

    def is_calm_or_over() -> bool:
        return pool.child.status is not None or _is_calm(pool)

    what = f"{pool.spares} warm workers and no others"
    try:
        children.pump(is_calm_or_over, READY_TIMEOUT_S, what)
    except ChildTimeout as error:
        raise RunFailed(f"the pool did not come to rest: {error}") from error
    if pool.child.status is not None:
        raise RunFailed(f"the pool ended: {last_words(pool.child)}")


def _registry_of(child: Child) -> str | None:
    found = [match[1] for line in child.lines if (match := POOL_READY.match(line))]
    return found[0] if found else None


def _is_calm(pool: Pool) -> bool:
    try:
        workers = [
            process
            for process in psutil.Process(pool.child.process.pid).children(True)
            if WORKER_MODULE in process.cmdline()
        ]
        is_complete = len(workers) == pool.spares
        return is_complete and all(_is_listening(worker) for worker in workers)
    except psutil.NoSuchProcess:  # one has ended while we looked: look again
        return False


def _is_listening(worker: psutil.Process) -> bool:
    """A worker listens once it has imported its framework and opened its device."""
    return any(
        one.status == psutil.CONN_LISTEN for one in worker.net_connections("tcp")
    )


def repository() -> Path:
    """The checkout that this package belongs to; what it measures lies there."""
    return Path(__file__).resolve().parents[2]


def example() -> Path:
    """The job whose figures are taken."""
    return repository() / "examples" / "digits_cnn.py"


def own_environment(threads: int | None) -> dict[str, str]:
    """``job_environment`` of this process."""
    return job_environment(os.environ, threads)


def start_ready(
    children: Children,
    name: str,
    argv: Sequence[str],
    ready: re.Pattern[str],
    env: Mapping[str, str],
    folder: Path,
) -> Child:
    """Start a child, and wait for the line that says that it is ready.

    Raises:
        RunFailed: it ended, or said nothing in time.
    """
    child = children.start(name, argv, env, folder)
    wait_ready(children, child, ready)
    return child


def wait_ready(children: Children, child: Child, ready: re.Pattern[str]) -> None:
    """Wait for the line that says that a child is ready, if it has not come yet.

    Raises:
        RunFailed: it ended, or said nothing in time.
    """
    name = child.name

    def is_ready_or_over() -> bool:
        child.is_ready = child.is_ready or any(map(ready.search, child.lines))
        return child.is_ready or child.status is not None

    try:
        children.pump(is_ready_or_over, READY_TIMEOUT_S, f"the {name} to be ready")
    except ChildTimeout as error:
        raise RunFailed(f"the {name} did not start: {error}") from error
    if child.status is not None:
        raise RunFailed(
            f"the {name} ended with status {child.status}: {last_words(child)}"
        )
