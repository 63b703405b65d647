"""Keeps the event log on disk. What ``append`` has returned from is not lost.

SQLite in WAL mode with a sync at every commit: one append is one transaction, all
of it or nothing, also through ``kill -9`` and a power cut. One process at a time:
a lock file beside the store keeps a second registry out for as long as this one
lives, however it dies.

A file that is not a store of this version is refused and left as it is. SQLite
checks its pages' form, not their content, so that each event has a checksum too.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from xpool_protocol.errors import BrokenError, UsageError

from xpool_registry.events import RegistryEvent, StoredEvent

SCHEMA_VERSION = 4

# Everything that earlier versions could hold means the same in this one.
_READABLE = (1, 2, 3, SCHEMA_VERSION)

# "xprg": tells our files from another program's (PRAGMA application_id).
APPLICATION_ID = 0x78707267

_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    crc32 INTEGER NOT NULL,
    body BLOB NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

ROWS_AT_ONCE = 64
"""In one statement. Each statement lets go of Python's lock and asks for it again,
which in a busy registry takes as long as a heartbeat."""

_SELECT = "SELECT sequence, crc32, body FROM events ORDER BY sequence"


class Store(Protocol):
    """Where events are kept."""

    def append(self, events: Sequence[RegistryEvent]) -> None:
        """Keep all of ``events``, in order, or none.

        Raises:
            BrokenError: they could not be written; the store is as before.
        """

    def load(self) -> list[RegistryEvent]:
        """What has happened, in order; the beginning may be in short.

        Raises:
            UsageError: the store is damaged.
        """


class SqliteStore:
    """One file, one registry."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, or begin a new store there.

        Raises:
            UsageError: another registry has it, it is not a store, or its folder
                cannot be used.
        """
        self.path = path.resolve()  # two names of one file share one lock
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would let everybody read it, and a lease id is a right.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._lock_fd = locked(self.path.with_name(f"{self.path.name}.lock"))
        except OSError as error:
            raise UsageError(
                f"cannot keep a store at {self.path}: {error.strerror}"
            ) from error
        try:
            self._database = self._opened()
        except sqlite3.Error as error:
            self._unlock()
            raise self._damaged(error) from error
        except UsageError:
            self._unlock()
            raise

    def append(self, events: Sequence[RegistryEvent]) -> None:
        """Keep all of ``events``, in order, or none."""
        try:
            with self._database:  # commits, or rolls back if anything is raised
                _insert(self._database, events)
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def replace(self, events: Sequence[RegistryEvent]) -> None:
        """Keep ``events`` in the place of all that is kept, or change nothing.

        Raises:
            BrokenError: they could not be written.
        """
        try:
            with self._database:
                self._database.execute("DELETE FROM events")
                _insert(self._database, events)
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def count(self) -> int:
        """How many events are kept.

        Raises:
            UsageError: the store is damaged.
        """
        try:
            [(count,)] = self._database.execute("SELECT count(*) FROM events")
        except sqlite3.Error as error:
            raise self._damaged(error) from error
        return int(count)

    def load(self) -> list[RegistryEvent]:
        """Every event that is kept, in order."""
        decoder = msgspec.json.Decoder(StoredEvent)
        events: list[RegistryEvent] = []
        try:
            for sequence, crc32, body in self._database.execute(_SELECT):
                if not isinstance(body, bytes) or zlib.crc32(body) != crc32:
                    raise self._damaged(f"event {sequence} fails its checksum")
                events.append(decoder.decode(body))
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise self._damaged(error) from error
        return events

    def close(self) -> None:
        """Let another registry have it."""
        self._database.close()
        self._unlock()

    def _unlock(self) -> None:
        os.close(self._lock_fd)

    def _opened(self) -> sqlite3.Connection:
        # The registry calls from several threads, but one at a time.
        database = sqlite3.connect(self.path, check_same_thread=False)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        application_id = _pragma(database, "application_id")
        version = _pragma(database, "user_version")
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        is_new = (application_id, version, tables) == (0, 0, 0)
        if not is_new and application_id != APPLICATION_ID:
            raise UsageError(f"{self.path} is another program's database: it was left")
        if not is_new and version not in _READABLE:
            raise UsageError(
                f"the store {self.path} has schema version {version}, this registry"
                f" reads version {SCHEMA_VERSION}: use the matching release"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        if is_new:
            database.executescript(_CREATE)
            return
        if version != SCHEMA_VERSION:
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        verdicts = [row[0] for row in database.execute("PRAGMA quick_check")]
        if verdicts != ["ok"]:
            raise self._damaged(verdicts[0])

    def _unwritten(self, error: sqlite3.Error) -> BrokenError:
        return BrokenError(f"the registry cannot write its store {self.path}: {error}")

    def _damaged(self, what: object) -> UsageError:
        return UsageError(
            f"{self.path} cannot be read as a registry's store ({what}): restore a"
            ' copy ("xpool admin restore"), or move it away to begin a new pool; it was'
            " left as it is"
        )


class MemoryStore:
    """Keeps events for as long as the process lives; for tests and trials."""

    def __init__(self, events: Iterable[RegistryEvent] = ()) -> None:
        self._events = list(events)

    def append(self, events: Sequence[RegistryEvent]) -> None:
        """Keep all of ``events``, in order."""
        self._events.extend(events)

    def load(self) -> list[RegistryEvent]:
        """Every event ever appended, in order."""
        return list(self._events)


def _insert(database: sqlite3.Connection, events: Sequence[RegistryEvent]) -> None:
    """Add them in order, within the transaction that is open or begins with this."""
    for begin in range(0, len(events), ROWS_AT_ONCE):
        part = events[begin : begin + ROWS_AT_ONCE]
        values: list[int | bytes] = []
        for event in part:
            body = msgspec.json.encode(event)
            values += (zlib.crc32(body), body)
        marks = ", ".join(["(?, ?)"] * len(part))
        database.execute(f"INSERT INTO events (crc32, body) VALUES {marks}", values)  # noqa: S608  marks alone


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def locked(path: Path) -> int:
    """An open file that only this process has locked; closing it unlocks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise UsageError(
            f"another registry has the store {path.with_suffix('')} open: stop it,"
            " or choose another file with --store"
        ) from None
    return fd
