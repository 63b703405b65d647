"""Several registries of one pool over a real etcd; any of them may die."""

from __future__ import annotations

import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.etcd import EtcdServer
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.admin_rpc import AdminClient
from xpool_protocol.control.rpc import RegistryClient
from xpool_protocol.errors import NotLeader, PoolError

if TYPE_CHECKING:
    from tests.pool_registry.conftest import (
        Node,
        PoolWithoutEtcd,
        RegistryProcess,
        StartRegistry,
    )

# The last test looks at it; the minute passes while the others run.
pytestmark = pytest.mark.usefixtures("pool_without_etcd")

WaitUntil = Callable[[Callable[[], bool], float], None]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    one = EtcdServer(tmp_path)
    one.start()
    yield one
    one.stop()


def answers(registry: RegistryProcess) -> bool:
    """Whether this registry leads."""
    with RegistryClient(registry.address) as client:
        try:
            client.list_nodes()
        except NotLeader:
            return False
    return True


class Trio:
    """Three registries, and what tells who leads."""

    def __init__(
        self, start: StartRegistry, store: str, wait: WaitUntil, *options: str
    ) -> None:
        self.all = [start(*options, store=store) for _ in range(3)]
        self._wait = wait
        self.alive = list(self.all)

    @property
    def address(self) -> str:
        return ",".join(one.address for one in self.all)

    def leader(self) -> RegistryProcess:
        found: list[RegistryProcess] = []

        def one_leads() -> bool:
            found[:] = [one for one in self.alive if answers(one)]
            return len(found) == 1

        self._wait(one_leads, 20)
        return found[0]

    def kill_leader(self) -> None:
        leader = self.leader()
        leader.end(signal.SIGKILL)
        self.alive.remove(leader)


@pytest.fixture
def trio(
    start_registry: StartRegistry, etcd: EtcdServer, wait_until: WaitUntil
) -> Trio:
    return Trio(start_registry, etcd.store, wait_until)


def test_one_leads_and_the_others_say_who(trio: Trio, make_node: type[Node]) -> None:
    leader = trio.leader()
    for follower in trio.all:
        if follower is leader:
            continue
        with RegistryClient(follower.address) as client:
            with pytest.raises(NotLeader) as caught:
                client.list_nodes()
            assert caught.value.leader == leader.address
        # Two addresses are a list: the client goes where it is told.
        with RegistryClient(f"{follower.address},{follower.address}") as client:
            make_node(client).join()
    with RegistryClient(leader.address) as client:
        assert [node.node_name for node in client.list_nodes()] == ["node-a"]


def metrics_of(registry: RegistryProcess) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+/metrics", registry.log.read_text())
    assert found is not None
    with urllib.request.urlopen(found[0], timeout=10) as answer:
        return str(answer.read().decode())


def test_each_registry_answers_prometheus_whoever_leads(
    start_registry: StartRegistry,
    etcd: EtcdServer,
    wait_until: WaitUntil,
    make_node: type[Node],
) -> None:
    trio = Trio(start_registry, etcd.store, wait_until, "--metrics", "127.0.0.1:0")
    with RegistryClient(trio.address, timeout_s=20) as client:
        node = make_node(client)
        node.join()
        for _ in range(2):
            leader = trio.leader()
            node.heartbeat()
            for one in trio.alive:
                text = metrics_of(one)
                # A pool's figures come from one of them, or sums would be wrong.
                is_leader = one is leader
                assert f"xpool_registry_leader {float(is_leader)}" in text
                assert ("xpool_nodes" in text) is is_leader
            # Who has led and follows now tells no old figures either.
            leader.process.send_signal(signal.SIGSTOP)
            trio.alive.remove(leader)
            trio.leader()
            leader.process.send_signal(signal.SIGCONT)
            wait_until(lambda: "xpool_registry_leader 0.0" in metrics_of(leader), 20)  # noqa: B023  within this turn
            trio.alive.append(leader)


def test_nothing_is_lost_when_leaders_die(trio: Trio, make_node: type[Node]) -> None:
    with RegistryClient(trio.address, timeout_s=20) as client:
        node = make_node(client, devices=4)
        joined = node.join()
        leases = [client.acquire(tenant="ada", share_percent=30) for _ in range(3)]
        for _ in range(2):
            trio.kill_leader()
            assert node.join() == joined  # the same pool, with the same keys
            assert node.heartbeat(*leases) == {}
            leases.append(client.acquire(tenant="ada", share_percent=30))
        held = {info.lease.lease_id for info in client.list_leases()}
        assert held == {one.lease_id for one in leases}
        for lease in leases:
            renewed = client.renew(lease.lease_id, lease.epoch)
            assert renewed.device_index == lease.device_index


