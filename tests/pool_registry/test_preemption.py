"""Who has to leave: the cheapest, never more than needed, and with notice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_registry.pool_model import HOUR_MS, MINUTE_MS, PoolModel, hashed
from xpool_protocol.errors import LeaseExpired, NoCapacity
from xpool_registry import deadlines
from xpool_registry.commands import RenewLease
from xpool_registry.deadlines import stretched_ttl_ms
from xpool_registry.events import (
    LeaseGranted,
    LeaseNoticed,
    NoticeWithdrawn,
    RequestQueued,
)
from xpool_registry.preemption import RANKS, victims
from xpool_registry.schedule import schedule
from xpool_registry.settings import Settings


@pytest.fixture
def pool() -> PoolModel:
    model = PoolModel()
    model.join("a", devices=2)
    return model


def noticed(pool: PoolModel) -> set[str]:
    """Names of those who are asked to leave now."""
    by_id = {
        held.lease.lease_id: name
        for name, leases in pool.leases.items()
        for held in leases
    }
    return {by_id[lease_id] for lease_id in pool.registry._state.notices}


def test_a_low_lease_leaves_with_notice_for_a_high_request(pool: PoolModel) -> None:
    pool.ask("old", priority="low", tenant="bob")
    pool.wait(HOUR_MS)
    pool.ask("young", priority="low", tenant="bob")
    pool.wait(5 * MINUTE_MS)
    assert not pool.ask("urgent", priority="high")
    pool.registry.tick()
    assert noticed(pool) == {"young"}, "less work is lost"
    lease = pool.leases["young"][0].lease
    command = RenewLease(lease_id=lease.lease_id, epoch=lease.epoch)
    told = pool.registry.renew(command)
    assert told.leaves_in_ms == 30_000
    assert "high priority took it" in told.notice
    place = pool.again("urgent").place
    assert place is not None
    assert place.starts_at_s == pytest.approx(pool.now_ms / 1000 + 30, abs=1)
    pool.wait(31_000, step_ms=100)
    assert pool.running() == {"old", "urgent"}
    with pytest.raises(LeaseExpired, match="high priority took it"):
        pool.registry.renew(command)


def test_a_holder_that_renews_seldom_hears_of_its_notice_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a large pool it renews so seldom that the grace could be over by then."""
    monkeypatch.setattr(deadlines, "RENEWALS_PER_S", 1)
    pool = PoolModel()
    pool.join("a", devices=2)
    for number in range(40):
        pool.ask(f"old-{number}", share=2, priority="low", tenant="bob")
    pool.wait(HOUR_MS)
    pool.ask("young", priority="low", tenant="bob")
    pool.wait(5 * MINUTE_MS)
    pool.ask("urgent", priority="high")
    pool.registry.tick()
    assert noticed(pool) == {"young"}
    (notice,) = pool.registry._state.notices.values()
    renewed_after_ms = stretched_ttl_ms(pool.settings.default_ttl_ms, 41) // 3
    assert renewed_after_ms > pool.settings.grace_ms
    usual_ms = pool.settings.default_ttl_ms // 3
    left_ms = notice.event.grace_ms - renewed_after_ms
    assert left_ms == pool.settings.grace_ms - usual_ms
    place = pool.again("urgent").place
    assert place is not None
    starts_in_s = place.starts_at_s - pool.now_ms / 1000
    assert starts_in_s == pytest.approx(notice.event.grace_ms / 1000, abs=1)


def test_what_is_freed_is_kept_for_whom_it_was_freed(pool: PoolModel) -> None:
    pool.ask("low", devices=2, priority="low", tenant="bob")
    pool.wait(5 * MINUTE_MS)
    pool.ask("urgent", priority="high")
    pool.registry.tick()
    pool.end("low")
    assert pool.ask("other", tenant="eve", wait_ms=0)
    pool.wait(3000)
    assert pool.running() == {"urgent", "other"}


def test_the_notice_is_withdrawn_when_the_request_starts_otherwise(
    pool: PoolModel,
) -> None:
    pool.ask("low", priority="low", tenant="bob")
    pool.ask("normal", priority="normal")
    pool.wait(5 * MINUTE_MS)
    pool.ask("urgent", priority="high")
    pool.registry.tick()
    assert noticed(pool) == {"low"}
    pool.cancel("urgent")
    pool.registry.tick()
    assert noticed(pool) == set()
    assert any(isinstance(event, NoticeWithdrawn) for event in pool.store.load())
    pool.wait(MINUTE_MS)
    assert "low" in pool.running()


def test_equals_and_the_newly_started_are_left_in_peace(pool: PoolModel) -> None:
    pool.ask("one", priority="normal")
    pool.ask("two", priority="low")
    pool.ask("next", priority="normal", tenant="bob")
    pool.wait(2 * MINUTE_MS)
    assert noticed(pool) == set(), "only the high class makes others leave"
    pool.end("two")
    pool.wait(3000)
    pool.ask("urgent", priority="high", tenant="bob")
    pool.registry.tick()
    assert noticed(pool) == {"one"}, "next runs for less than a minute"
    pool.wait(MINUTE_MS)
    pool.ask("equal", priority="high", tenant="eve")
    pool.wait(2 * MINUTE_MS)
    assert "urgent" in pool.running()


