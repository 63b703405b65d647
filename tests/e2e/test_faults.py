"""Something dies in mid-run: one clear sentence, no hang, no harm to others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from support.pool import Pool
from support.waiting import eventually

XPOOL_RUN = (sys.executable, "-m", "xpool", "run")
TTL_S = 5
"""Of this pool's leases."""

LOOP = """
import torch
x = torch.ones(4, device="cuda")
print("running", flush=True)
while True:
    x = x * 1
    x.sum().item()
"""


class Job:
    """``xpool run`` of a loop, in its own process group."""

    def __init__(self, pool: Pool, *arguments: str, program: str = LOOP) -> None:
        self.process = subprocess.Popen(
            [*XPOOL_RUN, "--registry", pool.registry, *arguments, "-c", program],
            env=pool.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "running\n", self.process.stderr and self.process.stderr.read()

    def child(self) -> int:
        (child,) = psutil.Process(self.process.pid).children()
        return child.pid

    def waits(self) -> int:
        """How often the program has waited: for its server, once in each round."""
        return int(psutil.Process(self.child()).num_ctx_switches().voluntary)

    def ended(self, timeout_s: float = 30) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, errors

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=10)


@pytest.fixture
def jobs(pool: Pool) -> Iterator[list[Job]]:
    started: list[Job] = []
    yield started
    for job in started:
        job.kill()
    eventually(lambda: not pool.leases(), "every lease is free again", 15)


def worker_of(job: Job, pool: Pool, server: str = "one") -> int:
    """The worker whose listening port the job is connected to."""
    peers = {c.raddr for c in psutil.Process(job.child()).net_connections() if c.raddr}
    for pid in pool.workers(server):
        if any(
            c.laddr in peers and c.status == psutil.CONN_LISTEN
            for c in psutil.Process(pid).net_connections()
        ):
            return pid
    raise AssertionError("no worker serves the job")


def assert_one_sentence(errors: str, *words: str) -> None:
    ours = [line for line in errors.splitlines() if line.startswith("xpool: ")]
    assert len(ours) == 1, errors
    assert "Traceback" not in errors, errors
    for word in words:
        assert word in ours[0], ours[0]


def test_worker_killed(pool: Pool, jobs: list[Job]):
    """1 two jobs run; 2 one's worker is killed; 3 that job ends; 4 the other lives."""
    victim = Job(pool, "--slice", "30%")
    jobs.append(victim)
    worker = worker_of(victim, pool)
    other = Job(pool, "--slice", "30%")
    jobs.append(other)
    os.kill(worker, signal.SIGKILL)
    status, errors = victim.ended()
    assert status == 1
    assert_one_sentence(errors, "worker", "one", "start the job again")
    assert other.process.poll() is None
    before = other.waits()
    eventually(lambda: other.waits() > before + 50, "the other job goes on", 15)


def test_job_killed(pool: Pool, jobs: list[Job]):
    """The program is killed; its keeper sees it and gives the lease back at once."""
    job = Job(pool, "--slice", "30%", "--memory", "1GiB")
    jobs.append(job)
    os.kill(job.child(), signal.SIGKILL)
    status, _ = job.ended()
    assert status == -signal.SIGKILL
    eventually(lambda: not pool.leases(), "the lease is free", 5)


def test_job_and_keeper_killed(pool: Pool, jobs: list[Job]):
    """Nobody is left to release: the lease and the worker are gone within the TTL."""
    job = Job(pool, "--slice", "30%")
    jobs.append(job)
    worker = worker_of(job, pool)
    began = time.monotonic()
    os.killpg(job.process.pid, signal.SIGKILL)
    eventually(lambda: not pool.leases(), "the lease has expired", 10)
    assert time.monotonic() - began < 8
    eventually(lambda: not psutil.pid_exists(worker), "the worker is gone", 10)


def test_lease_runs_out(pool: Pool, jobs: list[Job]):
    """1 the keeper is frozen and renews no more; 2 the lease expires; 3 the server
    ends the session; 4 the job ends with one sentence."""
    job = Job(pool, "--slice", "30%")
    jobs.append(job)
    child = job.child()
    os.kill(job.process.pid, signal.SIGSTOP)
    process = psutil.Process(child)
    eventually(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        "the job has ended",
        20,
    )
    os.kill(job.process.pid, signal.SIGCONT)
    status, errors = job.ended()
    assert status == 1
    assert_one_sentence(errors, "lease", "expired")


def test_server_killed(pool: Pool, jobs: list[Job]):
    pool.start_server(
        "two", "--threads", "1", "--devices", "cpu,memory=4GiB", light=False
    )
    job = Job(pool, "--memory", "3GiB")
    jobs.append(job)
    pool.kill("two", signal.SIGKILL)
    status, errors = job.ended()
    assert status == 1
    assert_one_sentence(errors, "two", "start the job again")


def test_registry_killed_and_restarted(pool: Pool, jobs: list[Job]):
    """A running job does not notice that the registry was away, however long.

    Here for longer than its lease lives without renewal, and than its server waits.
    """
    job = Job(pool, "--slice", "30%")
    jobs.append(job)
    pool.kill("registry", signal.SIGKILL)
    gone_s = time.monotonic()
    eventually(lambda: time.monotonic() > gone_s + 2.5 * TTL_S, "it is away", 30)
    before = job.waits()
    eventually(lambda: job.waits() > before + 50, "the job goes on", 15)
    pool.start_registry()
    (lease,) = pool.leases()
    before = job.waits()
    eventually(lambda: job.waits() > before + 50, "the job goes on", 15)
    assert job.process.poll() is None
    assert [item.lease.lease_id for item in pool.leases()] == [lease.lease.lease_id]


def test_unknown_operation(xpool_run):
    """A kernel that no server has: a late error with the operation's name."""
    program = """
import torch
library = torch.library.Library("mine", "DEF")
library.define("twice(Tensor x) -> Tensor")
x = torch.ones(2, device="cuda")
try:
    torch.ops.mine.twice(x).sum().item()
except NotImplementedError as error:
    assert "mine::twice" in str(error), error
    print("refused")
assert (x + 1).sum().item() == 4
"""
    ended = xpool_run("-c", program)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "refused\n"


def test_trace_names_the_line(xpool_run, tmp_path):
    script = tmp_path / "late.py"
    script.write_text(
        "import torch\n"
        "table = torch.zeros(3, 2, device='cuda')\n"
        "bad = torch.nn.functional.embedding(torch.tensor([5], device='cuda'), table)\n"
        "total = bad.sum()\n"
        "print(total.item())\n"
    )
    ended = xpool_run(str(script), env={"XPOOL_TRACE": "1"})
    assert ended.returncode == 1
    assert "IndexError" in ended.stderr
    assert f"issued at {script}:3" in ended.stderr, ended.stderr


def test_no_capacity(pool: Pool, jobs: list[Job], xpool_run):
    """Refused at once, with what is short and where; the running job is not harmed."""
    job = Job(pool, "--slice", "70%", "--memory", "1GiB")
    jobs.append(job)
    refused = xpool_run("--queue", "no", "--slice", "60%", "-c", "print('never')")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert_one_sentence(refused.stderr, "60%", "one/0", "30%")
    greedy = xpool_run("--memory", "900GiB", "-c", "print('never')")
    assert greedy.returncode == 1
    assert_one_sentence(greedy.stderr, "900 GiB")
    assert job.process.poll() is None
