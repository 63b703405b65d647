"""A server that takes nothing: the program waits and says so, and nothing grows."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TextIO

import psutil  # type: ignore[import-untyped]
import pytest
from support.pool import Pool

TOLD_S = 60
BOUND_NBYTES = 64 << 20
"""Of what the client keeps beyond window and queue: ZeroMQ's and the allocator's."""

PROGRAM = """import os
import sys
import psutil
import torch
device = sys.argv[1]
source = torch.ones(1 << 20)  # 4 MiB
target = torch.zeros(1 << 20, device=device)
target.copy_(source)
target.sum().item()
before = psutil.Process().memory_info().rss
print("ready", os.getpid(), flush=True)
sys.stdin.readline()
for number in range(100):
    target.copy_(source.fill_(number))
    most = max(before, psutil.Process().memory_info().rss)
print("grown", most - before, flush=True)
print("is", target.sum().item() / (1 << 20), flush=True)
"""


def lines_of(stream: TextIO) -> Iterator[str]:
    deadline = time.monotonic() + TOLD_S
    for line in stream:
        assert time.monotonic() < deadline
        yield line


def after(stream: TextIO, start: str) -> str:
    """What follows in the first line that begins so."""
    seen = []
    for line in lines_of(stream):
        seen.append(line)
        if line.startswith(start):
            return line.removeprefix(start).strip()
    raise AssertionError(f"no line begins with {start!r}: {seen}")


def worker_of(program: int, pool: Pool) -> psutil.Process:
    """The worker whose listening port a program is connected to."""
    peers = {c.raddr for c in psutil.Process(program).net_connections() if c.raddr}
    for pid in pool.workers("one"):
        worker = psutil.Process(pid)
        if any(
            c.laddr in peers and c.status == psutil.CONN_LISTEN
            for c in worker.net_connections()
        ):
            return worker
    raise AssertionError("no worker serves the program")


@pytest.mark.parametrize(("device", "kind"), [("cuda", "native"), ("xpool", "python")])
def test_a_stalled_server_is_waited_for_and_told_of(
    pool: Pool, device: str, kind: str
) -> None:
    env = {"XPOOL_LANE": "off"}
    if kind == "python":
        env["XPOOL_DEVICE"] = "python"
    command = (sys.executable, "-m", "xpool", "run", "--registry", pool.registry)
    job = subprocess.Popen(
        [*command, "-c", PROGRAM, device],
        env=pool.environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with job:
        assert job.stdin is not None
        assert job.stdout is not None
        assert job.stderr is not None
        worker = worker_of(int(after(job.stdout, "ready")), pool)
        worker.send_signal(signal.SIGSTOP)
        try:
            job.stdin.write("\n")
            job.stdin.flush()
            told = after(job.stderr, "xpool: ")
            kept = worker.memory_info().rss
        finally:
            worker.send_signal(signal.SIGCONT)
        assert told.startswith("the server has taken nothing for 5 s; ")
        assert told.endswith(" MiB are queued, and the program waits for it")
        window_and_queue = (64 + 16 + 16) << 20
        assert int(after(job.stdout, "grown")) < window_and_queue + BOUND_NBYTES
        assert worker.memory_info().rss < kept + window_and_queue + BOUND_NBYTES
        assert after(job.stdout, "is") == "99.0"
        assert job.wait(TOLD_S) == 0
