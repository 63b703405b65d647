"""What a real registry tells Prometheus."""

from __future__ import annotations

import re
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