def test_nobody_leaves_if_that_is_not_enough(pool: PoolModel) -> None:
    pool.ask("low", priority="low")
    pool.ask("high", priority="high")
    pool.wait(5 * MINUTE_MS)
    pool.ask("wide", devices=2, priority="high", tenant="bob")
    pool.wait(MINUTE_MS)
    assert noticed(pool) == set()


def test_what_was_looked_for_in_vain_is_not_looked_for_again_at_once(
    pool: PoolModel,
) -> None:
    """Looking at all leases takes long; each request that comes would do it again."""
    for name in ("one", "two"):
        pool.ask(name, priority="low", tenant="bob")
    pool.ask("urgent", priority="high")
    registry = pool.registry
    state, at = registry._state, pool.clock()
    first = schedule(state, at, registry.settings, pool.new_id)
    assert first.in_vain == [hashed("urgent")]
    again = schedule(
        state, at, registry.settings, pool.new_id, resting=set(first.in_vain)
    )
    assert (again.in_vain, again.facts) == ([], [])
    assert again.reasons == first.reasons
    # It is looked for anew each second: who has run for a minute may be asked.
    pool.wait(MINUTE_MS - 2000)
    assert noticed(pool) == set()
    pool.wait(4000, step_ms=500)
    assert len(noticed(pool)) == 1


def test_a_tenants_budget_limits_it(pool: PoolModel) -> None:
    pool.tenant("ada", preemptions_per_hour=1)
    pool.ask("one", priority="low", tenant="bob")
    pool.ask("two", priority="low", tenant="bob")
    pool.wait(5 * MINUTE_MS)
    pool.ask("wide", devices=2, priority="high", tenant="ada")
    pool.wait(3000)
    assert noticed(pool) == set(), "two would have to leave"
    pool.cancel("wide")
    pool.ask("first", priority="high", tenant="ada")
    pool.wait(3000)
    assert len(noticed(pool)) == 1
    pool.ask("second", priority="high", tenant="ada")
    pool.wait(MINUTE_MS)
    assert "first" in pool.running()
    assert noticed(pool) == set()
    pool.wait(HOUR_MS)
    assert "second" in pool.running()


def test_a_job_on_several_devices_loses_the_work_of_all(pool: PoolModel) -> None:
    """Six minutes on each of three devices, against eight on one."""
    pool.join("b", devices=2)
    pool.ask("single", priority="low")
    pool.wait(2 * MINUTE_MS)
    pool.ask("gang", devices=3, priority="low", tenant="bob")
    pool.wait(6 * MINUTE_MS)
    pool.ask("high", priority="high")
    pool.registry.tick()
    assert noticed(pool) == {"single"}


def test_a_job_that_must_leave_anyway_costs_nothing_more(pool: PoolModel) -> None:
    """Two devices: of one job, 12 minutes in all, or of two with 8 and 7."""
    pool.join("b", devices=2)
    pool.ask("one", priority="low")
    pool.wait(MINUTE_MS)
    pool.ask("two", priority="low")
    pool.wait(MINUTE_MS)
    pool.ask("gang", devices=2, priority="low", tenant="bob")
    pool.wait(6 * MINUTE_MS)
    pool.ask("high", devices=2, priority="high")
    pool.registry.tick()
    assert noticed(pool) == {"gang"}


def test_a_job_on_both_devices_may_be_cheaper_than_one_on_each(
    pool: PoolModel,
) -> None:
    """On each device the single one has done less; together they have done more."""
    for name in ("one", "two"):
        pool.ask(name, 50, priority="low", policy="spread")
    pool.wait(4 * MINUTE_MS)
    pool.ask("gang", 50, devices=2, priority="low", tenant="bob")
    pool.wait(6 * MINUTE_MS)
    pool.ask("high", 50, devices=2, priority="high")
    pool.registry.tick()
    assert noticed(pool) == {"gang"}


def test_who_ends_in_time_by_itself_is_room_already(pool: PoolModel) -> None:
    """Half of a device: of who is over in 20 s, and of nobody else."""
    pool.ask("long", 50, priority="low", tenant="bob")
    pool.ask("brief", 50, priority="normal", limit_ms=5 * MINUTE_MS)
    pool.ask("other", priority="normal", tenant="eve")
    pool.wait(5 * MINUTE_MS - 20_000, step_ms=1000)
    pool.ask("high", priority="high")
    pool.registry.tick()
    assert noticed(pool) == {"long"}
    pool.wait(31_000, step_ms=500)
    assert pool.running() == {"high", "other"}


