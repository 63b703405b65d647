"""Real registry processes on loopback, ended with the test that started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.etcd import EtcdServer
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient
from xpool_registry.etcd import Etcd, place_from_text

GIB = 1 << 30


class RegistryProcess:
    """``python -m xpool_registry``; logs go to a file beside its store."""

    def __init__(self, store: str, log: Path, *options: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "xpool_registry", "--store", store]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0", *options],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()  # ends at the latest when it dies
        assert ready.startswith("registry ready on "), self.log.read_text()
        self.address = ready.split()[-1]

    def client(self) -> RegistryClient:
        return RegistryClient(self.address)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit status."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(timeout=10)


class Node:
    """What a pool server says to the registry."""

    def __init__(
        self, client: RegistryClient, name: str = "node-a", devices: int = 1
    ) -> None:
        self.client = client
        self.name = name
        self.devices = [
            pb.Device(index=index, kind="cpu", name="Xeon", memory_nbytes=10 * GIB)
            for index in range(devices)
        ]

    def join(self, boot_id: str = "boot-1") -> pb.JoinReply:
        return self.client.join(
            node_name=self.name,
            boot_id=boot_id,
            address=f"tcp://{self.name}:7800",
            devices=self.devices,
            version="0.1.0",
        )

    def heartbeat(self, *leases: pb.Lease, boot_id: str = "boot-1") -> dict[str, str]:
        """Report a session for each lease; what must end, with reasons."""
        reply = self.client.heartbeat(
            node_name=self.name,
            boot_id=boot_id,
            loads=[pb.DeviceLoad(used_nbytes=1, busy_percent=25.0, session_count=1)],
            sessions=[
                pb.SessionReport(
                    lease_id=lease.lease_id,
                    epoch=lease.epoch,
                    state="open",
                    executed_ops=5,
                    allocated_nbytes=6,
                    received_nbytes=7,
                )
                for lease in leases
            ],
        )
        assert not reply.must_rejoin
        return {one.lease_id: one.reason for one in reply.end_leases}


StartRegistry = Callable[..., RegistryProcess]


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[StartRegistry]:
    """Starts registries on ``registry.db`` or another store in ``tmp_path``."""
    started: list[RegistryProcess] = []

    def start(*options: str, store: str = "registry.db") -> RegistryProcess:
        is_file = "://" not in store
        log = tmp_path / (f"{store}.log" if is_file else f"registry-{len(started)}.log")
        place = str(tmp_path / store) if is_file else store
        started.append(RegistryProcess(place, log, *options))
        return started[-1]

    yield start
    for registry in started:
        if registry.process.poll() is None:
            registry.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def make_node() -> type[Node]:
    return Node


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool], float], None]:
    """Polls a condition until it holds or the deadline, in seconds, has passed."""

    def wait(condition: Callable[[], bool], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "the deadline has passed"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    one = EtcdServer(tmp_path_factory.mktemp("etcd"))
    one.start()
    yield one
    one.stop()


@dataclass(slots=True)
class PoolWithoutEtcd:
    """A pool that has lost its etcd, and what it had granted before."""

    etcd: EtcdServer
    registries: list[RegistryProcess]
    lease: pb.Lease
    gone_s: float
    """When, by the monotonic clock."""

    @property
    def address(self) -> str:
        return ",".join(one.address for one in self.registries)


@pytest.fixture(scope="module")
def pool_without_etcd(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PoolWithoutEtcd]:
    folder = tmp_path_factory.mktemp("lonely")
    etcd = EtcdServer(folder)
    etcd.start()
    registries: list[RegistryProcess] = []
    try:
        for number in range(2):
            log = folder / f"registry-{number}.log"
            registries.append(RegistryProcess(etcd.store, log))
        both = ",".join(one.address for one in registries)
        with RegistryClient(both, timeout_s=30) as client:
            Node(client).join()
            lease = client.acquire(tenant="ada", share_percent=10, ttl_ms=3000)
        etcd.stop()
        yield PoolWithoutEtcd(etcd, registries, lease, time.monotonic())
    finally:
        for registry in registries:
            registry.end(signal.SIGKILL)
        etcd.stop()


@pytest.fixture
def etcd(server: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Etcd]:
    one = Etcd(place_from_text(f"{server.store}/{abs(hash(request.node.name))}"))
    yield one
    one.close()
