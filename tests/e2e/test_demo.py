"""What ``make run`` does, in short: the same script in a pool and locally."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from support.waiting import eventually

MARK = "DEMO_OF_TEST"
DEMO = (sys.executable, "-m", "xpool_perf.demo", "--epochs", "3")


@pytest.fixture
def marked() -> Iterator[dict[str, str]]:
    """An environment whose processes can be found again; none may be left."""
    mark = str(os.getpid())
    own = {k: v for k, v in os.environ.items() if not k.startswith("XPOOL_")}
    yield {**own, MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def left() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.environ().get(MARK) == mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    eventually(lambda: not left(), "no process is left", 10)


def test_demo(marked, tmp_path):
    figures = tmp_path / "demo.json"
    ended = subprocess.run(
        [*DEMO, "--json", str(figures)],
        env=marked,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-2000:]
    told = json.loads(figures.read_text())
    assert told["loss_difference"] <= 1e-5
    assert told["server"]["executed_ops"] > 1000
    assert "xpool " in told["remote"]["device"]
    assert "operations executed" in ended.stdout
    assert told["inertia_difference"] <= 1e-9
    assert told["array_server"]["executed_ops"] > 500
    assert "xpool " in told["remote_arrays"]["device"]


def test_demo_interrupted(marked):
    """Ctrl-C in the middle of training: it ends soon, and nothing is left."""
    demo = subprocess.Popen(
        [*DEMO],
        env=marked,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "device: xpool" in line:
            break
    os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=30)
    assert demo.returncode not in (0, None)
