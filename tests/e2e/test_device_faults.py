"""One of a job's two devices is lost: the other one goes on."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.pool import Pool
from support.waiting import eventually
from support.workers import worker_serving

PROGRAM = Path(__file__).parent / "programs" / "lost_device.py"


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(tmp_path, ttl="5s") as pool:
        pool.start_registry()
        for name in ("one", "two"):
            arguments = ("--threads", "1", "--devices", "cpu,memory=1GiB")
            pool.start_server(name, *arguments, "--spares", "0", light=False)
        yield pool


def test_a_source_that_dies_in_a_copy_harms_nothing_else(pool: Pool) -> None:
    argv = [sys.executable, "-m", "xpool", "run", "--registry", pool.registry]
    job = pool.start("job", [*argv, "--devices", "2", str(PROGRAM)])
    source = pool.await_line(job, re.compile("copying from (.+)"))[1]
    (program,) = psutil.Process(job.pid).children()
    pool.kill(worker_serving(pool, program, source), signal.SIGKILL)
    job.process.wait(120)
    said = job.said()
    assert re.search(rf"COPY .*a copy from cuda:0 on {source} has not arrived", said), (
        said,
        job.logged(),
    )
    assert re.search(rf"GONE xpool: the worker of lease .* on server {source}", said)
    assert re.search(rf"LATER xpool: the worker of lease .* on server {source}", said)
    assert "KEPT [0.0, 2.0, 4.0]" in said
    assert "FRESH 2.0" in said
    eventually(lambda: not pool.leases(), "every lease is free again", 15)
