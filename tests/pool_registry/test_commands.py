"""``xpool registry`` and ``xpool admin`` as a shell sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xpool_protocol.errors import UsageError
from xpool_registry.daemon import host_and_port
from xpool_registry.settings import ms_from_text

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, StartRegistry

ADMIN = "from xpool_registry.cli import admin_app; admin_app()"


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def admin(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-c", ADMIN, *arguments, **environment)


def refused(*options: str) -> str:
    """The one sentence that ``xpool registry`` ends with."""
    done = python("-m", "xpool_registry", *options)
    assert done.returncode == 2  # the call was wrong; 1 would be the pool's refusal
    assert done.stdout == ""
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith("xpool: ")
    return sentence.removeprefix("xpool: ")


def test_listings(start_registry: StartRegistry, make_node: type[Node]) -> None:
    registry = start_registry()
    environment = {"XPOOL_REGISTRY": registry.address}
    for what in ("nodes", "devices", "leases"):
        empty = admin(what, "--json", **environment)
        assert (empty.returncode, json.loads(empty.stdout)) == (0, [])
    assert admin("leases", **environment).stdout == "nobody has a lease\n"
    name = "a-node-with-a-rather-long-name.example.org"
    with registry.client() as client:
        node = make_node(client, name, devices=2)
        node.join()
        lease = client.acquire(
            tenant="[red]ada", share_percent=30, client="me", ttl_ms=600_000
        )
        node.heartbeat(lease)

    [row] = json.loads(admin("nodes", "--json", **environment).stdout)
    assert (row["node_name"], row["alive"], row["device_count"]) == (name, True, 2)
    first, second = json.loads(admin("devices", "--json", **environment).stdout)
    assert (first["free_share_percent"], first["busy_percent"]) == (70, 25.0)
    assert (second["free_memory_nbytes"], second["busy_percent"]) == (10 << 30, None)
    [row] = json.loads(admin("leases", "--json", **environment).stdout)
    assert (row["lease_id"], row["tenant"]) == (lease.lease_id, "[red]ada")
    assert (row["memory_nbytes"], row["allocated_nbytes"]) == (3 << 30, 6)
    assert "token" not in row

    for what in ("nodes", "devices", "leases"):
        table = admin(what, "--registry", registry.address)
        assert table.returncode == 0
        assert max(map(len, table.stdout.splitlines())) <= 80
        assert name[:8] in table.stdout  # folded: an id is what stands whole
    assert "[red]ada" in table.stdout
    assert lease.lease_id in table.stdout

    with registry.client() as client:
        make_node(client, name, devices=2).heartbeat(lease)
        leases = client.acquire_group(tenant="ada", share_percent=10, device_count=2)
    rows = json.loads(admin("leases", "--json", **environment).stdout)
    group = leases[0].lease_id
    assert [row["group_id"] for row in rows] == [None, group, group]
    table = admin("leases", "--registry", registry.address)
    assert table.stdout.count(f" {group[:4]} ") >= 2, table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(
    start_registry: StartRegistry, number: signal.Signals
) -> None:
    registry = start_registry("--log-format", "json")
    assert registry.end(number) == 0
    lines = [json.loads(line) for line in registry.log.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["RegistryCreated"]


def test_what_a_second_registry_is_told(
    start_registry: StartRegistry, tmp_path: Path
) -> None:
    registry = start_registry()
    same_store = refused(
        "--listen", "127.0.0.1:0", "--store", str(tmp_path / "registry.db")
    )
    assert same_store.startswith("another registry has the store")
    same_port = refused(
        "--listen", registry.address, "--store", str(tmp_path / "other.db")
    )
    assert same_port.startswith(f"cannot listen on {registry.address}")
    assert not (tmp_path / "other.db").exists()


def test_a_lost_key_is_not_replaced(
    start_registry: StartRegistry, tmp_path: Path
) -> None:
    start_registry().end()
    (tmp_path / "registry.db.key").unlink()
    store = ("--store", str(tmp_path / "registry.db"))
    assert "registry.db.key" in refused("--listen", "127.0.0.1:0", *store)
    assert not (tmp_path / "registry.db.key").exists()


def test_bad_options(tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "registry.db"))
    assert "--insecure" in refused("--listen", "0.0.0.0:0", *store)
    assert "1 s to 24 h" in refused("--default-ttl", "1ms", *store)
    assert not (tmp_path / "registry.db").exists()


def test_no_registry_is_one_sentence() -> None:
    done = admin("nodes", "--registry", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    [sentence] = done.stderr.splitlines()
    expected = "xpool: no registry answers at 127.0.0.1:1: start one with"
    assert sentence.startswith(expected)


def test_the_command_line_loads_without_grpc_and_rich() -> None:
    code = (
        "import sys, xpool_registry.cli;"
        "print(sorted({'grpc', 'rich', 'google.protobuf', 'structlog', 'cryptography'}"
        " & sys.modules.keys()))"
    )
    assert python("-c", code).stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:7700", ("127.0.0.1", 7700)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("[::1]", 65535)),
    ],
)
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    assert host_and_port(text) == parts


@pytest.mark.parametrize(
    "text", ["", "7700", ":7700", "host", "host:", "host:x", "h:65536", "::1:7700"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        host_and_port(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("15s", 15_000),
        ("500ms", 500),
        (" 1.5 m ", 90_000),
        ("1h", 3.6e6),
        ("7d", 6.048e8),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert ms_from_text(text) == ms


@pytest.mark.parametrize(
    "text", ["", "15", "s", "-1s", "1w", "1e3s", "nan s", "\u0661s"]
)
def test_bad_durations(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        ms_from_text(text)
