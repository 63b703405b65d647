"""What a transport is: it moves lists of frames between a link and a listener.

One message is one list of frames. Messages of one link arrive whole, in order
and once, for as long as the path lives; when the path dies, what was under way
is lost and the link says so with ``BrokenError``. There is no reconnection
here: resuming is the session's business, which numbers what it sends.

A transport knows nothing of what the frames mean, and gives no backpressure:
``send`` only queues. The credits of the connection above, counted in bytes,
bound what lies in those queues.

A link or listener belongs to one thread (and one process); only ``wake`` may be
called from others. A forked child gets ``ClosedError`` from whatever it inherits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, NewType, Self, TypeAlias

from xpool_protocol.errors import UsageError
from xpool_protocol.limits import MAX_FRAMES as MAX_FRAMES

Buffer: TypeAlias = bytes | bytearray | memoryview

PeerId = NewType("PeerId", bytes)
"""One connection as its listener names it; never used again for another one."""

DEFAULT_MAX_MESSAGE_NBYTES = 64 << 20
"""64 MiB, the default credit window: a larger message could never be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """How patient and how generous a link or listener is; seconds and bytes.

    Raises:
        UsageError: a time or size that makes no sense.
    """

    connect_timeout_s: float = 5.0
    """How long a link may wait for its peer to answer for the first time."""

    linger_s: float = 1.0
    """How long ``close`` may wait for queued messages to leave; may be 0."""

    heartbeat_interval_s: float = 2.0
    """A silent peer is asked for a sign of life this often."""

    heartbeat_timeout_s: float = 10.0
    """Without an answer for so long, the peer is gone. One frame has to arrive
    within this time: at the default, 4 MiB frames need 3.4 Mb/s."""

    max_message_nbytes: int = DEFAULT_MAX_MESSAGE_NBYTES
    """Largest message, summed over its frames, in either direction."""

    def __post_init__(self) -> None:
        times = (
            self.connect_timeout_s,
            self.heartbeat_interval_s,
            self.heartbeat_timeout_s,
        )
        # A day: beyond any sensible wait, within libzmq's milliseconds.
        if not all(0.001 <= time_s <= 86_400 for time_s in times):
            raise UsageError("transport timeouts must be from 0.001 to 86400 seconds")
        if not 0 <= self.linger_s <= 86_400:
            raise UsageError("linger_s must be from 0 to 86400 seconds")
        if not 1 <= self.max_message_nbytes <= 1 << 40:
            raise UsageError("max_message_nbytes must be from 1 byte to 1 TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """What one link has moved; sizes are bytes of frames, without framing."""

    messages_sent: int = 0
    nbytes_sent: int = 0
    messages_received: int = 0
    nbytes_received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerStatistics(LinkStatistics):
    """The sums over all peers, and what was thrown away."""

    messages_undeliverable: int = 0
    """Sent to a peer that was gone."""

    messages_refused: int = 0
    """Received, but with too many frames or bytes, or from a peer that named
    itself instead of letting the listener name it."""


class NativeSockets(NamedTuple):
    """A socket as native code sees it: pointers, descriptors, functions."""

    socket: int
    monitor: int
    """Tells of the connection's end: zmq_socket_monitor(3)."""
    socket_fileno: int
    monitor_fileno: int
    max_message_nbytes: int
    functions: tuple[int, ...]
    """Addresses of ``zmq_native.FUNCTIONS``."""


class _Endpoint(ABC):
    """What a link and a listener have in common."""

    uri: str
    """The address as others can use it, with ports resolved."""

    @abstractmethod
    def wake(self) -> None:
        """Make a blocked ``receive`` return None soon; from any thread.

        A wake before ``receive`` makes that call return at once, with None or
        with a message that was waiting; several wakes may count as one, none is
        lost. Without effect once closed.
        """

    @abstractmethod
    def watch(self, fileno: int) -> None:
        """Let ``receive`` return None whenever this descriptor is readable.

        The descriptor has to stay open until this end is closed, and its
        reader has to empty it: while it is readable, every other ``receive``
        returns None.
        """

    @abstractmethod
    def unsent(self) -> int:
        """Messages some of whose frames the transport still reads from the caller.

        Frames of 64 KiB and more may be sent from the caller's memory. While this
        is not zero, none of the large buffers sent may change; it sinks to zero
        by itself, at the latest when ``close`` returns.
        """

    @abstractmethod
    def close(self) -> None:
        """Send what is queued, for at most ``linger_s``, and stop; idempotent.

        What was sent has then left this process, or its path or its time was over.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Link(_Endpoint):
    """The client's end: one path to one peer."""

    @abstractmethod
    def send(self, frames: Sequence[Buffer]) -> None:
        """Queue one message; never blocks.

        Sending before the peer has answered is allowed. When the peer is gone,
        the message may be accepted in vain: ``receive`` is what tells.

        Args:
            frames: 1 to ``MAX_FRAMES`` contiguous buffers. Small ones are copied;
                see ``unsent`` for the large ones.

        Raises:
            ClosedError: closed by us, or inherited through a fork.
            BrokenError: the path is known to be gone.
            UsageError: no frames, too many, too large, or not contiguous.
        """

    @abstractmethod
    def receive(self, timeout_s: float | None) -> list[memoryview] | None:
        """The next message, or None: nothing came in time, or there is other work.

        Other work is a ``wake``, or a watched descriptor that is readable.
        The views may be read-only, and their memory has no particular alignment.
        Everything that arrived before the path broke is returned first.

        Args:
            timeout_s: longest wait; 0 looks without waiting, None waits for ever.

        Raises:
            ClosedError: closed by us, or inherited through a fork.
            BrokenError: the peer vanished, or never answered.
            PeerError: the peer sent a message beyond the limits.
        """

    @abstractmethod
    def statistics(self) -> LinkStatistics:
        """Counters so far; readable at any time, also after ``close``."""

    def hand_over(self) -> NativeSockets | None:
        """Let native code send and receive from now on; None if it can't.

        The peer must have answered by now. Afterwards only ``give_up`` and ``close``
        may be called here, once native code has stopped.
        """
        return None

    def give_up(self) -> None:
        """The path is gone, whoever noticed it: ``close`` need not wait."""


class Listener(_Endpoint):
    """The server's end: one address, many peers."""

    @abstractmethod
    def receive(
        self, timeout_s: float | None
    ) -> tuple[PeerId, list[memoryview]] | None:
        """The next message of any peer; as ``Link.receive``, and peers may vanish.

        Raises:
            ClosedError: closed by us, or inherited through a fork.
        """

    @abstractmethod
    def send(self, peer: PeerId, frames: Sequence[Buffer]) -> None:
        """Queue one message for a peer; one that is gone is counted, not raised.

        Raises:
            ClosedError: closed by us, or inherited through a fork.
            UsageError: no frames, too many, too large, or not contiguous.
        """

    def lend(self) -> NativeSockets | None:
        """What native code needs to use the socket in turn; None if it cannot.

        Only in the thread that calls ``receive``, between two calls of it. What native
        code sends and receives is not counted here.
        """
        return None

    @abstractmethod
    def statistics(self) -> ListenerStatistics:
        """Counters so far; readable at any time, also after ``close``."""


def message_nbytes(frames: Sequence[Buffer], max_nbytes: int) -> int:
    """Bytes of a message that may be sent, summed over its frames.

    Raises:
        UsageError: no frames, too many, too large, or not contiguous.

    >>> message_nbytes([b"abc", bytearray(2)], 100)
    5
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise UsageError(f"a message has 1 to {MAX_FRAMES} frames, not {len(frames)}")
    total = 0
    for frame in frames:
        if isinstance(frame, bytes | bytearray):
            total += len(frame)
        elif isinstance(frame, memoryview) and frame.c_contiguous:
            total += frame.nbytes
        else:
            kind = type(frame).__name__
            raise UsageError(f"a frame is bytes or contiguous memory, not this {kind}")
    if total > max_nbytes:
        raise UsageError(
            f"a message of {total} bytes exceeds this link's limit of {max_nbytes}:"
            " send it in several"
        )
    return total
