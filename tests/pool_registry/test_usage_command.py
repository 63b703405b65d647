"""``xpool admin usage`` against a real registry that is killed meanwhile."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xpool_protocol.control import registry_pb2 as pb
from xpool_registry.accounting import HOUR_S, Key, Row, Totals
from xpool_registry.usage_store import SqliteUsage

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, RegistryProcess, StartRegistry

WaitUntil = Callable[[Callable[[], bool], float], None]


def usage(registry: RegistryProcess, *options: str) -> subprocess.CompletedProcess[str]:
    program = "from xpool_registry.cli import admin_app; admin_app()"
    argv = [sys.executable, "-c", program, "usage", "--registry", registry.address]
    return subprocess.run(
        [*argv, *options], capture_output=True, text=True, check=False, timeout=60
    )


def seconds(count: int, device_ns: int) -> list[pb.UsageSecond]:
    now_s = int(time.time_ns() / 1e9)
    return [
        pb.UsageSecond(
            at_s=now_s - count + i,
            device_ns=device_ns,
            waiting_ns=10**8,
            executed_ops=5,
            allocated_nbytes=1 << 30,
        )
        for i in range(count)
    ]


def test_who_has_used_how_much(
    start_registry: StartRegistry, make_node: type[Node], wait_until: WaitUntil
) -> None:
    registry = start_registry()
    with registry.client() as client:
        node = make_node(client)
        node.join()
        leases = [
            client.acquire(tenant=name, share_percent=30) for name in ("ada", "bob")
        ]
        reports = [
            pb.SessionReport(
                lease_id=lease.lease_id, epoch=lease.epoch, state="open", usage=used
            )
            for lease, used in zip(
                leases, (seconds(10, 3 * 10**8), seconds(10, 10**8)), strict=True
            )
        ]
        for _ in range(2):  # the answer was lost: all of it comes again
            client.heartbeat(node_name="node-a", boot_id="boot-1", sessions=reports)
        # A job that ends has its last seconds in the report of its end.
        last = pb.SessionReport(
            lease_id=leases[1].lease_id, epoch=leases[1].epoch, usage=seconds(1, 10**9)
        )
        last.usage[0].at_s += 5
        ended = pb.EndedLease(
            lease_id=leases[1].lease_id, epoch=1, reason="done", last=last
        )
        ended.epoch = leases[1].epoch
        client.heartbeat(node_name="node-a", boot_id="boot-1", ended=[ended])
        # Nobody is charged by a stranger.
        client.join(
            node_name="node-b",
            boot_id="b",
            address="tcp://b:1",
            devices=node.devices,
            version="",
        )
        client.heartbeat(node_name="node-b", boot_id="b", sessions=reports)

    def is_kept() -> bool:
        rows = json.loads(usage(registry, "--json").stdout)
        return [row["tenant"] for row in rows] == ["ada", "bob"]

    wait_until(is_kept, 30)
    registry.end(signal.SIGKILL)
    registry = start_registry()
    ada, bob = json.loads(usage(registry, "--json").stdout)
    assert (ada["device_s"], bob["device_s"]) == (3.0, 2.0)
    assert (ada["use_percent"], bob["use_percent"]) == (60.0, 40.0)
    assert (ada["booked_s"], ada["waiting_s"], ada["seconds"]) == (3.0, 1.0, 10)
    assert ada["executed_ops"] == 50
    # Whoever has used something has a right beside it, also when nothing is held.
    assert (ada["right_percent"], bob["right_percent"]) == (50.0, 50.0)
    table = usage(registry).stdout
    assert "60.0%" in table
    assert max(map(len, table.splitlines())) <= 80
    sheet = list(csv.DictReader(io.StringIO(usage(registry, "--csv").stdout)))
    assert [row["tenant"] for row in sheet] == ["ada", "bob"]
    [device] = json.loads(usage(registry, "--by", "device", "--json").stdout)
    assert (device["device"], device["device_s"]) == ("node-a/0", 5.0)
    assert json.loads(usage(registry, "--since", "2001-01-01", "--until", "2001-01-02",
                            "--json").stdout) == []  # fmt: skip
    wrong = usage(registry, "--since", "yesterday")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "is no moment" in wrong.stderr


def test_usage_is_kept_for_as_many_days_as_it_is_told(
    start_registry: StartRegistry,
    make_node: type[Node],
    wait_until: WaitUntil,
    tmp_path: Path,
) -> None:
    """Rows of 1, 2 and 5 days ago; with three days the oldest is dropped."""
    hour = int(time.time_ns() / 1e9) // HOUR_S
    old = SqliteUsage(tmp_path / "registry.db.usage")
    old.put(
        [
            Row(
                Key((hour - 24 * days) * HOUR_S, f"l{days}", "ada", "node-a", 0),
                Totals(device_s=1.0, seconds=1),
                (hour - 24 * days) * HOUR_S,
            )
            for days in (1, 2, 5)
        ]
    )
    old.close()

    def is_left(registry: RegistryProcess, *names: str) -> bool:
        rows = json.loads(
            usage(registry, "--since", "9d", "--by", "lease", "--json").stdout
        )
        return {row["lease"] for row in rows} == {*names}

    now: list[str] = []
    for days, kept in (("0", ["l1", "l2", "l5"]), ("3", ["l1", "l2"])):
        registry = start_registry("--usage-days", days)
        with registry.client() as client:
            node = make_node(client)
            node.join()
            lease = client.acquire(tenant="bob", share_percent=30)
            report = pb.SessionReport(
                lease_id=lease.lease_id,
                epoch=lease.epoch,
                state="open",
                usage=seconds(3, 10**8),
            )
            # By what is measured now it counts what is old.
            client.heartbeat(node_name="node-a", boot_id="boot-1", sessions=[report])
        now.append(lease.lease_id)
        wait_until(partial(is_left, registry, *kept, *now), 30)
        registry.end()
