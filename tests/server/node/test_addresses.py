from __future__ import annotations

import socket

import pytest
from xpool_protocol.errors import UsageError
from xpool_server.addresses import advertised_uri, check_reachability, worker_uri


@pytest.mark.parametrize(
    "listen",
    [
        "tcp://127.0.0.1:0",
        "tcp://127.8.9.1:7800",
        "tcp://localhost:0",
        "tcp://[::1]:0",
        "ipc:///tmp/x",
    ],
)
def test_this_machine_alone_is_always_allowed(listen: str) -> None:
    check_reachability(listen, is_insecure=False)


@pytest.mark.parametrize(
    "listen", ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://10.0.0.1:0", "tcp://host:1"]
)
def test_other_machines_need_a_word(listen: str) -> None:
    with pytest.raises(UsageError, match="--insecure"):
        check_reachability(listen, is_insecure=False)
    check_reachability(listen, is_insecure=True)


def test_every_interface_is_advertised_by_name() -> None:
    name = socket.gethostname()
    assert advertised_uri("tcp://0.0.0.0:5", None) == f"tcp://{name}:5"
    assert advertised_uri("tcp://10.0.0.1:5", None) == "tcp://10.0.0.1:5"
    assert advertised_uri("tcp://10.0.0.1:5", "gpu3") == "tcp://gpu3:5"


def test_workers_listen_beside_their_node() -> None:
    assert worker_uri("tcp://[::1]:7800", 5) == "tcp://[::1]:0"
    assert worker_uri("ipc:///run/node", 5) == "ipc:///run/node.5"
