"""What the demonstration concludes, and what it says when a part fails."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from xpool_perf.demo import (
    Job,
    Measured,
    ServerCount,
    as_json,
    job_from_json,
    loss_difference,
    report,
    server_count_from_json,
    verdict,
)
from xpool_perf.demo_arrays import (
    ArrayJob,
    array_job_from_json,
    array_report,
    array_verdict,
)

LOCAL = Job(device="cpu", losses=[1.5, 0.25], accuracy=0.99, train_s=2.0, threads=1)
REMOTE = replace(LOCAL, device="xpool cpu", train_s=3.0)
STATS = ServerCount(
    server="node-a",
    device="cpu:0",
    lease_id="L1",
    executed_ops=1234,
    allocated_nbytes_peak=5 << 20,
    received_nbytes=1 << 20,
)


LOCAL_ARRAYS = ArrayJob(
    device="cpu", inertia=[9.0, 4.5], purity=0.75, sizes=[3, 4], fit_s=0.5
)
REMOTE_ARRAYS = replace(LOCAL_ARRAYS, device="xpool cpu")
MEASURED = Measured(
    remote=replace(REMOTE, losses=[]),
    local=LOCAL,
    stats=STATS,
    remote_arrays=replace(REMOTE_ARRAYS, inertia=[]),
    local_arrays=LOCAL_ARRAYS,
    array_stats=STATS,
)


def test_equal_arrays_succeed() -> None:
    assert array_verdict(REMOTE_ARRAYS, LOCAL_ARRAYS, 700) == []
    text = array_report(REMOTE_ARRAYS, LOCAL_ARRAYS, 1700)
    for part in ("xpool cpu", "9.000000", "4.500000", "0.7500", "1,700"):
        assert part in text


@pytest.mark.parametrize(
    ("remote", "executed_ops", "sentence"),
    [
        (replace(REMOTE_ARRAYS, inertia=[9.0, 4.6]), 7, "inertias differ by 0.0222"),
        (replace(REMOTE_ARRAYS, inertia=[9.0]), 7, "inertias differ by inf"),
        (replace(REMOTE_ARRAYS, inertia=[9.0, math.nan]), 7, "inertias differ by inf"),
        (replace(REMOTE_ARRAYS, sizes=[4, 3]), 7, "clusters are"),
        (LOCAL_ARRAYS, 7, "were on 'cpu'"),
        (REMOTE_ARRAYS, 0, "no array operation"),
    ],
)
def test_arrays_that_differ_fail(
    remote: ArrayJob, executed_ops: int, sentence: str
) -> None:
    (failed,) = array_verdict(remote, LOCAL_ARRAYS, executed_ops)
    assert sentence in failed


def test_equal_runs_with_work_on_the_server_succeed() -> None:
    assert verdict(REMOTE, LOCAL, STATS) == []


@pytest.mark.parametrize(
    ("losses", "difference"),
    [
        ([1.5, 0.25 + 5e-6], pytest.approx(5e-6)),
        ([1.5 - 2e-5, 0.25], pytest.approx(2e-5)),
        ([1.5], math.inf),
        ([], math.inf),
        ([1.5, math.nan], math.inf),
        ([math.nan, 0.25], math.inf),
    ],
)
def test_loss_difference_is_the_largest_of_all_epochs(
    losses: list[float], difference: float
) -> None:
    remote = replace(REMOTE, losses=losses)
    assert loss_difference(remote, LOCAL) == difference
    failed = verdict(remote, LOCAL, STATS)
    assert [("losses differ" in one) for one in failed] == [True] * (
        loss_difference(remote, LOCAL) > 1e-5
    )


def test_no_epoch_at_all_is_not_agreement() -> None:
    remote, local = replace(REMOTE, losses=[]), replace(LOCAL, losses=[])
    assert verdict(remote, local, STATS) == [
        "the losses differ by inf, more than 1e-05"
    ]


@pytest.mark.parametrize("accuracy", [0.9499, 0.0, math.nan])
def test_either_accuracy_can_fail(accuracy: float) -> None:
    bad_remote = verdict(replace(REMOTE, accuracy=accuracy), LOCAL, STATS)
    bad_local = verdict(REMOTE, replace(LOCAL, accuracy=accuracy), STATS)
    assert len(bad_remote) == len(bad_local) == 1
    assert "in the pool" in bad_remote[0]
    assert "locally" in bad_local[0]


def test_a_server_that_executed_nothing_fails_though_all_is_equal() -> None:
    (sentence,) = verdict(REMOTE, LOCAL, replace(STATS, executed_ops=0))
    assert "executed no operation" in sentence


def test_a_job_that_saw_the_local_device_fails() -> None:
    (sentence,) = verdict(replace(REMOTE, device="cpu"), LOCAL, STATS)
    assert "saw 'cpu', the local device" in sentence


def test_report_shows_both_sides_and_the_servers_count() -> None:
    text = report(REMOTE, LOCAL, STATS)
    for part in ("xpool cpu", "0.250000", "0.9900", "3.00 s", "1,234", "5 MiB", "L1"):
        assert part in text


def test_json_has_every_figure_and_no_infinity() -> None:
    fields = json.loads(as_json(MEASURED, ["x"]))
    assert fields["loss_difference"] is None
    assert fields["inertia_difference"] is None
    assert array_job_from_json(json.dumps(fields["local_arrays"])) == LOCAL_ARRAYS
    assert fields["server"]["executed_ops"] == 1234
    assert job_from_json(json.dumps(fields["local"])) == LOCAL
    assert server_count_from_json(json.dumps(fields["server"])) == STATS


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"device": "cpu", "losses": 3}'])
def test_unreadable_figures_are_refused(text: str) -> None:
    for read in (job_from_json, server_count_from_json, array_job_from_json):
        with pytest.raises((KeyError, TypeError, ValueError)):
            read(text)


@pytest.mark.parametrize("argument", ["0", "-1", "many"])
def test_epochs_must_be_a_whole_number_from_one(argument: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "xpool_perf.demo", f"--epochs={argument}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert "whole number from 1 up" in run.stderr
