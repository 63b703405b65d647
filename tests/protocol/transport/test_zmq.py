"""What only the ZeroMQ transport has: strangers, files in the way, broken addresses."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
from xpool_protocol.errors import BrokenError, PeerError, UsageError
from xpool_protocol.transport import (
    MAX_FRAMES,
    Listener,
    connect,
    listen,
)

PATIENCE_S = 10.0
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: pool\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "half a greeting": GREETING[:20],
    "greeting and noise": GREETING + random.Random(1).randbytes(4096),
    "huge frame": GREETING + b"\x04\x26\x05READY\x02" + b"\xff" * 9 + bytes(100),
    "old version": b"\x01\x00" + b"\x05\x00junk" + b"\x05\x00more",
    "noise": random.Random(2).randbytes(10_000),
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener(stack: ExitStack) -> Listener:
    return stack.enter_context(listen("tcp://127.0.0.1:0"))


@pytest.fixture
def raw(stack: ExitStack) -> zmq.Socket[bytes]:
    """A DEALER without our manners."""
    context = stack.enter_context(zmq.Context())
    return stack.enter_context(context.socket(zmq.DEALER))


def tcp_address(uri: str) -> tuple[str, int]:
    host, _, port = uri.removeprefix("tcp://").rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_listener_survives_garbage(
    listener: Listener, stack: ExitStack, garbage: bytes
) -> None:
    """Before, during and after it, a good peer is served."""
    good = stack.enter_context(connect(listener.uri))
    stranger = stack.enter_context(socket.create_connection(tcp_address(listener.uri)))
    for number in range(3):
        good.send([b"good %d" % number])
        received = None
        while received is None or not bytes(received[1][0]).startswith(b"good"):
            received = listener.receive(PATIENCE_S)
            assert received is not None, "the good peer was not heard"
        assert received[1] == [b"good %d" % number]
        if number == 0:
            stranger.sendall(garbage)
        else:
            stranger.close()


def test_a_peer_that_names_itself_is_not_heard(
    listener: Listener, raw: zmq.Socket[bytes], stack: ExitStack
) -> None:
    raw.set(zmq.ROUTING_ID, b"admin")
    raw.connect(listener.uri)
    raw.send(b"hello")
    while listener.statistics().messages_refused == 0:
        assert listener.receive(0.01) is None
    good = stack.enter_context(connect(listener.uri))
    good.send([b"good"])
    message = listener.receive(PATIENCE_S)
    assert message is not None
    assert message[1] == [b"good"]


def test_a_message_of_too_many_frames_is_dropped(
    listener: Listener, raw: zmq.Socket[bytes]
) -> None:
    raw.connect(listener.uri)
    raw.send_multipart([b"x"] * (MAX_FRAMES + 1))
    raw.send_multipart([b"x"] * 10_000)
    raw.send_multipart([b"y"] * MAX_FRAMES)
    message = listener.receive(PATIENCE_S)
    assert message is not None
    assert message[1] == [b"y"] * MAX_FRAMES
    assert listener.statistics().messages_refused == 2


@pytest.mark.parametrize("count", [MAX_FRAMES + 1, 10_000])
def test_a_link_ends_over_too_many_frames(stack: ExitStack, count: int) -> None:
    context = stack.enter_context(zmq.Context())
    router = stack.enter_context(context.socket(zmq.ROUTER))
    port = router.bind_to_random_port("tcp://127.0.0.1")
    link = stack.enter_context(connect(f"tcp://127.0.0.1:{port}"))
    link.send([b"hello"])
    name, _ = router.recv_multipart()
    router.send_multipart([name, *[b"x"] * count])
    for _ in range(2):
        with pytest.raises(PeerError, match=f"more than {MAX_FRAMES} frames"):
            link.receive(PATIENCE_S)


def test_a_frame_beyond_the_limit_ends_the_connection_unread(stack: ExitStack) -> None:
    """It is refused on its announced length, and others are not disturbed."""
    listener = stack.enter_context(listen("tcp://127.0.0.1:0", max_message_nbytes=1000))
    good = stack.enter_context(connect(listener.uri))
    bad = stack.enter_context(connect(listener.uri))
    bad.send([b"hello"])
    assert listener.receive(PATIENCE_S) is not None
    bad.send([bytes(5000)])
    with pytest.raises(BrokenError, match="lost the connection"):
        bad.receive(PATIENCE_S)
    good.send([b"good"])
    message = listener.receive(PATIENCE_S)
    assert message is not None
    assert message[1] == [b"good"]


def test_a_server_that_speaks_nonsense_is_nobody(stack: ExitStack) -> None:
    """Each attempt is tried again until the time is over."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    attempts = []

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                attempts.append(connection)
                connection.sendall(b"220 mail.example ESMTP\r\n" * 10)

    answering = threading.Thread(target=answer)
    answering.start()
    uri = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    link = stack.enter_context(connect(uri, connect_timeout_s=0.4))
    with pytest.raises(BrokenError, match="nothing answers at"):
        link.receive(PATIENCE_S)
    server.shutdown(socket.SHUT_RDWR)
    answering.join()
    assert len(attempts) >= 2


