"""Keeps usage on disk: a table beside the event log, or keys in the same etcd."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from xpool_protocol.errors import BrokenError, NotLeader, UsageError

from xpool_registry.accounting import HOUR_S, Key, Row, Totals

if TYPE_CHECKING:
    from xpool_registry.etcd import Etcd
    from xpool_registry.etcd_store import Term

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS usage (
    hour_s INTEGER NOT NULL, lease_id TEXT NOT NULL, tenant TEXT NOT NULL,
    node_name TEXT NOT NULL, device_index INTEGER NOT NULL,
    device_s REAL NOT NULL, booked_s REAL NOT NULL, waiting_s REAL NOT NULL,
    byte_s REAL NOT NULL, executed_ops INTEGER NOT NULL,
    received_nbytes INTEGER NOT NULL, sent_nbytes INTEGER NOT NULL,
    seconds INTEGER NOT NULL, last_s INTEGER NOT NULL,
    PRIMARY KEY (hour_s, lease_id, tenant, node_name, device_index)
) WITHOUT ROWID
"""
_PUT: Final = "INSERT OR REPLACE INTO usage VALUES "
_ROW: Final = f"({', '.join('?' * 14)})"
ROWS_AT_ONCE: Final = 100
"""In one statement; see ``store.ROWS_AT_ONCE``."""

_GET: Final = "SELECT * FROM usage WHERE hour_s >= ? AND hour_s < ? ORDER BY hour_s"
_PRUNE: Final = """
DELETE FROM usage
WHERE (hour_s, lease_id, tenant, node_name, device_index) IN (
    SELECT hour_s, lease_id, tenant, node_name, device_index FROM usage
    WHERE hour_s < ? ORDER BY hour_s LIMIT ?
)
"""
_KEY: Final = 5
_figures: Final = attrgetter(*Totals.__struct_fields__)
PUTS: Final = 100
"""In one transaction; etcd takes 128."""


class UsageStore(Protocol):
    """Where rows are kept."""

    flush_s: float
    """How often it is to be written; nodes keep what they have told since."""

    def put(self, rows: Sequence[Row]) -> None:
        """Keep rows in the place of those with the same key.

        Raises:
            BrokenError: they could not be written.
        """

    def rows(self, since_s: int, until_s: int) -> list[Row]:
        """All of the hours that begin in a period.

        Raises:
            BrokenError: they could not be read.
        """

    def forget_before(self, hour_s: int, most: int) -> bool:
        """Drop rows of hours before that one, the oldest first.

        Args:
            hour_s: the first hour that is kept.
            most: rows that one call drops: everybody waits for it.

        Returns:
            Whether there may be more of them.

        Raises:
            BrokenError: they could not be dropped.
        """

    def close(self) -> None:
        """Let go of what is open."""


