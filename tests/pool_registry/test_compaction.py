"""A log in short says what the long one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_registry.pool_model import GIB, HOUR_MS, MINUTE_MS, PoolModel
from xpool_protocol.errors import LeaseExpired, NoCapacity
from xpool_registry.commands import CordonNode, SetTenant
from xpool_registry.compaction import compacted, count_of
from xpool_registry.daemon import keep_short
from xpool_registry.events import LeaseEnded, LeaseGranted, LogCompacted, RegistryEvent
from xpool_registry.resizing import ResizeLease
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.store import MemoryStore, SqliteStore

WISHES = st.lists(
    st.tuples(
        st.sampled_from([10, 50, 100]),
        st.integers(1, 3),
        st.sampled_from(["high", "normal", "low"]),
        st.sampled_from(["ada", "bob", "eve"]),
        st.sampled_from([0, 5 * MINUTE_MS, HOUR_MS]),
        st.sampled_from([0, 5]),
    ),
    min_size=1,
    max_size=14,
)


def facts(state: State) -> dict[str, object]:
    """All that decides anything, in its order."""
    names = (
        *("created", "last_epoch", "has_had_tokens", "began_s", "unsettled"),
        *("limits_ns", "deadlines_ns", "silent_ns", "out_ns", "of_request"),
        *("promises", "notices", "tenants", "tokens", "cordoned"),
    )
    lists = ("nodes", "leases", "ended", "waiting", "gone", "elastic")
    found = {name: getattr(state, name) for name in names}
    found |= {name: list(getattr(state, name).items()) for name in lists}
    fleet = state.fleet
    found["rows"] = fleet.row_of
    found["free"] = (fleet.free_milli.tolist(), fleet.free_nbytes.tolist())
    found["forms"] = state.learning.forms
    found["paid"] = {key: list(times) for key, times in state.preempted_s.items()}
    return found


def agree(events: list[RegistryEvent], now_s: float, chosen: Settings) -> None:
    """The state that follows is the same, and what tenants have used."""
    short = compacted(events, now_s, chosen)
    long_state = State.from_events(events, 10**9, now_s, chosen)
    short_state = State.from_events(short, 10**9, now_s, chosen)
    assert facts(short_state) == facts(long_state)
    for name, book in long_state.books.items():
        other = short_state.books.get(name)
        if other is None:
            assert book.recent.milli < 1e-6
            continue
        assert other.held == pytest.approx(book.held)
        assert other.recent == pytest.approx(book.recent)
        assert other.at_s == book.at_s
    assert count_of(short) == count_of(events)
    assert compacted(short, now_s, chosen) == short


@given(WISHES, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_same_state_follows_at_any_moment(
    wishes: list[tuple[int, int, str, str, int, int]], rng: object
) -> None:
    chosen = Settings(hold_after_ms=MINUTE_MS, min_run_ms=1000, grace_ms=10_000)
    pool = PoolModel(chosen)
    pool.join("a", devices=2)
    pool.join("b", devices=1)
    pool.registry.set_tenant(SetTenant(name="bob", weight=2.0, preemptions_per_hour=3))
    for i, (share, devices, priority, tenant, limit_ms, least) in enumerate(wishes):
        least = least if devices == 1 and share > least else 0
        pool.ask(
            f"r{i}",
            share,
            devices,
            priority=priority,
            tenant=tenant,
            limit_ms=limit_ms,
            least=least,
        )
        pool.wait(3000)
        if rng.random() < 0.3:  # type: ignore[attr-defined]
            for name in sorted(pool.running())[:1]:
                pool.end(name)
        if rng.random() < 0.2:  # type: ignore[attr-defined]
            pool.join("b", devices=1)
        agree(pool.store.load(), pool.now_ms / 1000, chosen)


def test_what_was_ended_stays_ended_and_is_never_granted_again() -> None:
    pool = PoolModel()
    pool.join("a", devices=1)
    for number in range(200):
        assert pool.ask(f"r{number}", 100)
        pool.end(f"r{number}")
    held = pool.ask("last", 50)
    assert held
    events = pool.store.load()
    short = compacted(events, pool.now_ms / 1000, pool.settings)
    assert sum(isinstance(one, LeaseGranted) for one in short) == 1
    pool.store = MemoryStore(short)
    epoch = pool.leases["last"][0].lease.epoch
    pool.restart()
    with pytest.raises(LeaseExpired):
        pool.again("r7")
    assert pool.running() == {"last"}
    with pytest.raises(NoCapacity):
        pool.ask("more", 60, wait_ms=0)
    assert pool.ask("other", 50)
    assert pool.leases["other"][0].lease.epoch == epoch + 1


def test_cordons_changed_slices_and_tokens_are_kept() -> None:
    pool = PoolModel()
    pool.join("a", devices=2)
    pool.join("b", devices=1)
    assert pool.ask("one", 100, least=20, memory=4 * GIB)
    lease = pool.leases["one"][0].lease
    pool.registry.resize(ResizeLease(lease_id=lease.lease_id, memory_nbytes=GIB))
    pool.registry.cordon(CordonNode(node_name="b", reason="fans"))
    for _ in range(2):
        created, _ = pool.registry.create_token("admin", "", 0, "x")
    pool.registry.revoke_token(created.token_id)
    agree(pool.store.load(), pool.now_ms / 1000, pool.settings)


def test_events_are_numbered_on() -> None:
    pool = PoolModel()
    pool.join("a", devices=1)
    for number in range(30):
        pool.ask(f"r{number}", 100)
        pool.end(f"r{number}")
    count = count_of(pool.store.load())
    pool.store = MemoryStore(compacted(pool.store.load(), 1.0, pool.settings))
    pool.restart()
    assert pool.ask("next", 100)
    numbered = pool.registry.events_after(0, 100)
    assert numbered
    assert max(number for number, _ in numbered) == count + 1
    assert not any(isinstance(one, LogCompacted) for _, one in numbered)


def test_only_the_ends_that_are_remembered_are_carried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xpool_registry.state.MAX_ENDED_LEASES", 5)
    pool = PoolModel()
    pool.join("a", devices=1)
    for number in range(20):
        pool.ask(f"r{number}", 100)
        pool.end(f"r{number}")
    short = compacted(pool.store.load(), 1.0, pool.settings)
    assert sum(isinstance(one, LeaseEnded) for one in short) == 5


def test_a_file_is_put_into_short_at_the_start_and_only_then(tmp_path: Path) -> None:
    pool = PoolModel(Settings(compact_after=50))
    pool.join("a", devices=1)
    for number in range(30):
        pool.ask(f"r{number}", 100)
        pool.end(f"r{number}")
    events = pool.store.load()
    store = SqliteStore(tmp_path / "registry.db")
    try:
        store.append(events[:40])
        keep_short(store, pool.settings, 1.0)
        assert store.load() == events[:40]
        store.append(events[40:])
        keep_short(store, pool.settings, 1.0)
        short = compacted(events, 1.0, pool.settings)
        assert store.load() == short
        for one in range(40):  # no matter how long the short form is by itself
            store.append([events[-2 + one % 2]])
            keep_short(store, pool.settings, 1.0)
        assert len(store.load()) == len(short) + 40
    finally:
        store.close()
    SqliteStore(tmp_path / "registry.db").close()


def test_a_disk_that_is_full_keeps_the_long_log(tmp_path: Path) -> None:
    pool = PoolModel(Settings(compact_after=10))
    pool.join("a", devices=1)
    for number in range(60):
        pool.ask(f"r{number}", 100)
        pool.end(f"r{number}")
    events = pool.store.load()
    store = SqliteStore(tmp_path / "registry.db")
    try:
        store.append(events)
        # As SQLite says it, after the old rows are gone and before all new ones are in.
        store._database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.crc32 % 9 = 1"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        keep_short(store, pool.settings, 1.0)
        assert store.load() == events
    finally:
        store.close()
