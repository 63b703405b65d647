"""The transport inside one process: queues in memory, for tests and as the floor.

What ZeroMQ does for ``tcp://``, with the same promises: a link may be opened
before its listener, what was sent before a close still arrives, and the end of
one side is the other side's ``BrokenError`` (for a listener: a peer that takes
nothing any more).
"""

# ruff: noqa: D102  the interface in base.py documents the methods

from __future__ import annotations

import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from xpool_protocol.errors import PoolError, UsageError
from xpool_protocol.transport.address import Address
from xpool_protocol.transport.base import (
    Buffer,
    Link,
    LinkStatistics,
    Listener,
    ListenerStatistics,
    PeerId,
    TransportOptions,
    message_nbytes,
)
from xpool_protocol.transport.failures import lost, nobody, too_large
from xpool_protocol.transport.guard import Doorbell, Guard
from xpool_protocol.transport.tally import Tally, deadline_after, patience_ms

T = TypeVar("T")


class _Exchange:
    """Who listens where, and which links still wait for whom."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.listeners: dict[str, InprocListener] = {}
        self.waiting: dict[str, list[InprocLink]] = {}
        self.peer_numbers = itertools.count(1)


_exchange = _Exchange()
# A forked child starts afresh: the parent's listeners do not run there, and
# another thread may have held the lock.
os.register_at_fork(after_in_child=_exchange.forget)


def _owned(frame: Buffer) -> memoryview:
    """The frame as the receiver may keep it: only ``bytes`` never change."""
    lasting = isinstance(frame, bytes) or (
        isinstance(frame, memoryview) and isinstance(frame.obj, bytes)
    )
    view = memoryview(frame if lasting else bytes(frame))
    if view.format == "B" and view.ndim == 1:
        return view
    # An empty view of several dimensions can not be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _nbytes(frames: list[memoryview]) -> int:
    return sum(frame.nbytes for frame in frames)


class _Inbox(Generic[T]):
    """A queue that one thread empties and others fill, announced by a doorbell."""

    def __init__(self) -> None:
        self.ended = False
        """Set by the other side after its last message."""
        self._items: deque[T] = deque()
        self._bell = Doorbell()
        self._woken = False
        self._owes_none = False
        self._poll = select.poll()
        self._poll.register(self._bell.fileno(), select.POLLIN)

    def put(self, item: T) -> None:
        self._items.append(item)
        self._bell.ring()

    def wake(self) -> None:
        self._woken = True
        self._bell.ring()

    def end(self) -> None:
        self.ended = True
        self._bell.ring()

    def stir(self) -> None:
        """Let a blocked ``take`` return None early, for a look around."""
        self._bell.ring()

    def watch(self, fileno: int) -> None:
        self._poll.register(fileno, select.POLLIN)

    def close(self) -> None:
        self._bell.close()
        self._items.clear()

    def take(self, deadline: float) -> tuple[T | None, bool]:
        """Wait once: the next item or None, and whether somebody interrupted."""
        idle = not (self._items or self._woken or self.ended)
        interrupted = self._wait(patience_ms(deadline) if idle else 0)
        # Messages and interruptions take turns, so that neither starves.
        if self._items and not (interrupted and self._owes_none):
            self._owes_none = interrupted
            return self._items.popleft(), False
        if interrupted:
            self._woken = self._owes_none = False
        return None, interrupted

    def is_over(self) -> bool:
        """Whether the other side has ended and everything it sent was taken."""
        # In this order: nothing is put after the end.
        return self.ended and not self._items

    def _wait(self, patience: int) -> bool:
        ready = {fileno for fileno, _ in self._poll.poll(patience)}
        if self._bell.fileno() in ready:
            ready.remove(self._bell.fileno())
            self._bell.silence()
        return self._woken or bool(ready)


class InprocLink(Link):
    """A link to a listener of the same process."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self.uri = address.uri
        self._guard = Guard(address.uri)
        self._options = options
        self._tally = Tally()
        self._inbox: _Inbox[list[memoryview]] = _Inbox()
        self._held: list[list[memoryview]] = []
        self._listener: InprocListener | None = None
        self._failure: PoolError | None = None
        self._connect_deadline = deadline_after(options.connect_timeout_s)
        with _exchange.lock:
            number = next(_exchange.peer_numbers)
            self._peer = PeerId(b"\0" + number.to_bytes(8, "big"))
            listener = _exchange.listeners.get(address.uri)
            if listener is None:
                _exchange.waiting.setdefault(address.uri, []).append(self)
            else:
                self.meet(listener)

    def meet(self, listener: InprocListener) -> None:
        """Join the listener and hand over what was held; under the lock."""
        self._listener = listener
        listener.peers[self._peer] = self._inbox
        for frames in self._held:
            listener.inbox.put((self._peer, frames))
        self._held.clear()
        self._inbox.stir()

    def send(self, frames: Sequence[Buffer]) -> None:
        self._check()
        nbytes = message_nbytes(frames, self._options.max_message_nbytes)
        owned = [_owned(frame) for frame in frames]
        with _exchange.lock:
            if self._listener is None:
                self._held.append(owned)
            elif not self._inbox.ended:
                self._listener.inbox.put((self._peer, owned))
        self._tally.count_sent(nbytes)

    def receive(self, timeout_s: float | None) -> list[memoryview] | None:
        self._check()
        deadline = deadline_after(timeout_s)
        while True:
            first = deadline
            if self._listener is None:
                first = min(deadline, self._connect_deadline)
            frames, interrupted = self._inbox.take(first)
            if frames is not None:
                return self._accepted(frames)
            self._look_for_failure()
            self._check()
            if interrupted or time.monotonic() >= deadline:
                return None

    def _accepted(self, frames: list[memoryview]) -> list[memoryview]:
        nbytes = _nbytes(frames)
        if nbytes > self._options.max_message_nbytes:
            self._failure = too_large(self.uri, self._options.max_message_nbytes)
            self._check()
        self._tally.count_received(nbytes)
        return frames

    def _look_for_failure(self) -> None:
        if self._inbox.is_over():
            self._failure = lost(self.uri)
        elif self._listener is None and time.monotonic() >= self._connect_deadline:
            self._failure = nobody(self.uri, self._options.connect_timeout_s)

    def _check(self) -> None:
        self._guard.check()
        if self._failure is not None:
            # A new one each time: an exception that is raised again grows.
            raise type(self._failure)(*self._failure.args)

    def watch(self, fileno: int) -> None:
        self._guard.check()
        self._inbox.watch(fileno)

    def wake(self) -> None:
        self._guard.check_process()
        self._inbox.wake()

    def unsent(self) -> int:
        return 0  # what is not ``bytes`` was copied

    def close(self) -> None:
        if not self._guard.close():
            return
        with _exchange.lock:
            if self._listener is not None:
                self._listener.peers.pop(self._peer, None)
            else:
                _exchange.waiting[self.uri].remove(self)
        self._inbox.close()

    def statistics(self) -> LinkStatistics:
        return self._tally.of_link()


