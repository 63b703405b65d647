"""How many threads the libraries of a worker compute with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from support.worker_client import DEADLINE_S, WorkerProcess
from xpool_server.processors import THREAD_VARIABLES

pytest.importorskip("threadpoolctl")

# The worker's own way from its arguments to its end; then its libraries are asked.
WORKER = """
import json, sys
from xpool_server.worker import main
assert main(sys.argv[1:]) == 0
import scipy.linalg, threadpoolctl, torch
found = threadpoolctl.threadpool_info()
blas = sorted({one["num_threads"] for one in found if one["user_api"] == "blas"})
print(json.dumps([blas, torch.get_num_threads()]))
"""


def threads_within(given: int, variables: dict[str, str]) -> object:
    """Threads of all BLAS libraries, and of torch, in a worker told ``--threads``."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in THREAD_VARIABLES
    }
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [
            *(sys.executable, "-c", WORKER, "--control-fd", str(theirs.fileno())),
            *("--device", "cpu", "--listen", "tcp://127.0.0.1:0"),
            *("--threads", str(given)),
        ]
        with subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            env=environment | WorkerProcess.environment() | variables,
        ) as process:
            ours.shutdown(socket.SHUT_WR)  # a node that has gone
            told, _ = process.communicate(timeout=DEADLINE_S)
    return json.loads(told)


def test_they_are_as_many_as_the_worker_was_told() -> None:
    assert threads_within(1, {}) == [[1], 1]


def test_what_the_administrator_has_set_for_a_library_stays() -> None:
    at_most = len(os.sched_getaffinity(0))
    found = threads_within(1, {"OPENBLAS_NUM_THREADS": "2"})
    assert found == [[min(2, at_most)], 1]
