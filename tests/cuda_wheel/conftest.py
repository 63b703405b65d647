"""A client with a CUDA build of torch, on a host whose devices it must not touch.

``make test-cuda-wheel`` runs these in an environment of their own. ``SERVER_PYTHON``
names the interpreter of the server's: another build of torch, or another version.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from support.cases_run import outcomes_of
from support.pool import Pool
from xpool.native import build, cuda_build

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
    """What became of every case of a module; run once, kept."""
    return cache(partial(outcomes_of, run_python))
