"""Child processes that cannot outlive this one, with their output as it comes.

Each child leads a process group of its own, so that a Ctrl-C reaches only us and
we decide the order in which things end.  Ending is SIGTERM to the leader, who ends
what it started, a bounded wait, then SIGKILL to what is left of the group and to
whatever had left it: this process is the reaper of orphaned descendants, so none
can slip away.  Should we be killed ourselves, the kernel sends SIGTERM to every
direct child.

No threads: one selector reads every pipe, and the callers wait inside ``pump``.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, NoReturn, Self

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)

POLL_S = 0.1
"""How late a condition may be noticed that is neither output nor a child's end."""

MAX_LINES = 200
"""Of a child's last lines: enough to find a ready line and to explain a failure."""

GRACE_S = 10.0
"""From SIGTERM to SIGKILL: a server ends its workers within this time."""

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Line = Callable[[str, str], None]
"""Called with a child's name and one line of its output, without the newline."""


class ChildTimeout(Exception):  # noqa: N818  a state, as the project's errors are
    """What was waited for did not happen in time."""


def end_on_signals(program: str) -> None:
    """From now on a signal unwinds, so that every child is ended on the way out."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        name = signal.Signals(number).name
        print(f"{program}: {name}, ending the pool", file=sys.stderr)
        sys.exit(128 + number)

    for number in ENDING_SIGNALS:
        signal.signal(number, leave)


class Child:
    """One process, its last lines, and what is not yet a whole line."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self.partial = b""
        self.is_ready = False
        """Has said so; its line may be gone by now."""

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.poll()


class Children:
    """Starts processes, passes their lines on, and ends them all on exit."""

    def __init__(self, on_line: Line) -> None:
        self._on_line = on_line
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._owner_pid = os.getpid()
        self._older: frozenset[int] = frozenset()
        """Children of this process before; and whom no signal has ended."""

    def __enter__(self) -> Self:
        # Whoever is here already is somebody else's business, also at the end.
        self._older = frozenset(_direct_children())
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A signal that comes now waits: an exception here would leave children.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            for child in reversed(self._children):
                self.end(child)
            _end_orphans(self._older)
            self._selector.close()
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> Child:
        """Start one process; its output, both kinds, goes to ``on_line``."""
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            # Safe here: this process starts no threads, so no lock can be held.
            preexec_fn=self._die_with_owner,
        )
        child = Child(name, process)
        self._children.append(child)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, child)
        # Its end is noticed at once: what is timed must not wait for a poll.
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        return child

    def pump(self, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Pass lines on until ``until()`` is true.

        Raises:
            ChildTimeout: it was not within ``timeout_s``; the text says ``what``.
        """
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                raise ChildTimeout(f"{what} did not happen within {timeout_s:g} s")
            self._pass_on(POLL_S)

    def wait(self, child: Child, timeout_s: float) -> int:
        """The exit status of a child that ends by itself, its output passed on.

        Raises:
            ChildTimeout: it still ran after ``timeout_s``.
        """
        what = f"the end of {child.name}"
        self.pump(lambda: child.status is not None, timeout_s, what)
        self._drain()
        return child.process.wait()

    def end(self, child: Child) -> None:
        """End a child and its process group; nothing if they are gone already.

        One that the kernel does not let go is told of and left: Linux 6.18 may spin
        for minutes where a process waits for another's end.
        """
        child.process.terminate()
        deadline = time.monotonic() + GRACE_S
        # Its pipe is read meanwhile: a child that blocks on output cannot end.
        while child.status is None and time.monotonic() < deadline:
            self._pass_on(POLL_S)
        _kill_group(child)
        try:
            child.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            print(
                f"process {child.process.pid} survives SIGKILL: the kernel holds it",
                file=sys.stderr,
            )
            self._older |= {child.process.pid}
        self._drain()
        self._forget_pidfd(child)
        self._close(child)

    def _die_with_owner(self) -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._owner_pid:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    def _pass_on(self, timeout_s: float) -> bool:
        """Read what is there, waiting ``timeout_s`` at most; False when nothing."""
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return False
        ready = self._selector.select(timeout_s)
        for key, _ in ready:
            child: Child = key.data
            if key.fd == child.pidfd:
                self._forget_pidfd(child)
                continue
            data = os.read(key.fd, 65536)
            if not data:
                self._close(child)
                continue
            *lines, child.partial = (child.partial + data).split(b"\n")
            for line in lines:
                self._take_line(child, line)
        return bool(ready)

    def _take_line(self, child: Child, line: bytes) -> None:
        text = line.decode(errors="replace")
        child.lines.append(text)
        self._on_line(child.name, text)

    def _forget_pidfd(self, child: Child) -> None:
        if child.pidfd >= 0:
            self._selector.unregister(child.pidfd)
            os.close(child.pidfd)
            child.pidfd = -1

    def _drain(self) -> None:
        while self._pass_on(0):
            pass

    def _close(self, child: Child) -> None:
        pipe: IO[bytes] | None = child.process.stdout
        if pipe is None or pipe.closed:
            return
        self._selector.unregister(pipe)
        pipe.close()
        if child.partial:
            self._take_line(child, child.partial)
            child.partial = b""


def _kill_group(child: Child) -> None:
    """Kill every process of the group; the leader may be gone already."""
    try:
        os.killpg(child.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _end_orphans(older: frozenset[int]) -> None:
    """End what had left its group: whoever lost its parent is our child by now."""
    started = time.monotonic()
    told: set[tuple[int, signal.Signals]] = set()
    while orphans := [pid for pid in _direct_children() if pid not in older]:
        waited_s = time.monotonic() - started
        number = signal.SIGTERM if waited_s < GRACE_S else signal.SIGKILL
        for pid in orphans:
            if (pid, number) not in told:
                told.add((pid, number))
                os.kill(pid, number)
            os.waitpid(pid, os.WNOHANG)
        if waited_s > 2 * GRACE_S:
            raise ChildTimeout(f"processes {orphans} survive SIGKILL")
        time.sleep(POLL_S / 5)


def _direct_children() -> list[int]:
    """Running or unreaped; complete because this process has one thread."""
    tid = threading.get_native_id()
    return [
        int(pid) for pid in Path(f"/proc/self/task/{tid}/children").read_text().split()
    ]


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