class SqliteUsage:
    """A file of its own, so that the event log stays what it is."""

    flush_s = 1.0

    def __init__(self, path: Path) -> None:
        """Open ``path``, or begin it.

        Raises:
            UsageError: it can't be used.
        """
        self._path = path
        try:
            # The registry calls from several threads, but one at a time.
            self._database = sqlite3.connect(path, check_same_thread=False)
            path.chmod(0o600)
            # Of a new file alone; in an older one the room is used again, and kept.
            self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(_CREATE)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{path} cannot be read as a registry's usage ({error}): restore a"
                " copy, or move it away to begin anew; it was left as it is"
            ) from error

    def put(self, rows: Sequence[Row]) -> None:
        """Keep rows."""
        try:
            with self._database:
                for begin in range(0, len(rows), ROWS_AT_ONCE):
                    part = rows[begin : begin + ROWS_AT_ONCE]
                    values: list[object] = []
                    for row in part:
                        values += (*row.key, *_figures(row.totals), row.last_s)
                    marks = ", ".join([_ROW] * len(part))
                    self._database.execute(_PUT + marks, values)
        except sqlite3.Error as error:
            raise BrokenError(
                f"the registry cannot write the usage in {self._path}: {error}"
            ) from error

    def rows(self, since_s: int, until_s: int) -> list[Row]:
        """All of a period."""
        first = since_s // HOUR_S * HOUR_S
        try:
            found = self._database.execute(_GET, (first, until_s)).fetchall()
        except sqlite3.Error as error:
            raise BrokenError(
                f"the registry cannot read the usage in {self._path}: {error}"
            ) from error
        return [Row(Key(*one[:_KEY]), Totals(*one[_KEY:-1]), one[-1]) for one in found]

    def forget_before(self, hour_s: int, most: int) -> bool:
        """Drop old rows, and give the file's room back to the disk."""
        try:
            with self._database:
                count = self._database.execute(_PRUNE, (hour_s, most)).rowcount
            if count:
                # ``execute`` takes one step, and each step frees one page.
                self._database.executescript("PRAGMA incremental_vacuum")
        except sqlite3.Error as error:
            raise BrokenError(
                f"the registry cannot drop old usage in {self._path}: {error}"
            ) from error
        return count == most

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class MemoryUsage:
    """Keeps rows for as long as the process lives; for tests and trials."""

    flush_s = 1.0

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}

    def put(self, rows: Sequence[Row]) -> None:
        """Keep rows."""
        self._rows |= {row.key: row for row in rows}

    def rows(self, since_s: int, until_s: int) -> list[Row]:
        """All of a period."""
        return _within(self._rows.values(), since_s, until_s)

    def forget_before(self, hour_s: int, most: int) -> bool:
        """Drop old rows."""
        old = sorted(key for key in self._rows if key.hour_s < hour_s)
        for key in old[:most]:
            del self._rows[key]
        return len(old) > most

    def close(self) -> None:
        """Nothing is open."""


class EtcdUsage:
    """``PREFIX/usage/HOUR/LEASE``, one key a row."""

    flush_s = 10.0

    def __init__(self, etcd: Etcd, term: Term) -> None:
        """Write nothing once the term is over.

        Rows are sums, and would take the place of those of whoever leads by then.

        Args:
            etcd: connected.
            term: of the registry that leads.
        """
        self._etcd = etcd
        self._term = term
        self._prefix = f"{etcd.place.prefix}/usage/"

    def put(self, rows: Sequence[Row]) -> None:
        """Keep rows."""
        from xpool_registry.etcd import Ambiguous

        puts = [
            (
                f"{self._prefix}{row.key.hour_s:012d}/{row.key.lease_id}",
                msgspec.json.encode(row),
            )
            for row in rows
        ]
        try:
            for begin in range(0, len(puts), PUTS):
                if not self._etcd.put_if(
                    puts[begin : begin + PUTS],
                    created_at=[(self._term.key, self._term.revision)],
                ):
                    raise NotLeader("another registry leads this pool by now")
        except Ambiguous as error:  # the same rows come again
            raise BrokenError(str(error)) from error

    def rows(self, since_s: int, until_s: int) -> list[Row]:
        """All of a period."""
        first = since_s // HOUR_S * HOUR_S
        rows: list[Row] = []
        for hour_s in range(first, until_s, HOUR_S):
            begin = f"{self._prefix}{hour_s:012d}/"
            entries = self._etcd.span(begin, f"{begin[:-1]}0")  # "0" follows "/"
            rows += [msgspec.json.decode(one.value, type=Row) for one in entries]
        return rows

    def forget_before(self, hour_s: int, most: int) -> bool:
        """Drop old rows, some at a time: etcd serves nobody else meanwhile."""
        keys = self._etcd.keys(self._prefix, f"{self._prefix}{hour_s:012d}/", most)
        if not keys:
            return False
        end = f"{keys[-1]}\0"  # the next key there can be
        at = [(self._term.key, self._term.revision)]
        if not self._etcd.delete_span_if(self._prefix, end, at):
            raise NotLeader("another registry leads this pool by now")
        return len(keys) == most

    def close(self) -> None:
        """The connection is the log's."""


def _within(rows: Iterable[Row], since_s: int, until_s: int) -> list[Row]:
    first = since_s // HOUR_S * HOUR_S
    return sorted(
        (row for row in rows if first <= row.key.hour_s < until_s),
        key=lambda row: row.key,
    )
