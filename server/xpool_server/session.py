"""The worker's side of one session: frames of peers in, frames to peers out.

The first peer that shows the session's key owns it; everybody else is told to go
away once and is not heard. Messages of the owner are checked by the connection and
executed at once, in order, but for a record that waits for another worker: what
comes meanwhile is queued, within the credit given. This file sends by calling what it
was given, reads no clock and no socket; after each call the driver looks at
``is_owned`` and ``ended``.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import torch
from msgspec.structs import replace
from xpool_protocol import limits
from xpool_protocol.codec import Frames, decode
from xpool_protocol.connection import ServerConnection, goodbye
from xpool_protocol.errors import PeerError, PoolError, QuotaExceeded, TokenInvalid
from xpool_protocol.messages import (
    Batch,
    Bye,
    Hello,
    Message,
    Payload,
    Ping,
    Reply,
    Welcome,
)
from xpool_protocol.quantities import text_from_nbytes
from xpool_protocol.transport import PeerId

from xpool_server.control import OpenSession, ResizeSession, SessionResized
from xpool_server.devices.base import Backend
from xpool_server.executor import Executor
from xpool_server.failures import Answers
from xpool_server.lacking import lacking
from xpool_server.native.serving import Place
from xpool_server.storages import GRANULE_NBYTES

Send: TypeAlias = Callable[[PeerId, Frames], None]

CLIENT_LEFT: Final = "client left"


class Session:
    """One lease's session, from the worker's first answer to the last."""

    def __init__(
        self,
        lease: OpenSession,
        executor: Executor,
        send: Send,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """A session that nobody owns yet.

        Args:
            lease: whose session it is.
            executor: runs the records.
            send: how messages leave.
            properties: what ``Welcome`` tells beside the device's own properties.
        """
        self.ignored_messages = 0
        """From strangers: garbage, or a wrong key."""
        self.ended: str | None = None
        """Why the session is over, once it is."""
        self._lease = lease
        self._executor = executor
        self._send = send
        self._connection = ServerConnection()
        self._owner: PeerId | None = None
        self._properties = dict(properties or {})
        self._refusal = refusal_of_quota(executor.backend, lease.memory_nbytes)
        self._queue: deque[Batch | Ping] = deque()
        self._running: Iterator[Answers | None] | None = None
        """What is left of the first batch in the queue, once it has begun."""

    @property
    def is_owned(self) -> bool:
        """A client has shown the key."""
        return self._owner is not None

    @property
    def owner(self) -> PeerId:
        """The client, once there is one."""
        assert self._owner is not None
        return self._owner

    @property
    def version(self) -> int:
        """Of the protocol, as agreed with the owner."""
        return self._connection.version

    @property
    def window_nbytes(self) -> int:
        """Credit of the owner."""
        return self._connection.window_nbytes

    @property
    def place(self) -> Place | None:
        """Where native code may go on; None if nobody is there, or a batch waits."""
        if not self.is_owned or self.ended is not None or self._queue:
            return None
        return Place(self._connection.executed, self._executor.operation_count)

    def advance(self, place: Place, refused_messages: int) -> None:
        """Native code has executed and acknowledged everything up to here."""
        self._connection.advance(*place)
        self._executor.advance(place.operation)
        self.ignored_messages += refused_messages

    def resume(
        self,
        frames: Sequence[Payload],
        rest: Callable[[bytes], Iterator[Answers | None]],
    ) -> None:
        """Go on with the next batch, whose first records native code has executed.

        Args:
            frames: the owner's message.
            rest: executes what is left of a batch's records.
        """

        def begin() -> None:
            batch = self._connection.receive(frames)
            assert isinstance(batch, Batch)
            self._queue.append(batch)
            self._running = rest(batch.records)
            self._work()

        self._executor.received_nbytes += sum(len(frame) for frame in frames)
        self._guarded(begin)

    def counters(self) -> dict[str, int]:
        """The session's counters, by the names of ``STATISTICS_FIELDS``."""
        return self._executor.counters()

    def receive(self, peer: PeerId, frames: Sequence[Payload]) -> None:
        """Take one message of any peer."""
        if peer != self._owner:
            self._meet(peer, frames)
            return
        self._executor.received_nbytes += sum(len(frame) for frame in frames)
        self._guarded(lambda: self._take(self._connection.receive(frames)))

    def go_on(self) -> None:
        """Another worker may have sent what the next record waits for."""
        if self._running is not None and self.ended is None:
            self._guarded(self._work)

    def _take(self, message: Message | None) -> None:
        if message is None:  # a batch once more: say again how far we are
            self._answer(self._connection.ack(self._connection.executed))
        else:
            self._handle(message)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except PeerError as error:
            self._end(error, f"the client broke the protocol: {error}")
        except PoolError as error:
            self._end(error, str(error))

    def end(self, error: PoolError) -> None:
        """End the session from this side, and tell the client why."""
        self._end(error, str(error))

    def resize(self, order: ResizeSession) -> SessionResized:
        """Change the slice, and tell the client; smaller than what is in use: no."""
        storages, backend = self._executor.storages, self._executor.backend
        quota_nbytes = quota_beside_context(backend, order.memory_nbytes)
        try:
            storages.resize_quota(quota_nbytes)
        except QuotaExceeded as error:
            return SessionResized(self._lease.memory_nbytes, str(error))
        self._lease = replace(
            self._lease,
            share_percent=order.share_percent,
            memory_nbytes=order.memory_nbytes,
        )
        backend.limit_memory(quota_nbytes)
        if self.is_owned and self.ended is None:
            self._answer(self._connection.resized(order.share_percent, quota_nbytes))
        return SessionResized(order.memory_nbytes)

    def _end(self, error: PoolError, reason: str) -> None:
        if self._owner is not None:
            self._answer(self._connection.goodbye(error))
        self.ended = reason

    def _meet(self, peer: PeerId, frames: Sequence[Payload]) -> None:
        """Someone who does not own the session: perhaps the one who will."""
        try:
            message = decode(frames)
        except PeerError:
            self.ignored_messages += 1
            return
        if not isinstance(message, Hello):
            self.ignored_messages += 1
            return
        if self.is_owned or not self._is_key(message.session_key):
            self.ignored_messages += 1
            self._send(peer, refusal())
            return
        try:
            self._connection.receive(frames)
        except PoolError as error:  # no version in common
            self._send(peer, goodbye(error))
            return
        self._owner = peer
        if self._refusal is not None:
            self._end(self._refusal, str(self._refusal))
            return
        self._answer(self._connection.welcome(self._welcome()))

    def _is_key(self, key: str) -> bool:
        mine = self._lease.session_key.encode()
        return bool(mine) and hmac.compare_digest(
            key.encode(errors="surrogatepass"), mine
        )

    def _welcome(self) -> Welcome:
        lease, backend = self._lease, self._executor.backend
        return Welcome(
            version=self._connection.version,
            lease_id=lease.lease_id,
            epoch=lease.epoch,
            server=lease.server,
            framework=framework(),
            device_kind=backend.kind,
            device_name=backend.name,
            share_percent=lease.share_percent,
            memory_nbytes=quota_beside_context(backend, lease.memory_nbytes),
            window_nbytes=limits.WINDOW_NBYTES,
            properties={
                **backend.properties(
                    quota_beside_context(backend, lease.memory_nbytes)
                ),
                **self._properties,
            },
            lacking=lacking(backend),
        )

    def _handle(self, message: Message) -> None:
        match message:
            case Batch() | Ping():
                self._queue.append(message)
                self._work()
            case Bye():
                self.ended = CLIENT_LEFT
            case _:
                raise PeerError(f"{type(message).__name__} is not for an open session")

    def _work(self) -> None:
        """Do what is queued, in turn, until a record has to wait."""
        while self._queue:
            message = self._queue[0]
            if isinstance(message, Ping):
                self._answer(self._connection.pong(message))
            elif self._run(message):
                self._answer(self._connection.ack(message.sequence))
            else:
                return
            self._queue.popleft()

    def _run(self, batch: Batch) -> bool:
        """Run a batch, or go on with it; false if its next record has to wait."""
        executor = self._executor
        if self._running is None:
            if batch.first_operation != executor.operation_count:
                raise PeerError(
                    f"batch {batch.sequence} begins at operation"
                    f" {batch.first_operation}, which is not the next one"
                )
            self._running = executor.run(batch.records)
        if executor.turn.is_called:
            return False
        with executor.batch(batch.payloads) as may_run:
            if not may_run:
                return False
            for answers in self._running:
                if answers is None:
                    return False
                for answer in answers:
                    if isinstance(answer, Reply):
                        frames = self._connection.reply(
                            answer.request, answer.value, answer.payloads
                        )
                    else:
                        frames = self._connection.failure(answer.request, answer.fault)
                    self._answer(frames)
        self._running = None
        return True

    def _answer(self, frames: Frames) -> None:
        assert self._owner is not None
        self._executor.sent_nbytes += sum(len(frame) for frame in frames)
        self._send(self._owner, frames)


def quota_beside_context(backend: Backend, memory_nbytes: int) -> int:
    """What of a slice's memory is left for storages."""
    return max(0, memory_nbytes - backend.context_nbytes)


def refusal_of_quota(backend: Backend, memory_nbytes: int) -> QuotaExceeded | None:
    """Why a slice is too small for any session on the device, if it is."""
    needed_nbytes = backend.context_nbytes + GRANULE_NBYTES
    if memory_nbytes >= needed_nbytes:
        return None
    return QuotaExceeded(
        f"a slice of {text_from_nbytes(memory_nbytes)} holds no session on"
        f" {backend.name}: its context alone takes"
        f" {text_from_nbytes(backend.context_nbytes)}; ask for more with --memory"
    )


def refusal() -> Frames:
    """What a peer gets that shows no valid key, or comes too early or too late."""
    return goodbye(
        TokenInvalid(
            "this worker holds no session for that key: ask the node again (a session"
            " has one client, and its key works once)"
        )
    )


def framework() -> str:
    """What executes here, for logs and for compatibility notes."""
    return f"torch {torch.__version__}"