def test_a_server_that_says_nothing_is_nobody(stack: ExitStack) -> None:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    uri = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    link = stack.enter_context(connect(uri, connect_timeout_s=0.2, linger_s=0.2))
    link.send([b"hello"])
    with pytest.raises(BrokenError, match="nothing answers at"):
        link.receive(None)


def test_closing_waits_for_nobody_longer_than_linger(stack: ExitStack) -> None:
    """The peer accepts and never reads; what is queued can not leave."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    uri = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    link = stack.enter_context(connect(uri, linger_s=0.2))
    link.send([bytes(8 << 20)])
    begin = time.monotonic()
    link.close()
    assert 0.15 < time.monotonic() - begin < 2
    assert link.unsent() == 0


def test_an_unresolvable_host_is_nobody(stack: ExitStack) -> None:
    link = stack.enter_context(
        connect("tcp://no-such-host.invalid:7000", connect_timeout_s=0.2)
    )
    with pytest.raises(BrokenError, match=r"nothing answers at tcp://no-such-host"):
        link.receive(PATIENCE_S)


def test_a_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    precious = tmp_path / "results.txt"
    precious.write_text("weeks of work")
    with pytest.raises(UsageError, match="no socket"):
        listen(f"ipc://{precious}")
    assert precious.read_text() == "weeks of work"


def test_a_socket_file_is_removed_when_its_listener_closes(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listen(f"ipc://{path}"):
        assert path.is_socket()
    assert not path.exists()


def test_an_abstract_name_leaves_no_file(tmp_path: Path, stack: ExitStack) -> None:
    uri = f"ipc://@xpool-test-{os.getpid()}"
    listener = stack.enter_context(listen(uri))
    link = stack.enter_context(connect(uri))
    link.send([b"hello"])
    assert listener.receive(PATIENCE_S) is not None
    with pytest.raises(UsageError, match="already in use"):
        listen(uri)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("tcp://192.0.2.1:7000", "no network interface"),
        ("tcp://no-such-interface:7000", "no network interface"),
        ("ipc:///no/such/folder/socket", "no such folder"),
    ],
)
def test_a_listener_says_why_an_address_can_not_be_used(uri: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        listen(uri)


def test_ipv6_addresses_work(stack: ExitStack) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    listener = stack.enter_context(listen("tcp://[::1]:0"))
    link = stack.enter_context(connect(listener.uri))
    link.send([b"hello"])
    assert listener.receive(PATIENCE_S) is not None


@pytest.mark.parametrize(
    "options",
    [
        {"linger_s": -1.0},
        {"linger_s": float("nan")},
        {"heartbeat_interval_s": 0.0},
        {"heartbeat_timeout_s": float("inf")},
        {"max_message_nbytes": 0},
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    for make in (connect, listen):
        with pytest.raises(UsageError):
            make("tcp://127.0.0.1:7000", **options)
