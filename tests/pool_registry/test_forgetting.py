"""Nodes that are gone for good: by hand, after long silence, to make room."""

from __future__ import annotations

import pytest
from pool_registry.pool_model import HOUR_MS, PoolModel
from xpool_protocol.errors import NoCapacity, UsageError
from xpool_registry import upkeep
from xpool_registry.commands import CordonNode
from xpool_registry.compaction import compacted
from xpool_registry.settings import Settings, forget_after_ms_checked
from xpool_registry.state import State

DAY_MS = 24 * HOUR_MS


def pool_of(*names: str, settings: Settings | None = None) -> PoolModel:
    pool = PoolModel(settings)
    for name in names:
        pool.join(name)
    return pool


def names(pool: PoolModel) -> list[str]:
    """As listed; no device of another node is."""
    found = [view.node.node_name for view in pool.registry.nodes()]
    assert {view.offer.node_name for view in pool.registry.devices()} == set(found)
    return found


def silence(pool: PoolModel, name: str, ms: int) -> None:
    """One node says nothing for so long, the others go on."""
    del pool.nodes[name]
    pool.now_ms += ms
    pool.beat()
    pool.registry.tick()


def test_a_silent_node_is_forgotten_and_may_come_back() -> None:
    pool = pool_of("a", "b")
    with pytest.raises(UsageError, match=r"a was heard 0\.0 s ago: stop its server"):
        pool.registry.forget("a", "")
    silence(pool, "a", 6000)
    with pytest.raises(UsageError, match="no node 'x' has joined"):
        pool.registry.forget("x", "")
    with pytest.raises(UsageError, match="reason"):
        pool.registry.forget("a", "x" * 1000)
    pool.registry.forget("a", "sold")
    assert names(pool) == ["b"]
    assert pool.registry.device_count == 1
    # Its row is free: nothing is placed there, and another node may have it.
    assert pool.ask("1")
    assert not pool.ask("2")
    assert pool.registry.queue()[0].reason.count("/0") == 1
    with pytest.raises(NoCapacity, match="never 2 devices"):
        pool.ask("3", devices=2)
    pool.join("c", devices=2)
    assert names(pool) == ["b", "c"]
    assert pool.registry.device_count == 3
    pool.join("a")
    assert pool.ask("4", devices=2)
    for registry in (pool.registry, pool.opened()):
        assert {view.node.node_name for view in registry.nodes()} == {"a", "b", "c"}


def test_who_has_leases_is_kept_until_they_have_ended() -> None:
    pool = pool_of("a", "b")
    assert pool.ask("1")
    name = pool.leases["1"][0].lease.node_name
    silence(pool, name, 6000)
    with pytest.raises(UsageError, match="still has 1 lease: they end when"):
        pool.registry.forget(name, "")
    silence_ms = pool.settings.default_ttl_ms + 1
    pool.now_ms += silence_ms
    pool.beat()
    pool.registry.tick()
    pool.registry.forget(name, "")
    assert name not in names(pool)


def test_long_silence_is_enough_but_for_cordoned_nodes() -> None:
    pool = pool_of("a", "b", "c")
    pool.registry.cordon(CordonNode(node_name="b", reason="fans"))
    del pool.nodes["b"]
    silence(pool, "a", 7 * DAY_MS - 1)
    assert names(pool) == ["a", "b", "c"]
    pool.now_ms += 1
    pool.beat()
    pool.registry.tick()
    assert names(pool) == ["b", "c"]
    pool.registry.forget("b", "")
    assert names(pool) == ["c"]
    pool.join("b")
    assert pool.registry.nodes()[0].closed == "", "a cordon is forgotten with it"


def test_silence_counts_from_the_registrys_start() -> None:
    pool = pool_of("a", "b")
    silence(pool, "a", 7 * DAY_MS - 1)
    pool.restart()
    pool.now_ms += 1
    pool.registry.tick()
    assert names(pool) == ["a", "b"]


def test_nothing_is_forgotten_if_the_operator_says_so() -> None:
    pool = pool_of("a", settings=Settings(forget_after_ms=0))
    silence(pool, "a", 300 * DAY_MS)
    assert names(pool) == ["a"]


def test_the_longest_silent_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MAX_NODES", 3)
    pool = pool_of("a", "b", "c")
    with pytest.raises(UsageError, match="holds 3 nodes and takes no more"):
        pool.join("d")
    del pool.nodes["d"]
    silence(pool, "b", 6000)
    silence(pool, "a", 6000)
    pool.join("d")
    assert names(pool) == ["a", "c", "d"]
    pool.registry.cordon(CordonNode(node_name="a"))
    with pytest.raises(UsageError, match="holds 3 nodes and takes no more"):
        pool.join("e")


def test_a_promise_on_it_is_broken() -> None:
    """Whoever waits for a device that is gone waits for others."""
    pool = pool_of("a", "b")
    for name in ("1", "2"):
        assert pool.ask(name, limit_ms=HOUR_MS)
    assert not pool.ask("both", devices=2)
    pool.registry.tick()
    [place] = pool.registry.queue()
    assert place.starts_at_s
    (at_a,) = (n for n in ("1", "2") if pool.leases[n][0].lease.node_name == "a")
    pool.end(at_a)
    silence(pool, "a", 6000)
    pool.registry.forget("a", "")
    [place] = pool.registry.queue()
    assert not place.starts_at_s
    pool.join("c")
    (at_b,) = {"1", "2"} - {at_a}
    pool.end(at_b)
    pool.registry.tick()
    assert "both" in pool.running()
    assert {held.lease.node_name for held in pool.leases["both"]} == {"b", "c"}


def test_a_log_in_short_leaves_them_out() -> None:
    pool = pool_of("a", "b", "c")
    silence(pool, "a", 6000)
    pool.registry.forget("a", "")
    pool.join("d")
    events = pool.store.load()
    short = compacted(events, pool.now_ms / 1000, pool.settings)
    assert "node_forgotten" not in {event.__struct_config__.tag for event in short}
    for log in (events, short):
        state = State.from_events(log, 0)
        assert list(state.nodes) == ["b", "c", "d"]
        assert state.fleet.device_count == state.fleet.node_count == 3


@pytest.mark.parametrize("silence_ms", [1, 59_999])
def test_too_early_is_refused(silence_ms: int) -> None:
    with pytest.raises(UsageError, match="too early: 1m or longer"):
        forget_after_ms_checked(silence_ms)
    assert forget_after_ms_checked(0) == 0
    assert forget_after_ms_checked(60_000) == 60_000
