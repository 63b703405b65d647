"""The programs of ``torch_ops``, as far as they need no pool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from xpool_perf.__main__ import SCENARIOS
from xpool_perf.programs import torch_ops
from xpool_perf.torch_ops import TORCH_OPS


def test_the_scenario_is_known() -> None:
    assert SCENARIOS["torch_ops"] is TORCH_OPS


def test_a_chain_is_dependent() -> None:
    x = torch.zeros(2, 2)
    assert torch.equal(torch_ops.chain(x, torch.ones(2, 2), 7), torch.full((2, 2), 7.0))


def test_the_echo_answers_with_as_many_bytes() -> None:
    with torch_ops.echo(30, 47) as (socket, message):
        assert len(message) == 30
        for _ in range(3):
            socket.send(message)
            assert len(socket.recv()) == 47


def test_processor_time_is_that_of_the_process() -> None:
    tasks = Path(f"/proc/{os.getpid()}/task")
    before = torch_ops.cpu_ns(tasks)
    assert sum(range(200_000)) > 0
    assert torch_ops.cpu_ns(tasks) > before


def test_a_process_without_a_worker_is_said_to_have_none() -> None:
    # A process of its own: this one may have a pool that other tests share.
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as process:
        try:
            with pytest.raises(ValueError, match="the pool has 0 workers"):
                torch_ops.worker_of(process.pid)
        finally:
            process.kill()