class InprocListener(Listener):
    """The listener of one name in this process."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self.uri = address.uri
        self._guard = Guard(address.uri)
        self._options = options
        self._tally = Tally()
        self.inbox: _Inbox[tuple[PeerId, list[memoryview]]] = _Inbox()
        self.peers: dict[PeerId, _Inbox[list[memoryview]]] = {}
        with _exchange.lock:
            if address.uri in _exchange.listeners:
                self.inbox.close()
                raise UsageError(f"address {address.uri} is already in use")
            _exchange.listeners[address.uri] = self
            for link in _exchange.waiting.pop(address.uri, []):
                link.meet(self)

    def receive(
        self, timeout_s: float | None
    ) -> tuple[PeerId, list[memoryview]] | None:
        self._guard.check()
        deadline = deadline_after(timeout_s)
        while True:
            message, interrupted = self.inbox.take(deadline)
            if message is not None:
                nbytes = _nbytes(message[1])
                if nbytes > self._options.max_message_nbytes:
                    self._tally.messages_refused += 1
                    continue
                self._tally.count_received(nbytes)
                return message
            if interrupted or time.monotonic() >= deadline:
                return None

    def send(self, peer: PeerId, frames: Sequence[Buffer]) -> None:
        self._guard.check()
        nbytes = message_nbytes(frames, self._options.max_message_nbytes)
        inbox = self.peers.get(peer)
        if inbox is None:
            self._tally.messages_undeliverable += 1
            return
        inbox.put([_owned(frame) for frame in frames])
        self._tally.count_sent(nbytes)

    def watch(self, fileno: int) -> None:
        self._guard.check()
        self.inbox.watch(fileno)

    def wake(self) -> None:
        self._guard.check_process()
        self.inbox.wake()

    def unsent(self) -> int:
        return 0  # what is not ``bytes`` was copied

    def close(self) -> None:
        if not self._guard.close():
            return
        with _exchange.lock:
            del _exchange.listeners[self.uri]
            for inbox in self.peers.values():
                inbox.end()
        self.inbox.close()

    def statistics(self) -> ListenerStatistics:
        return self._tally.of_listener()
