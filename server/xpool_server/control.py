"""What a node and its session workers say to each other, over a socket pair.

One JSON object a line, each a tagged struct. The pair belongs to the two processes
alone, so nothing here is authenticated; a line is still bounded and checked. The
end of the stream means that the other process is gone: a worker then ends itself.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

MAX_LINE_NBYTES: Final = 64 << 10


class WorkerReady(msgspec.Struct, frozen=True, tag="ready"):
    """Worker to node: the framework is imported and the address is bound."""

    address: str
    pid: int
    framework: str


class OpenSession(msgspec.Struct, frozen=True, tag="open"):
    """Node to worker: serve this lease, for the client that shows the key."""

    lease_id: str
    epoch: int
    session_key: str
    server: str
    share_percent: int
    memory_nbytes: int
    host: str = "127.0.0.1"
    """By which this one is reached."""
    door_key: str = ""
    """What workers of this pool vouch for their doors with, in hex."""
    tenant: str = ""
    mode: str = "elastic"
    slot: int = -1
    """Of the device's arbiter; -1: nobody arbitrates."""


class EndSession(msgspec.Struct, frozen=True, tag="end"):
    """Node to worker: tell the client why, and exit."""

    code: int
    text: str


class ResizeSession(msgspec.Struct, frozen=True, tag="resize"):
    """Node to worker: the slice is another one; SessionResized answers."""

    share_percent: int
    memory_nbytes: int


class SessionResized(msgspec.Struct, frozen=True, tag="resized"):
    """Worker to node: the quota that is in force now."""

    memory_nbytes: int
    refusal: str = ""
    """Why it is not the one that was asked for; empty if it is."""


class SessionOpened(msgspec.Struct, frozen=True, tag="opened"):
    """Worker to node: the client has shown the key."""

    lease_id: str


class SessionStatistics(msgspec.Struct, frozen=True, tag="statistics"):
    """Worker to node: the session's counters, when they changed, about once a second.

    Fields as in ``records.STATISTICS_FIELDS``.
    """

    counters: dict[str, int]
    overhead_nbytes: int = 0
    """What the process holds of the device beside the storages."""


class SessionClosed(msgspec.Struct, frozen=True, tag="closed"):
    """Worker to node: the session is over; the worker exits next."""

    reason: str
    counters: dict[str, int]


FromWorker: TypeAlias = (
    WorkerReady | SessionOpened | SessionStatistics | SessionResized | SessionClosed
)
ToWorker: TypeAlias = OpenSession | ResizeSession | EndSession

_ENCODER: Final = msgspec.json.Encoder()
_FROM_WORKER: Final[msgspec.json.Decoder[FromWorker]] = msgspec.json.Decoder(FromWorker)
_TO_WORKER: Final[msgspec.json.Decoder[ToWorker]] = msgspec.json.Decoder(ToWorker)


def line_from(message: FromWorker | ToWorker) -> bytes:
    """One line, with its end."""
    return _ENCODER.encode(message) + b"\n"


def from_worker(line: bytes) -> FromWorker:
    """A worker's line.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _FROM_WORKER.decode(line)


def to_worker(line: bytes) -> ToWorker:
    """A node's line.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _TO_WORKER.decode(line)
