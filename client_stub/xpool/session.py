"""One session: from a lease to an open link, and what a device asks of it.

``reach`` walks the opening dialogue (node, then worker); ``Session`` turns
answers into Python values or the exceptions that a local device would have raised.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from xpool_protocol import limits
from xpool_protocol.codec import decode, encode
from xpool_protocol.connection import ClientConnection
from xpool_protocol.errors import BrokenError, PeerError, PoolError, WorkerLost
from xpool_protocol.lane_records import Known, known_from
from xpool_protocol.messages import (
    Failure,
    Fault,
    Goodbye,
    Inquiry,
    Redirect,
    Reply,
    Welcome,
)
from xpool_protocol.records import STATISTICS_FIELDS
from xpool_protocol.transport import Link, connect
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader

from xpool.lane import LaneEnd, lane_to
from xpool.lease_pipe import Lease
from xpool.link import Mark, SessionLink, greet
from xpool.outbox import Outbox

AGENT: Final = "xpool 0.1.0"
OPEN_TIMEOUT_S: Final = 90.0
"""A node may have to start a worker first: it imports torch, some seconds."""
INQUIRY_TIMEOUT_S: Final = 3.0
MAX_TRACED: Final = 100_000
"""Operations whose Python line is remembered under ``XPOOL_TRACE=1``."""


T = TypeVar("T")


class Session:
    """An open session. Its methods may be called from any thread."""

    def __init__(
        self,
        lease: Lease,
        welcome: Welcome,
        link: SessionLink,
        peer: tuple[str, str] = ("", ""),
    ) -> None:
        self.lease = lease
        self.welcome = welcome
        self.link = link
        self.on_wait: Callable[[str, int, int], None] | None = None
        """Is told of waits: what for, nanoseconds, bytes; None: nobody watches."""
        self.peer = peer
        """Address and key of the worker's door for other workers; empty: none."""
        self.is_traced = os.environ.get("XPOOL_TRACE", "") not in ("", "0")
        self._lines: dict[int, str] = {}
        self._traced: deque[int] = deque()
        self._trace_lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        """The session has ended; every further request raises why."""
        return self.link.over is not None

    def wait(self, request: int) -> Reply:
        """The answer to a request.

        Raises:
            RemoteFault: the operation failed.
            PoolError: the session is over.
        """
        answer = self.link.wait_for_answer(request)
        if isinstance(answer, Failure):
            raise RemoteFault(answer.fault, self.describe(answer.fault))
        return answer

    def noted(self, what: str, wait: Callable[[], T]) -> T:
        """Wait, and tell whoever watches waits how long it took."""
        if self.on_wait is None:
            return wait()
        began_ns = time.monotonic_ns()
        try:
            return wait()
        finally:
            self.on_wait(what, time.monotonic_ns() - began_ns, 0)

    def mark(self, request: int) -> Mark:
        """A mark that the FENCE with this request id sets."""
        return self.link.add_mark(request)

    def statistics(self, request: int) -> dict[str, int]:
        """The server's counters, from the answer to a STATISTICS record."""
        values = read_value(Reader(self.wait(request).value))
        if not isinstance(values, list) or len(values) < len(STATISTICS_FIELDS):
            raise PeerError("the server's statistics are malformed")
        return {
            name: value
            for name, value in zip(STATISTICS_FIELDS, values, strict=False)
            if isinstance(value, int)
        }

    def open_lane(self, request: int) -> LaneEnd | None:
        """The bulk lane, from the answer to an OPEN_LANE record.

        None where the server has none, or none can be reached: then all bytes go
        through the session's own connection.

        Raises:
            RemoteFault: the server could not open one.
            PoolError: the session is over.
        """
        answer = read_value(Reader(self.wait(request).value))
        match answer:
            case [str(token), [*addresses]]:
                return lane_to(addresses, self.link.host, token)
            case _:
                raise PeerError("the server's answer about its bulk lane is malformed")

    def list_known(self, request: int) -> list[Known]:
        """What need not be uploaded, from the answer to a LIST_KNOWN record.

        Raises:
            RemoteFault: the server could not say.
            PoolError: the session is over.
        """
        return known_from(self.wait(request).payloads)

    def describe(self, fault: Fault) -> str:
        """The error's text for people: what, which operation, where, which line."""
        if not fault.name:
            where = f"operation {fault.operation}"
        else:
            where = f"{fault.name}, operation {fault.operation}"
        line = self._lines.get(fault.operation)
        issued = f", issued at {line}" if line else ""
        return f"{fault.text} [{where}{issued}, on server {self.welcome.server}]"

    def trace(self, operation: int) -> None:
        """Remember the innermost line of the program that issues an operation."""
        frame = sys._getframe()
        while frame is not None and _is_ours(frame.f_code.co_filename):
            back = frame.f_back
            if back is None:
                break
            frame = back
        with self._trace_lock:
            self._lines[operation] = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            self._traced.append(operation)
            if len(self._traced) > MAX_TRACED:
                self._lines.pop(self._traced.popleft(), None)

    def take_faults(self) -> list[str]:
        """Late failures nobody was told of, in the order of their operations."""
        faults, self.link.faults = self.link.faults, {}
        return [self.describe(fault) for _, fault in sorted(faults.items())]

    def leave(self, reason: str) -> None:
        """Say goodbye; the server frees everything. Idempotent."""
        self.link.leave(reason, timeout_s=3.0)


