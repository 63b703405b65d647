"""Every message of the data plane. SPEC.md section 2 lists them with their fields.

Client to server: ``Hello``, ``Inquiry``, ``Batch``, ``Ping``, ``Bye``.
Server to client: ``Welcome``, ``Redirect``, ``Ack``, ``Reply``, ``Failure``, ``Pong``,
``Goodbye``, ``Resized``.

Hello, Welcome and the like are few and travel as msgpack arrays; fields may be
added at the end with a default, which an older peer ignores.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeAlias

import msgspec
from msgspec import Meta

from xpool_protocol import limits

Payload: TypeAlias = bytes | bytearray | memoryview
"""A memoryview is flat and of bytes (format ``B``), so that its length is in bytes."""

# Bounds of what travels as msgpack; they hold for what is decoded.
Version = Annotated[int, Meta(ge=0, le=255)]
Count = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(max_length=limits.MAX_NAME_NBYTES)]
Text = Annotated[str, Meta(max_length=limits.MAX_TEXT_NBYTES)]
Token = Annotated[str, Meta(max_length=limits.MAX_TOKEN_NBYTES)]
Properties = Annotated[
    dict[Name, Text | int | float], Meta(max_length=limits.MAX_PROPERTIES)
]
Names = Annotated[tuple[Name, ...], Meta(max_length=limits.MAX_LACKING)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Opens a session, or asks a node which worker will hold it."""

    kind: ClassVar[int] = 0x01

    min_version: Version
    max_version: Version
    token: Token
    """The lease's signed token."""
    session_key: Name = ""
    """Empty towards a node; towards a worker, what the node's Redirect gave."""
    agent: Text = ""
    """For people: program and version."""
    framework: Text = ""
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
    reason: Text = ""


class Inquiry(msgspec.Struct, frozen=True, array_like=True):
    """Asks a node what became of a session whose worker went silent."""

    kind: ClassVar[int] = 0x05
    token: Token
    session_key: Name


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """The session is open. What the client may know without asking again."""

    kind: ClassVar[int] = 0x41

    version: Version
    lease_id: Name
    epoch: Count
    server: Name
    """Node name, for people."""
    framework: Text
    device_kind: Name
    """``cpu``, ``cuda``, …"""
    device_name: Text
    share_percent: Count
    memory_nbytes: Count
    """The slice's quota."""
    window_nbytes: Count
    """Credit: bytes of batches that may be unacknowledged."""
    executed_sequence: Count = 0
    properties: Properties = {}
    """What ``get_device_properties`` answers, by torch's field names."""
    lacking: Names = ()
    """Operations that the device has no kernel for, ``OPERATION?ARGUMENT`` for those
    whose kernel takes only the plain value of an argument."""


class Redirect(msgspec.Struct, frozen=True, array_like=True):
    """A node's answer to Hello: the worker that holds the session now."""

    kind: ClassVar[int] = 0x42
    address: Text
    session_key: Name


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

    code: Count
    """Wire code of a ``PoolError``."""
    text: Text
    exception: Name = "RuntimeError"
    """The Python exception a local device would have raised, from ``EXCEPTIONS``."""
    operation: Count = 0
    """Its number in the session's log."""
    name: Name = ""
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
    code: Count
    text: Text


class Pong(msgspec.Struct, frozen=True):
    """The answer to Ping."""

    kind: ClassVar[int] = 0x47
    nonce: int


class Resized(msgspec.Struct, frozen=True, array_like=True):
    """The slice that is in force from now on."""

    kind: ClassVar[int] = 0x48
    share_percent: Count
    memory_nbytes: Count
    """The quota."""


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
        "AttributeError",
        "AxisError",
        "KeyError",
        "OverflowError",
        "StopIteration",
        "CompileException",
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
    | Resized
)
