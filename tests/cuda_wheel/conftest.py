"""A client with a CUDA build of torch, on a host whose devices it must not touch.

``make test-cuda-wheel`` runs these in an environment of their own. ``SERVER_PYTHON``
names the interpreter of the server's: another build of torch, or another version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.pool import Pool
from xpool.native import build, cuda_build

PROGRAMS = Path(__file__).parent / "programs"
E2E_PROGRAMS = PROGRAMS.parents[1] / "e2e" / "programs"
RUN_S = 300

Ended = subprocess.CompletedProcess[str]
Runner = Callable[..., Ended]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "torch is no CUDA build here: make test-cuda-wheel"
    is_cuda_build = cuda_build.cuda_version(build.torch_folder()) is not None
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cuda_wheel)
            if not is_cuda_build:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("pool"), ttl="5s") as pool:
        pool.start_registry()
        python = os.environ.get("SERVER_PYTHON") or sys.executable
        arguments = ("--threads", "1", "--devices", "cpu,memory=2GiB")
        pool.start_server("one", *arguments, light=False, python=python)
        yield pool


@pytest.fixture(scope="session")
def run_python(pool: Pool) -> Runner:
    """Runs the interpreter with these arguments, for the pool."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        environment = {"XPOOL_REGISTRY": pool.registry, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *arguments],
            env=pool.environment({**environment, **(env or {})}),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def outcomes(run_python: Runner) -> Callable[[Path, str], dict[str, Any]]:
    """What became of every case of a module; run once, kept.

    ``*`` is the process itself, ``escapes`` what it sent past the remote device.
    """
    kept: dict[tuple[Path, str], dict[str, Any]] = {}

    def of(folder: Path, module: str) -> dict[str, Any]:
        if (folder, module) not in kept:
            program = (str(PROGRAMS / "counted.py"), str(E2E_PROGRAMS / "cases.py"))
            ended = run_python(
                *("-m", "xpool", "run", *program, module, "cuda"),
                env={"PYTHONPATH": str(folder)},
            )
            lines = ended.stdout.splitlines()
            cases = [json.loads(line[5:]) for line in lines if line[:5] == "CASE "]
            found = {case["name"]: case["error"] for case in cases}
            found["*"] = None if ended.returncode == 0 else ended.stderr[-4000:]
            found["escapes"] = [line for line in lines if line[:8] == "ESCAPED "]
            kept[folder, module] = found
        return kept[folder, module]

    return of
