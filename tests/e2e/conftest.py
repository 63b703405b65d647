"""One pool with real servers for all end-to-end tests of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.pool import Pool

PROGRAMS = Path(__file__).parent / "programs"
RUN_S = 180
XPOOL_RUN = (sys.executable, "-m", "xpool", "run")

Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("pool"), ttl="5s") as pool:
        pool.start_registry()
        pool.start_server(
            "one", "--threads", "1", "--devices", "cpu,memory=2GiB", light=False
        )
        yield pool


@pytest.fixture(scope="session")
def xpool_run(pool: Pool) -> Runner:
    """Runs ``xpool run`` with these arguments against the pool; returns its end."""

    def run(
        *arguments: str, env: dict[str, str] | None = None, timeout_s: float = RUN_S
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*XPOOL_RUN, "--registry", pool.registry, *arguments],
            env=pool.environment(env),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def outcomes(xpool_run: Runner) -> Callable[[str, str], dict[str, str | None]]:
    """The outcome of every case of a module on a device; run once, kept."""
    kept: dict[tuple[str, str], dict[str, str | None]] = {}

    def of(module: str, device: str) -> dict[str, str | None]:
        if (module, device) not in kept:
            # As many threads as the server has: sums in another order differ.
            env = {"OMP_NUM_THREADS": "1"}
            if device == "xpool":
                env["XPOOL_DEVICE"] = "python"
            ended = xpool_run(str(PROGRAMS / "cases.py"), module, device, env=env)
            lines = [
                json.loads(line[5:])
                for line in ended.stdout.splitlines()
                if line.startswith("CASE ")
            ]
            found = {line["name"]: line["error"] for line in lines}
            found["*"] = None if ended.returncode == 0 else ended.stderr[-4000:]
            kept[module, device] = found
        return kept[module, device]

    return of