def test_no_second_of_use_is_lost_when_leaders_die(
    trio: Trio, make_node: type[Node], wait_until: WaitUntil
) -> None:
    begin_s = time.time_ns() // 1_000_000_000 // 3600 * 3600
    with AdminClient(trio.address, timeout_s=20) as client:
        node = make_node(client)
        node.join()
        lease = client.acquire(tenant="ada", share_percent=30, ttl_ms=600_000)
        report = pb.SessionReport(lease_id=lease.lease_id, epoch=lease.epoch)
        kept: list[pb.UsageSecond] = []
        at_s = begin_s

        def heartbeat(*, is_over: bool = False) -> None:
            """As a server does: what is not stored is told again."""
            told = pb.SessionReport()
            told.CopyFrom(report)
            told.usage.extend(kept)
            ended = pb.EndedLease(lease_id=lease.lease_id, epoch=lease.epoch, last=told)
            reply = client.heartbeat(
                node_name=node.name,
                boot_id="boot-1",
                sessions=[] if is_over else [told],
                ended=[ended] if is_over else [],
            )
            assert not reply.must_rejoin
            last_s = reply.usage_stored_s.get(lease.lease_id, at_s)
            kept[:] = [one for one in kept if one.at_s > last_s]

        for turn in range(3):
            for _ in range(5):
                at_s += 1
                kept.append(pb.UsageSecond(at_s=at_s, device_ns=100_000_000))
                heartbeat(is_over=turn == 2)
            assert kept, "nothing is acknowledged before it is stored"
            if turn < 2:
                trio.kill_leader()
            heartbeat(is_over=turn == 2)

        def all_stored() -> bool:
            heartbeat(is_over=True)
            return not kept

        wait_until(all_stored, 30)
        [usage] = client.list_usage(begin_s, begin_s + 3600, "tenant")
    assert usage.device_s == pytest.approx(1.5)
    assert usage.seconds == 15


def test_a_storm_of_grants_while_leaders_die(
    trio: Trio, make_node: type[Node], wait_until: WaitUntil
) -> None:
    """Whatever was granted is held by one alone, and known to the last leader."""
    granted: dict[str, tuple[int, int]] = {}
    stopping = threading.Event()
    lock = threading.Lock()

    def storm(tenant: str) -> None:
        with RegistryClient(trio.address, timeout_s=20) as client:
            while not stopping.is_set():
                try:
                    lease = client.acquire(
                        tenant=tenant, share_percent=1, memory_nbytes=1, ttl_ms=600_000
                    )
                except PoolError:
                    continue  # whether it was granted nobody knows: it will expire
                with lock:
                    granted[lease.lease_id] = (lease.device_index, lease.epoch)

    def beat(node: Node) -> None:
        with RegistryClient(trio.address, timeout_s=20) as node.client:
            while not stopping.wait(0.2):
                with suppress(PoolError):
                    node.heartbeat()

    with RegistryClient(trio.address, timeout_s=20) as client:
        node = make_node(client, devices=20)
        node.join()
        threads = [threading.Thread(target=beat, args=(node,))]
        threads += [threading.Thread(target=storm, args=(f"t{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                enough = len(granted) + 20
                wait_until(lambda: len(granted) >= enough, 30)  # noqa: B023
                trio.kill_leader()
        finally:
            stopping.set()
            for thread in threads:
                thread.join(60)
        known = {
            info.lease.lease_id: info.lease.device_index
            for info in client.list_leases()
        }
    assert {lease: device for lease, (device, _) in granted.items()}.items() <= (
        known.items()
    )
    shares: dict[int, int] = {}
    for device in known.values():
        shares[device] = shares.get(device, 0) + 1
    assert max(shares.values()) <= 100


def test_a_leader_that_ends_in_good_order_is_followed_at_once(
    trio: Trio, make_node: type[Node]
) -> None:
    with RegistryClient(trio.address, timeout_s=20) as client:
        node = make_node(client)
        node.join()
        leader = trio.leader()
        assert leader.end() == 0
        trio.alive.remove(leader)
        assert node.heartbeat() == {}
        client.acquire(tenant="ada", share_percent=10)


def test_etcd_may_be_gone_for_a_minute(
    pool_without_etcd: PoolWithoutEtcd, make_node: type[Node], wait_until: WaitUntil
) -> None:
    """It has been gone since the first test of this file began."""
    pool, lease = pool_without_etcd, pool_without_etcd.lease
    wait_until(lambda: time.monotonic() >= pool.gone_s + 60, 61)
    # Nobody leads without it: nothing can be promised that would be kept.
    assert not any(answers(one) for one in pool.registries)
    assert all(one.process.poll() is None for one in pool.registries)
    pool.etcd.start()
    with RegistryClient(pool.address, timeout_s=30) as client:
        # A minute is far longer than the lease lasts: nobody could end it meanwhile.
        assert client.renew(lease.lease_id, lease.epoch).epoch == lease.epoch
        assert make_node(client).heartbeat(lease) == {}
        client.acquire(tenant="ada", share_percent=10)
        assert len(client.list_leases()) == 2
