"""Jobs with two devices: both on one server, and on a server each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from support.pool import Pool

PROGRAMS = Path(__file__).parent / "programs"
sys.path.insert(0, str(PROGRAMS))

from cases import case_names

XPOOL_RUN = (sys.executable, "-m", "xpool", "run")
RUN_S = 240

PLACES = {
    "together": {"one": "cpu:2,memory=1GiB"},
    "apart": {"one": "cpu,memory=1GiB", "two": "cpu,memory=1GiB"},
}
"""Servers by name, and what each offers."""

MODULES = ("two_devices", "data_parallel")
CASES = [
    (place, module, name)
    for place in PLACES
    for module in MODULES
    for name in [*case_names(PROGRAMS / f"{module}.py"), "*"]
]

Outcomes = dict[str, str | None]


def job(pool: Pool, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``xpool run --devices 2``, to its end."""
    return subprocess.run(
        [*XPOOL_RUN, "--registry", pool.registry, "--devices", "2", *arguments],
        env=pool.environment({"OMP_NUM_THREADS": "1"}),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], Outcomes]:
    """The outcome of every case of a module in a place; each pool lives for one run."""

    @cache
    def of(place: str, module: str) -> Outcomes:
        with Pool(tmp_path_factory.mktemp(place), ttl="5s") as pool:
            pool.start_registry()
            for name, devices in PLACES[place].items():
                arguments = ("--threads", "1", "--devices", devices)
                pool.start_server(name, *arguments, light=False)
            ended = job(pool, str(PROGRAMS / "cases.py"), module, "cuda")
        lines = [
            json.loads(line[5:])
            for line in ended.stdout.splitlines()
            if line.startswith("CASE ")
        ]
        found = {line["name"]: line["error"] for line in lines}
        found["*"] = None if ended.returncode == 0 else ended.stderr[-4000:]
        return found

    return of


@pytest.mark.parametrize(("place", "module", "name"), CASES)
def test_case(
    place: str, module: str, name: str, outcomes: Callable[[str, str], Outcomes]
) -> None:
    """``*`` is the process itself: it ended well, after all its cases."""
    found = outcomes(place, module)
    assert name in found, f"{name} never ran: {found['*']}"
    assert found[name] is None, found[name]
