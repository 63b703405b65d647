"""Starts worker processes, hears them, tells them, ends them. Decides nothing.

Each worker has a socket pair to the node and a pidfd; one epoll watches all of
them, and its descriptor is what the node's loop waits for.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from xpool_server.control import (
    MAX_LINE_NBYTES,
    EndSession,
    FromWorker,
    ToWorker,
    from_worker,
    line_from,
)
from xpool_server.node_facts import (
    WorkerExited,
    WorkerHungUp,
    WorkerId,
    WorkerSaid,
)
from xpool_server.processors import leave_lowest_class

WorkerCommand = Callable[[int, int], Sequence[str]]
"""The command line of a worker: from control descriptor and device index."""

_READ_NBYTES: Final = 64 << 10


@dataclass(slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    control: socket.socket
    pidfd: int
    unread: bytearray = field(default_factory=bytearray)
    is_listening: bool = True
    """Its end of the socket is open and makes sense."""


class WorkerProcesses:
    """The processes that a node has started; used from one thread."""

    def __init__(self, command: WorkerCommand) -> None:
        self._command = command
        self._processes: dict[WorkerId, _Process] = {}
        self._selector = selectors.EpollSelector()

    def fileno(self) -> int:
        """Readable while ``poll`` has something to return."""
        return self._selector.fileno()

    def start(
        self, worker: WorkerId, device_index: int, inherited: Sequence[int] = ()
    ) -> None:
        """Start a process for a device.

        Args:
            worker: its number.
            device_index: which device.
            inherited: descriptors of ours that it is to have, under their numbers.

        Raises:
            OSError: the system has no process or descriptor to give.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                self._command(theirs.fileno(), device_index),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                pass_fds=[theirs.fileno(), *inherited],
                # A Ctrl-C is for the node, which then ends its workers.
                process_group=0,
            )
        ours.setblocking(False)
        pidfd = os.pidfd_open(process.pid)
        self._processes[worker] = _Process(process, ours, pidfd)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        self._selector.register(pidfd, selectors.EVENT_READ, worker)

    def tell(self, worker: WorkerId, message: ToWorker) -> None:
        """Send one line; a worker that does not take it is killed."""
        one = self._processes.get(worker)
        if one is None:
            return
        if isinstance(message, EndSession):
            leave_lowest_class(one.process.pid)
        line = line_from(message)
        try:
            is_sent = one.control.send(line) == len(line)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            is_sent = False
        if not is_sent:
            self.kill(worker)

    def kill(self, worker: WorkerId) -> None:
        """SIGKILL; ``poll`` returns its exit."""
        one = self._processes.get(worker)
        if one is not None:
            leave_lowest_class(one.process.pid)
            one.process.kill()

    def poll(self) -> list[WorkerSaid | WorkerHungUp | WorkerExited]:
        """What happened since the last call; does not wait."""
        facts: list[WorkerSaid | WorkerHungUp | WorkerExited] = []
        ready = {key.data for key, _ in self._selector.select(0)}
        for worker in sorted(ready):
            one = self._processes[worker]
            # In this order: what it said before its end is not lost.
            status = one.process.poll()
            was_listening = one.is_listening
            facts += [WorkerSaid(worker, line) for line in self._read(one)]
            if status is not None:
                self._forget(worker, one)
                facts.append(WorkerExited(worker, status))
            elif was_listening and not one.is_listening:
                facts.append(WorkerHungUp(worker))
        return facts

    def close(self) -> None:
        """Kill and forget whoever is left."""
        for worker, one in list(self._processes.items()):
            leave_lowest_class(one.process.pid)
            one.process.kill()
            one.process.wait()
            self._forget(worker, one)
        self._selector.close()

    def _read(self, one: _Process) -> list[FromWorker]:
        """The whole lines that are there; listens no more after the end or garbage."""
        while one.is_listening and len(one.unread) <= MAX_LINE_NBYTES:
            try:
                data = one.control.recv(_READ_NBYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            one.unread += data
            if not data:
                self._stop_listening(one)
        *lines, one.unread = one.unread.split(b"\n")
        try:
            messages = [from_worker(bytes(line)) for line in lines]
            is_sense = len(one.unread) <= MAX_LINE_NBYTES
        except msgspec.MsgspecError:
            messages, is_sense = [], False
        if not is_sense and one.is_listening:
            self._stop_listening(one)
        return messages

    def _stop_listening(self, one: _Process) -> None:
        one.is_listening = False
        self._selector.unregister(one.control)

    def _forget(self, worker: WorkerId, one: _Process) -> None:
        if one.is_listening:
            self._selector.unregister(one.control)
        self._selector.unregister(one.pidfd)
        one.control.close()
        os.close(one.pidfd)
        del self._processes[worker]
