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
DAEMONS = """
import faulthandler; faulthandler.enable()
class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.kept = object()
        return x * 2
    @staticmethod
    def backward(ctx, g):
        sum(range(100))
        return g * 2
def backward():
    while True:
        y = Twice.apply(Twice.apply(x @ x))
        y.register_hook(lambda g: g + 1)
        torch.autograd.grad(y.sum(), x)
def read():
    while True: (x * 2).sum().item()
def write():
    while True:
        for _ in range(50): x @ x
        torch.cuda.synchronize()
for work in (backward, backward, read, write):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
"""Threads that are inside torch and autograd, whenever the end comes."""

RACES = {
    "after autograd.grad": ("", 0),
    "daemon threads at the end of the script": (DAEMONS, 0),
    "daemon threads and sys.exit": (DAEMONS + "sys.exit(3)", 3),
    "daemon threads and os._exit": (DAEMONS + "os._exit(5)", 5),
    "backward in a thread that ends last": (
        DAEMONS + "def last():\n"
        "    for _ in range(20): torch.autograd.grad(Twice.apply(x).sum(), x)\n"
        "threading.Thread(target=last).start()",
        0,
    ),
}
RACE_REPEATS = 2
"""At least. Before threads were made to wait, one run in six of two cases aborted."""

QUIET = {
    "exit handlers that use the device": (
        "import atexit\natexit.register(lambda: print('handler', x.sum().item()))",
        "handler 64.0\n",
    ),
    "objects that use the device as they go": (
        "class Meter:\n"
        "    def __init__(self, name): self.name, self.t = name, x * 2\n"
        "    def __del__(self): print(self.name, self.t.sum().item())\n"
        "meter = Meter('global')\n"
        "cycle = Meter('cycle'); cycle.self = cycle\n"
        "import atexit; atexit.register(lambda: print('handler', meter.name))",
        "handler global\nglobal 128.0\ncycle 128.0\n",
    ),
    "a thread that outlives the script": (
        "import pickle\n"
        "class Mine: pass\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        "    print(x.sum().item(), type(pickle.loads(pickle.dumps(Mine()))) is Mine)\n"
        "threading.Thread(target=late).start()",
        "64.0 True\n",
    ),
    "an exception inside backward": (
        "class Fails(torch.autograd.Function):\n"
        "    @staticmethod\n"
        "    def forward(ctx, x): return x * 2\n"
        "    @staticmethod\n"
        "    def backward(ctx, g): raise ValueError('mine')\n"
        "try: Fails.apply(x * 2).sum().backward()\n"
        "except ValueError as e: print(e)",
        "mine\n",
    ),
    "a loader's workers that stay on the CPU": (
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "data = TensorDataset(torch.arange(12.0))\n"
        "loader = DataLoader(data, 3, num_workers=2, persistent_workers=True,\n"
        "                    pin_memory=True)\n"
        "print(sum(b.to('cuda', non_blocking=True).sum().item() for b, in loader))\n"
        "it = iter(loader); next(it)",
        "66.0\n",
    ),
    "a pool of forked processes": (
        "import multiprocessing\n"
        "context = multiprocessing.get_context('fork')\n"
        "with context.Pool(2) as p: print(p.map(abs, [-1]))",
        "[1]\n",
    ),
    "a spawned process": (
        "import concurrent.futures, multiprocessing\n"
        "context = multiprocessing.get_context('spawn')\n"
        "with concurrent.futures.ProcessPoolExecutor(1, context) as p:\n"
        "    print(p.submit(abs, -1).result())",
        "1\n",
    ),
    "a big upload under way": (
        "big = torch.ones(24 << 20, pin_memory=True)\n"
        "y = big.to('cuda', non_blocking=True); del big",
        "",
    ),
}
NEVER = ("terminate called", "Fatal Python error", "Aborted", "Segmentation", "ctypes")


@pytest.mark.parametrize("ending", ENDINGS)
def test_ending(ending, xpool_run, pool, repetitions):
    for _ in range(repetitions):
        check_ending(ending, xpool_run, pool)


def check_ending(ending, xpool_run, pool):
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


@pytest.mark.parametrize("ending", RACES)
def test_race(ending, xpool_run, repetitions):
    """Whatever the other threads do: the status is right and nothing is printed."""
    code, status = RACES[ending]
    for _ in range(max(RACE_REPEATS, repetitions)):
        ended = xpool_run("-c", SETUP + code)
        assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "")


@pytest.mark.parametrize("ending", QUIET)
def test_exactly_the_programs_output(ending, xpool_run, repetitions):
    code, output = QUIET[ending]
    for _ in range(repetitions):
        ended = xpool_run("-c", SETUP + code)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, output, "")


LOOPS = {
    "inside backward": (
        "class Slow(torch.autograd.Function):\n"
        "    @staticmethod\n"
        "    def forward(ctx, x): return x * 2\n"
        "    @staticmethod\n"
        "    def backward(ctx, g): return g * g.sum().item()\n"
        "while True: Slow.apply(x).sum().backward()"
    ),
    "waiting for the server": "while True: (x * 2).sum().item()",
    "computing on the host": "while True: sum(range(1000))",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal(loop, number, pool: Pool, repetitions):
    """A signal to the whole group, as a terminal sends it, ends the job soon."""
    for _ in range(repetitions):
        check_signal(loop, number, pool)


def check_signal(loop, number, pool: Pool):
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
