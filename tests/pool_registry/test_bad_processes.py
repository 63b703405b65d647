"""Registries as processes on disks that are full, with stores that are not theirs.

And what others may tell them over the wire. Each time: one sentence that says what to
do, nothing given twice, nothing lost.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient
from xpool_protocol.errors import NameTaken, NoCapacity, PoolError, UsageError

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, StartRegistry

WaitUntil = Callable[[Callable[[], bool], float], None]


XPOOL = (sys.executable, "-m", "xpool")


def refused(store: Path) -> str:
    """What a registry says that does not start on this store; its status is 2."""
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "xpool_registry", "--listen", "127.0.0.1:0"),
            *("--store", str(store)),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.startswith("xpool: ")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.stderr


def limit_files(registry: object, nbytes: int) -> None:
    """No file of its may grow beyond that: a disk without room."""
    pid = registry.process.pid  # type: ignore[attr-defined]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (nbytes, resource.RLIM_INFINITY))


def check_whole(client: RegistryClient, told: list[pb.Lease]) -> None:
    """All that clients were told is live, and no device is given beyond its whole."""
    live = {info.lease.lease_id: info.lease for info in client.list_leases()}
    for lease in told:
        assert live[lease.lease_id].epoch == lease.epoch
    epochs = [lease.epoch for lease in live.values()]
    assert len(set(epochs)) == len(epochs)
    for info in client.list_devices():
        taken = sum(
            one.share_percent
            for one in live.values()
            if one.device_index == info.device.index
        )
        assert taken <= 100
        assert info.free_share_percent == 100 - taken


def test_a_disk_that_is_full_refuses_and_loses_nothing(
    start_registry: StartRegistry, make_node: type[Node], tmp_path: Path
) -> None:
    registry = start_registry()
    told: list[pb.Lease] = []
    with registry.client() as client:
        node = make_node(client, devices=16)
        node.join()

        def acquire() -> None:
            node.heartbeat()
            told.append(client.acquire(tenant="ada", share_percent=1, ttl_ms=3_600_000))

        acquire()
        log = (tmp_path / "registry.db-wal").stat().st_size
        limit_files(registry, log + 40_000)
        sentences = set()
        for _ in range(60):
            try:
                acquire()
            except PoolError as error:
                sentences.add(str(error))
        assert 1 < len(told) < 60
        assert any("cannot write its store" in one for one in sentences), sentences
        # It answers what needs no disk, and says of all the same as before.
        check_whole(client, told)
        limit_files(registry, resource.RLIM_INFINITY)
        before = len(told)
        for _ in range(20):
            acquire()
        assert len(told) == before + 20
        check_whole(client, told)
        registry.end(signal.SIGKILL)
    with start_registry().client() as client:
        check_whole(client, told)


def test_a_store_that_is_damaged_is_refused_and_left(
    start_registry: StartRegistry, make_node: type[Node], tmp_path: Path
) -> None:
    registry = start_registry()
    with registry.client() as client:
        make_node(client).join()
        client.acquire(tenant="ada", share_percent=30)
    registry.end()
    store = tmp_path / "registry.db"
    copy = store.read_bytes()
    damaged = bytearray(copy)
    damaged[damaged.index(b'"share_percent":30') + 16] ^= 1
    store.write_bytes(damaged)
    told = refused(store)
    assert "fails its checksum" in told
    assert '"xpool admin restore"' in told
    assert store.read_bytes() == damaged
    store.write_bytes(copy)
    with start_registry().client() as client:
        assert len(client.list_leases()) == 1


def test_a_damaged_store_is_restored_as_it_is_told(
    start_registry: StartRegistry, make_node: type[Node], tmp_path: Path
) -> None:
    """Backup while it runs, damage, restore, and nobody's lease comes twice."""
    store, copy = tmp_path / "registry.db", tmp_path / "copy.db"

    def admin(*arguments: str, status: int = 0) -> str:
        ended = subprocess.run(
            [*XPOOL, "admin", *arguments, "--store", str(store)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == status, ended.stderr
        return ended.stdout + ended.stderr

    registry = start_registry()
    with registry.client() as client:
        node = make_node(client)
        node.join()
        kept = client.acquire(tenant="ada", share_percent=30)
        assert "keep it secret" in admin("backup", str(copy))
        later = client.acquire(tenant="bob", share_percent=30)
        told = admin("restore", str(copy), "--yes", status=2)
        assert "another registry has the store" in told
        registry.end()  # after a kill its log beside it would still have all pages
    store.write_bytes(b"\xff" * 5000)
    assert '"xpool admin restore"' in refused(store)
    assert "pass --yes" in admin("restore", str(copy), status=2)
    assert store.read_bytes() == b"\xff" * 5000
    assert "start the registry" in admin("restore", str(copy), "--yes")
    [aside] = tmp_path.glob("registry.db.before-*")
    assert aside.read_bytes() == b"\xff" * 5000
    with start_registry().client() as client:
        node = make_node(client)
        node.heartbeat(kept, later)
        check_whole(client, [kept])
        assert client.acquire(tenant="eve", share_percent=30).epoch > later.epoch


def test_two_registries_on_one_file(
    start_registry: StartRegistry, make_node: type[Node], tmp_path: Path
) -> None:
    registry = start_registry()
    with registry.client() as client:
        node = make_node(client)
        node.join()
        lease = client.acquire(tenant="ada", share_percent=30)
        (tmp_path / "other-name.db").symlink_to(tmp_path / "registry.db")
        for name in ("registry.db", "other-name.db"):
            told = refused(tmp_path / name)
            assert "another registry has the store" in told
            assert "choose another file with --store" in told
        assert node.heartbeat(lease) == {}
        check_whole(client, [lease])


def test_a_server_that_joins_twice_or_with_anothers_name(
    start_registry: StartRegistry, make_node: type[Node]
) -> None:
    with start_registry().client() as client:
        node = make_node(client, devices=2)
        node.join()
        lease = client.acquire(tenant="ada", share_percent=100)
        node.join()  # its first answer was lost
        check_whole(client, [lease])
        with pytest.raises(NameTaken, match="node-a"):
            client.join(
                node_name="node-a",
                boot_id="another",
                address="tcp://elsewhere:7800",
                devices=node.devices,
                version="",
            )
        assert node.heartbeat(lease) == {}
        check_whole(client, [lease])
        node.devices = node.devices[:1]
        with pytest.raises(UsageError, match="devices"):
            node.join()
        check_whole(client, [lease])


def test_a_client_that_acquires_in_a_loop_gets_what_there_is_and_no_more(
    start_registry: StartRegistry, make_node: type[Node]
) -> None:
    with start_registry().client() as client:
        node = make_node(client, devices=2)
        node.join()
        told = []
        for _ in range(300):
            try:
                told.append(client.acquire(tenant="loop", share_percent=7))
            except NoCapacity as error:
                assert "no device has 7%" in str(error)
        node.heartbeat()
        assert len(told) == 2 * (100 // 7)
        check_whole(client, told)
        for lease in told:
            assert client.release(lease.lease_id, lease.epoch)
        assert client.acquire(tenant="ada", share_percent=100).share_percent == 100
