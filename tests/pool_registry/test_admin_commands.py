"""``xpool admin`` on the queue, tenants and nodes, against a real registry."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from support.waiting import eventually
from typer.testing import CliRunner
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import LeaseExpired
from xpool_registry.cli import admin_app

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, RegistryProcess, StartRegistry

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
            assert not [line for line in result.stdout.splitlines() if len(line) > 80]
        return result.output if status else result.stdout

    invoke.registry = registry  # type: ignore[attr-defined]
    return invoke


def ask(admin: Admin, ticket: str, count: int = 1, **fields: str) -> pb.LeaseGroup:
    with admin.registry.client() as client:  # type: ignore[attr-defined]
        # However slow this machine is, the node lives and its leases last.
        client.heartbeat(node_name="node-a", boot_id="boot-1")
        return client.ask(
            pb.AcquireGroupRequest(
                slice=pb.AcquireRequest(
                    tenant="ada",
                    share_percent=100,
                    mode="elastic",
                    ttl_ms=600_000,
                    **fields,
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
    assert admin("tenants").startswith("no tenant is known, holds anything, ")
    admin("tenant", "set", "lab", "--weight", "3")
    admin("tenant", "set", "ada", "--group", "lab", "--limit", "3")
    admin("quota", "ada", "1.5")
    ask(admin, "0")
    [ada, lab] = json.loads(admin("tenants", "--json"))
    assert ada["parent"] == "lab"
    assert (ada["quota_percent"], ada["limit_percent"]) == (150, 300)
    assert ada["held_percent"] == lab["held_percent"] == 100
    assert lab["weight"] == 3
    [head, *_] = admin("tenants").splitlines()
    assert head.split() == [
        *("tenant", "group", "weight", "quota", "limit"),
        *("holds", "use", "right", "leases", "wait"),
    ]
    assert "150%" in admin("tenants")
    assert "is the group of ada" in admin("tenant", "remove", "lab", "--yes", status=2)
    admin("tenant", "remove", "ada", "--yes")
    admin("tenant", "remove", "lab", "--yes")
    assert "unknown" in admin("tenant", "remove", "lab", "--yes")


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


def test_why_a_lease_is_there_and_why_a_request_waits(admin: Admin) -> None:
    [lease, _] = ask(admin, "0", 2).leases
    told = admin("explain", lease.lease_id)
    assert f"lease {lease.lease_id} of ada has 100% of node-a/0" in told
    assert "placed there by best-fit; the only node that could hold it" in told
    assert "its time limit" in told
    # The others, as they are now.
    assert "node-a/1 has 0% and 0 B: too little share and memory" in told
    assert "node-a/0 has" not in told
    request = ask(admin, "1").queue.request_id
    figures = json.loads(admin("explain", request, "--json"))
    assert "place 1 of 1" in figures["headline"]
    assert [one["ruled_out"] for one in figures["devices"]] == [
        "too little share and memory"
    ] * 2
    assert figures["changes"] == [
        "1 more device must get 100% and 100% of its memory free"
    ]
    assert figures["starts_at_s"]
    assert "nothing" not in admin("explain", request)
    assert "no lease and no request is called 'x'" in admin("explain", "x", status=1)


def test_a_lease_is_explained_by_what_ruled_the_others_out(
    admin: Admin,
    make_node: type[Node],
    start_registry: StartRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also after a restart: what was asked for is kept with the lease."""
    registry: RegistryProcess = admin.registry  # type: ignore[attr-defined]

    def join() -> None:
        with registry.client() as client:
            for name, kind in (("npu-1", "npu"), ("npu-2", "npu"), ("npu-3", "npu")):
                node = make_node(client, name, devices=1)
                for device in node.devices:
                    device.kind = kind
                node.join()

    join()
    admin("cordon", "npu-3")
    with registry.client() as client:
        [lease] = client.ask(
            pb.AcquireGroupRequest(
                slice=pb.AcquireRequest(
                    tenant="ada", share_percent=40, mode="elastic", ttl_ms=600_000
                ),
                device_count=1,
                wanted=pb.Wanted(kind="npu"),
            )
        ).leases
    told = " ".join(admin("explain", lease.lease_id).split())
    assert (
        "the best of 2 nodes that could hold it (others: 1 cordoned, 1 without such"
        " devices free)" in told
    )
    registry.end(signal.SIGKILL)
    registry = start_registry()
    monkeypatch.setenv("XPOOL_REGISTRY", registry.address)
    join()
    figures = json.loads(admin("explain", lease.lease_id, "--json"))
    ruled_out = {
        one["device"].split()[0]: one["ruled_out"] for one in figures["devices"]
    }
    assert lease.node_name == "npu-1"
    assert ruled_out["npu-2/0"] is None
    assert ruled_out["npu-3/0"] == "cordoned"
    assert "not heard from" in ruled_out["node-a/0"]


