"""A running job's slice changes: what is refused, told, and taken back."""

from __future__ import annotations

import pytest
from xpool_protocol.control.token import verify
from xpool_protocol.errors import LeaseUnknown, NoCapacity, UsageError
from xpool_registry.commands import AcquireLease, JoinNode, Moment, TakeHeartbeat
from xpool_registry.events import Device
from xpool_registry.keys import SigningKey, verifier_from_public_key
from xpool_registry.observations import SessionReport
from xpool_registry.registry import HeartbeatAnswer, HeldLease, Registry
from xpool_registry.resizing import QUICK_HEARTBEAT_MS, ResizeLease
from xpool_registry.settings import Settings
from xpool_registry.store import MemoryStore

KEY = SigningKey.generate()


class Pool:
    """A registry with one node of one device of 1000 bytes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ids = 0
        self.registry = self.opened()
        device = Device(index=0, kind="cpu", name="c", memory_nbytes=1000)
        self.registry.join(
            JoinNode(
                node_name="n",
                boot_id="b",
                address="tcp://n:1",
                devices=(device,),
                version="",
            )
        )

    def opened(self) -> Registry:
        return Registry(
            self.store, KEY, Settings(), self.new_id, lambda: Moment(0, 1000.0)
        )

    def new_id(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"

    def lease(self, share: int = 30, nbytes: int = 300) -> HeldLease:
        return self.registry.acquire(
            AcquireLease(tenant="t", share_percent=share, memory_nbytes=nbytes)
        )

    def beat(self, held: HeldLease, **said: object) -> HeartbeatAnswer:
        """A heartbeat in which the node reports the lease's session."""
        lease = held.lease
        fields: dict[str, object] = {
            "share_percent": lease.share_percent,
            "memory_nbytes": lease.memory_nbytes,
            "mode": lease.mode,
            "priority": lease.priority,
            "allocated_nbytes": 0,
            **said,
        }
        report = SessionReport(
            lease_id=lease.lease_id,
            epoch=lease.epoch,
            state="open",
            executed_ops=0,
            received_nbytes=0,
            **fields,  # type: ignore[arg-type]
        )
        return self.registry.heartbeat(
            TakeHeartbeat(node_name="n", boot_id="b", sessions=(report,))
        )

    def now(self) -> tuple[int, int]:
        (held, *_) = self.registry.leases()
        return held.lease.share_percent, held.lease.memory_nbytes


@pytest.fixture
def pool() -> Pool:
    return Pool()


def change(held: HeldLease, **parts: object) -> ResizeLease:
    return ResizeLease(lease_id=held.lease.lease_id, **parts)  # type: ignore[arg-type]


def test_a_change_is_told_until_the_node_has_decided(pool: Pool) -> None:
    held = pool.lease()
    assert pool.beat(held).resized == ()
    pool.registry.resize(change(held, share_percent=60, memory_nbytes=500))
    for _ in range(2):
        (told,) = pool.beat(held).resized
        assert (told.share_percent, told.memory_nbytes) == (60, 500)
    followed = {"share_percent": 60, "memory_nbytes": 500, "slice_number": 1}
    assert pool.beat(held, **followed).resized == ()
    assert pool.now() == (60, 500)


def test_the_token_and_the_books_follow_and_survive_a_restart(pool: Pool) -> None:
    held = pool.lease()
    pool.registry.resize(
        change(held, share_percent=90, memory_nbytes=900, priority="high")
    )
    with pytest.raises(NoCapacity):
        pool.lease(11, 1)
    pool.registry = pool.opened()
    assert pool.now() == (90, 900)
    from xpool_registry.commands import RenewLease

    renewed = pool.registry.renew(
        RenewLease(lease_id=held.lease.lease_id, epoch=held.lease.epoch)
    )
    claims = verify(renewed.token, verifier_from_public_key(KEY.public_key), 1001)
    assert (claims.share_percent, claims.priority) == (90, "high")
    (again,) = pool.beat(held).resized
    assert again.slice_number == 1


def test_what_the_node_refuses_is_taken_back(pool: Pool) -> None:
    held = pool.lease()
    pool.registry.resize(change(held, share_percent=60, memory_nbytes=100))
    answer = pool.beat(held, refusal="200 bytes are in use", slice_number=1)
    assert answer.resized == ()
    assert pool.now() == (30, 300)
    # Another wish is another one, whatever was said of the one before.
    pool.registry.resize(change(held, share_percent=40))
    answer = pool.beat(held, refusal="200 bytes are in use", slice_number=1)
    assert [one.share_percent for one in answer.resized] == [40]
    assert pool.now() == (40, 300)


def test_nonsense_of_a_node_is_not_taken_back(pool: Pool) -> None:
    held = pool.lease()
    pool.registry.resize(change(held, share_percent=60))
    for nonsense in ({"share_percent": 101}, {"mode": "x"}, {"memory_nbytes": 0}):
        pool.beat(held, refusal="no", slice_number=1, **nonsense)
        assert pool.now() == (60, 300)


def test_more_than_the_others_leave_is_refused_with_the_figure(pool: Pool) -> None:
    held = pool.lease()
    pool.lease(60, 600)
    with pytest.raises(NoCapacity, match="others hold 60% of it"):
        pool.registry.resize(change(held, share_percent=41))
    with pytest.raises(NoCapacity, match="others hold 600 B"):
        pool.registry.resize(change(held, memory_nbytes=401))
    assert pool.registry.resize(change(held, share_percent=40, memory_nbytes=400))


def test_less_than_is_in_use_is_refused_with_the_figure(pool: Pool) -> None:
    held = pool.lease()
    pool.beat(held, allocated_nbytes=200, overhead_nbytes=50)
    with pytest.raises(NoCapacity, match=r"\(250 bytes\) are in use"):
        pool.registry.resize(change(held, memory_nbytes=249))
    assert pool.registry.resize(change(held, memory_nbytes=250))


@pytest.mark.parametrize(
    "parts",
    [
        {"share_percent": 101},
        {"share_percent": -1},
        {"memory_nbytes": 1 << 62},
        {"mode": "rubber"},
        {"priority": "urgent"},
    ],
)
def test_a_wish_that_makes_no_sense(pool: Pool, parts: dict[str, object]) -> None:
    held = pool.lease()
    with pytest.raises(UsageError):
        pool.registry.resize(change(held, **parts))
    assert pool.now() == (30, 300)


def test_a_lease_that_is_not_live(pool: Pool) -> None:
    with pytest.raises(LeaseUnknown):
        pool.registry.resize(ResizeLease(lease_id="nobody", share_percent=1))


def test_a_small_pool_is_heard_more_often(pool: Pool) -> None:
    assert pool.beat(pool.lease()).next_ms == QUICK_HEARTBEAT_MS
