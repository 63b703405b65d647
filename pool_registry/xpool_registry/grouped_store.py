"""One write for many decisions: what is decided meanwhile waits for the disk together.

A ``GroupedStore`` stands in front of a store. ``append`` only notes events, so that the
next call can be decided at once; a thread writes all that was noted as one append, and
no answer goes out before what it depends on is kept (``Mark``).

So the state runs ahead of the log by what is being written. If that write fails, the
state is wrong and so is all that was decided on it: every answer that waits becomes an
error, and the state is made anew from the log, or, where another process may write that
log, given up. After a failure each append is written before it returns, as without
groups, until one succeeds: a full disk refuses requests one by one and voids nothing.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

import structlog
from xpool_protocol.errors import BrokenError, NotLeader, PoolError

from xpool_registry.events import RegistryEvent
from xpool_registry.store import Store

RETRY_S: Final = 0.5
"""Between two attempts to read a log that could not be read."""

CLOSING_S: Final = 2.0
"""What is noted when a registry ends has so long to be written."""

MAX_UNTOLD: Final = 1024
"""Writes that are not announced yet; beyond it the next one waits for whoever reads."""

_log = structlog.get_logger(__name__)


class Mark(NamedTuple):
    """Where a store stood when a call came in; an ``Answering`` of the server's."""

    store: GroupedStore
    void_count: int

    def settled(self) -> Future[None] | None:
        """What was noted up to now; None: all of it is kept.

        Raises:
            BrokenError: something was voided since, maybe what the call was decided on.
            NotLeader: the same, and another registry will know.
        """
        return self.store.settled_since(self.void_count)


class GroupedStore:
    """A ``Store`` whose appends are kept a little later.

    ``append`` and ``load`` are called under ``lock``; all else from any thread.
    """

    def __init__(
        self,
        store: Store,
        lock: threading.Lock,
        *,
        announce: Callable[[Sequence[RegistryEvent]], None],
        reload: Callable[[], None] | None,
    ) -> None:
        """Start the thread that writes.

        Args:
            store: keeps events.
            lock: held while something is decided and noted.
            announce: called with events that are kept.
            reload: makes the state anew from the log, under ``lock``; raises
                ``PoolError`` if it can't. None: after a failure nothing is decided
                any more.
        """
        self._store = store
        self._lock = lock
        self._announce = announce
        self._reload = reload
        self._changed = threading.Condition()
        self._noted: list[RegistryEvent] = []
        #: Ends when what is noted, or being written, is kept.
        self._next: Future[None] | None = None
        self._writing: Future[None] | None = None
        self._void_count = 0
        self._is_careful = False
        self._refusal: PoolError | None = None
        self._is_closing = False
        #: Events to announce, which takes longer than to keep them; None: no more.
        self._kept: queue.Queue[Sequence[RegistryEvent] | None] = queue.Queue(
            MAX_UNTOLD
        )
        self._thread = threading.Thread(
            target=self._run, name="registry-store", daemon=True
        )
        self._announcer = threading.Thread(
            target=self._announce_kept, name="registry-events", daemon=True
        )
        self._thread.start()
        self._announcer.start()

    def append(self, events: Sequence[RegistryEvent]) -> None:
        """Note all of ``events``, in order; or keep them, after a failure.

        Raises:
            BrokenError: they could not be written; the store is as before.
            NotLeader: another registry leads.
        """
        with self._changed:
            self._check()
            if not self._is_careful:
                if self._next is None:
                    self._next = Future()
                    self._changed.notify()
                self._noted += events
                return
        self._store.append(events)
        self._is_careful = False
        self._kept.put(events)

    def load(self) -> list[RegistryEvent]:
        """Every event that is kept, in order."""
        return self._store.load()

    def begin(self) -> Mark:
        """A call comes in.

        Raises:
            BrokenError: the state is not what the log says, and nobody can mend it.
            NotLeader: another registry leads.
        """
        self._check()
        return Mark(self, self._void_count)

    def settled_since(self, void_count: int) -> Future[None] | None:
        """See ``Mark.settled``."""
        with self._changed:
            self._check()
            if void_count != self._void_count:
                raise BrokenError(
                    "the registry could not write its store, and what it had decided"
                    " on this call is void: try again"
                )
            return self._next or self._writing

    def close(self) -> None:
        """Write what is noted; what takes too long is void."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(CLOSING_S)
        with contextlib.suppress(queue.Full):  # nobody reads the log
            self._kept.put(None, timeout=CLOSING_S)
            self._announcer.join(CLOSING_S)
        with self._lock:
            void = self._void(NotLeader("this registry has ended"))
        for one in void:
            one.set_exception(NotLeader("this registry has ended"))

    def _check(self) -> None:
        refusal = self._refusal
        if isinstance(refusal, NotLeader):
            raise NotLeader(str(refusal))
        if refusal is not None:
            raise BrokenError(str(refusal))

    # ---- the thread that writes

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next or self._is_closing)
                if self._next is None:
                    return
                events, self._noted = self._noted, []
                self._writing, self._next = self._next, None
            try:
                self._store.append(events)
            except PoolError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001  a bug must not go unnoticed
                _log.exception("the store failed")
                self._fail(BrokenError(f"the registry's store failed: {error}"))
            else:
                self._done(events)

    def _done(self, events: Sequence[RegistryEvent]) -> None:
        with self._changed:
            done, self._writing = self._writing, None
        if done is not None:  # None: it was closed, and nobody waits any more
            done.set_result(None)
        self._kept.put(events)

    def _announce_kept(self) -> None:
        for events in iter(self._kept.get, None):
            self._announce(events)

    def _fail(self, error: PoolError) -> None:
        _log.error("the store failed: decisions are void", error=str(error))
        refusal = error
        if self._reload is None:  # whoever leads next knows what is written
            refusal = NotLeader(f"this registry leads no more: {error}")
        with self._lock:  # nobody decides meanwhile
            void = self._void(refusal)
        for one in void:
            one.set_exception(error)
        while self._reload is not None and not self._is_closing:
            try:
                with self._lock:
                    self._reload()
                    with self._changed:
                        self._is_careful, self._refusal = True, None
                return
            except PoolError as again:
                _log.error("the log cannot be read", error=str(again))
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, RETRY_S)

    def _void(self, refusal: PoolError) -> list[Future[None]]:
        with self._changed:
            void = [one for one in (self._writing, self._next) if one is not None]
            self._writing = self._next = None
            self._noted = []
            self._void_count += 1
            self._refusal = refusal
            return void
