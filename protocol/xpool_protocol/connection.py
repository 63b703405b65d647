"""The data plane's two ends as plain objects: messages in, facts out; no I/O.

``ClientConnection`` numbers batches, keeps the byte credit and says what arrived;
``ServerConnection`` checks that a client keeps its side. Neither knows a socket, a
thread or a clock. A driver sends the frames they return and feeds what it receives.

Rule 1: every state is a member of ``State``; a message that is not legal in it is
one error, ``PeerError``, naming the message and the state.
Rule 2: whatever a peer sends, the only exception is a ``PeerError``. What this side
itself asks for at the wrong time is a ``UsageError``.
SPEC.md sections 6 and 7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

import msgspec

from xpool_protocol import limits
from xpool_protocol.codec import Frames, decode, encode
from xpool_protocol.errors import PeerError, PoolError, UsageError
from xpool_protocol.messages import (
    Ack,
    Batch,
    Bye,
    Failure,
    Fault,
    Goodbye,
    Hello,
    Inquiry,
    Message,
    Payload,
    Ping,
    Pong,
    Redirect,
    Reply,
    Resized,
    Welcome,
)
from xpool_protocol.version import MAX_VERSION, MIN_VERSION, choose_version


class State(Enum):
    """Where a connection stands."""

    NEW = auto()
    GREETED = auto()
    """Hello or Inquiry is sent (client), Hello is received (server)."""
    OPEN = auto()
    CLOSED = auto()


LEGAL_FOR_CLIENT: Final[dict[State, tuple[type[Message], ...]]] = {
    State.NEW: (),
    State.GREETED: (Welcome, Redirect, Goodbye, Pong),
    State.OPEN: (Ack, Reply, Failure, Pong, Resized, Goodbye),
    State.CLOSED: (),
}
LEGAL_FOR_SERVER: Final[dict[State, tuple[type[Message], ...]]] = {
    State.NEW: (Hello, Inquiry),
    State.GREETED: (Bye, Ping),
    State.OPEN: (Batch, Bye, Ping),
    State.CLOSED: (),
}

MIN_RECORD_NBYTES: Final = 2
"""A kind and one number."""


def _checked(
    frames: Sequence[Payload],
    state: State,
    legal: dict[State, tuple[type[Message], ...]],
) -> Message:
    message = decode(frames)
    if not isinstance(message, legal[state]):
        raise PeerError(
            f"{type(message).__name__} is not legal while {state.name.lower()}"
        )
    return message


def _require(state: State, needed: State, what: str) -> None:
    if state is not needed:
        raise UsageError(
            f"{what} is said while {needed.name.lower()}, not while"
            f" {state.name.lower()}"
        )


class ClientConnection:
    """The client's side of one session."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.version = MAX_VERSION
        self.window_nbytes = 0
        self.acknowledged = 0
        """Sequence number up to which the server has executed."""
        self._next_sequence = 1
        self._next_operation = 0
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._in_flight_nbytes = 0
        self._has_inquired = False

    @property
    def in_flight_nbytes(self) -> int:
        """Bytes sent and not yet acknowledged."""
        return self._in_flight_nbytes

    @property
    def room_nbytes(self) -> int:
        """Credit left; a batch may go while it is positive."""
        return self.window_nbytes - self._in_flight_nbytes

    def hello(self, token: str, session_key: str, agent: str, framework: str) -> Frames:
        """Frames that greet a node or a worker.

        After a Redirect, greet the worker at its address, over a link of its own.

        Raises:
            UsageError: something was said already.
        """
        _require(self.state, State.NEW, "Hello")
        self.state = State.GREETED
        return encode(
            Hello(MIN_VERSION, MAX_VERSION, token, session_key, agent, framework)
        )

    def inquiry(self, token: str, session_key: str) -> Frames:
        """Frames that ask a node about a session; Redirect or Goodbye answers.

        Raises:
            UsageError: something was said already.
        """
        _require(self.state, State.NEW, "Inquiry")
        self.state = State.GREETED
        self._has_inquired = True
        return encode(Inquiry(token, session_key))

    def batch(
        self, records: bytes, record_count: int, payloads: Sequence[Payload] = ()
    ) -> Frames:
        """Frames of the next batch; its bytes are taken from the credit.

        Raises:
            UsageError: the session is not open, or ``room_nbytes`` is not positive.
        """
        _require(self.state, State.OPEN, "Batch")
        if self.room_nbytes <= 0:
            raise UsageError(
                f"{self._in_flight_nbytes} bytes are in flight and the window is"
                f" {self.window_nbytes}: wait for an Ack"
            )
        frames = encode(
            Batch(self._next_sequence, self._next_operation, records, tuple(payloads)),
            self.version,
        )
        nbytes = sum(len(frame) for frame in frames)
        self._unacknowledged.append((self._next_sequence, nbytes))
        self._in_flight_nbytes += nbytes
        self._next_sequence += 1
        self._next_operation += record_count
        return frames

    def bye(self, reason: str) -> Frames:
        """Frames that leave; nothing may be sent afterwards."""
        self.state = State.CLOSED
        return encode(Bye(reason), self.version)

    def receive(self, frames: Sequence[Payload]) -> Message:
        """What arrived, after taking note of it.

        Raises:
            PeerError: not a message, or not one that is legal now.
        """
        message = _checked(frames, self.state, LEGAL_FOR_CLIENT)
        match message:
            case Welcome():
                self._open(message)
            case Redirect():
                self.state = State.NEW
                self._has_inquired = False
            case Ack():
                self._acknowledge(message)
            case Goodbye():
                self.state = State.CLOSED
            case _:
                pass
        return message

    def _open(self, welcome: Welcome) -> None:
        if self._has_inquired:
            raise PeerError("Welcome is no answer to an Inquiry")
        if not MIN_VERSION <= welcome.version <= MAX_VERSION:
            raise PeerError(f"the server chose version {welcome.version}")
        self._set_window(welcome.window_nbytes)
        self.version = welcome.version
        self.state = State.OPEN

    def _set_window(self, nbytes: int) -> None:
        if nbytes < limits.MIN_WINDOW_NBYTES:
            raise PeerError(f"a window of {nbytes} bytes cannot hold one batch")
        # What is in flight was sent against the larger window.
        if nbytes < self.window_nbytes:
            raise PeerError(
                f"the window shrank from {self.window_nbytes} to {nbytes} bytes"
            )
        self.window_nbytes = nbytes

    def _acknowledge(self, ack: Ack) -> None:
        if not self.acknowledged <= ack.sequence < self._next_sequence:
            raise PeerError(
                f"Ack of batch {ack.sequence}: batches up to {self.acknowledged} are"
                f" acknowledged, up to {self._next_sequence - 1} were sent"
            )
        self._set_window(ack.window_nbytes)
        self.acknowledged = ack.sequence
        while self._unacknowledged and self._unacknowledged[0][0] <= ack.sequence:
            self._in_flight_nbytes -= self._unacknowledged.popleft()[1]


