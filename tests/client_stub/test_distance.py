"""Round trips to servers, over real sockets."""

from __future__ import annotations

import socket

import pytest
from xpool.config import job_settings
from xpool.launched import environment_of
from xpool.waiting_turn import request_from
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.distance import distances_to, rtt_us
from xpool_protocol.errors import UsageError


def node(name: str, address: str, *, alive: bool = True) -> pb.NodeInfo:
    return pb.NodeInfo(node_name=name, address=address, alive=alive)


def test_those_that_can_be_reached() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as open_door,
        socket.create_server(("127.0.0.1", 0)) as closed_door,
    ):
        there = f"tcp://127.0.0.1:{open_door.getsockname()[1]}"
        gone = f"tcp://127.0.0.1:{closed_door.getsockname()[1]}"
        closed_door.close()
        found = distances_to(
            [
                node("here", there),
                node("gone", gone),
                node("dead", there, alive=False),
                node("odd", "tcp://[::1:x"),
                node("socket", "ipc:///run/pool"),
            ]
        )
    assert [one.node_name for one in found] == ["here"]
    assert 1 <= found[0].rtt_us < 1_000_000
    assert distances_to([]) == []
    assert rtt_us("tcp://127.0.0.1:1") is None


def test_options_reach_the_request_and_a_launchers_ranks() -> None:
    flags = {
        "near": "yes",
        "max_rtt": "1.5ms",
        "close_by": "rack",
        "slice": "60%",
        "at_least": "20%",
    }
    settings = job_settings({**flags, "tenant": "ada"}, {})
    request = request_from(settings, "0" * 32, "me")
    assert (request.near, request.max_rtt_us, request.close_by) == (True, 1500, "rack")
    assert request.slice.min_share_percent == 20
    assert job_settings({}, environment_of(settings)) == settings


@pytest.mark.parametrize("text", ["2", "0ms", "-1ms", "2min", "61s", "1h"])
def test_what_is_no_round_trip(text: str) -> None:
    with pytest.raises(UsageError, match="is no round trip"):
        job_settings({"max_rtt": text}, {})


def test_a_least_above_the_slice() -> None:
    with pytest.raises(UsageError, match="at least 70% of a slice of 60%"):
        job_settings({"slice": "60%", "at_least": "70%"}, {})
