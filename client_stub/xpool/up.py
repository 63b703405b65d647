"""``xpool up``: a registry and a server as children of one process.

They are started as commands, like any other process: this package does not import
theirs. Each leads a process group, so that a Ctrl-C reaches only us and we decide
who ends first; should we be killed, the kernel ends them (SIGTERM).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, Self

from xpool_protocol.errors import BrokenError, PoolError

REGISTRY_READY: Final = re.compile(r"registry ready on (\S+:\d+)")
SERVER_READY: Final = re.compile(r"server \S+ ready on ")

REGISTRY_START_S: Final = 30.0
SERVER_START_S: Final = 600.0
"""The first start compiles; importing the framework from a cold disk takes a minute."""

GRACE_S: Final = 8.0
"""From SIGTERM to SIGKILL: a server ends its sessions within 5 s."""

POLL_S: Final = 0.2
TAIL_LINES: Final = 3
END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_PDEATHSIG: Final = 1

Say = Callable[[str], None]
"""Shows a line on stdout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """What a user chose."""

    registry_listen: str = "127.0.0.1:7700"
    store: Path | None = None
    devices: str | None = None
    threads: int | None = None
    spares: int = 1

    def registry_arguments(self) -> list[str]:
        """For ``python -m xpool_registry``."""
        store = [] if self.store is None else ["--store", str(self.store)]
        return ["--listen", self.registry_listen, *store]

    def server_arguments(self, registry: str) -> list[str]:
        """For ``python -m xpool_server``; ``registry`` is where it is to join."""
        host, _, port = self.registry_listen.rpartition(":")
        # The same port each time: the registry then knows its old server again and
        # does not wait for the former one to be dead.
        own = 0 if port == "0" else int(registry.rpartition(":")[2]) + 1
        listen = f"tcp://{host}:{own if own <= 65_535 else 0}"
        arguments = ["--registry", registry, "--listen", listen]
        arguments += ["--spares", str(self.spares)]
        if self.devices is not None:
            arguments += ["--devices", self.devices]
        if self.threads is not None:
            arguments += ["--threads", str(self.threads)]
        return arguments


@dataclass(slots=True)
class Service:
    """One child and what it said."""

    name: str
    process: subprocess.Popen[bytes]
    said: list[str] = field(default_factory=list)
    """On stdout: the ready line."""

    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    """The last lines on stderr."""


class Ended(Exception):  # noqa: N818  a state
    """A signal asked the pool to end."""


class Services:
    """Starts children, passes on what they say, and ends them all on exit."""

    def __init__(self) -> None:
        self._services: list[Service] = []
        self._selector = selectors.DefaultSelector()
        self._unfinished: dict[int, bytes] = {}
        self._signal: int | None = None
        self._bell, self._wakeup = socket.socketpair()

    def __enter__(self) -> Self:
        self._wakeup.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in END_SIGNALS:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for service in reversed(self._services):
            self._end(service)
        signal.set_wakeup_fd(-1)
        for number in END_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        self._bell.close()
        self._wakeup.close()

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Service:
        """Start ``python -m module``.

        Raises:
            BrokenError: the module is not installed.
        """
        if importlib.util.find_spec(module) is None:
            raise BrokenError(
                f"the {name} part is not installed: pip install 'xpool[{name}]'"
            )
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            # Safe here: this process has one thread, so no lock can be held.
            preexec_fn=_dying_with(os.getpid()),
        )
        service = Service(name, process)
        self._services.append(service)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            self._selector.register(pipe, selectors.EVENT_READ, service)
        return service

    def wait_for(
        self, service: Service, ready: re.Pattern[str], timeout_s: float
    ) -> re.Match[str]:
        """The line with which a service says that it is ready.

        Raises:
            BrokenError: a service ended, or the time is over.
            Ended: a signal came.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for line in service.said:
                match = ready.match(line)
                if match:
                    return match
            if time.monotonic() > deadline:
                raise BrokenError(
                    f"the {service.name} was not ready within {timeout_s:g} s:"
                    " what it said stands above"
                )
            self.watch()

    def watch(self) -> None:
        """Pass on what the services say, for at most ``POLL_S``.

        Raises:
            BrokenError: a service ended.
            Ended: a signal came.
        """
        self._pass_on(POLL_S)
        if self._signal is not None:
            raise Ended(signal.Signals(self._signal).name)
        for service in self._services:
            if service.process.poll() is not None:
                self._drain()
                raise _death_of(service)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    def _pass_on(self, timeout_s: float) -> bool:
        """Read what is there; whether there was anything."""
        events = self._selector.select(timeout_s)
        for key, _ in events:
            if key.data is None:
                self._bell.recv(4096)
                continue
            service: Service = key.data
            data = os.read(key.fd, 65_536)
            whole = self._unfinished.pop(key.fd, b"") + data
            if not data:
                self._selector.unregister(key.fileobj)
                whole += b"\n" if whole else b""
            *lines, rest = whole.split(b"\n")
            self._unfinished[key.fd] = rest
            assert service.process.stdout is not None
            is_stdout = key.fd == service.process.stdout.fileno()
            for line in lines:
                _take(service, line.decode(errors="replace"), is_stdout=is_stdout)
        return bool(events)

    def _drain(self) -> None:
        while self._pass_on(0):
            pass

    def _end(self, service: Service) -> None:
        """SIGTERM, a bounded wait, SIGKILL to its group."""
        process = service.process
        process.terminate()
        deadline = time.monotonic() + GRACE_S
        # Its pipes are read meanwhile: a child that blocks on output cannot end.
        while process.poll() is None and time.monotonic() < deadline:
            self._pass_on(POLL_S / 4)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._drain()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def run_pool(options: PoolOptions, say: Say) -> None:
    """Run a pool until SIGINT, SIGTERM or SIGHUP.

    Raises:
        PoolError: which part ended, and why; the other has been ended too.
    """
    try:
        with Services() as services:
            say("starting the registry")
            arguments = options.registry_arguments()
            registry = services.start("registry", "xpool_registry", arguments)
            ready = services.wait_for(registry, REGISTRY_READY, REGISTRY_START_S)
            address = ready[1]
            say("starting the server, which takes a few seconds")
            arguments = options.server_arguments(address)
            server = services.start("server", "xpool_server", arguments)
            say(services.wait_for(server, SERVER_READY, SERVER_START_S).string)
            say(f"pool ready: registry {address}")
            say(f"run a job:  xpool run --registry {address} SCRIPT")
            while True:
                services.watch()
    except Ended as ended:
        say(f"pool ended ({ended})")


def _take(service: Service, line: str, *, is_stdout: bool) -> None:
    if is_stdout:
        service.said.append(line)
        return
    service.tail.append(line)
    print(f"{service.name}: {line}", file=sys.stderr)  # noqa: T201  not our words


def _death_of(service: Service) -> PoolError:
    status = service.process.returncode
    how = f"with exit status {status}" if status >= 0 else f"by signal {-status}"
    lines = (line.strip().removeprefix("xpool: ") for line in service.tail)
    why = " / ".join(line for line in lines if line)
    hint = ""
    if "ModuleNotFoundError" in why:
        hint = f"; is it installed? pip install 'xpool[{service.name}]'"
    return BrokenError(
        f"the {service.name} ended {how}: {why or 'it said nothing'}{hint}"
    )


def _dying_with(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)

    return ask