class RemoteFault(Exception):  # noqa: N818  turned into the program's own exception at once
    """A failed operation, on its way to the exception a local device would raise."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


def _is_ours(filename: str) -> bool:
    return f"{os.sep}torch{os.sep}" in filename or f"{os.sep}xpool{os.sep}" in filename


class Reached(NamedTuple):
    """A worker that has said Welcome, and the link to it, which nobody drives yet."""

    lease: Lease
    key: str
    address: str
    link: Link
    connection: ClientConnection
    welcome: Welcome

    def begin(self, outbox: Outbox) -> Session:
        """Start to send what a device leaves in the outbox."""
        diagnose = _diagnosis(self.lease, self.key)
        driver = outbox.native_link(self.link, self.connection, diagnose)
        if driver is None:
            driver = SessionLink(self.link, self.connection, outbox, diagnose)
        driver.start()
        peer = peer_of(self.welcome)
        return Session(self.lease, self.welcome, driver, peer)


def reach(lease: Lease, framework: str) -> Reached:
    """Connect to the lease's node, then to the worker it names.

    Needs neither the framework nor a device: whoever imports the framework can do so
    meanwhile. Any thread may call this, and another one ``begin``.

    Raises:
        PoolError: refused, or nobody answers; the text says what to do.
    """
    key, address = _find_worker(lease, framework)
    link = connect(address, max_message_nbytes=limits.MAX_MESSAGE_NBYTES)
    connection = ClientConnection()
    try:
        welcome = greet(
            link, connection, (lease.token, key, AGENT, framework), OPEN_TIMEOUT_S
        )
        if not isinstance(welcome, Welcome):
            raise PeerError("the worker sent the client elsewhere")
    except PoolError:
        link.close()
        raise
    return Reached(lease, key, address, link, connection, welcome)


def reach_all(leases: Sequence[Lease], framework: str) -> list[Reached]:
    """All at once: a server may have to start a worker first, which takes long.

    Raises:
        PoolError: one can't be reached; the others are let go.
    """
    with ThreadPoolExecutor(len(leases)) as threads:
        reaching = [threads.submit(reach, lease, framework) for lease in leases]
    errors = [error for one in reaching if (error := one.exception())]
    if errors:
        for one in reaching:
            if one.exception() is None:
                one.result().link.close()
        raise errors[0]
    return [one.result() for one in reaching]


def open_session(lease: Lease, outbox: Outbox, framework: str) -> Session:
    """``reach`` and ``begin`` in one.

    Raises:
        PoolError: as ``reach``.
    """
    return reach(lease, framework).begin(outbox)


def peer_of(welcome: Welcome) -> tuple[str, str]:
    """Address and key of a worker's door, as SPEC.md section 14 has it."""
    door = welcome.properties.get("peer_address", "")
    key = welcome.properties.get("peer_key", "")
    if not isinstance(door, str) or not isinstance(key, str):
        raise PeerError("the worker's door for other workers is malformed")
    return door, key


def _find_worker(lease: Lease, framework: str) -> tuple[str, str]:
    """The session key and the worker's address, from the node's Redirect."""
    try:
        with connect(lease.address) as link:
            message = greet(
                link,
                ClientConnection(),
                (lease.token, "", AGENT, framework),
                OPEN_TIMEOUT_S,
            )
    except BrokenError as error:
        raise BrokenError(
            f"server {lease.node_name} at {lease.address} does not answer ({error});"
            " is it running? `xpool admin nodes` shows which servers are alive"
        ) from error
    if not isinstance(message, Redirect):
        raise PeerError(f"server {lease.node_name} did not name a worker")
    return message.session_key, message.address


def _diagnosis(lease: Lease, key: str) -> Callable[[PoolError], PoolError]:
    """What a lost link means: ask the node what became of the worker."""

    def diagnose(broken: PoolError) -> PoolError:
        try:
            with connect(lease.address, connect_timeout_s=INQUIRY_TIMEOUT_S) as link:
                link.send(encode(Inquiry(lease.token, key)))
                frames = link.receive(INQUIRY_TIMEOUT_S)
        except BrokenError:
            frames = None
        if frames is None:
            return WorkerLost(
                f"server {lease.node_name} at {lease.address} has stopped answering;"
                " what the job had on the device is lost: start the job again"
            )
        try:
            message = decode(frames)
        except PeerError as error:
            return error
        if isinstance(message, Goodbye):
            return PoolError.from_wire(message.code, message.text)
        return broken

    return diagnose