def test_whatif_answers_and_grants_nothing(admin: Admin) -> None:
    told = admin("whatif", "--slice", "40%", "--devices", "2")
    assert "it fits now, on node-a/0, node-a/1" in told
    figures = json.loads(admin("whatif", "--devices", "4", "--json"))
    assert "never 4 devices of this pool" in figures["changes"][0]
    ask(admin, "0", 2)
    figures = json.loads(admin("whatif", "--slice", "40%", "--json"))
    assert figures["starts_at_s"] > 0
    assert "by the known ends of leases" in figures["facts"][0]
    assert "kind is cpu, not npu" in " ".join(admin("whatif", "--kind", "npu").split())
    assert admin("queue") == "nobody waits\n"
    assert "device_count is 0" in admin("whatif", "--devices", "0", status=2)
    assert "device_count is 1000000" in admin(
        "whatif", "--devices", "1000000", status=2
    )


def test_whatif_takes_what_a_job_may_ask_for(
    admin: Admin, start_registry: StartRegistry, make_node: type[Node]
) -> None:
    """The node that these tests play has no front door, so nobody can measure it."""
    for arguments, sentence in (
        (["--require", "arch=sm_90"], "sm_90"),
        (["--require", "memory=1TiB"], "too little memory in all"),
        (["--require", "label.zone=b"], "label zone"),
        (["--require", "server=elsewhere"], "not on node elsewhere"),
        (["--require", "apart=x"], "it fits now"),
        (["--near", "--max-rtt", "2ms"], "was not measured"),
        (["--near"], "it fits now"),
        (["--mode", "capped", "--slice", "60%"], "it fits now"),
        (["--at-least", "20%"], "it fits now"),
    ):
        told = " ".join(admin("whatif", *arguments).split())
        assert sentence in told, told
    assert "is no round trip" in admin("whatif", "--max-rtt", "2", status=2)
    assert "makes no sense" in admin("whatif", "--require", "colour=red", status=2)