class ServerConnection:
    """The server's side of one session."""

    def __init__(self, window_nbytes: int = limits.WINDOW_NBYTES) -> None:
        if window_nbytes < limits.MIN_WINDOW_NBYTES:
            raise UsageError(
                f"a window of {window_nbytes} bytes is too small:"
                f" {limits.MIN_WINDOW_NBYTES} is the least"
            )
        self.state = State.NEW
        self.version = MAX_VERSION
        self.window_nbytes = window_nbytes
        self.executed = 0
        """Sequence number up to which batches are executed."""
        self._received = 0
        self._held: deque[tuple[int, int]] = deque()
        self._held_nbytes = 0
        # The next batch's first operation lies between these. That much is seen
        # without reading records; whoever executes them compares the exact number.
        self._fewest_operations = self._most_operations = 0

    @property
    def held_nbytes(self) -> int:
        """Bytes received and not yet acknowledged."""
        return self._held_nbytes

    def receive(self, frames: Sequence[Payload]) -> Message | None:
        """What arrived; None for a batch that was taken already.

        Raises:
            PeerError: not a message, not legal now, out of order, or over the credit.
            VersionUnsupported: a Hello whose versions do not meet ours.
        """
        message = _checked(frames, self.state, LEGAL_FOR_SERVER)
        match message:
            case Hello():
                self.version = choose_version(
                    message.min_version, message.max_version, MIN_VERSION, MAX_VERSION
                )
                self.state = State.GREETED
            case Batch():
                return self._take(message, sum(len(frame) for frame in frames))
            case Bye():
                self.state = State.CLOSED
            case _:
                pass
        return message

    def _take(self, batch: Batch, nbytes: int) -> Batch | None:
        if batch.sequence == 0:
            raise PeerError("batches are numbered from 1")
        if batch.sequence <= self._received:
            return None
        if batch.sequence != self._received + 1:
            raise PeerError(
                f"batch {batch.sequence} arrived after batch {self._received}"
            )
        # One batch may overdraw: it is sent while any credit at all is left.
        if self._held_nbytes >= self.window_nbytes:
            raise PeerError(
                f"{self._held_nbytes} bytes are unacknowledged,"
                f" the window is {self.window_nbytes}"
            )
        first = batch.first_operation
        if not self._fewest_operations <= first <= self._most_operations:
            raise PeerError(
                f"batch {batch.sequence} begins at operation {first}, which is not the"
                " next one"
            )
        self._fewest_operations = first
        most_nbytes = len(batch.records) + limits.MAX_EXPANDED_NBYTES
        self._most_operations = first + most_nbytes // MIN_RECORD_NBYTES
        self._received = batch.sequence
        self._held.append((batch.sequence, nbytes))
        self._held_nbytes += nbytes
        return batch

    def advance(self, sequence: int, operation: int) -> None:
        """Take note of batches that native code has taken, executed and acknowledged.

        Args:
            sequence: the last one.
            operation: the number of the record after it.

        Raises:
            UsageError: the session is not open, a batch is held, or it goes back.
        """
        _require(self.state, State.OPEN, "advance")
        if self._held or sequence < self._received:
            raise UsageError(
                f"{len(self._held)} batches are held and {self._received} is the last"
                f" that came: it can't be batch {sequence}"
            )
        self.executed = self._received = sequence
        self._fewest_operations = self._most_operations = operation

    def welcome(self, welcome: Welcome) -> Frames:
        """Frames that open the session; version and window are this connection's.

        Raises:
            UsageError: no Hello has been received, or the session is open already.
        """
        _require(self.state, State.GREETED, "Welcome")
        self.state = State.OPEN
        ours = msgspec.structs.replace(
            welcome, version=self.version, window_nbytes=self.window_nbytes
        )
        return encode(ours, self.version)

    def ack(self, sequence: int) -> Frames:
        """Frames that say: executed up to here, the bytes are credit again.

        Raises:
            UsageError: the batch was not received, or a later one is acknowledged.
        """
        if not self.executed <= sequence <= self._received:
            raise UsageError(
                f"batch {sequence} can't be acknowledged: {self.executed} is already,"
                f" {self._received} is the last that came"
            )
        self.executed = sequence
        while self._held and self._held[0][0] <= sequence:
            self._held_nbytes -= self._held.popleft()[1]
        return encode(Ack(sequence, self.window_nbytes), self.version)

    def reply(
        self, request: int, value: bytes, payloads: Sequence[Payload] = ()
    ) -> Frames:
        """Frames that answer a request."""
        return encode(Reply(request, value, tuple(payloads)), self.version)

    def failure(self, request: int, fault: Fault) -> Frames:
        """Frames that answer a request with an error, or report one unasked (0)."""
        short = msgspec.structs.replace(fault, text=_shortened(fault.text))
        return encode(Failure(request, short), self.version)

    def pong(self, ping: Ping) -> Frames:
        """Frames that answer a Ping."""
        return encode(Pong(ping.nonce), self.version)

    def resized(self, share_percent: int, memory_nbytes: int) -> Frames:
        """Frames that tell the slice that is in force from now on."""
        return encode(Resized(share_percent, memory_nbytes), self.version)

    def goodbye(self, error: PoolError) -> Frames:
        """Frames that end the session, or refuse to open it."""
        self.state = State.CLOSED
        return goodbye(error)


def _shortened(text: str) -> str:
    """A text that fits; half a surrogate pair becomes a question mark."""
    data = text.encode("utf-8", "replace")
    return data[: limits.MAX_TEXT_NBYTES].decode("utf-8", "ignore")


def goodbye(error: PoolError) -> Frames:
    """Frames of a Goodbye, in the oldest form, so that any client can read it."""
    return encode(Goodbye(error.code, _shortened(str(error))), MIN_VERSION)


def redirect(address: str, session_key: str) -> Frames:
    """Frames of a node's answer to Hello."""
    return encode(Redirect(address, session_key), MIN_VERSION)
