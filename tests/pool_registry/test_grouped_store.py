"""Decisions run ahead of the disk: no answer does, and what is not kept is void."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest
from xpool_protocol.control.serving import Answering
from xpool_protocol.errors import BrokenError, NotLeader, PoolError
from xpool_registry.commands import (
    AcquireLease,
    JoinNode,
    ReleaseLease,
    TakeHeartbeat,
)
from xpool_registry.events import Device, LeaseGranted, RegistryEvent
from xpool_registry.keys import SigningKey
from xpool_registry.registry import Registry
from xpool_registry.settings import Settings
from xpool_registry.store import MemoryStore

WaitUntil = Callable[[Callable[[], bool], float], None]
PATIENCE_S = 10.0


class Disk(MemoryStore):
    """Writes when it is let, and what it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.errors: list[PoolError] = []
        self.read_errors: list[PoolError] = []
        self.sizes: list[int] = []
        self.entered = threading.Semaphore(0)

    def append(self, events: Sequence[RegistryEvent]) -> None:
        self.entered.release()
        assert self.open.wait(PATIENCE_S)
        if self.errors:
            raise self.errors.pop(0)
        self.sizes.append(len(events))
        super().append(events)

    def load(self) -> list[RegistryEvent]:
        if self.read_errors:
            raise self.read_errors.pop(0)
        return super().load()

    def lease_ids(self) -> set[str]:
        return {one.lease_id for one in super().load() if isinstance(one, LeaseGranted)}


class Pool:
    """A registry with one node of ten devices, and its disk."""

    def __init__(self, *, may_reload: bool = True) -> None:
        self.disk = Disk()
        self.ids = iter(range(1_000_000))
        self.registry = Registry(
            self.disk,
            SigningKey.generate(),
            Settings(),
            lambda: f"{next(self.ids):016x}",
        )
        self.registry.join(
            JoinNode(
                node_name="a",
                boot_id="boot",
                address="tcp://a:1",
                devices=tuple(
                    Device(index=i, kind="cpu", name="", memory_nbytes=1 << 30)
                    for i in range(10)
                ),
                version="",
            )
        )
        self.beat()
        while self.disk.entered.acquire(blocking=False):
            pass
        self.registry.group_commits(may_reload=may_reload)

    def beat(self) -> None:
        self.registry.heartbeat(TakeHeartbeat(node_name="a", boot_id="boot"))

    def ask(self) -> tuple[str, Answering]:
        """A lease, and what its answer waits for."""
        answering = self.registry.begin()
        held = self.registry.acquire(AcquireLease(tenant="ada", share_percent=100))
        return held.lease.lease_id, answering

    def held(self) -> set[str]:
        return {one.lease.lease_id for one in self.registry.leases()}


@pytest.fixture
def pool() -> Iterator[Pool]:
    one = Pool()
    yield one
    one.disk.open.set()
    one.registry.close()


def pending(answering: Answering) -> Future[None]:
    future = answering.settled()
    assert future is not None
    return future


def settle(answering: Answering) -> None:
    """Wait, if there is still anything to wait for."""
    future = answering.settled()
    if future is not None:
        future.result(PATIENCE_S)


def test_an_answer_waits_for_the_disk_and_the_next_decision_does_not(
    pool: Pool,
) -> None:
    pool.disk.open.clear()
    first, answering = pool.ask()
    settled = pending(answering)
    assert pool.disk.entered.acquire(timeout=PATIENCE_S)  # it is being written
    others = [pool.ask() for _ in range(5)]
    later = [pending(one) for _, one in others]
    assert not settled.done()
    assert pool.disk.lease_ids() == set()
    pool.disk.open.set()
    settled.result(PATIENCE_S)
    for one in later:
        one.result(PATIENCE_S)
    assert pool.disk.lease_ids() == {first, *(lease_id for lease_id, _ in others)}
    assert pool.disk.sizes[-2:] == [1, 5]  # five decisions, one write


def test_what_is_kept_is_waited_for_by_nobody(pool: Pool) -> None:
    _, answering = pool.ask()
    settle(answering)
    quiet = pool.registry.begin()
    pool.beat()
    assert quiet.settled() is None


