"""``xpool admin`` on the queue, tenants and nodes, against a real registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner
from xpool_protocol.control import registry_pb2 as pb
from xpool_registry.cli import admin_app

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, StartRegistry

Admin = Callable[..., str]


@pytest.fixture
def admin(
    start_registry: StartRegistry,
    make_node: type[Node],
    monkeypatch: pytest.MonkeyPatch,
) -> Admin:
    """Runs a command, checks its status and how wide it prints; its stdout."""
    registry = start_registry()
    monkeypatch.setenv("XPOOL_REGISTRY", registry.address)
    monkeypatch.setenv("COLUMNS", "80")
    with registry.client() as client:
        make_node(client, "node-a", devices=2).join()

    def invoke(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(admin_app, arguments)
        assert result.exit_code == status, result.output
        if status == 0 and not {"--json", "--csv"} & set(arguments):
            assert all(len(line) <= 80 for line in result.output.splitlines())
        return result.output

    invoke.registry = registry  # type: ignore[attr-defined]
    return invoke


def ask(admin: Admin, ticket: str, count: int = 1, **fields: str) -> pb.LeaseGroup:
    with admin.registry.client() as client:  # type: ignore[attr-defined]
        return client.ask(
            pb.AcquireGroupRequest(
                slice=pb.AcquireRequest(
                    tenant="ada", share_percent=100, mode="elastic", **fields
                ),
                device_count=count,
                ticket=ticket * 32,
                wait_ms=600_000,
                limit_ms=3_600_000,
            )
        )


def test_the_queue_is_shown_in_its_order(admin: Admin) -> None:
    assert admin("queue") == "nobody waits\n"
    assert len(ask(admin, "0", 2).leases) == 2
    first = ask(admin, "1", 2).queue
    assert (first.place, first.waiting_count) == (1, 1)
    ask(admin, "2", priority="high")
    figures = json.loads(admin("queue", "--json"))
    # A start that has been promised is kept, also against a higher class.
    assert [one["priority"] for one in figures] == ["normal", "high"]
    table = admin("queue")
    assert "2 x 100%" in table
    assert figures[0]["request_id"] in table
    with admin.registry.client() as client:  # type: ignore[attr-defined]
        assert client.cancel("1" * 32)
        assert not client.cancel("1" * 32)
    assert len(json.loads(admin("queue", "--json"))) == 1


def test_tenants_are_set_shown_and_forgotten(admin: Admin) -> None:
    assert admin("tenants") == "no tenant is known, holds anything or waits\n"
    admin("tenant", "set", "lab", "--weight", "3")
    admin("tenant", "set", "ada", "--group", "lab", "--limit", "3")
    admin("quota", "ada", "1.5")
    ask(admin, "0")
    [ada, lab] = json.loads(admin("tenants", "--json"))
    assert ada["parent"] == "lab"
    assert (ada["quota_percent"], ada["limit_percent"]) == (150, 300)
    assert ada["held_percent"] == lab["held_percent"] == 100
    assert lab["weight"] == 3
    assert "150%" in admin("tenants")
    assert "is the group of ada" in admin("tenant", "remove", "lab", status=2)
    admin("tenant", "remove", "ada")
    admin("tenant", "remove", "lab")
    assert "unknown" in admin("tenant", "remove", "lab")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("quota", "ada", "many"), "is no number of devices"),
        (("quota", "ada", "-1"), "No such option"),
        (("tenant", "set", "x", "--group", "nowhere"), "there is no group"),
        (("tenant", "set", "x", "--weight", "0"), "it must be from 0.001"),
        (("tenant", "set", "x", "--memory-limit", "1x"), "is not a memory size"),
    ],
)
def test_what_makes_no_sense_ends_with_status_2(
    admin: Admin, arguments: tuple[str, ...], text: str
) -> None:
    assert text in admin(*arguments, status=2)
