"""The command line, and the main scenario as a user runs it, small."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.waiting import eventually
from xpool_perf.main_job import FIGURES, train_seconds
from xpool_perf.pool import RunFailed, job_environment
from xpool_perf.results import result_from_json

PERF = [sys.executable, "-m", "xpool_perf"]
SMALL = ["main_job", "--json", "--runs=1", "--epochs=1", "--steps=10"]


def perf(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PERF, *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_the_scenario_gives_every_figure_in_one_object() -> None:
    run = perf(*SMALL)
    assert run.returncode == 0, run.stderr
    fields = json.loads(run.stdout)
    assert set(fields) >= {
        *("scenario", "figures", "units", "machine", "commit", "date"),
        *("method", "samples"),
    }
    result = result_from_json(run.stdout.encode(), "stdout")
    assert result.scenario == "main_job"
    names = [one.name for one in FIGURES]
    assert list(result.figures) == list(result.units) == list(result.method) == names
    for values in ([*result.figures.values()], *result.samples.values()):
        assert all(math.isfinite(value) and value > 0 for value in values)
    assert {len(values) for values in result.samples.values()} == {1}
    assert result.settings == {"runs": 1, "threads": 1, "epochs": 1, "steps": 10}
    # Neither side of these is plausible: a clock or a count would be wrong.
    assert (
        result.figures["lease_to_first_result_ms"]
        < 1000 * (result.figures["cold_start_s"])
    )
    # A step that repeats is a run of a plan: some bytes for many operations.
    assert 0.5 < result.figures["bytes_per_op"] < 1000
    assert 1 < result.figures["client_us_per_op"] < 1000
    moments = ("lease_acquired_ms", "lease_to_session_ms", "lease_to_first_result_ms")
    splits = [result.samples[name][0] for name in moments]
    assert splits == sorted(splits)


def test_a_ctrl_c_ends_everything() -> None:
    with subprocess.Popen(
        [*PERF, *SMALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        descendants = eventually(lambda: pool_of(run.pid), "a registry", 60)
        run.send_signal(signal.SIGINT)
        output, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGINT
    assert output == b""
    assert b"SIGINT" in said
    assert not [one for one in descendants if one.is_running()]


def pool_of(pid: int) -> list[psutil.Process]:
    """Its descendants; none before a registry is among them."""
    found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    has_registry = any("xpool_registry" in command(one) for one in found)
    return found if has_registry else []


def command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["main_jop"], "'main_jop' is no scenario and no command: write one of main_"),
        ([], "the following arguments are required: COMMAND"),
        (["main_job", "--runs", "0"], "'0' is not a whole number from 1 up"),
        (["main_job", "--what"], "unrecognized arguments: --what"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str) -> None:
    run = perf(*arguments)
    assert run.returncode == 2
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1


def test_help_lists_the_scenarios() -> None:
    run = perf("--help")
    assert run.returncode == 0
    assert re.search(r"^ +main_job +train the example", run.stdout, re.MULTILINE)


def test_comparing_what_is_no_result_fails(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    run = perf("compare", str(tmp_path / "a.json"), str(tmp_path / "a.json"))
    assert run.returncode == 1
    assert "holds no result" in run.stderr


def test_a_job_starts_from_a_known_environment() -> None:
    given = {"XPOOL_SLICE": "5%", "XPOOL_CACHE": "/c", "HOME": "/h"}
    kept = {"XPOOL_CACHE": "/c", "HOME": "/h", "PYTHONUNBUFFERED": "1"}
    assert job_environment(given, None) == kept
    threads = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert job_environment(given, 3) == kept | threads


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"train_s": "soon"}'])
def test_a_job_that_leaves_no_figures_is_one_sentence(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(RunFailed, match="no readable figures"):
        train_seconds(tmp_path / "job.json")
