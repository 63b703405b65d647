"""What is listed of a large pool, and how long that holds up everybody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import pytest
from pool_registry.pool_model import GIB, KEY, PoolModel
from xpool_registry.commands import TakeHeartbeat
from xpool_registry.events import LeaseGranted
from xpool_registry.observations import DeviceLoad, SessionReport
from xpool_registry.registry import Registry
from xpool_registry.store import MemoryStore

NODES, DEVICES, EACH = 200, 8, 6


class HeldLock:
    """A lock that knows for how much of its holder's time it was held at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began_ns = 0
        self.longest_ns = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._began_ns = time.thread_time_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.longest_ns = max(self.longest_ns, time.thread_time_ns() - self._began_ns)
        self._lock.release()


@pytest.fixture(scope="module")
def pool() -> PoolModel:
    """Some 9,600 leases on 1,600 devices, put into the log as such."""
    model = PoolModel()
    for number in range(NODES):
        model.join(f"n{number:03d}", devices=DEVICES)
    [*known] = model.store.load()
    grants = [
        LeaseGranted(
            lease_id=f"l{node}-{device}-{number}",
            epoch=1 + number + EACH * (device + DEVICES * node),
            tenant="ada",
            client="",
            node_name=f"n{node:03d}",
            device_index=device,
            share_percent=10,
            memory_nbytes=GIB,
            mode="elastic",
            ttl_ms=600_000,
            at_s=1.0,
        )
        for node in range(NODES)
        for device in range(DEVICES)
        for number in range(EACH)
    ]
    model.store = MemoryStore([*known, *grants])
    model.registry = Registry(
        model.store, KEY, model.settings, model.new_id, model.clock
    )
    return model


LISTINGS: list[Callable[[Registry], list[object]]] = [
    lambda registry: [*registry.nodes()],
    lambda registry: [*registry.devices()],
    lambda registry: [*registry.leases()],
]


@pytest.mark.parametrize("listing", LISTINGS, ids=["nodes", "devices", "leases"])
def test_a_listing_holds_up_nobody_for_long(
    pool: PoolModel, listing: Callable[[Registry], list[object]]
) -> None:
    lock = HeldLock()
    pool.registry._lock = lock  # type: ignore[assignment]
    began_ns = time.thread_time_ns()
    for _ in range(3):
        assert listing(pool.registry)
    each_ns = (time.thread_time_ns() - began_ns) / 3
    # The listing of nodes is short by itself.
    assert lock.longest_ns < max(each_ns / 4, 3_000_000)


def test_they_say_what_is_so(pool: PoolModel) -> None:
    session = SessionReport(
        lease_id="l7-3-2",
        epoch=1,
        state="open",
        executed_ops=3,
        allocated_nbytes=4,
        received_nbytes=5,
    )
    load = DeviceLoad(index=3, used_nbytes=GIB, busy_percent=50.0, session_count=1)
    pool.registry.heartbeat(
        TakeHeartbeat(
            node_name="n007", boot_id="boot-1", sessions=(session,), loads=(load,)
        )
    )
    nodes = pool.registry.nodes()
    assert [one.node.node_name for one in nodes] == sorted(pool.nodes)
    assert [one.node.node_name for one in nodes if one.is_alive] == ["n007"]
    assert {one.lease_count for one in nodes} == {DEVICES * EACH}
    devices = pool.registry.devices()
    assert len(devices) == NODES * DEVICES
    assert {one.lease_count for one in devices} == {EACH}
    assert {one.offer.free_share_percent for one in devices} == {100 - 10 * EACH}
    assert [one.offer.key for one in devices if one.load] == [("n007", 3)]
    leases = pool.registry.leases()
    assert len(leases) == NODES * DEVICES * EACH
    [told] = [one for one in leases if one.session]
    assert (told.lease.lease_id, told.session) == ("l7-3-2", session)
    assert told.device.index == 3
    assert told.expires_in_ms == 600_000
