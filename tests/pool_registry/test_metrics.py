"""What a real registry tells Prometheus."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from support.metrics_rules import problems
from xpool_protocol.control import registry_pb2 as pb


def test_a_registry_answers_with_its_leases(
    start_registry: Callable[..., Any], make_node: Callable[..., Any]
) -> None:
    registry = start_registry("--metrics", "127.0.0.1:0")
    with registry.client() as client:
        node = make_node(client)
        node.join()
        lease: pb.Lease = client.acquire(tenant="me", share_percent=30)
        node.heartbeat(lease)
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", registry.log.read_text())
        assert found is not None
        with urllib.request.urlopen(found[0], timeout=10) as answer:
            text = answer.read().decode()
    assert problems(text) == []
    labels = f'{{device="0",lease="{lease.lease_id}",node="node-a",tenant="me"}}'
    assert f"xpool_lease_promised_share_ratio{labels} 0.3" in text
    assert 'xpool_nodes{state="alive"} 1.0' in text
    assert "xpool_leases 1.0" in text
    device = '{device="0",kind="cpu",node="node-a"}'
    assert f"xpool_device_free_share_ratio{device} 0.7" in text
    assert "xpool_registry_decision_seconds_count 1.0" in text
    assert 'xpool_registry_decision_seconds_bucket{le="1.0"} 1.0' in text


def test_tenants_have_use_beside_right(
    start_registry: Callable[..., Any], make_node: Callable[..., Any]
) -> None:
    """What the servers measured, by tenant, also of leases that are over."""
    registry = start_registry("--metrics", "127.0.0.1:0")
    found = re.search(r"http://127\.0\.0\.1:\d+/metrics", registry.log.read_text())
    assert found is not None

    def scraped() -> str:
        with urllib.request.urlopen(found[0], timeout=10) as answer:
            text: str = answer.read().decode()
        assert problems(text) == []
        return text

    with registry.client() as client:
        node = make_node(client, devices=2)
        node.join()
        mine: pb.Lease = client.acquire(tenant="me", share_percent=50)
        client.acquire(tenant="you", share_percent=50)
        now_s = int(time.time_ns() / 1e9)
        used = [
            pb.UsageSecond(
                at_s=now_s - 4 + i,
                device_ns=250_000_000,
                waiting_ns=100_000_000,
                allocated_nbytes=1000,
            )
            for i in range(4)
        ]
        report = pb.SessionReport(
            lease_id=mine.lease_id, epoch=mine.epoch, state="open", usage=used
        )
        client.heartbeat(node_name="node-a", boot_id="boot-1", sessions=[report])
        text = scraped()
        client.release(mine.lease_id, mine.epoch)
        later = scraped()
    for line in (
        'xpool_tenant_held_ratio{tenant="me"} 0.25',
        'xpool_tenant_right_ratio{tenant="you"} 0.5',
        'xpool_tenant_waiting_requests{tenant="you"} 0.0',
    ):
        assert line in text
    assert re.search(r'xpool_tenant_use_ratio{tenant="me"} 0\.\d', text)
    for line in (
        'xpool_tenant_device_seconds_total{tenant="me"} 1.0',
        'xpool_tenant_booked_seconds_total{tenant="me"} 2.0',
        'xpool_tenant_waiting_seconds_total{tenant="me"} 0.4',
        'xpool_tenant_memory_byte_seconds_total{tenant="me"} 4000.0',
    ):
        assert line in text
        assert line in later
