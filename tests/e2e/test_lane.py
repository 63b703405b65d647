"""The bulk lane end to end: used, not used, broken, and its server dying."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.pool import Pool
from support.waiting import eventually

PROGRAM = str(Path(__file__).parent / "programs" / "large.py")

UPLOADING = """\
import torch
host = torch.zeros(1 << 28, dtype=torch.uint8)
there = host.to("cuda")
print("begun", flush=True)
while True:
    there.copy_(host)
    torch.cuda.synchronize()
"""


def counters(out: str) -> dict[str, int]:
    return json.loads(out.splitlines()[-1])


def test_large_tensors_take_the_lane(xpool_run):
    done = xpool_run(PROGRAM)
    assert done.returncode == 0, done.stderr
    found = counters(done.stdout)
    assert found["uploads"] >= 20
    assert found["downloads"] >= 20


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_other_ways_to_the_same_host_bring_the_same_bytes(xpool_run, way: str):
    done = xpool_run(PROGRAM, env={"XPOOL_LANE": way})
    assert done.returncode == 0, done.stderr
    found = counters(done.stdout)
    # What an earlier job has sent over the network is known.
    assert found["uploads"] + found["known"] >= 20
    assert found["downloads"] >= 20


def test_without_it_the_same_bytes_go_the_other_way(xpool_run):
    done = xpool_run(PROGRAM, env={"XPOOL_LANE": "off"})
    assert done.returncode == 0, done.stderr
    assert counters(done.stdout) == {"uploads": 0, "downloads": 0, "known": 0}


def test_a_wrong_word_is_one_sentence(xpool_run):
    done = xpool_run("-c", "pass", env={"XPOOL_LANE": "udp"})
    assert done.returncode == 1
    assert done.stderr == "xpool: XPOOL_LANE is 'udp': write auto, unix, tcp or off\n"


@pytest.fixture
def own_pool(tmp_path: Path) -> Iterator[Pool]:
    """A pool whose server may die."""
    with Pool(tmp_path, ttl="5s") as pool:
        pool.start_registry()
        pool.start_server(
            "one",
            *("--threads", "1", "--devices", "cpu,memory=1GiB", "--spares", "0"),
            light=False,
        )
        yield pool


def test_a_worker_that_dies_during_uploads_is_one_sentence(own_pool: Pool):
    argv = [sys.executable, "-m", "xpool", "run", "--registry", own_pool.registry]
    job = own_pool.start("job", [*argv, "-c", UPLOADING])
    eventually(lambda: "begun" in job.said(), "the program's first upload", 90)
    [serving] = [
        pid
        for pid in own_pool.workers("one")
        if any(
            one.status == psutil.CONN_ESTABLISHED
            for one in psutil.Process(pid).net_connections("tcp")
        )
    ]
    own_pool.kill(serving, signal.SIGKILL)
    assert job.process.wait(60) == 1
    assert "Traceback" not in job.logged()
    assert "ended by signal 9" in job.logged()
