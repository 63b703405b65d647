"""Every message of the data plane. SPEC.md section 2 lists them with their fields.

Client to server: ``Hello``, ``Batch``, ``Ping``, ``Bye``. Server to client:
``Welcome``, ``Redirect``, ``Ack``, ``Reply``, ``Failure``, ``Pong``, ``Goodbye``.

Hello, Welcome and the like are few and travel as msgpack arrays; fields may be
added at the end with a default, which an older peer ignores.
"""

from __future__ import annotations

from typing import ClassVar, Final, TypeAlias

import msgspec

Payload: TypeAlias = bytes | bytearray | memoryview


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Opens a session, or asks a node which worker will hold it."""

    kind: ClassVar[int] = 0x01

    min_version: int
    max_version: int
    token: str
    """The lease's signed token."""
    session_key: str = ""
    """Empty towards a node; towards a worker, what the node's Redirect gave."""
    agent: str = ""
    """For people: program and version."""
    framework: str = ""
    """``torch 2.13.0+cpu``, for the server's log and for compatibility notes."""


class Batch(msgspec.Struct, frozen=True):
    """Some records of the session's log, executed in order, exactly once."""

    kind: ClassVar[int] = 0x02

    sequence: int
    """Counts up from 1; a batch the server has already taken is skipped."""
    first_operation: int
    """Operation number of the first record."""
    records: bytes
    payloads: tuple[Payload, ...] = ()


class Ping(msgspec.Struct, frozen=True):
    """Asks for a Pong; tells a live peer from a frozen one."""

    kind: ClassVar[int] = 0x03
    nonce: int


class Bye(msgspec.Struct, frozen=True, array_like=True):
    """The client leaves; the session and all its storages end."""

    kind: ClassVar[int] = 0x04
    reason: str = ""


class Inquiry(msgspec.Struct, frozen=True, array_like=True):
    """Asks a node what became of a session whose worker went silent."""

    kind: ClassVar[int] = 0x05
    token: str
    session_key: str


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """The session is open. What the client may know without asking again."""

    kind: ClassVar[int] = 0x41

    version: int
    lease_id: str
    epoch: int
    server: str
    """Node name, for people."""
    framework: str
    device_kind: str
    """``cpu``, ``cuda``, …: the client chooses composites by it."""
    device_name: str
    share_percent: int
    memory_nbytes: int
    """The slice's quota."""
    window_nbytes: int
    """Credit: bytes of batches that may be unacknowledged."""
    executed_sequence: int = 0
    properties: dict[str, str | int | float] = {}
    """What ``get_device_properties`` answers, by torch's field names."""


class Redirect(msgspec.Struct, frozen=True, array_like=True):
    """A node's answer to Hello: the worker that holds the session now."""

    kind: ClassVar[int] = 0x42
    address: str
    session_key: str


class Ack(msgspec.Struct, frozen=True):
    """All batches up to ``sequence`` are executed; their bytes are credit again."""

    kind: ClassVar[int] = 0x43
    sequence: int
    window_nbytes: int


class Reply(msgspec.Struct, frozen=True):
    """The answer to a record that has a request id."""

    kind: ClassVar[int] = 0x44
    request: int
    value: bytes
    """One encoded value (``values.read_value``)."""
    payloads: tuple[Payload, ...] = ()


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """What went wrong with one operation."""

    code: int
    """Wire code of a ``PoolError``."""
    text: str
    exception: str = "RuntimeError"
    """The Python exception a local device would have raised, from ``EXCEPTIONS``."""
    operation: int = 0
    """Its number in the session's log."""
    name: str = ""
    """``aten::add.Tensor``, or empty if it is not a call."""


class Failure(msgspec.Struct, frozen=True):
    """An operation failed. With a request id it is that request's answer."""

    kind: ClassVar[int] = 0x45
    request: int
    """0: nobody waits for this one."""
    fault: Fault


class Goodbye(msgspec.Struct, frozen=True, array_like=True):
    """The server ends the session, or refuses to open it."""

    kind: ClassVar[int] = 0x46
    code: int
    text: str


class Pong(msgspec.Struct, frozen=True):
    """The answer to Ping."""

    kind: ClassVar[int] = 0x47
    nonce: int


EXCEPTIONS: Final = frozenset(
    {
        "RuntimeError",
        "IndexError",
        "ValueError",
        "TypeError",
        "NotImplementedError",
        "OutOfMemoryError",
        "LinAlgError",
        "ZeroDivisionError",
    }
)
"""Exception names a Fault may carry; any other becomes RuntimeError."""

Message: TypeAlias = (
    Hello
    | Batch
    | Ping
    | Bye
    | Inquiry
    | Welcome
    | Redirect
    | Ack
    | Reply
    | Failure
    | Goodbye
    | Pong
)
