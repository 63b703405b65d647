"""What a shell offers behind ``xpool admin``, from a real registry."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.admin_rpc import AdminClient

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, RegistryProcess, StartRegistry

XPOOL = "from xpool.cli import main; main()"


def completed(line: str, registry: str, **environment: str) -> list[str]:
    """What bash is told for a line; nothing may be said besides."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", XPOOL],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={
            **os.environ,
            "XPOOL_REGISTRY": registry,
            "_XPOOL_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def registry(start_registry: StartRegistry) -> RegistryProcess:
    return start_registry()


@pytest.fixture
def lease(
    registry: RegistryProcess, make_node: Callable[..., Node]
) -> Iterator[pb.Lease]:
    with registry.client() as client:
        for name in ("node-a", "node-b", "other"):
            make_node(client, name).join()
        yield client.acquire(tenant="ada", share_percent=30)


def test_names_of_the_pool(registry: RegistryProcess, lease: pb.Lease) -> None:
    address = registry.address
    assert completed("xpool admin cordon node", address) == ["node-a", "node-b"]
    assert completed("xpool admin drain ", address) == ["node-a", "node-b", "other"]
    assert completed("xpool admin evict ", address) == [lease.lease_id]
    assert completed(f"xpool admin resize {lease.lease_id[:3]}", address) == [
        lease.lease_id
    ]
    assert completed("xpool admin tenant set a", address) == ["ada"]
    # The option in front of it says which pool.
    line = f"xpool admin evict --registry {address} "
    assert completed(line, "127.0.0.1:1") == [lease.lease_id]


def test_what_waits_can_be_explained(
    registry: RegistryProcess, lease: pb.Lease
) -> None:
    with registry.client() as client:
        asked = client.ask(
            pb.AcquireGroupRequest(
                slice=pb.AcquireRequest(
                    tenant="bob", share_percent=100, mode="elastic"
                ),
                device_count=3,
                ticket="0" * 32,
                wait_ms=60_000,
            )
        )
    names = completed("xpool admin explain ", registry.address)
    assert set(names) == {lease.lease_id, asked.queue.request_id}


def test_tokens(registry: RegistryProcess) -> None:
    with AdminClient(registry.address) as client:
        made = client.create_token("admin")
    line = "xpool admin token revoke "
    assert completed(line, registry.address) == []  # to a stranger nothing is said
    assert completed(line, registry.address, XPOOL_TOKEN=made.token) == [made.token_id]


def test_a_registry_that_does_not_answer_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        began_s = time.monotonic()
        assert completed("xpool admin evict ", address) == []
        assert time.monotonic() - began_s < 10
    assert completed("xpool admin evict ", "no address at all") == []


def test_commands_and_the_script_for_a_shell() -> None:
    assert completed("xpool admin exp", "") == ["explain"]
    done = subprocess.run(
        [sys.executable, "-c", XPOOL, "--show-completion", "bash"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert done.returncode == 0
    assert "_XPOOL_COMPLETE=complete_bash" in done.stdout
