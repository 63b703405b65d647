"""How long leases last: by the size of the pool, unless their client says it."""

from __future__ import annotations

import pytest
from pool_registry.pool_model import KEY, PoolModel
from xpool_protocol.control.token import verify
from xpool_protocol.errors import LeaseExpired
from xpool_registry import deadlines
from xpool_registry.commands import AcquireLease, ReleaseLease, RenewLease
from xpool_registry.keys import verifier_from_public_key
from xpool_registry.registry import HeldLease
from xpool_registry.settings import Settings


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> PoolModel:
    """A pool in which each lease beyond the fifth adds 3 s to the TTL of all."""
    monkeypatch.setattr(deadlines, "RENEWALS_PER_S", 1)
    model = PoolModel(Settings(dead_after_ms=10**9))
    model.join("a", devices=2)
    return model


def acquire(pool: PoolModel, count: int, ttl_ms: int = 0) -> list[HeldLease]:
    wish = AcquireLease(
        tenant="ada", share_percent=1, memory_nbytes=1, ttl_ms=ttl_ms, mode="elastic"
    )
    return [pool.registry.acquire(wish) for _ in range(count)]


def renew(pool: PoolModel, held: HeldLease) -> HeldLease:
    lease = held.lease
    return pool.registry.renew(RenewLease(lease_id=lease.lease_id, epoch=lease.epoch))


def test_with_more_leases_each_is_renewed_less_often(pool: PoolModel) -> None:
    [first, *_] = acquire(pool, 5)
    assert first.ttl_ms == first.expires_in_ms == 15_000
    acquire(pool, 15)
    renewed = renew(pool, first)
    assert renewed.ttl_ms == renewed.expires_in_ms == 60_000
    pool.now_ms += 59_000
    pool.registry.tick()
    assert renew(pool, first).ttl_ms == 15_000  # the others were not renewed
    pool.now_ms += 16_000
    with pytest.raises(LeaseExpired):
        renew(pool, first)


def test_a_ttl_that_a_client_names_is_kept(pool: PoolModel) -> None:
    [named] = acquire(pool, 1, ttl_ms=2000)
    acquire(pool, 30)
    assert renew(pool, named).expires_in_ms == 2000


def test_a_token_lives_as_long_as_its_lease(pool: PoolModel) -> None:
    acquire(pool, 39)
    [held] = acquire(pool, 1)
    at_s = pool.clock().wall_s
    claims = verify(held.token, verifier_from_public_key(KEY.public_key), at_s)
    assert claims.expires_at_s - claims.issued_at_s == pytest.approx(120, abs=1)


def test_after_a_restart_nobody_is_late_who_counts_with_a_longer_ttl(
    pool: PoolModel,
) -> None:
    [first, *others] = acquire(pool, 40)
    for held in others:
        lease = held.lease
        pool.registry.release(ReleaseLease(lease_id=lease.lease_id, epoch=lease.epoch))
    pool.restart()
    # Its holder was told 120 s, and comes after 40.
    pool.now_ms += 41_000
    pool.registry.tick()
    assert renew(pool, first).ttl_ms == 15_000
