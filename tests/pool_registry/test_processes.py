"""Real registries over gRPC: a day's work, a crash in a storm of grants, expiry."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.token import verify
from xpool_protocol.errors import (
    BrokenError,
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NameTaken,
    NoCapacity,
    PoolError,
    RegistryUnreachable,
    UsageError,
)
from xpool_registry.keys import verifier_from_public_key

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, RegistryProcess, StartRegistry

WaitUntil = Callable[[Callable[[], bool], float], None]


def test_a_day_of_a_lease(start_registry: StartRegistry, make_node: type[Node]) -> None:
    registry = start_registry()
    with registry.client() as client:
        node = make_node(client)
        joined = node.join()
        assert joined.heartbeat_interval_ms == 1000
        lease = client.acquire(tenant="ada", share_percent=30, client="host 1 train.py")
        assert lease.address == "tcp://node-a:7800"
        assert (lease.device_kind, lease.device_name) == ("cpu", "Xeon")
        assert lease.memory_nbytes == 3 << 30
        assert lease.ttl_ms == 15_000
        assert 0 < lease.expires_in_ms <= 15_000
        assert node.heartbeat(lease) == {}
        renewed = client.renew(lease.lease_id, lease.epoch)
        assert (renewed.lease_id, renewed.epoch) == (lease.lease_id, lease.epoch)
        verifier = verifier_from_public_key(joined.public_key)
        claims = verify(renewed.token, verifier, time.time_ns() / 1e9)
        assert (claims.tenant, claims.share_percent) == ("ada", 30)
        [info] = client.list_leases()
        assert (info.tenant, info.session.executed_ops) == ("ada", 5)
        assert info.lease.token == ""
        assert client.release(lease.lease_id, lease.epoch, "done") is True
        assert client.release(lease.lease_id, lease.epoch) is False
        assert node.heartbeat(lease) == {lease.lease_id: "done"}
        assert client.list_leases() == []
    assert registry.end() == 0


def test_several_devices_are_one_grant(
    start_registry: StartRegistry, make_node: type[Node]
) -> None:
    registry = start_registry()
    with registry.client() as client:
        make_node(client, "a", devices=1).join()
        make_node(client, "b", devices=2).join()
        leases = client.acquire_group(tenant="ada", share_percent=60, device_count=2)
        assert [one.node_name for one in leases] == ["b", "b"]
        assert {one.group_id for one in leases} == {leases[0].lease_id}
        assert all(one.token for one in leases)
        with pytest.raises(NoCapacity, match="2 devices are wanted and 1 has"):
            client.acquire_group(tenant="ada", share_percent=60, device_count=2)
        with pytest.raises(UsageError, match="device_count"):
            client.acquire_group(tenant="ada", share_percent=1, device_count=65)
        assert [info.lease.group_id for info in client.list_leases()] == [
            leases[0].lease_id
        ] * 2
    assert registry.end() == 0


def test_refusals_are_sentences(
    start_registry: StartRegistry, make_node: type[Node]
) -> None:
    with start_registry().client() as client:
        with pytest.raises(NoCapacity, match="no server has joined yet"):
            client.acquire(tenant="ada", share_percent=10)
        node = make_node(client)
        node.join()
        lease = client.acquire(tenant="ada", share_percent=60)
        with pytest.raises(NoCapacity) as caught:
            client.acquire(tenant="ada", share_percent=60, memory_nbytes=5 << 30)
        assert str(caught.value) == (
            "no device has 60% and 5 GiB free:"
            " node-a/0 has 40% and 4 GiB (too little share and memory)"
        )
        with pytest.raises(UsageError, match="share_percent is 101"):
            client.acquire(tenant="ada", share_percent=101)
        with pytest.raises(LeaseUnknown):
            client.renew("who", 1)
        with pytest.raises(EpochStale):
            client.renew(lease.lease_id, 0)
        with pytest.raises(NameTaken, match="tcp://node-a:7800"):
            client.join(
                node_name="node-a",
                boot_id="x",
                address="tcp://h:1",
                devices=node.devices,
                version="",
            )
        stranger = client.heartbeat(node_name="node-b", boot_id="x")
        assert stranger.must_rejoin
        node.join("boot-2")
        with pytest.raises(LeaseExpired, match="server restarted"):
            client.renew(lease.lease_id, lease.epoch)


def test_expiry_comes_within_the_ttl(
    start_registry: StartRegistry, make_node: type[Node], wait_until: WaitUntil
) -> None:
    registry = start_registry("--default-ttl", "1s")
    with registry.client() as client:
        node = make_node(client)
        node.join()
        begun_s = time.monotonic()
        lease = client.acquire(tenant="ada", share_percent=100)
        wait_until(lambda: node.heartbeat(lease) != {}, 5)
        assert time.monotonic() - begun_s >= 1.0
        assert node.heartbeat(lease) == {lease.lease_id: "expired"}
        with pytest.raises(LeaseExpired, match=r"\(expired\): acquire a new one"):
            client.renew(lease.lease_id, lease.epoch)
        # Nobody asks now: the ticker alone must free the device.
        second = client.acquire(tenant="ada", share_percent=100)
        wait_until(lambda: client.list_leases() == [], 5)
        assert second.epoch == lease.epoch + 1


def storm(
    registry: RegistryProcess, granted: list[pb.Lease], failures: list[PoolError]
) -> None:
    """Acquire until the registry is gone; keep what was acknowledged."""
    with registry.client() as client:
        while True:
            try:
                granted.append(client.acquire(tenant="t", share_percent=1))
            except NoCapacity:
                return
            except BrokenError as error:
                failures.append(error)
                return


@pytest.mark.parametrize("kill_after", [1, 40, 150])
def test_kill_in_a_storm_of_grants_loses_and_doubles_nothing(
    start_registry: StartRegistry,
    make_node: type[Node],
    wait_until: WaitUntil,
    kill_after: int,
) -> None:
    """1. four threads acquire; 2. kill -9 amid them; 3. restart on the same store.

    Then every acknowledged lease is live, with its epoch; whatever else the log
    holds was granted but never answered, and is at most one per thread.
    """
    registry = start_registry()
    with registry.client() as client:
        first_life = make_node(client, devices=8).join()
    granted: list[pb.Lease] = []
    failures: list[PoolError] = []
    threads = [
        threading.Thread(target=storm, args=(registry, granted, failures))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(granted) >= kill_after, 20)
    assert registry.end(signal.SIGKILL) == -signal.SIGKILL
    for thread in threads:
        thread.join(timeout=20)
    assert failures, "the storm was over before the crash"

    with start_registry().client() as client:
        node = make_node(client, devices=8)
        assert node.heartbeat(*granted) == {}, "the node itself need not rejoin"
        live = {info.lease.lease_id: info.lease for info in client.list_leases()}
        epochs = [lease.epoch for lease in live.values()]
        assert len(set(epochs)) == len(epochs)
        assert len(granted) <= len(live) <= len(granted) + len(threads)
        for lease in granted:
            assert live[lease.lease_id].epoch == lease.epoch
            assert live[lease.lease_id].device_index == lease.device_index
            client.renew(lease.lease_id, lease.epoch)
        for info in client.list_devices():
            taken = [x for x in live.values() if x.device_index == info.device.index]
            assert info.free_share_percent == 100 - len(taken)
        assert node.join().registry_id == first_life.registry_id
        assert node.join().public_key == first_life.public_key
        assert client.acquire(tenant="t", share_percent=1).epoch > max(epochs)


def test_a_client_finds_the_registry_again(
    start_registry: StartRegistry, make_node: type[Node], wait_until: WaitUntil
) -> None:
    """A renewal fails while the registry is away and works when it is back."""
    registry = start_registry()
    with registry.client() as client:
        make_node(client).join()
        lease = client.acquire(tenant="ada", share_percent=10)
        registry.end()
        with pytest.raises(RegistryUnreachable, match=registry.address):
            client.renew(lease.lease_id, lease.epoch)
        start_registry("--listen", registry.address)

        def renewed() -> bool:
            try:
                return client.renew(lease.lease_id, lease.epoch).epoch == lease.epoch
            except RegistryUnreachable:
                return False

        wait_until(renewed, 10)
