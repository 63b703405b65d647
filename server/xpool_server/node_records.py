"""What a node remembers: its workers, its sessions, and who waits for what.

Only ``node_state.py`` changes these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.errors import PoolError
from xpool_protocol.transport.base import PeerId

from xpool_server.node_facts import WorkerId


class SessionState(Enum):
    """The node's word for where a session stands; the registry shows it."""

    OPENING = "opening"
    """The client was redirected and has not shown its key yet."""

    OPEN = "open"
    ENDING = "ending"


class WorkerState(Enum):
    """Where a worker process stands."""

    STARTING = "starting"
    SPARE = "spare"
    SERVING = "serving"
    ENDING = "ending"


@dataclass(slots=True)
class Session:
    """A lease's state on this node."""

    claims: LeaseClaims
    key: str
    state: SessionState = SessionState.OPENING
    counters: dict[str, int] = field(default_factory=dict)
    """As ``records.STATISTICS_FIELDS``; as old as a second."""

    overhead_nbytes: int = 0
    """What its worker holds of the device beside the storages."""

    wish: LeaseClaims | None = None
    """The claims as they are to be, once the worker has confirmed the quota."""

    before: LeaseClaims | None = None
    """The claims as they were, should it refuse."""

    slice_number: int = 0
    """Of the registry's last change of the slice."""

    refusal: str = ""
    """Why that change is not in force; empty if it is."""

    ended_by: PoolError | None = None
    """Why it ends, once that is known; None if its worker just dies."""


@dataclass(slots=True)
class Worker:
    """A worker process."""

    device_index: int
    deadline_ns: int | None
    """When the node loses patience with what it waits for."""

    state: WorkerState = WorkerState.STARTING
    address: str = ""
    pid: int = 0
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A client that waits for a worker."""

    peer: PeerId
    claims: LeaseClaims
    deadline_ns: int
    room_deadline_ns: int
    """When a device that is still full is full, and not just being emptied."""


@dataclass(frozen=True, slots=True)
class OpenInquiry:
    """A client that asked about a session whose worker still runs, as far as we see."""

    peer: PeerId
    worker: WorkerId
    deadline_ns: int
