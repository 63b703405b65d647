"""What happens to a node (past tense), and what it then does (imperative).

``node_state.py`` takes the first and returns the second; ``node.py`` observes the
first and carries out the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, TypeAlias

from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.errors import PoolError
from xpool_protocol.transport.base import PeerId

from xpool_server.control import FromWorker, ToWorker

WorkerId = NewType("WorkerId", int)
"""Counts the worker processes that a node has started, from 1."""


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """The node runs; nothing else has happened yet."""


@dataclass(frozen=True, slots=True)
class SessionAsked:
    """A client showed a genuine token that is meant for this node."""

    peer: PeerId
    claims: LeaseClaims


@dataclass(frozen=True, slots=True)
class SessionInquired:
    """A client asks what became of its session."""

    peer: PeerId
    claims: LeaseClaims
    session_key: str


@dataclass(frozen=True, slots=True)
class WorkerSaid:
    """A line came over a worker's control socket."""

    worker: WorkerId
    message: FromWorker


@dataclass(frozen=True, slots=True)
class WorkerHungUp:
    """A worker's control socket is closed, or what came over it makes no sense."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker process is gone, and everything it had said was handed on."""

    worker: WorkerId
    status: int
    """Exit status; negative: the signal that ended it."""


@dataclass(frozen=True, slots=True)
class LeaseRevoked:
    """The registry says that a lease is over."""

    lease_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SliceChanged:
    """The registry says that a lease's slice is another one."""

    lease_id: str
    epoch: int
    number: int
    """Counts the changes."""
    share_percent: int
    memory_nbytes: int
    mode: str
    priority: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Some deadline may be over."""


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """The node is to end."""


Fact: TypeAlias = (
    NodeStarted
    | SessionAsked
    | SessionInquired
    | WorkerSaid
    | WorkerHungUp
    | WorkerExited
    | LeaseRevoked
    | SliceChanged
    | TimePassed
    | ShutdownAsked
)


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker process for a device."""

    worker: WorkerId
    device_index: int


@dataclass(frozen=True, slots=True)
class TellWorker:
    """Send a line over a worker's control socket."""

    worker: WorkerId
    message: ToWorker


@dataclass(frozen=True, slots=True)
class SetTerms:
    """Let a worker take its turns by the terms of its session's claims."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End a worker process at once."""

    worker: WorkerId
    reason: str
    """For the log."""


@dataclass(frozen=True, slots=True)
class SendRedirect:
    """Tell a client where its session is."""

    peer: PeerId
    address: str
    session_key: str


@dataclass(frozen=True, slots=True)
class SendGoodbye:
    """Refuse a client, or tell it how its session ended."""

    peer: PeerId
    error: PoolError


@dataclass(frozen=True, slots=True)
class ReportEnded:
    """Tell the registry that a lease has no session any more."""

    lease_id: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportSoon:
    """Send the next heartbeat now: the registry may know of leases that ended."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The node cannot do its work; end it with this sentence."""

    text: str


Instruction: TypeAlias = (
    StartWorker
    | TellWorker
    | SetTerms
    | KillWorker
    | SendRedirect
    | SendGoodbye
    | ReportEnded
    | ReportSoon
    | GiveUp
)
