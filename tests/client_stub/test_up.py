"""``xpool up``: both services come, both go, and nothing stays."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.pool import Member, Pool
from support.waiting import eventually
from xpool.up import PoolOptions
from xpool_protocol.control.rpc import RegistryClient

READY = re.compile(r"pool ready: registry (127\.0\.0\.1:\d+)")


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """Only its end is used: nothing that carries its mark may be left."""
    with Pool(tmp_path) as made:
        yield made


def start(pool: Pool, *options: str, listen: str = "127.0.0.1:0") -> Member:
    argv = [sys.executable, "-m", "xpool", "up", "--registry-listen", listen]
    argv += ["--store", str(pool.folder / "registry.db"), "--devices", "cpu"]
    return pool.start("up", [*argv, *options])


def child(member: Member, module: str) -> psutil.Process:
    (found,) = [
        one for one in psutil.Process(member.pid).children() if module in one.cmdline()
    ]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pool_comes_and_goes(pool: Pool, number: signal.Signals) -> None:
    up = start(pool, "--threads", "1", "--spares", "1")
    address = pool.await_line(up, READY)[1]
    with RegistryClient(address) as client:
        (device,) = client.list_devices()
        assert (device.device.kind, device.alive) == ("cpu", True)
    assert f"xpool run --registry {address} SCRIPT" in up.said()
    pool.kill("up", number)
    assert up.process.wait(10) == 0
    assert f"pool ended ({number.name})" in up.said()
    pool.check_nothing_left()


@pytest.mark.parametrize(
    ("module", "name"), [("xpool_registry", "registry"), ("xpool_server", "server")]
)
def test_if_one_part_dies_the_other_is_ended(
    pool: Pool, module: str, name: str
) -> None:
    up = start(pool, "--spares", "0")
    pool.await_line(up, READY)
    child(up, module).kill()
    assert up.process.wait(15) == 1
    last = up.logged().splitlines()[-1]
    assert last.startswith(f"xpool: the {name} ended by signal 9: ")
    pool.check_nothing_left()


def test_a_killed_pool_leaves_nothing(pool: Pool) -> None:
    up = start(pool, "--spares", "1")
    pool.await_line(up, READY)
    pool.kill("up", signal.SIGKILL)
    pool.check_nothing_left()


def test_an_address_in_use_is_one_sentence(pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        up = start(pool, listen=address)
        assert up.process.wait(20) == 1
    last = up.logged().splitlines()[-1]
    assert last.startswith("xpool: the registry ended with exit status 2: ")
    assert "cannot listen on" in last
    assert "Traceback" not in up.logged()


def test_a_device_that_is_not_here_is_one_sentence(pool: Pool) -> None:
    up = start(pool, "--devices", "tpu")
    assert up.process.wait(20) == 1
    last = up.logged().splitlines()[-1]
    assert last.startswith("xpool: the server ended with exit status 2: ")
    assert "'tpu'" in last
    assert "Traceback" not in up.logged()


def test_a_signal_while_starting_ends_everything(pool: Pool) -> None:
    up = start(pool)
    eventually(lambda: "starting the server" in up.said(), "the progress line", 20)
    pool.kill("up", signal.SIGINT)
    assert up.process.wait(10) == 0
    pool.check_nothing_left()


def test_the_server_keeps_its_port_beside_the_registrys() -> None:
    """So that a restarted registry knows it again at once."""
    fixed = PoolOptions(registry_listen="127.0.0.1:7700")
    arguments = fixed.server_arguments("127.0.0.1:7700")
    assert "tcp://127.0.0.1:7701" in arguments
    free = PoolOptions(registry_listen="127.0.0.1:0", devices="cpu", threads=2)
    arguments = free.server_arguments("127.0.0.1:40000")
    assert "tcp://127.0.0.1:0" in arguments
    assert arguments[-4:] == ["--devices", "cpu", "--threads", "2"]
    last = PoolOptions(registry_listen="127.0.0.1:65535")
    assert "tcp://127.0.0.1:0" in last.server_arguments("127.0.0.1:65535")
