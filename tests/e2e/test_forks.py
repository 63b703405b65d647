"""Programs that fork: children end when told to, and wait for nobody's lock."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.pool import Pool
from support.waiting import eventually

RUN_S = 90
XPOOL_RUN = (sys.executable, "-m", "xpool", "run")
SETUP = """
import multiprocessing, os, signal, subprocess, sys, threading, time, torch
x = torch.ones(8, 8, device="cuda")
code_of = os.waitstatus_to_exitcode
def end_of(pid):
    return code_of(os.waitpid(pid, 0)[1])
def forked(work):
    pid = os.fork()
    if pid == 0:
        work()
        time.sleep(20)  # it should have ended by now
        os._exit(77)
    return pid
"""
PROGRAMS = {
    "children that are ended": (
        "def ended(work=lambda: None):\n"
        "    pid = forked(work)\n"
        "    os.kill(pid, signal.SIGTERM)\n"
        "    return end_of(pid)\n"
        "print('at once:', {ended() for _ in range(20)})\n"
        "codes = []\n"
        "thread = threading.Thread(target=lambda: codes.append(ended()))\n"
        "thread.start(); thread.join()\n"
        "print('of a thread:', codes)\n"
        "within = [signal.SIGTERM]\n"
        "def end():\n"
        "    if within: os.kill(os.getpid(), within[0])\n"
        "os.register_at_fork(after_in_child=end)\n"
        "print('within the hooks of the fork:', end_of(forked(lambda: None)))\n"
        "within.clear()\n"
        "print(x.sum().item())",
        "at once: {-15}\nof a thread: [-15]\nwithin the hooks of the fork: -15\n64.0\n",
    ),
    "signals of children": (
        "def blocked(): return signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "def plain():\n"
        "    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,\n"
        "          signal.getsignal(signal.SIGINT) is signal.default_int_handler,\n"
        "          blocked(), flush=True)\n"
        "    os._exit(0)\n"
        "print(end_of(forked(plain)), blocked())\n"
        "def mine(number, frame): os._exit(9)\n"
        "signal.signal(signal.SIGTERM, mine)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "def own():\n"
        "    print(blocked() == {signal.SIGINT}, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(end_of(forked(own)))",
        "True True set()\n0 set()\nTrue\n9\n",
    ),
    "pools of forked processes, one after the other": (
        "context = multiprocessing.get_context('fork')\n"
        "for _ in range(5):\n"
        "    with context.Pool(2) as p: assert p.map(abs, [-1]) == [1]\n"
        "print(x.sum().item())",
        "64.0\n",
    ),
    "other ways to start processes": (
        "import concurrent.futures as futures\n"
        "for way in ('fork', 'forkserver'):\n"
        "    context = multiprocessing.get_context(way)\n"
        "    with futures.ProcessPoolExecutor(2, context) as p:\n"
        "        print(way, list(p.map(abs, [-1, -2])))\n"
        "argv = [sys.executable, '-c', 'import signal as s; '\n"
        "        'print(s.getsignal(s.SIGTERM) is s.SIG_DFL, '\n"
        "        's.pthread_sigmask(s.SIG_BLOCK, ()))']\n"
        "for hook in (None, os.getpid):\n"
        "    print(subprocess.run(argv, preexec_fn=hook, text=True,\n"
        "                         capture_output=True).stdout, end='')\n"
        "print(x.sum().item())",
        "fork [1, 2]\nforkserver [1, 2]\nTrue set()\nTrue set()\n64.0\n",
    ),
    "children of a program whose threads hold our locks": (
        "import faulthandler\n"
        "kept = [torch.ones(4).pin_memory() for _ in range(100)]\n"
        "def pin():\n"
        "    while True: torch.empty(4, pin_memory=True)\n"
        "def record():\n"
        "    while True:\n"
        "        for _ in range(500): x + 1\n"
        "        torch.cuda.synchronize()\n"
        "def pack():\n"
        "    while True: torch.from_dlpack(x * 2)\n"
        "for work in (pin, pin, record, pack):\n"
        "    threading.Thread(target=work, daemon=True).start()\n"
        "def work():\n"
        "    faulthandler.dump_traceback_later(15, exit=True)\n"
        "    assert kept[0].is_pinned()\n"
        "    kept.clear()\n"
        "    torch.Generator('cuda')\n"
        "    torch.from_dlpack(x)\n"
        "    os._exit(0)\n"
        "print({end_of(forked(work)) for _ in range(30)})",
        "{0}\n",
    ),
    "children that drop arrays while threads make some": (
        "import cupy, faulthandler, gc\n"
        "kept = [cupy.ones(4) for _ in range(300)]\n"
        "def work():\n"
        "    while True:\n"
        "        for _ in range(200): kept[0] + 1\n"
        "        cupy.cuda.get_current_stream().synchronize()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "def drop():\n"
        "    faulthandler.dump_traceback_later(15, exit=True)\n"
        "    kept.clear(); gc.collect()\n"
        "    try: cupy.ones(4).sum().item()\n"
        "    except RuntimeError as error: assert 'forked' in str(error), error\n"
        "    os._exit(0)\n"
        "print({end_of(forked(drop)) for _ in range(30)})",
        "{0}\n",
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program, xpool_run, repetitions):
    code, output = PROGRAMS[program]
    for _ in range(repetitions):
        ended = xpool_run("-c", SETUP + code, timeout_s=RUN_S)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, output, "")


def test_a_signal_is_not_lost_where_python_drops_its_exception(xpool_run):
    """In ``__del__``, or in a hook around a fork."""
    code = (
        "class Ends:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGTERM)\n"
        "end = Ends(); del end\n"
        "while True: time.sleep(0.01)"
    )
    ended = xpool_run("-c", SETUP + code, timeout_s=RUN_S)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGTERM, "")
    code = (
        "os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "try:\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "    while True: time.sleep(0.01)\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    ended = xpool_run("-c", SETUP + code, timeout_s=RUN_S)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


def test_what_was_ignored_stays_ignored(pool: Pool):
    """As under ``nohup``, and for what a script puts into the background."""
    code = "os.kill(os.getpid(), signal.SIGINT); print(x.sum().item())"
    ended = subprocess.run(
        [*XPOOL_RUN, "--registry", pool.registry, "-c", SETUP + code],
        env=pool.environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "64.0\n", "")


LIVES_ON = """
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
print("begun", flush=True)
while True:
    try: time.sleep(60)
    except BaseException: pass  # nor does the program go when it is told to
"""


def test_a_killed_keepers_lease_ends_although_the_job_lives_on(tmp_path: Path):
    """Long before its TTL: the program says goodbye for the keeper."""
    with Pool(tmp_path, ttl="600s") as pool:
        pool.start_registry()
        pool.start_server("one", "--devices", "cpu,memory=2GiB", light=False)
        argv = [*XPOOL_RUN, "--registry", pool.registry, "-c", SETUP + LIVES_ON]
        keeper = pool.start("keeper", argv)
        pool.await_line(keeper, re.compile("begun"))
        family = psutil.Process(keeper.pid).children(recursive=True)
        assert len(family) == 2
        assert len(pool.leases()) == 1
        pool.kill("keeper", signal.SIGKILL)
        eventually(lambda: not pool.leases(), "the lease is released", 30)
        for process in family:
            assert process.is_running()
            process.kill()
