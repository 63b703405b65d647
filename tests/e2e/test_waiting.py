"""A program that waits for the server, or keeps Python busy while others wait."""

from __future__ import annotations

import pytest

LONG = """
import ctypes, signal, sys, threading, time, torch
import xpool
x = torch.rand(700, 700, device="cuda")
def long_work():
    y = x
    for _ in range(60): y = (y @ x).clamp(0, 1)
    return y.sum()
"""
PROGRAMS = {
    # The link must not need Python's lock to send, nor to take note of an answer.
    "a thread that never lets go of Python's lock": """
torch.cuda.synchronize()
event = torch.cuda.Event()
event.record()
began_ns = time.monotonic_ns()
ctypes.PyDLL(None).usleep(3_000_000)  # a foreign call that keeps the lock
event.synchronize()
took_s = (event._mark.at_ns - began_ns) / 1e9
assert took_s < 2.5, took_s
""",
    "signal handlers that return": """
seen = []
signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
value = long_work().item()
signal.setitimer(signal.ITIMER_REAL, 0)
assert seen and value == value
""",
    "a signal handler that raises": """
class Late(Exception): pass
raised = []
def handle(number, frame):
    raised.append(number)
    raise Late
signal.signal(signal.SIGALRM, handle)
waited = long_work()
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    try:
        waited.item()
        time.sleep(5)
    except RuntimeError as error:
        assert "interrupted" in str(error), error
        time.sleep(5)
except Late:
    print("late")
assert raised
assert (x * 0 + 2).sum().item() == 2 * 700 * 700
""",
    "many threads that wait at once": """
values = [torch.full((), i, device="cuda") for i in range(8)]
wrong = []
def work(i):
    for n in range(100):
        if (values[i] + n).item() != i + n: wrong.append((i, n))
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not wrong, wrong
""",
    "more than the window, up and down": """
host = torch.arange(40 << 20, dtype=torch.float32)
assert torch.equal(host.to("cuda").cpu(), host)
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program, xpool_run):
    ended = xpool_run("-c", LONG + PROGRAMS[program])
    assert ended.returncode == 0, ended.stderr
    if program == "a signal handler that raises":
        assert ended.stdout == "late\n"
