"""Usage: each measured second is charged once, and nothing that was kept is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.etcd import EtcdServer, term_of
from xpool_protocol.errors import BrokenError, NotLeader, UsageError
from xpool_registry.accounting import (
    GROUPS,
    HOUR_S,
    Holder,
    Key,
    Ledger,
    Row,
    Second,
    Totals,
    summed,
)
from xpool_registry.accounts import ROWS_AT_ONCE, Accounts
from xpool_registry.etcd import Etcd, place_from_text
from xpool_registry.usage_store import (
    EtcdUsage,
    MemoryUsage,
    SqliteUsage,
    UsageStore,
)
from xpool_registry.usage_tables import csv_from_listing, moment_from_text

NOW_S = 1_000_000 * HOUR_S // HOUR_S * 1.0 + 10 * HOUR_S


def holder(lease: str = "l", tenant: str = "ada", share: int = 50) -> Holder:
    return Holder(lease, tenant, "node", 0, share)


def second(at_s: float, device_ns: int = 500_000_000) -> Second:
    return Second(int(at_s), device_ns, 100_000_000, 7, 1, 2, 1 << 30)


def device_s(ledger: Ledger) -> float:
    return sum(row.totals.device_s for row in ledger.take_changed())


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=30)
)
def test_seconds_that_come_again_are_charged_once(spans: list[tuple[int, int]]) -> None:
    """Whatever is repeated, and however often: the sum of the new ones."""
    ledger = Ledger()
    charged: set[int] = set()
    last = -1
    for begin, count in spans:
        seconds = [second(NOW_S + begin + i) for i in range(count)]
        ledger.charge(holder(), seconds, NOW_S)
        for one in seconds:
            if one.at_s > last:
                charged.add(one.at_s)
                last = one.at_s
    [*rows] = ledger.take_changed()
    assert sum(row.totals.seconds for row in rows) == len(charged)
    assert sum(row.totals.device_s for row in rows) == pytest.approx(0.5 * len(charged))


def test_what_is_on_disk_is_gone_on_with() -> None:
    before = Ledger()
    before.charge(holder(), [second(NOW_S), second(NOW_S + 1)], NOW_S)
    after = Ledger(before.take_changed())
    after.charge(holder(), [second(NOW_S + 1), second(NOW_S + 2)], NOW_S)
    [row] = after.take_changed()
    assert row.totals.seconds == 3
    assert row.totals.booked_s == pytest.approx(1.5)
    assert row.totals.byte_s == 3 * (1 << 30)


def test_a_clock_that_is_wrong_books_by_ours() -> None:
    ledger = Ledger()
    ledger.charge(holder(), [second(5), second(NOW_S + 10**9)], NOW_S)
    assert {row.key.hour_s for row in ledger.take_changed()} == {
        int(NOW_S) // HOUR_S * HOUR_S
    }


def test_a_node_that_lies_is_bounded() -> None:
    ledger = Ledger()
    ledger.charge(holder(), [second(NOW_S, (1 << 64) - 1)], NOW_S)
    assert device_s(ledger) == 1000.0


def test_hours_are_rows_of_their_own_and_are_forgotten() -> None:
    ledger = Ledger()
    for hour in range(3):
        at_s = NOW_S + hour * HOUR_S
        ledger.charge(holder(), [second(at_s)], at_s)
    first, *_ = rows = ledger.take_changed()
    assert len(rows) == 3
    ledger.forget_before(first.key.hour_s + HOUR_S)
    ledger.charge(holder(), [second(NOW_S + 2 * HOUR_S)], NOW_S + 2 * HOUR_S)
    assert ledger.take_changed() == []
    ledger.give_back(rows[1:])
    assert ledger.take_changed() == rows[1:]


def row(hour: int, lease: str, tenant: str, device: int, seconds: float) -> Row:
    key = Key(hour * HOUR_S, lease, tenant, "node", device)
    return Row(key, Totals(device_s=seconds, seconds=1), hour * HOUR_S)


ROWS = [
    row(0, "l1", "ada", 0, 1.0),
    row(1, "l1", "ada", 0, 2.0),
    row(1, "l2", "bob", 0, 10.0),
    row(25, "l3", "ada", 1, 4.0),
]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("tenant", [("bob", 10.0, 1), ("ada", 7.0, 2)]),
        ("lease", [("l2", 10.0, 1), ("l3", 4.0, 1), ("l1", 3.0, 1)]),
        ("device", [("node/0", 13.0, 2), ("node/1", 4.0, 1)]),
        ("node", [("node", 17.0, 3)]),
        ("hour", [("0", 1.0, 1), ("3600", 12.0, 2), ("90000", 4.0, 1)]),
        ("day", [("0", 13.0, 2), ("86400", 4.0, 1)]),
    ],
)
def test_sums(by: str, expected: list[tuple[str, float, int]]) -> None:
    found = [(one.name, one.totals.device_s, one.leases) for one in summed(ROWS, by)]
    assert found == expected
    assert by in GROUPS


@pytest.fixture(params=["sqlite", "memory", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UsageStore]:
    if request.param == "etcd":
        server = EtcdServer(tmp_path)
        server.start()
        etcd = Etcd(place_from_text(server.store))
        yield EtcdUsage(etcd, term_of(etcd))
        etcd.close()
        server.stop()
        return
    is_file = request.param == "sqlite"
    one: UsageStore = SqliteUsage(tmp_path / "u") if is_file else MemoryUsage()
    yield one
    one.close()


def test_what_is_put_is_found_by_its_hours(store: UsageStore) -> None:
    store.put(ROWS)
    store.put([row(1, "l1", "ada", 0, 3.0)])  # in the place of the one before
    found = store.rows(0, 100 * HOUR_S)
    assert sum(one.totals.device_s for one in found) == 18.0
    assert len(found) == len(ROWS)
    assert [one.key.lease_id for one in store.rows(2 * HOUR_S, 26 * HOUR_S)] == ["l3"]
    # A period that begins within an hour has all of it.
    assert len(store.rows(HOUR_S + 1800, 2 * HOUR_S)) == 2
    assert store.rows(50 * HOUR_S, 60 * HOUR_S) == []


def test_old_hours_are_dropped_and_the_others_kept(store: UsageStore) -> None:
    store.put(ROWS)
    for _ in range(len(ROWS)):
        if not store.forget_before(2 * HOUR_S, 1):
            break
    kept = [one for one in ROWS if one.key.hour_s >= 2 * HOUR_S]
    assert 0 < len(kept) < len(ROWS)
    found = store.rows(0, 100 * HOUR_S)
    assert sorted(one.key for one in found) == sorted(one.key for one in kept)
    assert not store.forget_before(2 * HOUR_S, 1)


def test_no_call_drops_more_than_it_may(store: UsageStore) -> None:
    store.put([row(i // 4, f"l{i:02d}", "ada", 0, 1.0) for i in range(12)])
    left = []
    while store.forget_before(2 * HOUR_S, 3):
        left.append([one.key.lease_id for one in store.rows(0, 9 * HOUR_S)])
    assert left == [[f"l{i:02d}" for i in range(first, 12)] for first in (3, 6)]
    assert len(store.rows(0, 9 * HOUR_S)) == 4


def test_a_file_gives_its_room_back(tmp_path: Path) -> None:
    path = tmp_path / "u"
    store = SqliteUsage(path)
    store.put([row(i % 50, f"lease-{i}", "ada", 0, 1.0) for i in range(5000)])
    _checkpoint(path)
    before = path.stat().st_size
    while store.forget_before(49 * HOUR_S, 500):
        pass
    _checkpoint(path)
    assert path.stat().st_size < before / 5
    assert len(store.rows(0, 50 * HOUR_S)) == 100
    store.close()


def _checkpoint(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()


def test_usage_is_kept_for_so_many_days() -> None:
    store = MemoryUsage()
    hour = int(NOW_S) // HOUR_S
    store.put([row(hour - 24 * day, f"l{day}", "ada", 0, 1.0) for day in range(5)])
    accounts = Accounts(store, NOW_S, kept_days=3)
    accounts.charge([(holder(), [second(NOW_S)])], NOW_S)
    accounts.flush(NOW_S + 2)
    left = {one.key.lease_id for one in store.rows(0, int(NOW_S) + HOUR_S)}
    assert left == {"l", "l0", "l1", "l2", "l3"}
    # A clock that jumps ahead is not believed before anything is measured by it.
    accounts.flush(NOW_S + 100 * 24 * HOUR_S)
    assert len(store.rows(0, int(NOW_S) + HOUR_S)) == 5


def test_what_tenants_used_since_the_start_only_grows() -> None:
    """Not what was there before, and still what memory has let go."""
    store = MemoryUsage()
    hour = int(NOW_S) // HOUR_S
    store.put([row(hour, "old", "ada", 0, 100.0)])
    accounts = Accounts(store, NOW_S)
    assert accounts.since_start()["ada"].device_s == 0
    seen = []
    for at_s in (NOW_S, NOW_S + HOUR_S, NOW_S + 3 * HOUR_S):
        accounts.charge([(holder(), [second(at_s)])], at_s)
        accounts.flush(at_s + 2)
        accounts.flush(at_s + 4)
        seen.append(accounts.since_start()["ada"].device_s)
    assert seen == [0.5, 1.0, 1.5]
    assert [one.byte_s for one in accounts.since_start().values()] == [3 * (1 << 30)]


def test_many_old_rows_are_dropped_in_small_steps() -> None:
    store = MemoryUsage()
    store.put([row(0, f"old-{i}", "ada", 0, 1.0) for i in range(1200)])
    accounts = Accounts(store, NOW_S, kept_days=1)
    accounts.charge([(holder(), [second(NOW_S)])], NOW_S)
    left = []
    for i in range(1, 5):
        accounts.flush(NOW_S + 2 * i)
        left.append(len(store.rows(0, HOUR_S)))
    assert left == [700, 200, 0, 0]


def test_who_leads_no_more_writes_no_usage(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path)
    server.start()
    etcd = Etcd(place_from_text(server.store))
    try:
        old = EtcdUsage(etcd, term_of(etcd))
        old.put([row(0, "l", "ada", 0, 1.0)])
        new = EtcdUsage(etcd, term_of(etcd))
        new.put([row(0, "l", "ada", 0, 3.0)])
        with pytest.raises(NotLeader):
            old.put([row(0, "l", "ada", 0, 2.0)])
        [kept] = new.rows(0, HOUR_S)
        assert kept.totals.device_s == 3.0
    finally:
        etcd.close()
        server.stop()


def test_a_file_outlives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "registry.db.usage"
    for _ in range(2):
        accounts = Accounts(SqliteUsage(path), NOW_S)
        accounts.charge([(holder(), [second(NOW_S)])], NOW_S)
        accounts.close(NOW_S)
    [one] = Accounts(SqliteUsage(path), NOW_S).usage(
        0, int(NOW_S) + HOUR_S, "tenant", NOW_S
    )
    assert (one.name, one.totals.seconds) == ("ada", 1)


def test_a_file_that_is_no_store_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "u"
    path.write_bytes(b"not a database, " * 500)
    with pytest.raises(UsageError, match="cannot be read as a registry's usage"):
        SqliteUsage(path)
    assert path.read_bytes() == b"not a database, " * 500


@given(
    steps=st.lists(st.sampled_from(["second", "flush", "kill"]), max_size=40),
)
def test_a_registry_that_is_killed_loses_no_second(steps: list[str]) -> None:
    """A node tells its seconds until they are stored; each is charged once."""
    store, now_s = MemoryUsage(), NOW_S
    accounts = Accounts(store, now_s)
    told: list[Second] = []

    def heartbeat() -> None:
        accounts.charge([(holder(), told)], now_s)
        stored_s = accounts.stored_s([("l", told)])
        until_s = stored_s.get("l", told[-1].at_s if told else 0)
        told[:] = [one for one in told if one.at_s > until_s]

    measured = 0
    for step in [*steps, "flush"]:
        now_s += 1
        if step == "second":
            told.append(second(now_s))
            measured += 1
        elif step == "kill":
            accounts = Accounts(store, now_s)  # what was not stored is gone with it
        heartbeat()
        if step == "flush":
            accounts.flush(now_s, is_last=True)
    heartbeat()
    assert told == []
    rows = store.rows(0, int(now_s) + HOUR_S)
    assert sum(one.totals.seconds for one in rows) == measured


class Full(MemoryUsage):
    """A disk that has no room for a while."""

    is_full = True

    def put(self, rows) -> None:  # type: ignore[no-untyped-def]
        if self.is_full:
            raise BrokenError("no room")
        super().put(rows)


def test_what_could_not_be_written_is_written_later() -> None:
    store = Full()
    accounts = Accounts(store, NOW_S)
    accounts.charge([(holder(), [second(NOW_S)])], NOW_S)
    accounts.flush(NOW_S + 5)
    assert store.rows(0, int(NOW_S) + HOUR_S) == []
    store.is_full = False
    accounts.flush(NOW_S + 10)
    assert len(store.rows(0, int(NOW_S) + HOUR_S)) == 1


def test_many_leases_are_written_in_parts_and_none_is_forgotten() -> None:
    store = MemoryUsage()
    accounts = Accounts(store, NOW_S)
    leases = [f"l{n}" for n in range(2 * ROWS_AT_ONCE + 7)]
    for name in leases:
        accounts.charge([(holder(name), [second(NOW_S)])], NOW_S)

    def kept() -> int:
        return len(store.rows(0, int(NOW_S) + HOUR_S))

    accounts.flush(NOW_S + 0.5)
    assert kept() == 0
    for look, count in ((1.0, ROWS_AT_ONCE), (1.2, 2 * ROWS_AT_ONCE)):
        accounts.flush(NOW_S + look)
        assert kept() == count
        # Whoever was charged again meanwhile comes after those who still wait.
        accounts.charge([(holder("l0"), [second(NOW_S + look * 5)])], NOW_S)
    assert accounts.stored_s([(leases[-1], [second(NOW_S)])]) == {leases[-1]: 0}
    accounts.flush(NOW_S + 1.4)
    assert kept() == len(leases)
    assert accounts.stored_s([(leases[-1], [second(NOW_S)])]) == {}
    accounts.flush(NOW_S + 1.6)  # nothing is owed: the next one after a second
    accounts.charge([(holder("late"), [second(NOW_S)])], NOW_S)
    accounts.flush(NOW_S + 1.8)
    assert kept() == len(leases)
    assert len(accounts.usage(0, int(NOW_S) + HOUR_S, "lease", NOW_S + 2)) == (
        len(leases) + 1
    )


@pytest.mark.parametrize(
    ("since_s", "until_s", "by"),
    [(5, 5, "tenant"), (9, 5, "tenant"), (0, 10**12, "tenant"), (0, 5, "colour")],
)
def test_periods_that_make_no_sense(since_s: int, until_s: int, by: str) -> None:
    with pytest.raises(UsageError):
        Accounts(MemoryUsage(), NOW_S).usage(since_s, until_s, by, NOW_S)


@pytest.mark.parametrize("text", ["yesterday", "5", "24x", "2026-13-01", ""])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UsageError, match="is no moment"):
        moment_from_text(text, 0.0)


def test_an_empty_sheet_is_empty() -> None:
    from xpool_registry.admin import Listing

    empty = Listing(columns=("a",), rows=[], figures=[], empty="nobody")
    assert csv_from_listing(empty) == ""
