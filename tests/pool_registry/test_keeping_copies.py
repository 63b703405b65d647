"""A copy is whole, a restore overwrites nothing, no epoch comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from xpool_protocol.errors import UsageError
from xpool_registry.accounting import Key, Row, Totals
from xpool_registry.commands import AcquireLease, JoinNode
from xpool_registry.compaction import compacted
from xpool_registry.daemon import new_id
from xpool_registry.events import Device, LeaseEnded
from xpool_registry.keeping_copies import (
    EPOCHS_SKIPPED,
    backup,
    key_of,
    restore,
    usage_of,
)
from xpool_registry.keys import SigningKey
from xpool_registry.registry import Registry
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.store import SqliteStore
from xpool_registry.usage_store import SqliteUsage


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """With a node and one lease."""
    path = tmp_path / "registry.db"
    SigningKey.generate().save(key_of(path))
    opened = SqliteStore(path)
    grant(opened, path, join=True)
    opened.close()
    return path


def grant(opened: SqliteStore, path: Path, *, join: bool = False) -> int:
    """One more lease; its epoch."""
    registry = Registry(opened, SigningKey.load(key_of(path)), Settings(), new_id)
    registry.join(
        JoinNode(
            node_name="a",
            boot_id="b",
            address="tcp://a:1",
            version="",
            devices=(Device(index=0, kind="cpu", name="", memory_nbytes=1 << 30),),
        )
    )
    wish = AcquireLease(tenant="ada", share_percent=10, ttl_ms=60_000)
    return registry.acquire(wish).lease.epoch


def test_a_copy_is_made_of_a_registry_that_runs(store: Path, tmp_path: Path) -> None:
    opened = SqliteStore(store)
    copy = tmp_path / "copy.db"
    assert backup(store, copy) == len(opened.load()) == 3
    opened.close()
    assert copy.stat().st_mode & 0o077 == key_of(copy).stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="exists"):
        backup(store, copy)
    with pytest.raises(UsageError, match="there is no store"):
        backup(tmp_path / "none.db", tmp_path / "other.db")


def test_a_restore_moves_aside_and_skips_epochs(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    backup(store, copy)
    opened = SqliteStore(store)
    lost = grant(opened, store)  # after the copy: the pool will not know of it
    with pytest.raises(UsageError, match="another registry has the store"):
        restore(copy, store, 1.0, lambda: "aside")
    opened.close()
    store.write_bytes(b"damaged" * 1000)
    with pytest.raises(UsageError, match='"xpool admin restore"'):
        SqliteStore(store)
    assert restore(copy, store, 1.0, lambda: "aside") == 3
    assert (tmp_path / "registry.db.aside").read_bytes().startswith(b"damaged")
    opened = SqliteStore(store)
    assert grant(opened, store) > lost + EPOCHS_SKIPPED - 2
    opened.close()


def test_epochs_of_a_log_in_short_count_too(store: Path, tmp_path: Path) -> None:
    """The grant with the highest epoch may be one that nobody lists any more."""
    opened = SqliteStore(store)
    past = opened.load()
    state = State.from_events(past, 0)
    [lease] = state.leases.values()
    gone = replace(lease, lease_id="gone", epoch=5_000_000)
    ended = LeaseEnded(lease_id="gone", epoch=gone.epoch, reason="", at_s=1.0)
    opened.replace(compacted([*past, gone, ended], 1.0, Settings()))
    opened.close()
    copy = tmp_path / "copy.db"
    backup(store, copy)
    restore(copy, store, 1.0, lambda: "aside")
    opened = SqliteStore(store)
    assert grant(opened, store) > gone.epoch + EPOCHS_SKIPPED
    opened.close()


def test_use_is_copied_and_what_is_there_stays(store: Path, tmp_path: Path) -> None:
    row = Row(Key(3600, "l", "ada", "a", 0), Totals(device_s=1.5), 3700)
    usage = SqliteUsage(usage_of(store))
    usage.put([row])
    copy = tmp_path / "copy.db"
    backup(store, copy)
    assert usage_of(copy).stat().st_mode & 0o077 == 0
    later = replace_row(row, 2.5)
    usage.put([later])
    usage.close()
    restore(copy, store, 1.0, lambda: "aside")
    assert rows_of(store) == [later]
    elsewhere = tmp_path / "elsewhere" / "registry.db"
    restore(copy, elsewhere, 1.0, lambda: "aside")
    assert rows_of(elsewhere) == [row]


def replace_row(row: Row, device_s: float) -> Row:
    return Row(row.key, Totals(device_s=device_s), row.last_s)


def rows_of(store: Path) -> list[Row]:
    usage = SqliteUsage(usage_of(store))
    found = usage.rows(0, 7200)
    usage.close()
    return found


def test_what_is_no_copy_is_refused(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with pytest.raises(UsageError, match="there is no copy"):
        restore(copy, store, 1.0, lambda: "aside")
    copy.write_bytes(b"something else" * 500)
    key_of(copy).write_bytes(key_of(store).read_bytes())
    key_of(copy).chmod(0o600)
    before = store.read_bytes()
    with pytest.raises(UsageError, match="cannot be read as a registry's store"):
        restore(copy, store, 1.0, lambda: "aside")
    assert store.read_bytes() == before
