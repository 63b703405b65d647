"""What a server tells Prometheus, and where it does not listen."""

from __future__ import annotations

import urllib.request

import pytest
from support.metrics_rules import problems
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import UsageError
from xpool_server.metrics import NodeCollector, SessionFigures, Snapshot, serve


def scraped(port: int) -> str:
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


def test_a_snapshot_is_answered_with_the_usual_names() -> None:
    collector = NodeCollector()
    port, answering = serve(collector, "127.0.0.1", 0)
    server, thread = answering  # type: ignore[misc]
    report = pb.SessionReport(
        lease_id="abc",
        state="stalled",
        share_percent=30,
        got_percent=29.0,
        device_ns=1_500_000_000,
        executed_ops=7,
        memory_nbytes=1 << 30,
    )
    load = pb.DeviceLoad(index=0, busy_percent=50.0, used_nbytes=9, session_count=1)
    collector.publish(
        Snapshot((load,), (SessionFigures("t", 0, report),), ((0, "stalled", 2),))
    )
    try:
        text = scraped(port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert problems(text) == []
    labels = '{device="0",lease="abc",tenant="t"}'
    assert f"xpool_session_device_seconds_total{labels} 1.5" in text
    assert f"xpool_session_operations_total{labels} 7.0" in text
    assert f"xpool_session_got_share_ratio{labels} 0.29" in text
    assert 'xpool_device_busy_ratio{device="0"} 0.5' in text
    stalled = 'device="0",lease="abc",state="stalled",tenant="t"'
    assert f"xpool_session_state{{{stalled}}} 1.0" in text
    passed = 'xpool_device_turns_passed_on_total{device="0",why="stalled"} 2.0'
    assert passed in text


def test_an_address_that_cannot_be_listened_on() -> None:
    with pytest.raises(UsageError, match="--metrics"):
        serve(NodeCollector(), "203.0.113.1", 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# HELP a A.\n# TYPE a gauge\na 1\n", "a: not lower case"),
        ("# HELP xpool_x_ms A.\n# TYPE xpool_x_ms gauge\nxpool_x_ms 1\n", "base unit"),
        ("# TYPE xpool_x gauge\nxpool_x 1\n", "no help"),
        ("# HELP xpool_x A.\nxpool_x 1\n", "no type"),
        (
            "# HELP xpool_x_ratio A.\n# TYPE xpool_x_ratio gauge\nxpool_x_ratio 30\n",
            "a ratio of 30",
        ),
        (
            '# HELP xpool_x A.\n# TYPE xpool_x gauge\nxpool_x{Lease="a"} 1\n',
            "Lease: no label",
        ),
    ],
)
def test_the_rules_find_what_breaks_them(text: str, problem: str) -> None:
    assert any(problem in one for one in problems(text))
