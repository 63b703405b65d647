"""Slices of one device, with real jobs: sizes change, neighbours misbehave."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from support.jobs import Job, used_ns
from support.pool import Pool
from support.waiting import eventually
from support.workers import worker_serving

MIB = 1 << 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("slices"), ttl="5s") as pool:
        pool.start_registry()
        pool.start_server(
            *("one", "--threads", "1", "--devices", "cpu,memory=2GiB"), light=False
        )
        yield pool


def resize(pool: Pool, lease: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "xpool", "admin", "resize", lease),
            *("--registry", pool.registry, "--json", *options),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_running_job_grows_and_shrinks(pool: Pool) -> None:
    with Job(pool, "hold", "--slice", "20%", "--memory", "256MiB") as job:
        assert job.await_line("sees").endswith(f" {256 * MIB}")
        lease = job.info.lease.lease_id

        grown = resize(pool, lease, "--slice", "60%", "--memory", "1GiB")
        assert grown.returncode == 0, grown.stderr
        figures = json.loads(grown.stdout)
        assert (figures["share_percent"], figures["memory_nbytes"]) == (60, 1 << 30)
        eventually(lambda: job.lines()[-1].endswith(f" {1 << 30}"), "its view", 10)
        assert job.info.session.share_percent == 60

        refused = resize(pool, lease, "--memory", "64MiB")
        assert refused.returncode == 1
        (nbytes,) = re.findall(r"\((\d+) bytes\) are in use", refused.stderr)
        assert 100 * MIB <= int(nbytes) < 101 * MIB
        assert job.info.lease.memory_nbytes == 1 << 30

        shrunk = resize(pool, lease, "--memory", "128MiB", "--mode", "capped")
        assert shrunk.returncode == 0, shrunk.stderr
        eventually(lambda: job.lines()[-1].endswith(f" {128 * MIB}"), "its view", 10)
        assert job.info.session.mode == "capped"

        for share in ("0", "101%", "12.5%", "abc", ""):
            bad = resize(pool, lease, "--slice", share)
            assert bad.returncode == 2, share
            assert "is not a slice" in bad.stderr
            assert job.info.lease.share_percent == 60
        assert resize(pool, lease).returncode == 2
        assert resize(pool, "nobody", "--slice", "5%").returncode == 1


def test_a_resize_does_not_wait_for_work_that_is_queued(pool: Pool) -> None:
    """Half a minute of it lies at the server; a worker looks between two operations."""
    with Job(pool, "ahead", "--slice", "20%", "--memory", "256MiB") as job:
        job.await_line("asked")
        changed = resize(pool, job.info.lease.lease_id, "--memory", "512MiB")
        assert changed.returncode == 0, changed.stderr
        assert json.loads(changed.stdout)["resize_ms"] < 8000  # not of 30 s
        assert job.last("done", 0) is None
        assert job.info.session.memory_nbytes == 512 * MIB


def test_an_allocation_waits_for_a_resize(pool: Pool) -> None:
    with Job(pool, "want", "--memory", "256MiB", "--on-oom", "wait:60") as job:
        job.await_line("asks")
        lease = job.info.lease.lease_id
        assert resize(pool, lease, "--memory", "512MiB").returncode == 0
        assert job.await_line("has").split()[1] == str(300 * MIB // 4)


def test_an_allocation_waits_for_the_programs_own_frees(pool: Pool) -> None:
    with Job(pool, "own", "--memory", "256MiB", "--on-oom", "wait:60") as job:
        words = job.await_line("has").split()
        assert words[1] == str(200 * MIB // 4)
        assert 0.8 < float(words[2]) < 30


def test_an_allocation_waits_no_longer_than_it_may(pool: Pool) -> None:
    with Job(pool, "want", "--memory", "256MiB", "--on-oom", "wait:1.5") as job:
        words = job.await_line("fails").split()
        assert 1.4 < float(words[1]) < 20
        assert "quota is 268435456 bytes" in job.await_line("fails")


def test_a_greedy_neighbour_harms_nobody(pool: Pool) -> None:
    with (
        Job(pool, "compute", "--slice", "50%", "--memory", "256MiB") as good,
        Job(pool, "greedy", "--slice", "50%", "--memory", "512MiB") as bad,
    ):
        bad.await_line("refused")
        good.await_line("computed", len(good.lines()))
        bad.await_line("refused", len(bad.lines()))
        good.await_line("computed", len(good.lines()))
        assert bad.info.session.allocated_nbytes <= 512 * MIB


def test_a_stopped_worker_is_marked_and_passed_over(pool: Pool) -> None:
    with (
        Job(pool, "compute", "--slice", "50%", "--memory", "256MiB") as one,
        Job(pool, "compute", "--slice", "50%", "--memory", "256MiB") as other,
    ):
        one.await_line("computed")
        other.await_line("computed")
        worker = worker_serving(pool, one.program, "one")
        os.kill(worker, signal.SIGSTOP)
        try:
            eventually(lambda: one.info.session.state == "stalled", "the mark", 30)
            for _ in range(3):
                other.await_line("computed", len(other.lines()))
        finally:
            os.kill(worker, signal.SIGCONT)
        one.await_line("computed", len(one.lines()))
        eventually(lambda: one.info.session.state == "open", "no mark", 30)


def test_neighbours_of_a_stopped_worker_keep_their_shares(pool: Pool) -> None:
    """Two to one, before and while the third stands still."""
    small = ("--memory", "128MiB")
    with (
        Job(pool, "busy", "--slice", "20%", *small) as stopped,
        Job(pool, "busy", "--slice", "50%", *small) as more,
        Job(pool, "busy", "--slice", "25%", *small) as less,
    ):
        for one in (stopped, more, less):
            one.await_line("did")
        worker = worker_serving(pool, stopped.program, "one")
        os.kill(worker, signal.SIGSTOP)
        try:
            eventually(lambda: stopped.info.session.state == "stalled", "the mark", 30)
            before = used_ns(pool, 50, 25)

            def spent() -> list[int]:
                return [
                    now - was
                    for now, was in zip(used_ns(pool, 50, 25), before, strict=True)
                ]

            got = eventually(
                lambda: sum(spent()) > 4_000_000_000 and spent(), "four seconds", 90
            )
        finally:
            os.kill(worker, signal.SIGCONT)
        assert 100 * got[0] / sum(got) == pytest.approx(200 / 3, abs=6)


def test_the_end_of_a_low_job_does_not_wait_for_its_neighbour(
    tmp_path: Path,
) -> None:
    """On one processor the lowest class runs when nobody else would; its end, too?"""
    small = ("--memory", "128MiB")
    with Pool(tmp_path, ttl="5s") as pool:
        pool.start_registry()
        pool.start_server("one", "--devices", "cpu,memory=2GiB,cores=1", light=False)
        with Job(pool, "busy", "--slice", "60%", "--priority", "high", *small) as high:
            high.await_line("did")
            with Job(
                pool, "busy", "--slice", "20%", "--priority", "low", *small
            ) as low:
                low.await_line("did")
                worker = psutil.Process(worker_serving(pool, low.program, "one"))
                eventually(lambda: is_of_lowest_class(worker), "its class")
                low.member.process.kill()
                began_s = time.monotonic()
                psutil.wait_procs([worker], 60)
                took_s = time.monotonic() - began_s
            high.await_line("did", len(high.lines()))
    assert took_s < 10


def is_of_lowest_class(worker: psutil.Process) -> bool:
    return os.sched_getscheduler(worker.pid) == os.SCHED_IDLE


def test_what_top_shows(pool: Pool) -> None:
    with Job(pool, "compute", "--slice", "30%", "--memory", "256MiB") as job:
        job.await_line("computed")
        eventually(lambda: job.info.session.device_ns > 0, "its use", 30)
        shown = subprocess.run(
            [
                *(sys.executable, "-m", "xpool", "admin", "top", "--once", "--json"),
                *("--registry", pool.registry),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        rows = json.loads(shown.stdout)
        (row,) = [one for one in rows if one["lease_id"] == job.info.lease.lease_id]
        assert row["promised_percent"] == 30
        assert row["got_percent"] > 0
        assert row["state"] == "open"


def test_two_tenants_that_come_and_go(pool: Pool) -> None:
    """The example: both correct, and both with their shares while both had work."""
    example = Path(__file__).parents[2] / "examples" / "two_tenants.py"
    run = subprocess.run(
        [
            *(sys.executable, str(example), "--registry", pool.registry),
            *("--seconds", "60", "--seed", "3", "--patience", "200"),
        ],
        env=pool.environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["results"]["train"] > 0
    assert report["results"]["infer"] > 0
    assert report["device_s"] > 5
    assert abs(report["got_percent"]["train"] - 70) < 4
