"""The event log in etcd: what several registries share, and one of them writes.

Each append is one key, ``PREFIX/log/NUMBER``, written by one transaction that holds
only if the writer still leads (its leader key is the one that it made) and nobody has
written that number. So a leader that was cut off can write nothing more, whatever it
believes, and what ``append`` has returned from has a majority of the cluster.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from xpool_protocol.errors import BrokenError, NotLeader, UsageError

from xpool_registry.etcd import Ambiguous, Entry, Etcd
from xpool_registry.events import RegistryEvent, StoredEvent
from xpool_registry.keys import SigningKey

FORMAT: Final = 1
"""A log of another format is refused; as ``SCHEMA_VERSION`` of a file."""

SPAN: Final = 256
"""Keys that are read at once."""

ATTEMPTS: Final = 5
"""Of an append whose answer was lost; after them the writer steps down."""


class Term(msgspec.Struct, frozen=True):
    """One registry's leadership: the key that it made, and when."""

    key: str
    revision: int


class _Page(msgspec.Struct, frozen=True):
    """What one key of the log holds."""

    format: int
    term: int
    crc32: int
    events: msgspec.Raw


class EtcdStore:
    """A pool's log as its leader sees it."""

    def __init__(
        self, etcd: Etcd, term: Term, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        """Nothing is read yet.

        Args:
            etcd: connected.
            term: under which appends are allowed.
            on_lost: called when an append shows that this is no longer the leader.
        """
        self._etcd = etcd
        self.term = term
        self._on_lost = on_lost
        self._next = 1

    def append(self, events: Sequence[RegistryEvent]) -> None:
        """Keep all of ``events``, in order, or none.

        Raises:
            NotLeader: another registry leads; nothing was stored.
            BrokenError: the cluster does not answer; what was to be stored may be in
                the log, so it is to be read again before anything is decided.
        """
        if not events:
            return
        body = msgspec.json.encode(list(events))
        page = _Page(FORMAT, self.term.revision, zlib.crc32(body), msgspec.Raw(body))
        try:
            self._write(self._key(self._next), msgspec.json.encode(page))
        except BrokenError:
            self._on_lost()
            raise
        self._next += 1

    def load(self) -> list[RegistryEvent]:
        """Every event ever appended, in order.

        Raises:
            UsageError: the log is damaged or of another format.
            BrokenError: the cluster does not answer.
        """
        events: list[RegistryEvent] = []
        number = 1
        while entries := self._etcd.span(self._key(number), self._key(number + SPAN)):
            for entry in entries:
                if entry.key != self._key(number):
                    raise self._damaged(entry, f"page {number} is missing before it")
                events += self._events_of(entry)
                number += 1
        self._next = number
        return events

    def _write(self, key: str, value: bytes) -> None:
        """Write a page once, however often it takes to learn that it is written."""
        for _ in range(ATTEMPTS):
            try:
                if self._etcd.put_if(
                    [(key, value)],
                    absent=[key],
                    created_at=[(self.term.key, self.term.revision)],
                ):
                    return
                entry = self._etcd.get(key)
            except (Ambiguous, BrokenError):
                continue
            if entry is not None and entry.value == value:
                return  # an earlier attempt's, whose answer was lost
            raise NotLeader("another registry leads this pool by now")
        raise BrokenError(
            f"the registry cannot write its log in {self._etcd.place}: it does not"
            " answer"
        )

    def _events_of(self, entry: Entry) -> list[StoredEvent]:
        try:
            page = msgspec.json.decode(entry.value, type=_Page)
            if page.format != FORMAT:
                raise UsageError(
                    f"the log in {self._etcd.place} has format {page.format}, this"
                    f" registry reads {FORMAT}: use the matching release"
                )
            if zlib.crc32(bytes(page.events)) != page.crc32:
                raise self._damaged(entry, "it fails its checksum")
            return msgspec.json.decode(bytes(page.events), type=list[StoredEvent])
        except msgspec.MsgspecError as error:
            raise self._damaged(entry, error) from error

    def _key(self, number: int) -> str:
        return f"{self._etcd.place.prefix}/log/{number:016d}"

    def _damaged(self, entry: Entry, what: object) -> UsageError:
        return UsageError(
            f"{entry.key} in {self._etcd.place} cannot be read as a registry's log"
            f" ({what}): restore a snapshot of etcd, or name another prefix to begin a"
            " new pool; it was left as it is"
        )


def shared_key(etcd: Etcd) -> SigningKey:
    """The pool's signing key, which all its registries need; made by the first.

    Raises:
        BrokenError: the cluster does not answer.
        UsageError: what is there is no key.
    """
    name = f"{etcd.place.prefix}/signing-key"
    for _ in range(ATTEMPTS):
        entry = etcd.get(name)
        if entry is not None:
            return SigningKey.from_pem(entry.value, f"{name} in {etcd.place}")
        try:
            etcd.put_if([(name, SigningKey.generate().pem())], absent=[name])
        except Ambiguous:
            continue
    raise BrokenError(f"{etcd.place} takes no signing key: it does not answer")
