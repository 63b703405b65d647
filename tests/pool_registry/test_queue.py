"""Who waits, who starts, in which order, and what a promise is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_registry.pool_model import (
    GIB,
    HOUR_MS,
    MINUTE_MS,
    PoolModel,
    hashed,
    ticket_of,
)
from xpool_protocol.errors import LeaseExpired, LeaseUnknown, NoCapacity, UsageError
from xpool_registry.commands import AcquireGroup, AcquireLease, RenewLease
from xpool_registry.demand import Constraints
from xpool_registry.events import LeaseGranted, StartPromised
from xpool_registry.settings import Settings


@pytest.fixture
def pool() -> PoolModel:
    model = PoolModel()
    model.join("a", devices=2)
    return model


def test_what_does_not_fit_waits_and_starts_when_it_does(pool: PoolModel) -> None:
    assert pool.ask("one", devices=2)
    assert not pool.ask("two")
    place = pool.again("two").place
    assert place is not None
    assert (place.place, place.waiting_count, place.starts_at_s) == (1, 1, 0.0)
    pool.end("one")
    pool.registry.tick()
    assert pool.running() == {"two"}
    granted = pool.leases["two"][0].lease
    assert granted.request_id == hashed("two")
    assert granted.waited_ms == 0


def test_a_ticket_is_granted_once(pool: PoolModel) -> None:
    assert pool.ask("one", 30)
    first = pool.leases["one"][0].lease
    assert pool.again("one").leases[0].lease == first
    assert len(pool.registry.leases()) == 1
    pool.restart()
    assert pool.again("one").leases[0].lease == first
    pool.end("one")
    for _ in range(2):
        with pytest.raises(LeaseExpired, match="released"):
            pool.again("one")
        pool.restart()


def test_a_ticket_is_its_tenants_own(pool: PoolModel) -> None:
    pool.ask("one", devices=2)
    pool.ask("two")
    for name in ("one", "two"):
        command = AcquireGroup(
            slice=AcquireLease(tenant="eve", share_percent=100),
            device_count=1,
            ticket=ticket_of(name),
        )
        with pytest.raises(LeaseUnknown, match="no such request"):
            pool.registry.ask(command)


@pytest.mark.parametrize("ticket", ["abc", "G" * 32, "A" * 32, "0" * 33])
def test_bad_tickets(pool: PoolModel, ticket: str) -> None:
    wish = AcquireLease(tenant="t", share_percent=1)
    with pytest.raises(UsageError, match="32 random hexadecimal digits"):
        pool.registry.ask(AcquireGroup(slice=wish, device_count=1, ticket=ticket))


def test_waiting_needs_a_ticket(pool: PoolModel) -> None:
    wish = AcquireLease(tenant="t", share_percent=1)
    with pytest.raises(UsageError, match="needs a ticket"):
        pool.registry.ask(AcquireGroup(slice=wish, device_count=1, wait_ms=1))


def test_who_may_not_wait_is_refused_with_the_reason(pool: PoolModel) -> None:
    pool.ask("one", devices=2)
    with pytest.raises(NoCapacity, match=r"no device has 100% .* free: a/0 has 0%"):
        pool.ask("two", wait_ms=0)
    assert pool.queue() == []


def test_what_could_never_fit_is_refused_at_once(pool: PoolModel) -> None:
    with pytest.raises(NoCapacity, match="never 3 devices of this pool could hold"):
        pool.ask("one", devices=3)
    with pytest.raises(NoCapacity, match="no device of this pool could hold"):
        pool.ask("two", constraints=Constraints(kind="npu"))


def test_before_the_first_server_has_joined_requests_wait() -> None:
    pool = PoolModel()
    with pytest.raises(NoCapacity, match="no server has joined yet"):
        pool.ask("one", wait_ms=0)
    assert not pool.ask("one")
    place = pool.again("one").place
    assert place is not None
    assert "no server has joined yet: start one" in place.reason
    pool.join("a")
    pool.registry.tick()
    assert pool.running() == {"one"}


def test_a_silent_client_leaves_the_queue(pool: PoolModel) -> None:
    pool.ask("one", devices=2)
    pool.ask("two")
    pool.now_ms += 29_000
    pool.again("two")
    pool.now_ms += 29_000
    pool.registry.tick()
    assert pool.queue() == ["two"]
    pool.now_ms += 1001
    pool.registry.tick()
    assert pool.queue() == []
    with pytest.raises(LeaseExpired, match="its client asks no more"):
        pool.again("two")


def test_time_in_the_queue_is_limited(pool: PoolModel) -> None:
    pool.ask("one", devices=2)
    pool.ask("two", wait_ms=10 * MINUTE_MS)
    pool.wait(10 * MINUTE_MS - 1)
    assert pool.queue() == ["two"]
    pool.restart()  # the time that is left does not begin anew
    pool.now_ms += 1
    pool.registry.tick()
    assert pool.queue() == []


def test_leaving_the_queue_and_giving_back_by_ticket(pool: PoolModel) -> None:
    pool.ask("one", devices=2)
    pool.ask("two")
    assert pool.cancel("two")
    assert not pool.cancel("two")
    assert pool.queue() == []
    assert pool.cancel("one")
    assert pool.registry.leases() == []
    with pytest.raises(LeaseExpired, match="cancelled"):
        pool.again("two")


def test_a_restart_keeps_the_queue_and_its_order(pool: PoolModel) -> None:
    pool.ask("one", devices=2)
    pool.ask("low", priority="low")
    pool.ask("high", priority="high")
    pool.ask("two")
    pool.restart()
    assert pool.queue() == ["high", "two", "low"]


def test_priority_then_fair_share_then_first_come(pool: PoolModel) -> None:
    pool.ask("big", devices=1, tenant="ada")
    pool.ask("other", devices=1, tenant="bob", share=50)
    for name, tenant in (("a1", "ada"), ("a2", "ada"), ("b1", "bob"), ("c1", "eve")):
        pool.ask(name, tenant=tenant)
    pool.ask("h", tenant="ada", priority="high")
    # Ada holds most, eve nothing.
    assert pool.queue() == ["h", "c1", "b1", "a1", "a2"]


def test_weights_and_guaranteed_quotas(pool: PoolModel) -> None:
    pool.tenant("ada", weight=10)
    pool.tenant("bob", quota_percent=100)
    pool.ask("a", tenant="ada")
    pool.ask("b", tenant="bob", share=60)
    for name in ("ada", "bob", "eve"):
        pool.ask(name, tenant=name)
    pool.wait(HOUR_MS)
    # Bob is below his guarantee; ada has much, and a right to more; eve has nothing.
    assert pool.queue() == ["bob", "eve", "ada"]


def test_the_larger_of_both_shares_counts() -> None:
    """Ada has little compute and much memory, bob the other way about, and less."""
    pool = PoolModel()
    pool.join("a", devices=4)  # of 10 GiB each
    for number in range(4):
        pool.ask(f"a{number}", 5, tenant="ada", memory=7 * GIB)
    for number in range(4):
        pool.ask(f"b{number}", 45, tenant="bob", memory=GIB)
    for name in ("ada", "bob"):
        pool.ask(name, 100, tenant=name)
    assert pool.queue() == ["bob", "ada"]
    pool.end("a0")
    pool.end("a1")  # now 35 % of the memory, against 45 % of the compute
    assert pool.queue() == ["ada", "bob"]


def test_the_past_of_a_tenant_fades_in_the_queue() -> None:
    """Who had all of the pool stands behind, and less so with each half-life."""
    behind = {}
    for minutes in (30, 600):
        pool = PoolModel(Settings(half_life_s=1800))
        pool.join("a", devices=2)
        pool.ask("past", devices=2, tenant="ada")
        pool.wait(2 * HOUR_MS, step_ms=12_000)
        pool.end("past")
        pool.ask("some", tenant="eve")
        pool.wait(minutes * MINUTE_MS, step_ms=12_000)
        pool.ask("rest", tenant="eve")
        pool.ask("next", 10, tenant="ada")
        views = {view.name: view for view in pool.registry.tenants()}
        behind[minutes] = views["ada"].use
    assert 0 < behind[600] < behind[30] / 100


def test_two_groups_of_devices_never_hold_a_half_each(pool: PoolModel) -> None:
    """Three and three of four: one runs, the other has nothing until then."""
    pool.join("b", devices=2)
    pool.ask("fill", devices=4, tenant="eve")
    pool.ask("one", devices=3, tenant="ada")
    pool.ask("two", devices=3, tenant="bob")
    pool.end("fill")
    for _ in range(20):
        pool.wait(3000)
        held = [len(pool.leases.get(name, [])) for name in ("one", "two")]
        assert sorted(held) == [0, 3]
        devices = [one.lease.device_index for one in pool.registry.leases()]
        assert len(devices) == 3
    first = "one" if pool.leases.get("one") else "two"
    pool.end(first)
    pool.wait(3000)
    assert len(pool.leases["two" if first == "one" else "one"]) == 3


def test_groups_share_first_then_their_members() -> None:
    pool = PoolModel()
    pool.join("a", devices=4)
    pool.tenant("lab", weight=1)
    pool.tenant("firm", weight=1)
    for name in ("l1", "l2", "l3"):
        pool.tenant(name, parent="lab")
    pool.tenant("f1", parent="firm")
    for i, name in enumerate(("l1", "l2", "l3", "f1")):
        pool.ask(f"run-{i}", tenant=name)
    for name in ("l1", "l2", "l3", "f1"):
        pool.ask(name, tenant=name)
    assert pool.queue()[0] == "f1"
    views = {view.name: view for view in pool.registry.tenants()}
    assert views["lab"].right == views["f1"].right == 0.5
    assert views["l1"].right == pytest.approx(1 / 6)
    assert views["lab"].held.milli == 3000


def test_tenants_that_make_no_sense(pool: PoolModel) -> None:
    with pytest.raises(UsageError, match="there is no group 'lab'"):
        pool.tenant("x", parent="lab")
    pool.tenant("x")
    with pytest.raises(UsageError, match="makes a ring"):
        pool.tenant("x", parent="x")
    for fields in (
        {"weight": 0.0},
        {"weight": float("nan")},
        {"quota_percent": -1},
        {"quota_percent": 200, "limit_percent": 100},
    ):
        with pytest.raises(UsageError):
            pool.tenant("y", **fields)
    pool.tenant("y", parent="x")
    with pytest.raises(UsageError, match="x is the group of y"):
        pool.registry.remove_tenant("x")
    assert pool.registry.remove_tenant("y")
    assert not pool.registry.remove_tenant("y")


def test_a_tenants_limit_holds_it_back_and_nobody_else(pool: PoolModel) -> None:
    pool.tenant("ada", limit_percent=100)
    assert pool.ask("one", 60)
    assert not pool.ask("two", 60)
    place = pool.again("two").place
    assert place is not None
    assert "ada may hold 100% of devices at once and holds 60%" in place.reason
    assert pool.ask("three", 20, tenant="bob")
    with pytest.raises(NoCapacity, match="ada may hold 100%"):
        pool.ask("four", 60, wait_ms=0)


def test_use_fades_by_its_half_life() -> None:
    pool = PoolModel(Settings(half_life_s=3600))
    pool.join("a")
    pool.ask("run", tenant="ada")
    pool.wait(10 * HOUR_MS, step_ms=4000)
    pool.end("run")
    for hours in range(3):
        [view] = pool.registry.tenants()
        assert (view.name, view.lease_count) == ("ada", 0), "it has used some lately"
        assert view.use == pytest.approx(0.59 * 0.5**hours, rel=0.02)
        book = pool.registry._state.books["ada"]
        assert book.recent.milli == pytest.approx(1000 * 0.5**hours, rel=0.01)
        pool.now_ms += HOUR_MS
        pool.beat()
        pool.registry._state.shares(pool.clock().wall_s).held("ada")  # asks the books


def test_the_morning_counts_in_the_evening() -> None:
    """Ada used eight hours in the night, bob seven since: bob is next."""
    pool = PoolModel()
    pool.join("a")
    for name, hours in (("ada", 8), ("bob", 7)):
        pool.ask(f"{name}-past", tenant=name)
        pool.wait(hours * HOUR_MS, step_ms=12_000)
        pool.end(f"{name}-past")
    pool.ask("other", tenant="eve")
    pool.ask("ada-next", tenant="ada")
    pool.ask("bob-next", tenant="bob")
    assert pool.queue() == ["bob-next", "ada-next"]


def test_who_came_first_keeps_no_lead() -> None:
    """Of two equals one was alone in the morning; by the evening that is made good."""
    pool = PoolModel()
    pool.join("a")
    for i in range(20):
        pool.ask(f"ada-{i}", tenant="ada")
    served: dict[str, float] = {"ada": 0.0, "bob": 0.0}
    for hour in range(16):
        if hour == 6:
            for i in range(20):
                pool.ask(f"bob-{i}", tenant="bob")
        [name] = pool.running()
        served[name[:3]] += 1
        pool.wait(HOUR_MS, step_ms=12_000)
        pool.end(name)
        pool.wait(3000)
    assert served["bob"] >= 7  # of sixteen; the past has begun to fade


def test_what_must_stay_apart_shares_no_server() -> None:
    pool = PoolModel()
    pool.join("a", devices=2)
    pool.join("b", devices=2)
    assert pool.ask("one", 10, apart="replicas")
    assert pool.ask("two", 10, apart="replicas")
    nodes = {pool.leases[name][0].node.node_name for name in ("one", "two")}
    assert nodes == {"a", "b"}
    assert not pool.ask("three", 10, apart="replicas")
    assert pool.ask("other", 10, apart="replicas", tenant="bob")
    assert pool.ask("any", 10)
    pool.end("one")
    pool.wait(3000)
    assert "three" in pool.running()


# ---- promises and backfill


def test_the_head_is_promised_a_start_and_gets_it(pool: PoolModel) -> None:
    pool.ask("one", limit_ms=HOUR_MS)
    pool.ask("two", limit_ms=2 * HOUR_MS)
    pool.ask("wide", devices=2)
    pool.registry.tick()
    place = pool.again("wide").place
    assert place is not None
    promised_s = place.starts_at_s
    assert promised_s == pytest.approx(pool.now_ms / 1000 + 7200, abs=1)
    # Fits beside: it is over before the promise, and there is room now.
    pool.wait(HOUR_MS + 1000)
    assert pool.ask("short", limit_ms=30 * MINUTE_MS, tenant="bob")
    pool.end("short")
    # Would make the promise late: one that ends later, or nobody knows when.
    assert not pool.ask("long", limit_ms=2 * HOUR_MS, tenant="bob")
    assert not pool.ask("endless", tenant="eve", priority="high")
    pool.wait(HOUR_MS - 2000)
    pool.wait(2000, step_ms=100)
    assert "wide" in pool.running()
    started_s = pool.leases["wide"][0].lease.at_s
    assert started_s <= promised_s + 0.001


def test_room_beside_two_promises_is_counted_once() -> None:
    """At the promised time both halves are taken: nothing fits beside them."""
    pool = PoolModel()
    pool.join("a")
    pool.ask("now", 60, tenant="bob", limit_ms=HOUR_MS)
    for priority in ("low", "normal"):
        pool.ask(priority, 50, priority=priority, tenant="eve")
        pool.wait(3000)
    promised = pool.registry._state.promises
    assert {hashed("low"), hashed("normal")} == promised.keys()
    assert not pool.ask("beside", 40, priority="low", tenant="ada")
    pool.wait(HOUR_MS)
    assert pool.running() == {"low", "normal"}


def test_a_promise_survives_a_restart(pool: PoolModel) -> None:
    pool.ask("one", limit_ms=HOUR_MS)
    pool.ask("two", limit_ms=HOUR_MS)
    pool.ask("wide", devices=2)
    pool.registry.tick()
    before = pool.again("wide").place
    pool.wait(10 * MINUTE_MS)
    pool.restart()
    after = pool.again("wide").place
    assert before is not None
    assert after is not None
    assert after.starts_at_s == before.starts_at_s
    pool.end("one")
    assert not pool.ask("long", limit_ms=2 * HOUR_MS, tenant="bob")
    pool.wait(51 * MINUTE_MS)
    assert pool.running() >= {"wide"}


def test_without_known_ends_the_head_is_kept_room_after_a_while() -> None:
    pool = PoolModel(Settings(hold_after_ms=MINUTE_MS))
    pool.join("a", devices=2)
    pool.ask("one", 50)
    pool.ask("two", 50, policy="spread")
    pool.ask("wide", devices=2)
    assert pool.ask("small", 50, tenant="bob")
    pool.end("small")
    pool.wait(MINUTE_MS + 2000)
    assert not pool.ask("later", 50, tenant="bob")
    pool.end("one")
    pool.end("two")
    pool.wait(3000)
    assert "wide" in pool.running()


def test_a_limit_ends_a_lease_however_often_it_is_renewed(pool: PoolModel) -> None:
    pool.ask("one", limit_ms=MINUTE_MS)
    pool.wait(30_000)
    pool.restart()
    pool.wait(29_000)
    lease = pool.leases["one"][0].lease
    pool.now_ms += 1000
    pool.registry.tick()
    with pytest.raises(LeaseExpired, match="time limit of 60 s"):
        pool.registry.renew(RenewLease(lease_id=lease.lease_id, epoch=lease.epoch))


def test_a_lost_server_takes_its_promise_with_it(pool: PoolModel) -> None:
    pool.ask("one", limit_ms=HOUR_MS, devices=2)
    pool.ask("wide", devices=2)
    pool.registry.tick()
    assert any(isinstance(event, StartPromised) for event in pool.store.load())
    one = pool.nodes["a"]
    pool.registry.join(replace(one, boot_id="boot-2", devices=one.devices[:1]))
    pool.registry.tick()
    assert not pool.registry._state.promises


WISHES = st.lists(
    st.tuples(
        st.sampled_from([10, 50, 100]),
        st.integers(1, 3),
        st.sampled_from(["high", "normal", "low"]),
        st.sampled_from(["ada", "bob", "eve"]),
        st.sampled_from([0, 5 * MINUTE_MS, HOUR_MS]),
    ),
    min_size=1,
    max_size=14,
)


@given(WISHES, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_any_day_ends_with_everybody_served_and_promises_kept(
    wishes: list[tuple[int, int, str, str, int]], rng: object
) -> None:
    pool = PoolModel(Settings(hold_after_ms=MINUTE_MS))
    pool.join("a", devices=2)
    pool.join("b", devices=1)
    for i, (share, devices, priority, tenant, limit_ms) in enumerate(wishes):
        pool.ask(
            f"r{i}",
            share,
            devices,
            priority=priority,
            tenant=tenant,
            limit_ms=limit_ms,
        )
        pool.wait(3000)
    for _ in range(400):
        if not pool.queue():
            break
        for name in sorted(pool.running()):
            if rng.random() < 0.3:  # type: ignore[attr-defined]
                pool.end(name)
        pool.wait(3000)
    assert pool.queue() == [], "somebody starves"
    check_log(pool)


def check_log(pool: PoolModel) -> None:
    """Groups are whole, nobody starts twice, and no promise was broken."""
    granted: dict[str, list[LeaseGranted]] = {}
    promised: dict[str, float] = {}
    for event in pool.store.load():
        match event:
            case LeaseGranted():
                granted.setdefault(event.request_id, []).append(event)
            case StartPromised(is_firm=True):
                promised.setdefault(event.request_id, event.starts_at_s)
            case _:
                pass
    for request_id, leases in granted.items():
        assert len(leases) == leases[0].group_size
        assert len({(one.node_name, one.device_index) for one in leases}) == len(leases)
        # The model's clients tick every 3 s.
        assert leases[0].at_s <= promised.get(request_id, leases[0].at_s) + 3.001
