"""The data plane's two ends as plain objects: messages in, facts out; no I/O.

``ClientConnection`` numbers batches, keeps the byte credit and says what arrived;
``ServerConnection`` checks that a client keeps its side. Neither knows a socket, a
thread or a clock. A driver sends the frames they return and feeds what it receives.

Rule 1: every state is a member of ``State``; a message that is not legal in it is
one error, ``PeerError``, naming the message and the state.
Rule 2: whatever a peer sends, the only exception is a ``PoolError``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from xpool_protocol import limits
from xpool_protocol.codec import Frames, decode, encode
from xpool_protocol.errors import PeerError, PoolError
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
    Welcome,
)
from xpool_protocol.version import MAX_VERSION, MIN_VERSION, choose_version


class State(Enum):
    """Where a connection stands."""

    NEW = auto()
    GREETED = auto()
    """Hello is sent (client) or received (server)."""
    OPEN = auto()
    CLOSED = auto()


LEGAL_FOR_CLIENT: Final[dict[State, tuple[type[Message], ...]]] = {
    State.NEW: (),
    State.GREETED: (Welcome, Redirect, Goodbye),
    State.OPEN: (Ack, Reply, Failure, Pong, Goodbye),
    State.CLOSED: (),
}
LEGAL_FOR_SERVER: Final[dict[State, tuple[type[Message], ...]]] = {
    State.NEW: (Hello, Inquiry, Ping),
    State.GREETED: (Ping,),
    State.OPEN: (Batch, Bye, Ping),
    State.CLOSED: (),
}


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

    @property
    def in_flight_nbytes(self) -> int:
        """Bytes sent and not yet acknowledged."""
        return self._in_flight_nbytes

    @property
    def room_nbytes(self) -> int:
        """Credit left; a batch may go while it is positive."""
        return self.window_nbytes - self._in_flight_nbytes

    def hello(self, token: str, session_key: str, agent: str, framework: str) -> Frames:
        """Frames that greet a node or a worker."""
        self.state = State.GREETED
        return encode(
            Hello(MIN_VERSION, MAX_VERSION, token, session_key, agent, framework)
        )

    def batch(
        self, records: bytes, record_count: int, payloads: Sequence[Payload] = ()
    ) -> Frames:
        """Frames of the next batch; its bytes are taken from the credit."""
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
                if not MIN_VERSION <= message.version <= MAX_VERSION:
                    raise PeerError(f"the server chose version {message.version}")
                self.version = message.version
                self._set_window(message.window_nbytes)
                self.state = State.OPEN
            case Ack():
                self._acknowledge(message)
            case Goodbye():
                self.state = State.CLOSED
            case _:
                pass
        return message

    def _set_window(self, nbytes: int) -> None:
        if nbytes < limits.MIN_WINDOW_NBYTES:
            raise PeerError(f"a window of {nbytes} bytes cannot hold one batch")
        self.window_nbytes = nbytes

    def _acknowledge(self, ack: Ack) -> None:
        if not self.acknowledged <= ack.sequence < self._next_sequence:
            raise PeerError(f"batch {ack.sequence} was acknowledged but never sent")
        self.acknowledged = ack.sequence
        while self._unacknowledged and self._unacknowledged[0][0] <= ack.sequence:
            self._in_flight_nbytes -= self._unacknowledged.popleft()[1]
        self._set_window(ack.window_nbytes)


class ServerConnection:
    """The server's side of one session."""

    def __init__(self, window_nbytes: int = limits.WINDOW_NBYTES) -> None:
        self.state = State.NEW
        self.version = MAX_VERSION
        self.window_nbytes = window_nbytes
        self.executed = 0
        """Sequence number up to which batches are executed."""
        self._received = 0
        self._held: deque[tuple[int, int]] = deque()
        self._held_nbytes = 0

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
        if batch.sequence <= self._received:
            return None
        if batch.sequence != self._received + 1:
            raise PeerError(
                f"batch {batch.sequence} arrived after batch {self._received}"
            )
        # One batch may overdraw: it is sent while any credit at all is left.
        if self._held_nbytes > self.window_nbytes:
            raise PeerError(
                f"{self._held_nbytes} bytes are unacknowledged,"
                f" the window is {self.window_nbytes}"
            )
        self._received = batch.sequence
        self._held.append((batch.sequence, nbytes))
        self._held_nbytes += nbytes
        return batch

    def welcome(self, welcome: Welcome) -> Frames:
        """Frames that open the session."""
        self.state = State.OPEN
        return encode(welcome, self.version)

    def ack(self, sequence: int) -> Frames:
        """Frames that say: executed up to here, the bytes are credit again."""
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
        return encode(Failure(request, fault), self.version)

    def pong(self, ping: Ping) -> Frames:
        """Frames that answer a Ping."""
        return encode(Pong(ping.nonce), self.version)

    def goodbye(self, error: PoolError) -> Frames:
        """Frames that end the session, or refuse to open it."""
        self.state = State.CLOSED
        return goodbye(error)


def goodbye(error: PoolError) -> Frames:
    """Frames of a Goodbye, in the oldest form, so that any client can read it."""
    text = str(error)[: limits.MAX_TEXT_NBYTES // 4]
    return encode(Goodbye(error.code, text), MIN_VERSION)


def redirect(address: str, session_key: str) -> Frames:
    """Frames of a node's answer to Hello."""
    return encode(Redirect(address, session_key), MIN_VERSION)
