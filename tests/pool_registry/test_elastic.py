"""Jobs that may shrink: what is taken back at once, and what is given again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pool_registry.pool_model import GIB, HOUR_MS, MINUTE_MS, PoolModel
from xpool_protocol.errors import NoCapacity, UsageError
from xpool_registry.commands import AcquireGroup, AcquireLease, TakeHeartbeat
from xpool_registry.events import LeaseGranted, LeaseNoticed
from xpool_registry.observations import SessionReport
from xpool_registry.resizing import ResizeLease


@pytest.fixture
def pool() -> PoolModel:
    model = PoolModel()
    model.join("a")
    return model


def lease_of(pool: PoolModel, name: str) -> LeaseGranted:
    """As it is now."""
    (held,) = pool.leases[name]
    return pool.registry._state.leases[held.lease.lease_id]


def share(pool: PoolModel, name: str) -> int:
    return lease_of(pool, name).share_percent


def follow(pool: PoolModel, in_use: dict[str, int] | None = None) -> None:
    """The node says that every session has the slice that it was told last.

    ``in_use`` names the bytes in use of some; who has more than its quota refuses.
    """
    sessions = []
    for name in pool.leases:
        lease = lease_of(pool, name)
        used = (in_use or {}).get(name, 0)
        is_refused = used > lease.memory_nbytes
        sessions.append(
            SessionReport(
                lease_id=lease.lease_id,
                epoch=lease.epoch,
                state="open",
                executed_ops=0,
                received_nbytes=0,
                allocated_nbytes=used,
                share_percent=100 if is_refused else lease.share_percent,
                memory_nbytes=10 * GIB if is_refused else lease.memory_nbytes,
                mode=lease.mode,
                priority=lease.priority,
                slice_number=lease.slice_number,
                refusal="in use" if is_refused else "",
            )
        )
    pool.registry.heartbeat(
        TakeHeartbeat(node_name="a", boot_id="boot-1", sessions=tuple(sessions))
    )


def notices(pool: PoolModel) -> list[LeaseNoticed]:
    return [one for one in pool.store.load() if isinstance(one, LeaseNoticed)]


def test_surplus_is_taken_back_at_once_and_nobody_is_asked_to_leave(
    pool: PoolModel,
) -> None:
    pool.ask("elastic", 100, least=20, memory=GIB, priority="low")
    pool.wait(5 * MINUTE_MS)
    assert pool.ask("urgent", 50, memory=GIB, priority="high", wait_ms=0)
    assert share(pool, "elastic") == 50, "no more than is needed"
    assert share(pool, "urgent") == 50
    assert pool.ask("more", 30, memory=GIB, priority="high", wait_ms=0)
    assert share(pool, "elastic") == 20
    with pytest.raises(NoCapacity):
        pool.ask("too much", 10, memory=GIB, priority="high", wait_ms=0)
    assert share(pool, "elastic") == 20, "never below its least"
    assert notices(pool) == []


def test_a_fixed_slice_is_left_alone(pool: PoolModel) -> None:
    pool.ask("fixed", 100, memory=GIB, priority="low")
    with pytest.raises(NoCapacity):
        pool.ask("urgent", 50, memory=GIB, priority="high", wait_ms=0)
    assert share(pool, "fixed") == 100


def test_the_lowest_priority_gives_first_and_few_rather_than_many(
    pool: PoolModel,
) -> None:
    pool.ask("normal", 40, least=10, memory=GIB)
    pool.ask("small", 20, least=10, memory=GIB, priority="low")
    pool.ask("large", 40, least=10, memory=GIB, priority="low")
    assert pool.ask("urgent", 30, memory=GIB, priority="high", wait_ms=0)
    shares = {name: share(pool, name) for name in pool.leases}
    assert shares == {"normal": 40, "small": 20, "large": 10, "urgent": 30}
    assert pool.ask("again", 30, memory=GIB, priority="high", wait_ms=0)
    assert share(pool, "small") == 10
    assert share(pool, "normal") == 20


def test_the_cheapest_devices_of_several(pool: PoolModel) -> None:
    pool.join("b", devices=2)
    pool.ask("low", 100, least=20, memory=GIB, priority="low")
    pool.ask("normal", 100, least=20, memory=GIB)
    assert pool.ask("wide", 60, devices=2, memory=GIB, priority="high", wait_ms=0)
    assert (share(pool, "low"), share(pool, "normal")) == (40, 100)


def test_equals_give_what_is_needed_and_not_what_is_wished(pool: PoolModel) -> None:
    pool.ask("one", 100, least=20, memory=GIB)
    assert pool.ask("two", 100, least=30, memory=GIB, tenant="bob", wait_ms=0)
    assert (share(pool, "one"), share(pool, "two")) == (70, 30)
    with pytest.raises(NoCapacity):  # the lower one has no claim on the higher
        pool.ask("low", 20, memory=GIB, priority="low", wait_ms=0)


def test_a_job_starts_on_what_is_free_and_grows_when_there_is_room(
    pool: PoolModel,
) -> None:
    pool.ask("fixed", 60)
    assert pool.ask("elastic", 100, least=30, wait_ms=0)
    lease = lease_of(pool, "elastic")
    assert (lease.share_percent, lease.memory_nbytes) == (40, 4 * GIB)
    with pytest.raises(NoCapacity):
        PoolModel.ask(pool, "no room", 50, least=41, priority="low", wait_ms=0)
    pool.end("fixed")
    follow(pool)
    pool.registry.tick()
    lease = lease_of(pool, "elastic")
    assert (lease.share_percent, lease.memory_nbytes) == (100, 10 * GIB)
    pool.restart()
    assert lease_of(pool, "elastic") == lease


def test_nobody_grows_while_others_wait(pool: PoolModel) -> None:
    pool.ask("fixed", 60)
    pool.ask("elastic", 100, least=40)
    pool.ask("waits", 70, tenant="bob")
    pool.end("fixed")
    follow(pool)
    pool.registry.tick()
    assert share(pool, "elastic") == 40
    pool.cancel("waits")
    pool.registry.tick()
    assert share(pool, "elastic") == 100


def test_memory_is_given_to_others_only_once_the_node_has_it(pool: PoolModel) -> None:
    pool.ask("elastic", 100, least=20, priority="low")
    pool.wait(5 * MINUTE_MS)
    follow(pool, {"elastic": GIB})
    assert not pool.ask("urgent", 50, priority="high")
    pool.registry.tick()
    lease = lease_of(pool, "elastic")
    assert (lease.share_percent, lease.memory_nbytes) == (50, 5 * GIB)
    place = pool.again("urgent").place
    assert place is not None
    assert place.reason == "others are giving back memory"
    pool.now_ms += 1000
    pool.registry.tick()
    assert lease_of(pool, "elastic") == lease, "it is not asked twice"
    pool.restart()
    pool.registry.tick()
    assert pool.running() == {"elastic"}
    follow(pool, {"elastic": GIB})
    pool.registry.tick()
    assert pool.running() == {"elastic", "urgent"}
    assert notices(pool) == []


def test_memory_in_use_is_not_taken(pool: PoolModel) -> None:
    pool.ask("elastic", 100, least=20, priority="low")
    pool.wait(10_000)
    follow(pool, {"elastic": 8 * GIB})
    pool.ask("urgent", 50, priority="high")
    pool.registry.tick()
    assert share(pool, "elastic") == 100


def test_a_node_that_could_not_follow_has_what_it_had(pool: PoolModel) -> None:
    pool.ask("elastic", 100, least=20, priority="low")
    pool.wait(10_000)
    follow(pool)
    pool.ask("urgent", 50, priority="high")
    pool.registry.tick()
    assert lease_of(pool, "elastic").memory_nbytes == 5 * GIB
    follow(pool, {"elastic": 8 * GIB})  # it has allocated meanwhile
    assert lease_of(pool, "elastic").memory_nbytes == 10 * GIB
    for _ in range(3):
        pool.registry.tick()
        assert pool.running() == {"elastic"}
    free = pool.registry.devices()[0].offer
    assert (free.free_share_percent, free.free_nbytes) == (0, 0)


def test_it_is_explained(pool: PoolModel) -> None:
    pool.ask("elastic", 100, least=20, memory=GIB, priority="low")
    pool.now_ms += 1000
    found = pool.registry.explain(lease_of(pool, "elastic").lease_id)
    assert "others may take it back down to 20%; it wishes 100%" in found.facts
    wish = AcquireGroup(
        slice=AcquireLease(
            tenant="bob", share_percent=50, memory_nbytes=GIB, priority="high"
        ),
        device_count=1,
    )
    found = pool.registry.what_if(wish)
    assert (
        "it fits now, on a/0: one lease gives back what it has above its least"
        in found.facts
    )
    assert share(pool, "elastic") == 100, "nothing was done"


def test_an_admins_resize_stands(pool: PoolModel) -> None:
    pool.ask("elastic", 100, least=20)
    command = ResizeLease(lease_id=lease_of(pool, "elastic").lease_id, share_percent=60)
    pool.registry.resize(command)
    follow(pool)
    pool.registry.tick()
    assert share(pool, "elastic") == 60


@pytest.mark.parametrize("least", [-1, 61, 101])
def test_a_least_that_makes_no_sense(pool: PoolModel, least: int) -> None:
    with pytest.raises(UsageError, match="min_share_percent is"):
        pool.ask("x", 60, least=least)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "end", "follow", "tick"]),
        st.integers(1, 10),
        st.integers(0, 10),
        st.sampled_from(["low", "normal", "high"]),
    ),
    max_size=25,
)


@given(STEPS)
@hypothesis_settings(max_examples=80, deadline=None)
def test_nothing_is_given_twice_and_nobody_has_less_than_its_least(
    steps: list[tuple[str, int, int, str]],
) -> None:
    pool = PoolModel()
    pool.join("a", devices=2)
    for number, (what, part, least, priority) in enumerate(steps):
        if what == "ask":
            pool.ask(
                f"j{number}",
                10 * part,
                least=10 * min(part, least),
                priority=priority,
                limit_ms=HOUR_MS,
            )
        elif what == "end" and pool.leases:
            pool.end(next(iter(pool.leases)))
        elif what == "follow":
            follow(pool)
        pool.now_ms += 100
        pool.registry.tick()
        pool.running()
        held = {0: 0, 1: 0}
        for name in pool.leases:
            lease = lease_of(pool, name)
            held[lease.device_index] += lease.share_percent
            asked = pool.asked[name].slice
            lowest = asked.min_share_percent or asked.share_percent
            assert lowest <= lease.share_percent <= asked.share_percent
        for view in pool.registry.devices():
            assert held[view.device.index] <= 100
            assert view.offer.free_share_percent == 100 - held[view.device.index]
            assert 0 <= view.offer.free_nbytes <= 10 * GIB
    before = pool.registry.devices()
    pool.registry = pool.opened()
    after = {view.offer.key: view.offer.free_share_percent for view in before}
    assert after == {
        view.offer.key: view.offer.free_share_percent
        for view in pool.registry.devices()
    }
