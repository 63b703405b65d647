"""The log on disk: what was appended is there, what is not a store is left alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xpool_protocol.control.token import LeaseClaims, sign, verify
from xpool_protocol.errors import BrokenError, TokenInvalid, UsageError
from xpool_registry.commands import Moment
from xpool_registry.events import (
    Device,
    LeaseEnded,
    LeaseGranted,
    LogCompacted,
    NodeJoined,
    RegistryCreated,
    RegistryEvent,
    UseCarried,
)
from xpool_registry.keys import SigningKey, verifier_from_public_key
from xpool_registry.registry import Registry
from xpool_registry.settings import Settings
from xpool_registry.store import MemoryStore, SqliteStore, Store

GRANTED = LeaseGranted(
    lease_id="l",
    epoch=1,
    tenant='"ä\U0001f600"',
    client="",
    node_name="a",
    device_index=0,
    share_percent=100,
    memory_nbytes=1 << 50,
    mode="capped",
    ttl_ms=1000,
    at_s=2.25,
)
EVENTS: list[RegistryEvent] = [
    RegistryCreated(registry_id="r", public_key_hex="00", at_s=1.5),
    NodeJoined(
        node_name="a",
        boot_id="b",
        address="tcp://a:1",
        devices=(Device(index=0, kind="cpu", name="x", memory_nbytes=(1 << 64) - 1),),
        version="",
        at_s=2.0,
    ),
    GRANTED,
    LeaseEnded(lease_id="l", epoch=1, reason="expired", at_s=3.0),
    UseCarried(
        tenant="t",
        held_milli=0.0,
        held_nbytes=0.0,
        recent_milli=1e-3,
        recent_nbytes=1e12,
        until_s=3.0,
        at_s=4.0,
    ),
    LogCompacted(
        event_count=7,
        last_epoch=1,
        began_s=2.25,
        has_had_tokens=False,
        forms=((1, 1000),),
        preempted_s=(("t", (3.0, 3.5)),),
        unsettled=(("l", 1 << 40),),
        at_s=4.0,
    ),
]


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    sqlite = SqliteStore(tmp_path / "registry.db")
    yield sqlite
    sqlite.close()


def test_what_goes_in_comes_out_in_order(store: Store) -> None:
    assert store.load() == []
    store.append(EVENTS[:1])
    store.append(EVENTS[1:])
    store.append([])
    assert store.load() == EVENTS


def test_a_store_outlives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "registry.db"
    for _ in range(3):
        store = SqliteStore(path)
        store.append(EVENTS)
        store.close()
    store = SqliteStore(path)
    assert store.load() == EVENTS * 3
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A full disk, as SQLite sees it: the second of two events has no page left."""
    store = SqliteStore(tmp_path / "registry.db")
    store.append(EVENTS)
    database = store._database
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    long = LeaseEnded(lease_id="l", epoch=1, reason="r" * 10_000, at_s=0.0)
    with pytest.raises(BrokenError, match=r"cannot write its store .*full"):
        store.append([EVENTS[0], long])
    assert store.load() == EVENTS
    database.execute("PRAGMA max_page_count = 1000000")
    store.append([long])
    assert store.load() == [*EVENTS, long]
    store.close()


@pytest.mark.parametrize("name", ["registry.db", "link.db"])
def test_two_on_one_store(tmp_path: Path, name: str) -> None:
    first = SqliteStore(tmp_path / "registry.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "registry.db")
    with pytest.raises(UsageError, match=r"another registry has the store .*registry"):
        SqliteStore(tmp_path / name)
    first.close()
    SqliteStore(tmp_path / name).close()


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database, " * 1000)


def text(path: Path) -> None:
    path.write_text("tenant = 'ada'\n")


def other_program(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE notes (text)")
    database.commit()
    database.close()


def other_version(path: Path) -> None:
    made(path)
    change(path, "PRAGMA user_version = 99")


def torn_pages(path: Path) -> None:
    made(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])
    path.write_bytes(content)


def flipped_bit(path: Path) -> None:
    """Inside an event: SQLite itself does not notice."""
    made(path)
    content = bytearray(path.read_bytes())
    content[content.index(b'"share_percent":100') + 16] ^= 1
    path.write_bytes(content)


def unknown_event(path: Path) -> None:
    made(path)
    body = b'{"event":"x"}'
    values = f"({zlib.crc32(body)}, x'{body.hex()}')"
    change(path, f"INSERT INTO events (crc32, body) VALUES {values}")


def made(path: Path) -> None:
    store = SqliteStore(path)
    store.append(EVENTS)
    store.close()  # the last connection to close moves the log into the file


def change(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (garbage, "cannot be read as a registry's store"),
        (text, "cannot be read as a registry's store"),
        (other_program, "another program's database"),
        (other_version, "schema version 99"),
        (torn_pages, "cannot be read as a registry's store"),
        (flipped_bit, "event 3 fails its checksum"),
        (unknown_event, "cannot be read as a registry's store .*Invalid value 'x'"),
    ],
)
def test_what_is_not_a_store_is_refused_and_left(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    path = tmp_path / "registry.db"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=sentence):
        SqliteStore(path).load()
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot keep a store at"):
        SqliteStore(tmp_path / "file" / "registry.db")
    with pytest.raises(UsageError, match="cannot keep a store at"):
        SqliteStore(tmp_path)


# ---- the key beside it ----

CLAIMS = LeaseClaims(
    lease_id="l",
    epoch=1,
    tenant="t",
    node_name="a",
    device_index=0,
    share_percent=1,
    memory_nbytes=1,
    mode="capped",
    issued_at_s=0,
    expires_at_s=10,
)


def test_a_key_is_private_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "registry.db.key"
    old_mask = os.umask(0)
    try:
        key = SigningKey.generate()
        key.save(path)
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = SigningKey.load(path)
    assert again.public_key == key.public_key
    assert len(key.public_key) == 32
    assert sign(CLAIMS, again.sign) == sign(CLAIMS, key.sign)


def test_tokens_are_bound_to_the_key() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    token = sign(CLAIMS, key.sign)
    assert verify(token, verifier_from_public_key(key.public_key), 5) == CLAIMS
    with pytest.raises(TokenInvalid, match="not the registry's"):
        verify(token, verifier_from_public_key(other.public_key), 5)
    for position in range(0, len(token), 3):
        flipped = chr(ord(token[position]) ^ 1)
        changed = token[:position] + flipped + token[position + 1 :]
        with pytest.raises(TokenInvalid):
            verify(changed, verifier_from_public_key(key.public_key), 5)


def test_unusable_keys(tmp_path: Path) -> None:
    path = tmp_path / "k"
    with pytest.raises(UsageError, match="cannot read"):
        SigningKey.load(path)
    SigningKey.generate().save(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        SigningKey.load(path)
    path.write_text("nonsense")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="not an Ed25519 key"):
        SigningKey.load(path)
    with pytest.raises(UsageError, match="cannot write"):
        SigningKey.generate().save(tmp_path / "missing" / "k")


def test_a_store_goes_with_its_key(store: Store) -> None:
    def opened(key: SigningKey) -> Registry:
        return Registry(
            store, key, Settings(), new_id=lambda: "id", clock=lambda: Moment(0, 0.0)
        )

    key = SigningKey.generate()
    assert opened(key).registry_id == opened(key).registry_id
    with pytest.raises(UsageError, match="not the one that this pool began with"):
        opened(SigningKey.generate())
