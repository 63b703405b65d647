"""How far servers are from a client and from one another, as rule and as wish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_registry.pool_model import HOUR_MS, MINUTE_MS, PoolModel
from xpool_protocol.errors import NoCapacity, UsageError
from xpool_registry.commands import AcquireGroup, AcquireLease
from xpool_registry.demand import Constraints
from xpool_registry.nearness import band

FAR = {"a": 9000, "b": 700, "c": 750, "d": 20_000}


@pytest.fixture
def pool() -> PoolModel:
    model = PoolModel()
    for name, rack in (("a", "1"), ("b", "1"), ("c", "2"), ("d", "2")):
        model.join(name, devices=2, rack=rack)
    return model


def measured(max_rtt_us: int = 0, **rtts: int) -> Constraints:
    return Constraints(max_rtt_us=max_rtt_us, distances=tuple(sorted(rtts.items())))


def nodes(pool: PoolModel, name: str) -> set[str]:
    return {held.lease.node_name for held in pool.leases[name]}


def test_the_nearest_that_has_room(pool: PoolModel) -> None:
    found = []
    for number in range(8):
        assert pool.ask(f"j{number}", near=True, constraints=measured(**FAR))
        (node,) = nodes(pool, f"j{number}")
        found.append(node)
    # b and c differ by less than a doubling: between them the policy decides.
    assert set(found[:4]) == {"b", "c"}
    assert found[4:] == ["a", "a", "d", "d"]
    fact = pool.registry.explain(pool.leases["j4"][0].lease.lease_id).facts[0]
    assert "the nearest with room" in fact
    assert "a is 9.0 ms from its client" in fact


def test_a_server_that_was_not_measured_comes_last(pool: PoolModel) -> None:
    known = {name: us for name, us in FAR.items() if name != "b"}
    found = []
    for number in range(8):
        pool.ask(f"j{number}", near=True, constraints=measured(**known))
        found += nodes(pool, f"j{number}")
    assert found == ["c", "c", "a", "a", "d", "d", "b", "b"]


def test_too_far_is_ruled_out_and_said(pool: PoolModel) -> None:
    wanted = measured(1000, **FAR)
    for number in range(4):
        assert pool.ask(f"j{number}", constraints=wanted)
        assert nodes(pool, f"j{number}") <= {"b", "c"}
    assert not pool.ask("waits", constraints=wanted), "there is room, but too far away"
    wish = AcquireGroup(
        slice=AcquireLease(tenant="bob", share_percent=10),
        device_count=1,
        constraints=measured(1000, a=9000, b=700),
    )
    said = dict(pool.registry.what_if(wish).verdicts)
    reasons = {key.split(" ")[0]: value for key, value in said.items()}
    assert reasons["a/0"] == "round trip to the client is 9.0 ms, over 1 ms"
    assert reasons["d/0"] == "its distance to the client was not measured"
    assert any("b/0" in key and "0.7 ms from its client" in key for key in said)


def test_nobody_near_enough_is_refused_at_once(pool: PoolModel) -> None:
    with pytest.raises(NoCapacity, match="no device of this pool could hold"):
        pool.ask("x", constraints=measured(10, **FAR))


def test_devices_that_lie_close_to_one_another(pool: PoolModel) -> None:
    pool.ask("one", constraints=Constraints(node_name="a"))
    assert pool.ask("wide", devices=3, close_by="rack")
    assert nodes(pool, "wide") == {"a", "b"}, "the fuller rack suffices"
    assert pool.ask("next", devices=3, close_by="rack")
    assert nodes(pool, "next") == {"c", "d"}
    fact = pool.registry.explain(pool.leases["next"][0].lease.lease_id).facts[0]
    assert "all close by, rack=2" in fact
    assert not pool.ask("more", devices=2, close_by="rack")
    place = pool.again("more").place
    assert place is not None
    assert "one value of the label rack" in place.reason


def test_close_by_what_nobody_has(pool: PoolModel) -> None:
    with pytest.raises(NoCapacity, match="could hold"):
        pool.ask("x", devices=5, close_by="rack")
    with pytest.raises(NoCapacity, match="could hold"):
        pool.ask("y", devices=2, close_by="hall")
    assert pool.ask("one device is close to itself", close_by="hall")


def test_a_promise_is_for_devices_close_by(pool: PoolModel) -> None:
    for number in range(8):
        pool.ask(f"j{number}", limit_ms=(1 + number) * HOUR_MS, tenant="bob")
    assert not pool.ask("wide", devices=4, close_by="rack")
    pool.registry.tick()
    place = pool.again("wide").place
    assert place is not None
    assert place.starts_at_s
    pool.wait(8 * HOUR_MS + MINUTE_MS, step_ms=10_000)
    assert len(nodes(pool, "wide")) == 2
    start_s = pool.leases["wide"][0].lease.at_s
    assert start_s <= place.starts_at_s + 0.01


def test_who_leaves_makes_room_close_by(pool: PoolModel) -> None:
    for number in range(8):
        pool.ask(f"j{number}", priority="low", tenant="bob")
    pool.wait(5 * MINUTE_MS)
    pool.ask("urgent", devices=3, close_by="rack", priority="high")
    pool.wait(MINUTE_MS, step_ms=500)
    assert nodes(pool, "urgent") in ({"a", "b"}, {"c", "d"})
    assert len(pool.running()) == 6


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**6)))
def test_near_is_never_further_than_need_be(rtts: dict[str, int]) -> None:
    pool = PoolModel()
    for name in "abcd":
        pool.join(name)
    pool.ask("x", near=True, constraints=measured(**rtts))
    (node,) = nodes(pool, "x")
    if rtts:
        assert band(rtts[node]) == min(band(us) for us in rtts.values())


@pytest.mark.parametrize(
    "wanted",
    [
        measured(-1),
        measured(60_000_001),
        measured(a=-1),
        Constraints(distances=(("no name", 1),)),
        Constraints(distances=tuple((f"n{i}", 1) for i in range(4097))),
    ],
)
def test_distances_that_make_no_sense(pool: PoolModel, wanted: Constraints) -> None:
    with pytest.raises(UsageError):
        pool.ask("x", constraints=wanted)
