"""Real processes, started and ended in every order that a demonstration meets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from xpool_perf import children as children_module
from xpool_perf.children import Children, ChildTimeout

DEADLINE_S = 30.0

# Each prints its pids, then stays: the parent of a test decides when it ends.
STAYS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
IGNORES_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + STAYS
# Its child leads a session of its own, so no group signal reaches it.
DAEMON_MAKER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {STAYS!r}], start_new_session=True)
time.sleep(600)
"""
# Holds one such child the way the demo does, and passes its line on.
HOLDER = f"""
import os, sys
from xpool_perf.children import Children
with Children(lambda name, line: print(line, flush=True)) as children:
    held = children.start("held", [sys.executable, "-c", {STAYS!r}], os.environ)
    children.wait(held, 600)
"""


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def start_and_read_pid(children: Children, lines: list[str], code: str) -> int:
    children.start("child", [sys.executable, "-c", code], os.environ)
    children.pump(lambda: bool(lines), DEADLINE_S, "the first line")
    return int(lines[0])


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def children(lines: list[str]) -> Children:
    return Children(lambda _name, line: lines.append(line))


def test_lines_come_whole_and_the_status_comes_back(
    children: Children, lines: list[str]
) -> None:
    code = "import sys; print('one'); sys.stderr.write('two'); sys.exit(3)"
    with children:
        child = children.start("child", [sys.executable, "-uc", code], os.environ)
        assert children.wait(child, DEADLINE_S) == 3
    assert lines == ["one", "two"]


def test_leaving_ends_what_still_runs(children: Children, lines: list[str]) -> None:
    with children:
        pid = start_and_read_pid(children, lines, STAYS)
        assert not is_gone(pid)
    assert is_gone(pid)


def test_one_that_ignores_sigterm_is_killed(
    children: Children, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children_module, "GRACE_S", 0.2)
    with children:
        pid = start_and_read_pid(children, lines, IGNORES_TERM)
    assert is_gone(pid)


def test_one_that_no_signal_ends_is_told_of_and_left(
    children: Children,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(children_module, "GRACE_S", 0.2)
    monkeypatch.setattr(children_module, "_kill_group", lambda _child: None)
    with children:
        command = [sys.executable, "-c", IGNORES_TERM]
        process = children.start("stuck", command, os.environ).process
        children.pump(lambda: bool(lines), DEADLINE_S, "the first line")
    try:
        assert process.poll() is None
        assert f"process {process.pid} survives SIGKILL" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()


def test_one_that_left_its_group_is_ended(children: Children, lines: list[str]) -> None:
    with children:
        pid = start_and_read_pid(children, lines, DAEMON_MAKER)
    assert is_gone(pid)


def test_an_exception_ends_them_too(children: Children, lines: list[str]) -> None:
    def fail_while_it_runs() -> None:
        with children:
            start_and_read_pid(children, lines, STAYS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_it_runs()
    assert is_gone(int(lines[0]))


def test_waiting_is_bounded(children: Children) -> None:
    with children:
        child = children.start("slow", [sys.executable, "-c", STAYS], os.environ)
        with pytest.raises(ChildTimeout, match=r"the end of slow .* 0\.2 s"):
            children.wait(child, 0.2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_holders_death_ends_its_child(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        holder.send_signal(number)
        holder.wait(DEADLINE_S)
    wait_until(lambda: is_gone(pid))


def test_older_children_are_left_alone():
    """Only what was started inside the block is ended with it."""
    older = subprocess.Popen([sys.executable, "-c", STAYS], stdout=subprocess.PIPE)
    try:
        with Children(lambda _name, _line: None):
            pass
        assert older.poll() is None
    finally:
        older.kill()
        older.communicate()