def test_what_is_promised_later_may_be_used_before(pool: PoolModel) -> None:
    """The old one need not leave for a request that is over before the promise."""
    pool.ask("old", priority="low", tenant="bob")
    pool.wait(HOUR_MS)
    pool.ask("young", priority="low", tenant="bob", limit_ms=HOUR_MS)
    pool.wait(2 * MINUTE_MS)
    pool.ask("next", priority="normal", tenant="eve")
    pool.wait(3000)
    place = pool.again("next").place
    assert place is not None
    promised_s = place.starts_at_s
    pool.ask("brief", priority="high", limit_ms=10 * MINUTE_MS)
    pool.registry.tick()
    assert noticed(pool) == {"young"}
    pool.wait(31_000, step_ms=500)
    assert pool.running() == {"old", "brief"}
    pool.wait(HOUR_MS)
    started = [held.lease.at_s for held in pool.leases["next"]]
    assert started[0] <= promised_s


def test_nobody_leaves_for_a_start_that_is_hardly_earlier(pool: PoolModel) -> None:
    """Ten minutes of two devices are no price for one minute, but for an hour."""
    pool.ask("low", devices=2, priority="low", tenant="bob", limit_ms=12 * MINUTE_MS)
    pool.wait(10 * MINUTE_MS)
    pool.ask("high", priority="high")
    pool.wait(MINUTE_MS)
    assert noticed(pool) == set()
    why = pool.registry.explain(hashed("high"))
    assert any("nobody is asked to leave" in fact for fact in why.facts)
    pool.wait(MINUTE_MS + 1000, step_ms=500)
    assert pool.running() == {"high"}


def test_nobody_leaves_a_node_that_the_request_keeps_away_from() -> None:
    """The young one shares a node with what must stay apart."""
    pool = PoolModel()
    pool.join("a")
    pool.ask("mine", 50, priority="high", apart="db")
    pool.join("b")
    pool.ask("old", priority="low", tenant="bob")
    pool.wait(10 * MINUTE_MS)
    pool.ask("young", 50, priority="low", tenant="bob")
    pool.wait(2 * MINUTE_MS)
    pool.ask("second", 50, priority="high", apart="db")
    pool.registry.tick()
    assert noticed(pool) == {"old"}


def test_notice_survives_a_restart(pool: PoolModel) -> None:
    pool.ask("low", devices=2, priority="low", tenant="bob")
    pool.wait(5 * MINUTE_MS)
    pool.ask("urgent", priority="high")
    pool.registry.tick()
    pool.wait(20_000)
    pool.restart()
    pool.wait(11_000, step_ms=500)
    assert "urgent" in pool.running()
    notices = [one for one in pool.store.load() if isinstance(one, LeaseNoticed)]
    assert {one.request_id for one in notices} == {hashed("urgent")}


LEASES = st.lists(
    st.tuples(
        st.sampled_from([10, 20, 30, 50, 100]),
        st.sampled_from(["low", "normal"]),
        st.integers(1, 5),
        st.integers(1, 3),
    ),
    max_size=7,
)


@given(LEASES, st.sampled_from([20, 60, 100]), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_the_cheapest_victims_against_all_sets(
    asked: list[tuple[int, str, int, int]], share: int, devices: int
) -> None:
    pool = PoolModel(Settings(min_run_ms=0, default_ttl_ms=86_400_000))
    pool.join("a", devices=3)
    for i, (part, priority, minutes, count) in enumerate(asked):
        with suppress(NoCapacity):
            pool.ask(f"l{i}", part, count, priority=priority, wait_ms=0)
        pool.now_ms += minutes * MINUTE_MS
        pool.beat()
    request = RequestQueued(
        request_id="r",
        tenant="bob",
        client="",
        priority="high",
        share_percent=share,
        memory_nbytes=1,
        device_count=devices,
        mode="elastic",
        ttl_ms=1000,
        wait_ms=1,
        at_s=0.0,
    )
    state, at = pool.registry._state, pool.clock()
    found = victims(state, request, at, state.fleet.exists.any(axis=1), pool.settings)
    leases = [held.lease for held in pool.registry.leases()]
    assert found is not None, "all of them may be ended"
    cost = cost_of(found.leases, leases, at.wall_s)
    for size in range(len(leases) + 1):
        for chosen in itertools.combinations(leases, size):
            freed = dict.fromkeys(range(3), 0)
            for lease in leases:
                freed[lease.device_index] += lease.share_percent
            for lease in chosen:
                freed[lease.device_index] -= lease.share_percent
            fitting = sum(100 - held >= share for held in freed.values())
            if fitting >= devices:
                assert cost <= cost_of(chosen, leases, at.wall_s)


def cost_of(
    leases: Sequence[LeaseGranted], live: Sequence[LeaseGranted], wall_s: float
) -> tuple[int, float, int]:
    """Who loses one device of several loses the work on all of them."""
    jobs = {one.group_id or one.lease_id for one in leases}
    work = sum(
        (wall_s - one.at_s) * one.share_percent / 100
        for one in live
        if (one.group_id or one.lease_id) in jobs
    )
    highest = max((RANKS[one.priority] for one in leases), default=-1)
    return highest, round(work, 3), len(leases)
