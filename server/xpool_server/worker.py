"""A session worker: one process, one device, one session.

``python -m xpool_server.worker --control-fd N --device cpu --listen tcp://HOST:0``
imports the framework, opens the device, binds the address, says so to its node over
the control descriptor, and waits for a lease to serve. It ends with the session, and
with the node: whoever holds a worker's memory can rely on that.

One loop, no threads: an operation runs to its end before the next message is read.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from xpool_protocol import transport
from xpool_protocol.codec import Frames, decode
from xpool_protocol.errors import BrokenError, PeerError, PoolError, UsageError
from xpool_protocol.messages import Hello
from xpool_protocol.transport import Listener, PeerId

from xpool_server import control
from xpool_server.devices import open_backend
from xpool_server.devices.base import Backend
from xpool_server.executor import Executor
from xpool_server.leash import die_with_parent
from xpool_server.session import Session, framework, refusal

STATISTICS_INTERVAL_S: Final = 1.0

MAX_UNSENT: Final = 8
"""Messages with large frames on their way at once: 128 MiB of replies at most."""
UNSENT_TIMEOUT_S: Final = 60.0
"""A client that takes none of its replies for so long is not there any more."""

_EXIT_USAGE: Final = 2


class ControlPipe:
    """The worker's end of the socket pair to its node: lines in, lines out."""

    def __init__(self, fileno: int) -> None:
        self._socket = socket.socket(fileno=fileno)
        self._buffer = bytearray()
        self.is_closed = False
        """The node is gone."""

    def fileno(self) -> int:
        """For the listener to watch."""
        return self._socket.fileno()

    def receive(self) -> list[control.ToWorker]:
        """Whole lines that have arrived; never blocks."""
        while not self.is_closed:
            try:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.is_closed = not data
            self._buffer += data
            if len(self._buffer) > control.MAX_LINE_NBYTES:
                self.is_closed = True
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        return [control.to_worker(bytes(line)) for line in lines]

    def send(self, message: control.FromWorker) -> None:
        """One line to the node; a node that is gone is noticed by ``receive``."""
        try:
            self._socket.sendall(control.line_from(message))
        except OSError:
            self.is_closed = True


class Worker:
    """Drives one session: sockets, time and the end of the process."""

    def __init__(self, pipe: ControlPipe, listener: Listener, backend: Backend) -> None:
        self._pipe = pipe
        self._listener = listener
        self._backend = backend
        self._session: Session | None = None
        self._lease_id = ""
        self._was_owned = False
        self._told: dict[str, int] = {}
        self._told_at_s = 0.0
        listener.watch(pipe.fileno())

    def run(self) -> None:
        """Serve until the session ends or the node is gone."""
        self._pipe.send(
            control.WorkerReady(self._listener.uri, os.getpid(), framework())
        )
        while not self._pipe.is_closed:
            received = self._listener.receive(STATISTICS_INTERVAL_S)
            for order in self._pipe.receive():
                if self._obey(order):
                    return
            if received is not None:
                self._take(*received)
            if self._session is not None:
                self._report(self._session)
                if self._session.ended is not None:
                    self._close(self._session.ended)
                    return

    def _obey(self, order: control.ToWorker) -> bool:
        """Carry out an order of the node; true if it was to end."""
        match order:
            case control.OpenSession():
                if self._session is not None:
                    raise UsageError("a worker serves one session")
                self._backend.limit_memory(order.memory_nbytes)
                executor = Executor(self._backend, order.memory_nbytes)
                self._session = Session(order, executor, self._send)
                self._lease_id = order.lease_id
                return False
            case control.EndSession(code, text):
                if self._session is not None:
                    self._session.end(PoolError.from_wire(code, text))
                self._close(text)
                return True

    def _take(self, peer: PeerId, frames: list[memoryview]) -> None:
        if self._session is not None:
            self._session.receive(peer, frames)
        elif _is_hello(frames):
            self._send(peer, refusal())

    def _send(self, peer: PeerId, frames: Frames) -> None:
        """Queue one message, once there is room for large ones.

        Raises:
            BrokenError: the client takes nothing.
        """
        if len(frames) > 1:
            deadline = time.monotonic() + UNSENT_TIMEOUT_S
            while self._listener.unsent() >= MAX_UNSENT:
                if time.monotonic() > deadline:
                    raise BrokenError(
                        "the client has not taken its replies for"
                        f" {UNSENT_TIMEOUT_S:.0f} s"
                    )
                time.sleep(0.001)
        self._listener.send(peer, frames)

    def _report(self, session: Session) -> None:
        if not session.is_owned:
            return
        if not self._was_owned:
            self._was_owned = True
            self._pipe.send(control.SessionOpened(self._lease_id))
        now_s = time.monotonic()
        if now_s - self._told_at_s < STATISTICS_INTERVAL_S:
            return
        counters = session.counters()
        if counters != self._told:
            self._told, self._told_at_s = counters, now_s
            self._pipe.send(control.SessionStatistics(counters))

    def _close(self, reason: str) -> None:
        counters = self._session.counters() if self._session is not None else {}
        self._listener.close()  # a last Goodbye leaves before we say that we are done
        self._pipe.send(control.SessionClosed(reason, counters))


def _is_hello(frames: list[memoryview]) -> bool:
    try:
        return isinstance(decode(frames), Hello)
    except PeerError:
        return False


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="xpool_server.worker", description="Serves one session; nodes start it."
    )
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--device", required=True, help="cpu or cuda:0")
    parser.add_argument("--listen", required=True, help="for instance tcp://0.0.0.0:0")
    parser.add_argument("--threads", type=int, default=0, help="of operations on a CPU")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker to its end; 0 unless it could not start or serve."""
    die_with_parent(os.getppid())
    # Ctrl-C reaches the whole process group; the node decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = _arguments(argv)
    pipe = ControlPipe(options.control_fd)
    try:
        if options.threads > 0:
            import torch

            torch.set_num_threads(options.threads)
        backend = open_backend(options.device)
        with transport.listen(options.listen) as listener:
            Worker(pipe, listener, backend).run()
    except (PoolError, msgspec.DecodeError) as error:
        print(f"xpool worker: {error}", file=sys.stderr)  # noqa: T201  for the node's log
        return _EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
