"""Keeps the log in etcd short, and etcd's file from growing.

Whoever leads puts the first pages of the log into short: it writes the short form
beside them, then the one key that says that it holds (``PREFIX/base``), then removes
what it stands for. Each step needs that this registry still leads. One that is cut off
in between leaves either pages that are still read, or pages that nobody reads any more
and the next one removes.

etcd itself keeps what keys have held before, until it is told to forget.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog
from xpool_protocol.errors import BrokenError, NotLeader, PoolError

from xpool_registry.compaction import compacted
from xpool_registry.etcd import Ambiguous, Etcd
from xpool_registry.etcd_store import FORMAT, NO_BASE, Base, EtcdStore
from xpool_registry.events import RegistryEvent
from xpool_registry.settings import Settings

LOOK_EVERY_S: Final = 1.0
"""Between two looks whether the log is long."""

FORGET_EVERY_S: Final = 300.0
"""What was overwritten stays in etcd's history for one to two times that."""

PART_EVENTS: Final = 500
"""In one key of the short form: some 200 KB, and etcd takes 1.5 MB."""

DELETED_AT_ONCE: Final = 1000
"""Keys; etcd answers nobody else while it removes them."""

_log = structlog.get_logger(__name__)


class Compaction:
    """The log of one term, put into short."""

    def __init__(
        self,
        etcd: Etcd,
        store: EtcdStore,
        settings: Settings,
        wall_s: Callable[[], float],
    ) -> None:
        """Nothing is read yet.

        Args:
            etcd: connected.
            store: the leader's; its appends may go on meanwhile.
            settings: say how long a log may be.
            wall_s: a clock.
        """
        self._etcd = etcd
        self._store = store
        self._settings = settings
        self._wall_s = wall_s
        self._base = NO_BASE

    def is_due(self) -> bool:
        """Whether so many pages have come since the last time."""
        pages = self._store.page_count - self._base.last
        if pages < self._settings.compact_after:
            return False
        self._base = self._store.base()  # a leader before us may have done it
        return self._store.page_count - self._base.last >= self._settings.compact_after

    def run(self) -> int:
        """Put all pages up to now into short; how many keys that leaves.

        Raises:
            NotLeader: another registry leads.
            PoolError: the cluster does not answer; what is written is still whole.
        """
        last = self._store.page_count
        events, _ = self._store.read(last)
        base = self.write(compacted(events, self._wall_s(), self._settings), last)
        self.switch_to(base)
        self.remove_what_is_unread()
        _log.info("log compacted", pages=last, events=len(events), parts=base.parts)
        return base.parts

    def write(self, short: Sequence[RegistryEvent], last: int) -> Base:
        """The short form, beside what it stands for; nobody reads it yet."""
        parts = [
            short[begin : begin + PART_EVENTS]
            for begin in range(0, len(short), PART_EVENTS)
        ]
        name = f"{last:016d}-{self._store.term.revision}"
        base = Base(FORMAT, last, len(parts), name)
        for number, part in enumerate(parts, 1):
            self._put(self._store.part_key(base, number), self._store.page_of(part))
        return base

    def switch_to(self, base: Base) -> None:
        """From now on it is read."""
        self._put(self._store.base_key, msgspec.json.encode(base))
        self._base = base

    def remove_what_is_unread(self) -> None:
        """Pages that the base stands for, and all other short forms."""
        base = self._base
        first = self._store.page_key(0)
        for end in range(DELETED_AT_ONCE, base.last + DELETED_AT_ONCE, DELETED_AT_ONCE):
            end = min(end, base.last)
            self._delete(first, self._store.page_key(end + 1))
        folder = f"{self._store.base_key}/"
        mine = f"{folder}{base.name}/"
        self._delete(folder, mine)
        self._delete(f"{mine[:-1]}0", f"{folder[:-1]}0")  # "0" follows "/"

    def _put(self, key: str, value: bytes) -> None:
        """Write, if this registry still leads; the same again does no harm."""
        term = self._store.term
        try:
            done = self._etcd.put_if(
                [(key, value)], created_at=[(term.key, term.revision)]
            )
        except Ambiguous as error:  # the next time it is written again
            raise BrokenError(str(error)) from error
        if not done:
            raise NotLeader("another registry leads this pool by now")

    def _delete(self, first: str, end: str) -> None:
        term = self._store.term
        if not self._etcd.delete_span_if(first, end, [(term.key, term.revision)]):
            raise NotLeader("another registry leads this pool by now")


class Upkeep:
    """Does it in a thread of its own while a registry leads."""

    def __init__(
        self,
        etcd: Etcd,
        compaction: Compaction,
        forget_every_s: float = FORGET_EVERY_S,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Begin.

        Args:
            etcd: connected.
            compaction: of the leader's log.
            forget_every_s: between two times that etcd is told to forget.
            look_every_s: between two looks at the log.
        """
        self._etcd = etcd
        self._compaction = compaction
        self._forget_every_s = forget_every_s
        self._look_every_s = look_every_s
        self._forget_until = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="registry-upkeep", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        forgets_s = time.monotonic() + self._forget_every_s
        while not self._stopping.wait(self._look_every_s):
            try:
                if self._compaction.is_due():
                    self._compaction.run()
                if time.monotonic() >= forgets_s:
                    forgets_s = time.monotonic() + self._forget_every_s
                    self.forget()
            except PoolError as error:  # nothing is lost: another time
                _log.warning("the log was not compacted", error=str(error))

    def forget(self) -> None:
        """Let etcd forget what was overwritten before the last time.

        Raises:
            BrokenError: the cluster does not answer, or does not let us.
        """
        until, self._forget_until = self._forget_until, self._etcd.revision()
        if until:
            self._etcd.forget_history(until)
