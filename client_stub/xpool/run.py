"""``xpool run``: starts the program, keeps its lease, ends as the program ended.

Two processes. This one, the keeper, speaks with the registry; its child runs the
program and speaks with the server. The child starts before the lease is asked for,
so that both take their time at the same time. They share the terminal and the
process group: a Ctrl-C reaches the program directly, and this process just waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from xpool_protocol.errors import ClosedError, PoolError, UsageError

from xpool import room
from xpool.config import JobSettings
from xpool.keeper import LeaseKeeper, client_text
from xpool.lease_pipe import LEASE_FD_VARIABLE, Lease

CHILD_COMMAND: Final = (sys.executable, "-m", "xpool.bootstrap")
"""Then the program as for python: SCRIPT, -m MODULE or -c CODE, and its arguments."""

FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP)
FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
"""These come to the whole foreground group, the program included."""

_PR_SET_PDEATHSIG: Final = 1


def check_program(program: Sequence[str]) -> None:
    """A program that cannot be started is found before anything is asked for.

    Raises:
        UsageError: none is named, its file is missing, or is a folder without
            ``__main__.py``.
    """
    if not program:
        raise UsageError("no program to run: write xpool run SCRIPT [ARGS]")
    first = program[0]
    if first in ("-m", "-c"):
        if len(program) < 2:
            what = "a module" if first == "-m" else "code"
            raise UsageError(f"{first} needs {what} after it, as for python")
        return
    path = Path(first)
    if not path.exists():
        raise UsageError(f"there is no script {first!r} in {Path.cwd()}")
    if path.is_dir() and not (path / "__main__.py").exists():
        raise UsageError(f"{first!r} is a folder without a __main__.py in it")
    if not os.access(path, os.R_OK):
        raise UsageError(f"the script {first!r} may not be read: check its permissions")


def run_job(
    settings: JobSettings,
    program: Sequence[str],
    stats_json: Path | None = None,
    child_command: Sequence[str] = CHILD_COMMAND,
) -> int:
    """Run a program with a lease; its exit status, negative for a signal.

    Args:
        settings: which slice, and of which registry.
        program: as ``check_program`` takes it.
        stats_json: where to write the server's counters afterwards.
        child_command: what runs the program.

    Raises:
        PoolError: no lease; the program has not begun.
    """
    check_program(program)
    if stats_json is not None and not stats_json.absolute().parent.is_dir():
        raise UsageError(f"cannot write {stats_json}: its folder does not exist")
    ours, theirs = socket.socketpair()
    with ours, forwarding() as passed_on:
        with theirs:
            child = _start([*child_command, *program], theirs.fileno(), settings.on_oom)
        passed_on.child = child
        keeper = LeaseKeeper(settings, ours, wants_statistics=stats_json is not None)
        try:
            who = client_text(child.pid, _name(program))
            leases = keeper.acquire(who, lambda: child.poll() is None)
            keeper.keep()
            status = child.wait()
        except ClosedError:  # it ended while it waited: its own doing
            leases, status = [], child.wait()
        finally:
            # Whatever went wrong above: the program does not run without its lease.
            child.kill()
            child.wait()
            _release(keeper)
        if stats_json is not None:
            _write_statistics(stats_json, leases, keeper.statistics())
    return status


def exit_like(status: int) -> None:
    """End this process as the program ended: same status, or same signal."""
    if status < 0:
        # The program has left its core file, if any; ours would be of no use.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL and SIGSTOP have no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        status += 256  # a signal whose default is to be ignored
    sys.exit(status)


class _PassedOn:
    """Signals for the program that came to us; kept until there is a program."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    @property
    def child(self) -> subprocess.Popen[bytes] | None:
        return self._child

    @child.setter
    def child(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        for number in self._early:
            child.send_signal(number)

    def take(self, number: int, _frame: FrameType | None) -> None:
        if number not in FORWARDED:
            return
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)


@contextlib.contextmanager
def forwarding() -> Iterator[_PassedOn]:
    """Forward some signals and outlive others; what was ignored stays ignored."""
    passed_on = _PassedOn()
    # Handlers, not SIG_IGN, which the child would inherit.
    before = {
        number: signal.signal(number, passed_on.take)
        for number in (*FORWARDED, *FROM_TERMINAL)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield passed_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(
    command: Sequence[str], lease_fd: int, on_oom: str
) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    environment = {
        **os.environ,
        LEASE_FD_VARIABLE: str(lease_fd),
        room.VARIABLE: on_oom,
    }
    # preexec_fn is safe here: this process has one thread, gRPC comes later.
    return subprocess.Popen(
        command,
        env=environment,
        pass_fds=[lease_fd],
        preexec_fn=die_with_parent,
    )


def _name(program: Sequence[str]) -> str:
    if program[0] == "-c":
        return "-c ..."
    return " ".join(program[:2]) if program[0] == "-m" else program[0]


def _release(keeper: LeaseKeeper) -> None:
    try:
        keeper.release()
    except PoolError as error:
        print(  # noqa: T201  for the user; there is no log in a job's terminal
            f"xpool: the lease was not given back and runs out by itself: {error}",
            file=sys.stderr,
        )


def _write_statistics(
    path: Path, leases: Sequence[Lease], counters: Mapping[str, Mapping[str, int]]
) -> None:
    if not counters:
        print(  # noqa: T201
            f"xpool: {path} was not written: the program ended without asking the"
            " server for its counters",
            file=sys.stderr,
        )
        return
    devices = [
        {
            "server": lease.node_name,
            "device": lease.device_name,
            "lease_id": lease.lease_id,
            **counters.get(lease.lease_id, {}),
        }
        for lease in leases
    ]
    # One device's figures as ever; of several their list.
    figures = devices[0] if len(devices) == 1 else {"devices": devices}
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
