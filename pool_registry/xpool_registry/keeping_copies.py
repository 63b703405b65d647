"""``backup`` and ``restore`` of a registry's file, its key, and who has used how much.

A backup may be made while the registry runs: SQLite copies page by page and sees one
moment. A restore never overwrites: what is there is moved aside; and use that is there
stays, it is at least as new.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xpool_protocol.errors import UsageError

from xpool_registry.events import RegistryRestored
from xpool_registry.keys import SigningKey
from xpool_registry.state import State
from xpool_registry.store import SqliteStore

EPOCHS_SKIPPED: Final = 1_000_000
"""More than any pool grants between a copy and its restoring: a year at one each
thirty seconds."""


def key_of(store: Path) -> Path:
    """Where a store's key lies."""
    return store.with_name(f"{store.name}.key")


def usage_of(store: Path) -> Path:
    """Where it is kept who has used how much."""
    return store.with_name(f"{store.name}.usage")


def backup(store: Path, copy: Path) -> int:
    """Copy a store and its key; the number of events in the copy.

    Raises:
        UsageError: there is no store, it is damaged, or the copy cannot be written.
    """
    if not store.exists():
        raise UsageError(f"there is no store {store}: name it with --store")
    if copy.exists():
        raise UsageError(f"{copy} exists: name another file, or move it away")
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _copy_pages(store, copy)
        if usage_of(store).exists():
            os.close(
                os.open(usage_of(copy), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            )
            _copy_pages(usage_of(store), usage_of(copy))
        key = key_of(copy)
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key_of(store).read_bytes())
    except (OSError, sqlite3.Error) as error:
        raise UsageError(f"cannot copy {store} to {copy}: {error}") from error
    return _checked(copy)


def restore(copy: Path, store: Path, wall_s: float, aside: Callable[[], str]) -> int:
    """Put a copy in a store's place; the number of events in it.

    Args:
        copy: as ``backup`` made it.
        store: where the registry looks; what is there is moved aside.
        wall_s: now.
        aside: a new ending for what is moved aside.

    Raises:
        UsageError: the copy is no store, or a registry has the store open.
    """
    count = _checked(copy)
    if store.exists():
        _refuse_if_open(store)
        ending = aside()
        for path in (store, key_of(store)):
            if path.exists():
                path.rename(path.with_name(f"{path.name}.{ending}"))
        for beside in ("-wal", "-shm"):
            path = store.with_name(f"{store.name}{beside}")
            if path.exists():
                path.rename(store.with_name(f"{store.name}.{ending}{beside}"))
    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pairs = [(copy, store), (key_of(copy), key_of(store))]
        if usage_of(copy).exists() and not usage_of(store).exists():
            pairs.append((usage_of(copy), usage_of(store)))
        for source, target in pairs:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
                shutil.copyfileobj(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
    except OSError as error:
        raise UsageError(f"cannot write {store}: {error.strerror}") from error
    opened = SqliteStore(store)
    try:
        last = State.from_events(opened.load(), now_ns=0).last_epoch
        # Grants made after the copy are forgotten; their epochs must not come again.
        opened.append([RegistryRestored(last_epoch=last + EPOCHS_SKIPPED, at_s=wall_s)])
    finally:
        opened.close()
    return count


def _copy_pages(store: Path, copy: Path) -> None:
    source = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    target = sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()


def _checked(copy: Path) -> int:
    if not copy.exists():
        raise UsageError(f"there is no copy {copy}")
    SigningKey.load(key_of(copy))
    opened = SqliteStore(copy)
    try:
        return len(opened.load())
    finally:
        opened.close()
        lock = copy.with_name(f"{copy.name}.lock")
        lock.unlink(missing_ok=True)


def _refuse_if_open(store: Path) -> None:
    """Take the lock for a moment; a damaged store has one, too."""
    from xpool_registry.store import locked

    os.close(locked(store.with_name(f"{store.name}.lock")))
