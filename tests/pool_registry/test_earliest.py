"""When a request can start at the latest: held against ending leases one by one."""

from __future__ import annotations

import random

import pytest
from pool_registry.pool_model import GIB, PoolModel
from xpool_registry.commands import AcquireGroup, AcquireLease
from xpool_registry.events import LeaseGranted
from xpool_registry.placer import Placer
from xpool_registry.policies import BestFit
from xpool_registry.queueing import request_from
from xpool_registry.reservations import LATE_NS, demand_from, earliest


def a_full_pool(rng: random.Random) -> PoolModel:
    """Three nodes of three devices; most leases say when they end."""
    pool = PoolModel()
    for name in "abc":
        pool.join(name, devices=3)
    state, at = pool.registry._state, pool.clock()
    number = 0
    for node in state.nodes:
        for device in range(3):
            left = 100
            while left:
                share = min(left, rng.choice([20, 40, 60, 100]))
                left -= share
                number += 1
                lease = LeaseGranted(
                    lease_id=f"l{number}",
                    epoch=number,
                    tenant="ada",
                    client="",
                    node_name=node,
                    device_index=device,
                    share_percent=share,
                    memory_nbytes=share * GIB // 10,
                    mode="elastic",
                    ttl_ms=600_000,
                    at_s=at.wall_s,
                    limit_ms=rng.choice([0, *range(10_000, 100_000, 7000)]),
                )
                state.apply(lease, at.now_ns)
    return pool


@pytest.mark.parametrize("seed", range(30))
def test_the_first_moment_at_which_it_fits(seed: int) -> None:
    rng = random.Random(seed)
    pool = a_full_pool(rng)
    state, at = pool.registry._state, pool.clock()
    request = request_from(
        AcquireGroup(
            slice=AcquireLease(
                tenant="bob",
                share_percent=rng.choice([30, 50, 100]),
                memory_nbytes=rng.choice([0, GIB]),
            ),
            device_count=rng.choice([1, 1, 2, 4]),
            same_node=rng.random() < 0.3,
        ),
        "",
        at,
        pool.registry.settings,
    )
    may = state.living(at.now_ns, pool.registry.settings.dead_after_ms)
    before = state.fleet.free_milli.copy(), state.fleet.free_nbytes.copy()
    found = earliest(state, request, at.now_ns, may)

    twin, expected = state.fleet.copy(), None
    for ends_ns, name in sorted((ns, name) for name, ns in state.limits_ns.items()):
        lease = state.leases[name]
        row = twin.row_of[lease.node_name]
        column = twin.column(row, lease.device_index)
        twin.take(row, [column], -10 * lease.share_percent, -lease.memory_nbytes)
        spots = Placer(twin, BestFit()).place(demand_from(request), may)
        if spots is not None:
            expected = ends_ns + LATE_NS, spots
            break
    assert found == expected
    assert (before[0] == state.fleet.free_milli).all()
    assert (before[1] == state.fleet.free_nbytes).all()
