"""The line between a user's process and the keeper of its lease.

A socket pair, one JSON object a line. The keeper (``keeper.py``) speaks gRPC and
holds the lease; this side only reads what became of it, so that no thread and no
library of the control plane is in the user's process.

    keeper to child   {"lease": {...}}            a lease, once for each device
                      {"refused": {code, text}}   there is none; the last line
                      {"renewed": {"token": ...}} a fresh token for the same lease
                      {"ended": {code, text}}     the lease is over; the last line,
                                                  unless it names one of several
    child to keeper   {"statistics": {...}}       a server's counters, at the end
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
from xpool_protocol.errors import BrokenError, PoolError, UsageError

LEASE_FD_VARIABLE: Final = "XPOOL_LEASE_FD"
"""Names the descriptor of the child's end; set by ``xpool run`` for its child."""

MAX_LINE_NBYTES: Final = 64 << 10
"""A lease with its token is below 8 KiB."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry granted."""

    lease_id: str
    epoch: int
    token: str
    """Shown to the server; signed by the registry."""
    address: str
    """The server's front door, a data-plane URI."""
    node_name: str
    device_kind: str
    device_name: str
    device_index: int
    """The device's position on its server, for people."""
    share_percent: int
    memory_nbytes: int


class Renewed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fresh token for the same lease."""

    token: str
    lease_id: str = ""
    """Which one; empty if there is only one."""


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ``PoolError`` on its way."""

    code: int
    text: str
    lease_id: str = ""
    """Which lease is over; empty if that is the end of all."""

    @classmethod
    def from_error(cls, error: PoolError, lease_id: str = "") -> Ending:
        """What ``error`` returns on the other side."""
        return cls(error.code, str(error), lease_id)

    @property
    def error(self) -> PoolError:
        """The error again."""
        return PoolError.from_wire(self.code, self.text)


class KeeperLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keeper to child; one of the fields is set."""

    lease: Lease | None = None
    lease_count: int = 1
    """With ``lease``: how many come in all, one a line."""
    refused: Ending | None = None
    renewed: Renewed | None = None
    ended: Ending | None = None
    wants_statistics: bool = False
    """With ``lease``: the counters are asked for at the end."""


class ChildLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Child to keeper."""

    statistics: dict[str, int] | None = None
    lease_id: str = ""
    """Whose counters; empty if there is only one lease."""


class LeaseOver(NamedTuple):
    """One of several leases is over; the others go on."""

    lease_id: str
    error: PoolError


Later: TypeAlias = Renewed | LeaseOver | PoolError
"""What may come after the leases: a fresh token, the end of one, or of all."""

_ENCODER: Final = msgspec.json.Encoder()
_KEEPER_LINE: Final = msgspec.json.Decoder(KeeperLine)
_CHILD_LINE: Final = msgspec.json.Decoder(ChildLine)


def line_from(message: KeeperLine | ChildLine) -> bytes:
    """One line, with its end."""
    return _ENCODER.encode(message) + b"\n"