def test_whatif_reads_the_variables_of_a_job(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value, sentence in (
        ("XPOOL_DEVICES", "4", "4 devices"),
        ("XPOOL_SLICE", "30%", "30%"),
        ("XPOOL_MEMORY", "1TiB", "too little memory"),
        ("XPOOL_REQUIRE", "kind=npu", "kind is cpu, not npu"),
        ("XPOOL_MAX_RTT", "2ms", "was not measured"),
        ("XPOOL_NEAR", "yes", "it fits now"),
        ("XPOOL_SAME_SERVER", "no", "it fits now"),
    ):
        monkeypatch.setenv(name, value)
        told = " ".join(admin("whatif").split())
        assert sentence in told, told
        monkeypatch.delenv(name)
    monkeypatch.setenv("XPOOL_MODE", "sideways")
    assert "mode is 'sideways'" in admin("whatif", status=2)
    # What is said on the command line counts.
    assert "it fits now" in admin("whatif", "--mode", "capped")


def test_a_cordoned_node_gets_nothing_until_it_is_uncordoned(admin: Admin) -> None:
    ask(admin, "0")
    assert "still has 1" in admin("cordon", "node-a", "--reason", "a fan is loud")
    assert not ask(admin, "1").leases
    [waiting] = json.loads(admin("queue", "--json"))
    assert "cordoned: a fan is loud" in waiting["reason"]
    assert " cordoned " in admin("nodes")
    assert admin("devices").count(" cordoned ") == 2
    assert json.loads(admin("devices", "--json"))[0]["closed"]
    [node] = json.loads(admin("nodes", "--json"))
    assert (node["alive"], node["closed"]) == (True, "cordoned: a fan is loud")
    assert "takes new leases" in admin("uncordon", "node-a")
    assert "took new leases" in admin("uncordon", "node-a")
    eventually(lambda: ask(admin, "1").leases, "it is granted", 5)
    assert "no node 'x' has joined" in admin("cordon", "x", status=2)


def test_a_drain_ends_leases_by_its_deadline_unless_it_is_taken_back(
    admin: Admin,
) -> None:
    [lease] = ask(admin, "0").leases
    assert "Nobody is here to ask" in admin(
        "drain", "node-a", "--deadline", "1h", status=2
    )
    admin("drain", "node-a", "--deadline", "1h", "--yes")
    with admin.registry.client() as client:  # type: ignore[attr-defined]
        told = client.renew(lease.lease_id, lease.epoch)
        assert told.notice == "node-a is drained"
        admin("uncordon", "node-a")
        assert not client.renew(lease.lease_id, lease.epoch).notice
        admin("drain", "node-a", "--deadline", "100ms", "--yes", "--wait")
        with pytest.raises(LeaseExpired, match="node-a is drained"):
            client.renew(lease.lease_id, lease.epoch)


def test_a_node_that_is_gone_is_forgotten(admin: Admin) -> None:
    [lease] = ask(admin, "0").leases
    assert "stop its server first" in admin("forget", "node-a", status=2)
    admin("evict", lease.lease_id, "--yes")
    # Its last sign of life was with what was asked.
    eventually(lambda: " silent " in admin("nodes"), "it is silent", 15)
    figures = json.loads(admin("forget", "node-a", "--reason", "sold", "--json"))
    assert figures == {"node_name": "node-a"}
    for listing in ("nodes", "devices"):
        assert "no server has joined yet" in admin(listing)
    last = json.loads(admin("events", "--last", "1", "--json"))
    assert (last["event"], last["reason"]) == ("node_forgotten", "sold")
    assert "no node 'node-a' has joined" in admin("forget", "node-a", status=2)
    with admin.registry.client() as client:  # type: ignore[attr-defined]
        assert client.heartbeat(node_name="node-a", boot_id="boot-1").must_rejoin


def test_an_evicted_lease_ends_with_the_reason(admin: Admin) -> None:
    [lease] = ask(admin, "0").leases
    assert "Nobody is here to ask" in admin("evict", lease.lease_id, status=2)
    admin("evict", lease.lease_id, "--yes", "--reason", "too loud")
    with (
        admin.registry.client() as client,  # type: ignore[attr-defined]
        pytest.raises(LeaseExpired, match="evicted by an admin: too loud"),
    ):
        client.renew(lease.lease_id, lease.epoch)
    assert "is live" in admin("evict", lease.lease_id, "--yes", status=1)


def test_what_is_done_is_told_to_scripts_too(admin: Admin) -> None:
    [lease, _] = ask(admin, "0", 2).leases
    for arguments, told in (
        (["cordon", "node-a"], {"node_name": "node-a", "lease_count": 2}),
        (["drain", "node-a"], {"node_name": "node-a", "lease_count": 2}),
        (["uncordon", "node-a"], {"node_name": "node-a", "was_cordoned": True}),
        (
            ["evict", lease.lease_id, "--yes"],
            {"lease_id": lease.lease_id, "grace_ms": 0},
        ),
        (["tenant", "remove", "x", "--yes"], {"name": "x", "was_known": False}),
    ):
        assert json.loads(admin(*arguments, "--json")) == told
    figures = json.loads(admin("tenant", "set", "ada", "--weight", "2", "--json"))
    assert (figures["name"], figures["weight"]) == ("ada", 2)
    assert json.loads(admin("quota", "ada", "1.5", "--json"))["quota_percent"] == 150


def test_an_id_can_be_copied(admin: Admin) -> None:
    """However long all else is, it stands on one line."""
    [lease] = ask(admin, "0").leases
    assert lease.lease_id in admin("leases")
    request = ask(admin, "1", 2).queue.request_id
    assert request in admin("queue")


def test_events_are_told_in_order(admin: Admin) -> None:
    [lease] = ask(admin, "0").leases
    lines = [json.loads(line) for line in admin("events", "--json").splitlines()]
    assert [one["event"] for one in lines] == [
        "registry_created",
        "node_joined",
        "lease_granted",
    ]
    assert [one["sequence"] for one in lines] == [1, 2, 3]
    assert lines[-1]["lease_id"] == lease.lease_id
    assert admin("events", "--last", "1", "--json").count("\n") == 1


def test_tokens_are_made_listed_and_revoked(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no token has been made" in admin("token", "list")
    assert "must be an admin's" in admin("token", "create", "--name", "ada", status=2)
    assert "with --name" in admin("token", "create", status=2)
    first = admin("token", "create", "--role", "admin").strip()
    assert "this pool wants a token" in admin("nodes", status=1)
    monkeypatch.setenv("XPOOL_TOKEN", first)
    assert "node-a" in admin("nodes")
    made = json.loads(
        admin("token", "create", "--name", "ada", "--expires", "720h", "--json")
    )
    assert made["token"].split("_")[1] == made["token_id"]
    listed = json.loads(admin("token", "list", "--json"))
    assert [one["role"] for one in listed] == ["admin", "tenant"]
    assert made["token"] not in admin("token", "list")
    assert "Nobody is here to ask" in admin(
        "token", "revoke", made["token_id"], status=2
    )
    admin("token", "revoke", made["token_id"], "--yes")
    assert len(json.loads(admin("token", "list", "--json"))) == 1
    assert '"hash_hex": ""' in admin("events", "--json")


def test_every_table_fits_whatever_names_there_are(
    admin: Admin, make_node: type[Node]
) -> None:
    """As long as they may be; the fixture looks at each line's width."""
    with admin.registry.client() as client:  # type: ignore[attr-defined]
        node = make_node(client, "n" * 128, devices=1)
        for device in node.devices:
            device.name = "NVIDIA " + "H" * 121
        node.join()
        wish = pb.AcquireRequest(
            tenant="t" * 128,
            share_percent=100,
            mode="elastic",
            ttl_ms=600_000,
            client="c" * 256,
        )
        wanted = pb.Wanted(node_name="n" * 128)
        [lease] = client.ask(
            pb.AcquireGroupRequest(slice=wish, device_count=1, wanted=wanted)
        ).leases
        queued = client.ask(
            pb.AcquireGroupRequest(
                slice=wish,
                device_count=1,
                wanted=wanted,
                ticket="e" * 32,
                wait_ms=600_000,
            )
        )
        node.heartbeat(lease)
    for command, columns in (
        (["leases"], ["lease", "tenant", "device", "share", "memory", "session"]),
        (["tenants"], ["tenant", "weight", "holds", "use", "right", "leases", "wait"]),
    ):  # names are folded, figures never
        head = admin(*command).splitlines()[0].split()
        assert head[: len(columns)] == columns
    for command in (
        *(["nodes"], ["devices"], ["leases"], ["queue"], ["tenants"], ["usage"]),
        *(["explain", lease.lease_id], ["explain", queued.queue.request_id]),
        *(["whatif", "--require", "server=" + "n" * 128], ["top", "--once"]),
        *(["whatif", "--devices", "3", "--tenant", "t" * 128],),
        *(["usage", "--by", by] for by in ("lease", "node", "device", "hour")),
    ):
        assert admin(*command).strip()
        assert admin(*command, "--json").strip()
