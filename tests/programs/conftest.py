"""One pool for the programs of a run, and what came of each in it and beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.pool import Pool

HERE = Path(__file__).parent
TIMEOUT_S = 600
Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("pool"), ttl="5s") as pool:
        pool.start_registry()
        server = ("--threads", "1", "--devices", "cpu,memory=4GiB")
        pool.start_server("one", *server, light=False)
        yield pool


@pytest.fixture(scope="session")
def run_both(
    pool: Pool, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[str]], tuple[Ended, Ended]]:
    """Runs one command line in the pool and locally, both at the same time."""
    folder = tmp_path_factory.mktemp("programs")
    in_pool = ("-m", "xpool", "run", "--registry", pool.registry)

    def run(argv: Sequence[str]) -> Ended:
        return subprocess.run(
            [sys.executable, *argv],
            # As many threads as the server has: sums in another order differ.
            env=pool.environment({"OMP_NUM_THREADS": "1"}),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def run_both(argv: Sequence[str]) -> tuple[Ended, Ended]:
        with ThreadPoolExecutor(2) as threads:
            remote = threads.submit(run, [*in_pool, *argv])
            local = threads.submit(run, argv)
            return remote.result(), local.result()

    return run_both


@pytest.fixture(scope="session")
def together(
    run_both: Callable[[Sequence[str]], tuple[Ended, Ended]],
) -> Callable[[Sequence[str]], tuple[dict[str, Any], dict[str, Any]]]:
    """What programs came to that share a process, by name; run once, kept."""
    kept: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, Any]]] = {}

    def of(paths: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        key = tuple(paths)
        if key not in kept:
            remote, local = run_both([str(HERE / "together.py"), *paths])
            kept[key] = _outcomes(remote), _outcomes(local)
        return kept[key]

    return of


def _outcomes(ended: Ended) -> dict[str, Any]:
    lines = [line for line in ended.stdout.splitlines() if line.startswith("PROGRAM ")]
    found = {one["name"]: one for one in map(json.loads, (line[8:] for line in lines))}
    found["*"] = None if ended.returncode == 0 else ended.stderr[-4000:]
    return found