def child_line(line: bytes) -> ChildLine:
    """A child's line.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _CHILD_LINE.decode(line)


class LeasePipe:
    """The child's end. ``wait_for_leases`` first, then ``watch``."""

    def __init__(self, channel: socket.socket) -> None:
        """Take over a connected stream socket."""
        channel.set_inheritable(False)
        self._socket = channel
        self._unread = b""
        self._lines: deque[KeeperLine] = deque()
        self._owner_pid = os.getpid()
        self.wants_statistics = False
        """Whether ``send_statistics`` is expected; known with the lease."""
        # A DataLoader's worker that kept a copy open would keep the lease alive.
        os.register_at_fork(after_in_child=self._close_copy)

    @classmethod
    def from_environment(cls) -> LeasePipe:
        """The pipe that ``xpool run`` gave this process; no child of it sees it.

        Raises:
            UsageError: this process was not started by ``xpool run``.
        """
        text = os.environ.pop(LEASE_FD_VARIABLE, "")
        try:
            return cls(socket.socket(fileno=int(text)))
        except (ValueError, OSError) as error:
            raise UsageError(
                "this process was not started by xpool run: start the program with"
                ' "xpool run SCRIPT"'
            ) from error

    def wait_for_leases(self, timeout_s: float | None) -> tuple[Lease, ...]:
        """The leases, one for each device, once the keeper has them.

        Args:
            timeout_s: longest wait; None waits for as long as the keeper lives.

        Raises:
            PoolError: why there are none, as the registry said it.
            BrokenError: the keeper is gone, or the time is over.
        """
        leases: list[Lease] = []
        while True:
            line = self._next(timeout_s)
            if line is None:
                raise _keeper_gone()
            if line.refused is not None:
                raise line.refused.error
            if line.lease is None:
                raise BrokenError("the keeper of the lease began with something else")
            self.wants_statistics = line.wants_statistics
            leases.append(line.lease)
            if len(leases) >= line.lease_count:
                return tuple(leases)

    def latest(self, leases: Sequence[Lease]) -> tuple[Lease, ...]:
        """The leases with the newest tokens that have come meanwhile; does not wait.

        Tokens live as long as the lease's TTL; building the native library, once,
        can take longer.

        Raises:
            PoolError: a lease has ended meanwhile.
        """
        newest = list(leases)
        while True:
            try:
                line = self._next(0)
            except BrokenError:  # nothing more has come
                return tuple(newest)
            if line is None:
                raise _keeper_gone()
            if line.ended is not None:
                raise line.ended.error
            renewed = line.renewed
            for i, lease in enumerate(newest):
                if renewed and renewed.lease_id in ("", lease.lease_id):
                    newest[i] = msgspec.structs.replace(lease, token=renewed.token)

    def watch(self, on_later: Callable[[Later], None]) -> None:
        """Call back from a thread of its own for everything that follows.

        The last call is a ``PoolError``: all is over, or the keeper is gone.
        Without effect on the interpreter's exit.
        """
        thread = threading.Thread(
            target=self._watch, args=(on_later,), name="xpool-lease", daemon=True
        )
        thread.start()

    def send_statistics(self, counters: dict[str, int], lease_id: str = "") -> None:
        """Hand a server's counters to the keeper; without effect if it is gone."""
        line = ChildLine(statistics=counters, lease_id=lease_id)
        try:
            self._socket.sendall(line_from(line))
        except OSError:
            return  # nobody is left who wants them

    def close(self) -> None:
        """Hang up; a keeper of its own (``start_keeper``) then releases the lease."""
        if os.getpid() == self._owner_pid:
            with contextlib.suppress(OSError):  # the keeper was first
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _watch(self, on_later: Callable[[Later], None]) -> None:
        while True:
            try:
                line = self._next(None)
            except BrokenError as error:
                on_later(error)
                return
            if line is None:
                on_later(_keeper_gone())
                return
            if line.ended is not None and line.ended.lease_id:
                on_later(LeaseOver(line.ended.lease_id, line.ended.error))
            elif line.ended is not None:
                on_later(line.ended.error)
                return
            if line.renewed is not None:
                on_later(line.renewed)

    def _next(self, timeout_s: float | None) -> KeeperLine | None:
        """The next line; None at the end."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            left_s = None if deadline is None else max(0, deadline - time.monotonic())
            try:
                self._socket.settimeout(left_s)
                data = self._socket.recv(MAX_LINE_NBYTES)
            except (TimeoutError, BlockingIOError) as error:
                raise BrokenError(
                    f"no lease came within {timeout_s} s: the registry is slow, try"
                    " again"
                ) from error
            except OSError:  # closed by us meanwhile, or the keeper was killed
                return None
            if not data:
                return None
            self._unread += data
            if len(self._unread) > 2 * MAX_LINE_NBYTES:
                raise BrokenError("the keeper of the lease sent a line without end")
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            return _KEEPER_LINE.decode(line)
        except msgspec.MsgspecError as error:
            raise BrokenError("the keeper of the lease sent nonsense") from error

    def _close_copy(self) -> None:
        """In a forked child: the descriptor is the parent's business."""
        self._socket.close()


def _keeper_gone() -> BrokenError:
    return BrokenError(
        "the process that keeps the lease (xpool run) is gone: start the job again"
    )
