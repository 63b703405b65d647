"""A fleet of five servers, played whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from xpool_perf.__main__ import SCENARIOS, parser
from xpool_perf.fleet import FLEET, one_run, percentile
from xpool_perf.programs.fleet_load import HEARTBEAT_S, Load, Server
from xpool_perf.programs.fleet_words import Words, heartbeat
from xpool_protocol.control import registry_pb2 as pb
from xpool_registry.resizing import QUICK_HEARTBEAT_MS


def test_the_scenario_is_known() -> None:
    assert SCENARIOS["fleet"] is FLEET
    assert parser().parse_args(["fleet", "--nodes", "7"]).nodes == 7


def test_percentiles() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50, 99)
    assert percentile([3.0], 0.99) == 3


def test_a_heartbeat_put_together_means_the_same_as_one_made_whole() -> None:
    server = Server("node-1", Words("node-1"))
    for number in range(1, 4):
        lease = pb.Lease(lease_id=f"{number:016x}", epoch=200 * number, mode="capped")
        server.leases[lease.lease_id] = lease
    for now_s in (1_800_000_000, 1_800_000_001, 1_800_000_003):
        server.pass_time(now_s)
        untold = [(one, server.untold(name)) for name, one in server.leases.items()]
        said = pb.HeartbeatRequest.FromString(server.heartbeat())
        assert said == heartbeat("node-1", untold)
        assert [len(one.usage) for one in said.sessions] == [len(untold[0][1])] * 3
        server.hear(pb.HeartbeatReply(usage_stored_s={f"{2:016x}": now_s - 1}))
    over = server.leases.popitem()[0]
    server.words.forget(over)
    said = pb.HeartbeatRequest.FromString(server.heartbeat())
    assert over not in {one.lease_id for one in said.sessions}


def test_a_small_fleet_is_served(tmp_path: Path) -> None:
    load = Load(nodes=5, leases=40, acquires_per_s=20.0, seconds=2.0, seed=1)
    found = one_run(tmp_path, load, lambda text: None)
    # In a small pool the registry asks for one sooner, which the player heeds.
    asked_s = HEARTBEAT_S * QUICK_HEARTBEAT_MS / 1000
    assert found["heartbeats_per_s"][0] == pytest.approx(5 / asked_s, rel=0.5)
    assert found["registry_rss_mb"][0] > 10
    assert 0 < found["player_core_percent"][0] < 200
    assert 0 < found["acquire_p50_ms"][0] <= found["acquire_p99_ms"][0]
