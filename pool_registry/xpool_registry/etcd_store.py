"""The event log in etcd: what several registries share, and one of them writes.

Each append is one page, a key ``PREFIX/log/NUMBER``, written by one transaction that
holds only if the writer still leads (its leader key is the one that it made) and nobody
has written that number. So a leader that was cut off can write nothing more, whatever
it believes, and what ``append`` has returned from has a majority of the cluster.

The first pages may have been put into short (``etcd_compaction``): then ``PREFIX/base``
says up to which, and where the short form is.
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


class Base(msgspec.Struct, frozen=True):
    """What stands in the place of the first pages."""

    format: int
    last: int
    """The number of the last page that it stands for."""

    parts: int
    """Pages of the short form, numbered from 1."""

    name: str
    """Of its folder under ``PREFIX/base/``."""


NO_BASE: Final = Base(FORMAT, 0, 0, "")


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
        try:
            self._write(self.page_key(self._next), self.page_of(events))
        except BrokenError:
            self._on_lost()
            raise
        self._next += 1

    def load(self) -> list[RegistryEvent]:
        """What the log says of all that has happened, in order.

        Raises:
            UsageError: the log is damaged or of another format.
            BrokenError: the cluster does not answer.
        """
        events, self._next = self.read()
        return events

    @property
    def page_count(self) -> int:
        """Pages ever written, as far as this registry knows."""
        return self._next - 1

    def base(self) -> Base:
        """Up to where the log was put into short.

        Raises:
            UsageError: another format, or damaged.
            BrokenError: the cluster does not answer.
        """
        entry = self._etcd.get(self.base_key)
        if entry is None:
            return NO_BASE
        try:
            base = msgspec.json.decode(entry.value, type=Base)
        except msgspec.MsgspecError as error:
            raise self._damaged(entry, error) from error
        self._check_format(base.format)
        return base

    def read(self, last: int | None = None) -> tuple[list[RegistryEvent], int]:
        """The log, in short as far as it is, and the number of the page after it.

        Args:
            last: the last page to read; None: the newest.

        Raises:
            UsageError: the log is damaged or of another format.
            BrokenError: the cluster does not answer.
        """
        base = self.base()
        events, _ = self._pages(lambda number: self.part_key(base, number), base.parts)
        if last is None:
            more, count = self._pages(lambda number: self.page_key(base.last + number))
        else:
            wanted = max(0, last - base.last)
            more, count = self._pages(
                lambda number: self.page_key(base.last + number), wanted
            )
        return events + more, base.last + count + 1

    def _pages(
        self, key: Callable[[int], str], wanted: int | None = None
    ) -> tuple[list[RegistryEvent], int]:
        """Pages 1 to ``wanted``, or all that there are; and how many."""
        events: list[RegistryEvent] = []
        number = 1
        while wanted is None or number <= wanted:
            end = number + SPAN if wanted is None else min(number + SPAN, wanted + 1)
            entries = self._etcd.span(key(number), key(end))
            for entry in entries:
                if entry.key != key(number):
                    missing = key(number).rpartition("/")[2].lstrip("0")
                    raise self._damaged(entry, f"page {missing} is missing before it")
                events += self._events_of(entry)
                number += 1
            if wanted is not None and number < end:
                raise UsageError(
                    f"{key(number)} is missing in {self._etcd.place}: restore a"
                    " snapshot of etcd; it was left as it is"
                )
            if not entries:
                break
        return events, number - 1

    def page_of(self, events: Sequence[RegistryEvent]) -> bytes:
        """What a key holds for these."""
        body = msgspec.json.encode(list(events))
        page = _Page(FORMAT, self.term.revision, zlib.crc32(body), msgspec.Raw(body))
        return msgspec.json.encode(page)

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
            self._check_format(page.format)
            if zlib.crc32(bytes(page.events)) != page.crc32:
                raise self._damaged(entry, "it fails its checksum")
            return msgspec.json.decode(bytes(page.events), type=list[StoredEvent])
        except msgspec.MsgspecError as error:
            raise self._damaged(entry, error) from error

    def _check_format(self, found: int) -> None:
        if found != FORMAT:
            raise UsageError(
                f"the log in {self._etcd.place} has format {found}, this"
                f" registry reads {FORMAT}: use the matching release"
            )

    def page_key(self, number: int) -> str:
        """Of one append."""
        return f"{self._etcd.place.prefix}/log/{number:016d}"

    @property
    def base_key(self) -> str:
        """Says what stands in the place of the first pages."""
        return f"{self._etcd.place.prefix}/base"

    def part_key(self, base: Base, number: int) -> str:
        """Of one page of the short form."""
        return f"{self.base_key}/{base.name}/{number:016d}"

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
