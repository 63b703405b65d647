"""A real worker process, and a client that speaks its protocol record by record.

``with WorkerClient() as client`` starts ``python -m xpool_server.worker``, gives it a
lease over the node's end of a socket pair, and shows the session's key.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from xpool_protocol import transport
from xpool_protocol.connection import ClientConnection
from xpool_protocol.messages import Ack, Failure, Goodbye, Message, Reply, Welcome
from xpool_protocol.records import Record, write_record
from xpool_protocol.values import Value, read_value
from xpool_protocol.wire import Reader, Writer
from xpool_server import control

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


def lease(memory_nbytes: int = 1 << 28) -> control.OpenSession:
    """What a node tells a worker."""
    return control.OpenSession(
        lease_id="lease-1",
        epoch=3,
        session_key="key-of-the-session",
        server="node-1",
        share_percent=50,
        memory_nbytes=memory_nbytes,
    )


class WorkerProcess:
    """The process, and the node's end of its control pair."""

    executor_library: ClassVar[Path | None] = None
    """Of the native executor; None: records are executed in Python."""

    further_arguments: ClassVar[Sequence[str]] = ()
    """Of its command line."""

    def __init__(
        self, *, device: str = "cpu", threads: int = 1, python: str = sys.executable
    ) -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(DEADLINE_S)
        self._unread = b""
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(python, "-m", "xpool_server.worker"),
                    *("--control-fd", str(theirs.fileno()), "--device", device),
                    *("--listen", "tcp://127.0.0.1:0", "--threads", str(threads)),
                    *self._executor(),
                    *self.further_arguments,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | self.environment(),
            )

    def _executor(self) -> Sequence[str]:
        if self.executor_library is None:
            return ()
        return ("--executor-library", str(self.executor_library))

    @staticmethod
    def environment() -> dict[str, str]:
        """What a worker needs besides the environment of the tests."""
        return {"PYTHONPATH": f"{ROOT}/protocol:{ROOT}/server"}

    def hear(self) -> control.FromWorker | None:
        """The worker's next line; None once it has closed its end."""
        while b"\n" not in self._unread:
            data = self.control.recv(1 << 16)
            if not data:
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return control.from_worker(line)

    def hear_until(
        self, wanted: Callable[[control.FromWorker], bool]
    ) -> control.FromWorker:
        """The first line that is wanted; those before it are dropped."""
        while True:
            line = self.hear()
            assert line is not None, "the worker closed its control pair"
            if wanted(line):
                return line

    def tell(self, message: control.ToWorker) -> None:
        self.control.sendall(control.line_from(message))

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(DEADLINE_S)

    def stderr(self) -> str:
        """All that it wrote; only after it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def close(self) -> None:
        self.control.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


class WorkerClient:
    """One session with a worker, driven from the test's own thread."""

    def __init__(self, process: WorkerProcess, address: str) -> None:
        self.process = process
        self.link = transport.connect(address)
        self.connection = ClientConnection()
        self.failures: list[Failure] = []
        """Those that answer no request."""
        self.goodbye: Goodbye | None = None
        self.answers: dict[int, Reply | Failure] = {}
        self._requests = itertools.count(1)
        self.welcome: Welcome | None = None

    @classmethod
    @contextmanager
    def open(cls, memory_nbytes: int = 1 << 28, **options: str | int) -> Iterator[Self]:
        """A worker process with an open session."""
        process = WorkerProcess(**options)  # type: ignore[arg-type]
        try:
            ready = process.hear()
            assert isinstance(ready, control.WorkerReady)
            process.tell(lease(memory_nbytes))
            client = cls(process, ready.address)
            try:
                client.greet()
                yield client
            finally:
                client.link.close()
        finally:
            process.close()

    def greet(self, key: str = "key-of-the-session") -> Message:
        """Show the key; returns Welcome or Goodbye."""
        self.link.send(self.connection.hello("token", key, "test", "none"))
        message = self.receive()
        if isinstance(message, Welcome):
            self.welcome = message
        return message

    def receive(self) -> Message:
        """The next message, sorted into ``failures``, ``answers`` or ``goodbye``."""
        deadline_s = time.monotonic() + DEADLINE_S
        frames = None
        while frames is None:
            assert time.monotonic() < deadline_s, "the worker does not answer"
            frames = self.link.receive(1.0)
        message = self.connection.receive(frames)
        match message:
            case Failure(0):
                self.failures.append(message)
            case Reply() | Failure():
                self.answers[message.request] = message
            case Goodbye():
                self.goodbye = message
        return message

    def request(self) -> int:
        """A new request id."""
        return next(self._requests)

    def send(self, *records: Record, payloads: Sequence[bytes] = ()) -> None:
        """One batch."""
        writer = Writer()
        for record in records:
            write_record(writer, record)
        self.link.send(
            self.connection.batch(bytes(writer.buffer), len(records), payloads)
        )

    def run(self, *records: Record, payloads: Sequence[bytes] = ()) -> None:
        """One batch, and all it caused, up to its acknowledgement."""
        self.send(*records, payloads=payloads)
        while not isinstance(self.receive(), Ack):
            pass

    def answer(self, make: Callable[[int], Record]) -> Reply | Failure:
        """The answer to one record that is made from a request id."""
        request = self.request()
        self.run(make(request))
        return self.answers.pop(request)


def value_of(reply: Reply | Failure) -> Value:
    """The value in a reply; fails on a failure."""
    assert isinstance(reply, Reply), reply
    return read_value(Reader(reply.value))


def data_of(reply: Reply | Failure) -> bytes:
    """The payload bytes of a reply; fails on a failure."""
    assert isinstance(reply, Reply), reply
    return b"".join(bytes(frame) for frame in reply.payloads)
