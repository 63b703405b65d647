"""A job may end in any way: no abort, no hang, the right exit code, the lease freed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from support.pool import Pool
from support.waiting import eventually

XPOOL_RUN = (sys.executable, "-m", "xpool", "run")
SETUP = """
import os, sys, threading, time, torch
x = torch.ones(8, 8, device="cuda", requires_grad=True)
(g,) = torch.autograd.grad((x @ x).sum(), x)
"""
ENDINGS = {
    "end of the script": ("", 0),
    "result read": ("print(g.sum().item())", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "sys.exit in a function": ("def f():\n    sys.exit(4)\nf()", 4),
    "exception": ("raise KeyError('mine')", 1),
    "os._exit": ("os._exit(5)", 5),
    "exit with work queued": ("for _ in range(500): x = x @ x * 0.1", 0),
    "a thread at work": (
        "def work():\n    while True: (x * 2).sum().item()\n"
        "threading.Thread(target=work, daemon=True).start(); time.sleep(0)",
        0,
    ),
    "a thread that ended": (
        "t = threading.Thread(target=lambda: x.sum().backward())\nt.start(); t.join()",
        0,
    ),
    "an op that fails and is never read": (
        "y = torch.nn.functional.embedding(torch.tensor([9], device='cuda'), g)",
        0,
    ),
    "a forked child that does not touch the device": (
        "pid = os.fork()\nif pid == 0: os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
        0,
    ),
    "a forked child that exits through the interpreter": (
        "pid = os.fork()\nif pid == 0: sys.exit(0)\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "assert x.sum().item() == 64\nsys.exit(code)",
        0,
    ),
    "a forked child that touches the device": (
        "pid = os.fork()\nif pid == 0:\n    try: x + 1\n"
        "    except RuntimeError as e: os._exit(7 if 'fork' in str(e) else 1)\n"
        "    os._exit(2)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "assert x.sum().item() == 64",
        0,
    ),
}
NEVER = ("terminate called", "Fatal Python error", "Aborted", "Segmentation", "ctypes")


@pytest.mark.parametrize("ending", ENDINGS)
def test_ending(ending, xpool_run, pool):
    code, status = ENDINGS[ending]
    ended = xpool_run("-c", SETUP + code)
    assert ended.returncode == status, ended.stderr
    assert not any(word in ended.stderr for word in NEVER), ended.stderr
    if ending == "exception":
        assert "KeyError: 'mine'" in ended.stderr
        assert "bootstrap" not in ended.stderr, "our own frames are in the traceback"
    elif ending == "an op that fails and is never read":
        assert "nothing read its result" in ended.stderr
        assert "aten::" in ended.stderr
    else:
        assert "Traceback" not in ended.stderr, ended.stderr
    eventually(lambda: not pool.leases(), "the lease is released", 10)


LOOPS = {
    "waiting for the server": "while True: (x * 2).sum().item()",
    "computing on the host": "while True: sum(range(1000))",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal(loop, number, pool: Pool):
    """A signal to the whole group, as a terminal sends it, ends the job soon."""
    program = SETUP + "print('running', flush=True)\n" + LOOPS[loop]
    job = subprocess.Popen(
        [*XPOOL_RUN, "--registry", pool.registry, "-c", program],
        env=pool.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "running\n"
    os.killpg(job.pid, number)
    _, errors = job.communicate(timeout=20)
    assert job.returncode in (-number, 128 + number), (job.returncode, errors)
    assert not any(word in errors for word in NEVER), errors
    eventually(lambda: not pool.leases(), "the lease is released", 10)