def test_a_look_waits_for_what_it_has_seen(pool: Pool) -> None:
    pool.disk.open.clear()
    lease_id, _ = pool.ask()
    looking = pool.registry.begin()
    assert lease_id in pool.held()
    settled = pending(looking)
    assert not settled.done()
    pool.disk.open.set()
    settled.result(PATIENCE_S)


def test_a_disk_that_is_full_voids_what_was_decided_and_nothing_else(
    pool: Pool, wait_until: WaitUntil
) -> None:
    kept, answering = pool.ask()
    settle(answering)
    pool.disk.entered.acquire(timeout=PATIENCE_S)
    pool.disk.open.clear()
    pool.disk.errors = [BrokenError("full")]
    void = [pool.ask()]
    futures = [pending(void[0][1])]
    assert pool.disk.entered.acquire(timeout=PATIENCE_S)
    void += [pool.ask() for _ in range(3)]  # decided on what will turn out wrong
    unread = void.pop()
    futures += [pending(one) for _, one in void[1:]]
    pool.disk.open.set()
    for one in futures:
        with pytest.raises(BrokenError, match="full"):
            one.result(PATIENCE_S)
    with pytest.raises(BrokenError):  # its caller asks too late, and is told so
        unread[1].settled()
    wait_until(lambda: pool.held() == {kept}, PATIENCE_S)
    assert pool.disk.lease_ids() == {kept}


def test_after_a_failure_each_is_written_before_it_is_decided_on(
    pool: Pool, wait_until: WaitUntil
) -> None:
    pool.disk.errors = [BrokenError("full"), BrokenError("still full")]
    _, answering = pool.ask()
    with pytest.raises(BrokenError):
        settle(answering)

    def is_careful() -> bool:
        try:
            pool.registry.begin()
        except BrokenError:
            return False
        return True

    wait_until(is_careful, PATIENCE_S)
    with pytest.raises(BrokenError, match="still full"):
        pool.ask()
    assert pool.held() == set()
    # The node is known to live: what it said is not forgotten with what was void.
    lease_id, answering = pool.ask()
    assert answering.settled() is None
    assert pool.disk.lease_ids() == {lease_id}
    _, answering = pool.ask()
    settle(answering)


def test_a_log_that_cannot_be_read_refuses_all_until_it_can(
    pool: Pool, wait_until: WaitUntil
) -> None:
    pool.disk.errors = [BrokenError("gone")]
    pool.disk.read_errors = [BrokenError("gone too")]
    pool.ask()

    def answers(expected: bool) -> bool:
        try:
            pool.registry.begin()
        except BrokenError:
            return not expected
        return expected

    wait_until(lambda: answers(False), PATIENCE_S)
    with pytest.raises(BrokenError):
        pool.registry.acquire(AcquireLease(tenant="ada", share_percent=1))
    wait_until(lambda: answers(True), PATIENCE_S)
    assert pool.held() == set()
    pool.ask()


def test_who_may_not_reload_decides_nothing_more(wait_until: WaitUntil) -> None:
    pool = Pool(may_reload=False)
    pool.disk.errors = [NotLeader("another registry leads this pool by now")]
    _, answering = pool.ask()
    with pytest.raises(PoolError):
        settle(answering)
    for _ in range(2):
        with pytest.raises(NotLeader, match="another registry leads"):
            pool.registry.begin()
    with pytest.raises(NotLeader):
        pool.registry.acquire(AcquireLease(tenant="ada", share_percent=1))
    pool.registry.close()


def test_closing_writes_what_is_noted_and_refuses_what_comes_later() -> None:
    pool = Pool()
    lease_id, answering = pool.ask()
    released = pool.registry.begin()
    pool.registry.release(ReleaseLease(lease_id=lease_id, epoch=1))
    pool.registry.close()
    assert pool.disk.lease_ids() == {lease_id}
    assert len(pool.disk.load()) == 4
    for one in (answering, released):
        with pytest.raises(PoolError):  # nobody may send it: another one may lead
            one.settled()
    with pytest.raises(NotLeader):
        pool.registry.begin()
