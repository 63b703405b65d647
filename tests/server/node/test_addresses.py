from __future__ import annotations

import socket

import pytest
from xpool_protocol import transport
from xpool_protocol.errors import UsageError
from xpool_server.addresses import (
    PortRange,
    advertised_uri,
    check_reachability,
    listen_within,
    port_range,
    worker_uri,
)


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


@pytest.mark.parametrize(
    "text", ["", "7800", "7800-", "9-8", "0-5", "1-65536", "1 - 2", "²-3", "1-2-3"]
)
def test_what_is_no_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="FIRST-LAST"):
        port_range(text)


def test_workers_take_the_first_free_port_of_a_range() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        only = PortRange(port, port)
        with pytest.raises(UsageError, match="all ports of"):
            listen_within(only, "tcp://127.0.0.1:0", transport.listen)
    with listen_within(only, "tcp://127.0.0.1:0", transport.listen) as listener:
        assert listener.uri == f"tcp://127.0.0.1:{port}"


def test_an_address_that_is_not_ours_is_no_matter_of_ports() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        listen_within(PortRange(7800, 7801), "tcp://192.0.2.1:0", transport.listen)
