"""The delayed path: every byte, in order, not before its time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from xpool_perf.delay import MAX_QUEUED_NBYTES, DelayedPath, listeners_on

ONE_WAY_S = 0.03
NEAR, FAR = "127.0.0.1", "127.0.0.2"


@contextmanager
def path_to(server: socket.socket) -> Iterator[tuple[str, int]]:
    """A delayed path to a listening socket; where it listens."""
    port = server.getsockname()[1]
    path = DelayedPath(listeners_on(FAR, [port]), NEAR, round(ONE_WAY_S * 1e9))
    thread = threading.Thread(target=path.run)
    thread.start()
    try:
        yield FAR, port
    finally:
        path.stop()
        thread.join(10)
        assert not thread.is_alive()
        path.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server((NEAR, 0)) as one:
        one.settimeout(10)
        yield one


def received(source: socket.socket, nbytes: int) -> bytes:
    data = bytearray()
    while len(data) < nbytes:
        part = source.recv(nbytes - len(data))
        assert part, "the stream ended early"
        data += part
    return bytes(data)


def test_a_round_trip_takes_both_delays(server: socket.socket) -> None:
    with path_to(server) as address, socket.create_connection(address, 10) as client:
        accepted, _ = server.accept()
        with accepted:
            began = time.monotonic()
            client.sendall(b"ping")
            accepted.sendall(received(accepted, 4))
            assert received(client, 4) == b"ping"
            assert time.monotonic() - began >= 2 * ONE_WAY_S


def test_much_arrives_whole_and_in_order_while_the_reader_is_slow(
    server: socket.socket,
) -> None:
    data = bytes(range(256)) * (MAX_QUEUED_NBYTES // 256 + 4096)
    with path_to(server) as address, socket.create_connection(address, 10) as client:
        accepted, _ = server.accept()
        with accepted:
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            assert received(accepted, len(data)) == data
            sender.join(10)
            assert not sender.is_alive()


def test_an_end_of_one_direction_is_handed_on_and_the_other_goes_on(
    server: socket.socket,
) -> None:
    with path_to(server) as address, socket.create_connection(address, 10) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"last words")
            client.shutdown(socket.SHUT_WR)
            assert received(accepted, 10) == b"last words"
            assert accepted.recv(1) == b""
            accepted.sendall(b"answer")
            assert received(client, 6) == b"answer"


def test_a_target_that_is_away_ends_the_connection(server: socket.socket) -> None:
    with path_to(server) as address:
        server.close()
        with socket.create_connection(address, 10) as client:
            assert client.recv(1) == b""


def test_a_broken_connection_leaves_the_others_alone(server: socket.socket) -> None:
    with (
        path_to(server) as address,
        socket.create_connection(address, 10) as doomed,
        socket.create_connection(address, 10) as lives,
    ):
        first, _ = server.accept()
        second, _ = server.accept()
        with first, second:
            # Which is which: the doomed one says so before it is reset.
            doomed.sendall(b"d")
            lives.sendall(b"l")
            by_word = {received(one, 1): one for one in (first, second)}
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            doomed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            doomed.close()
            # A reset reaches the other side as a reset or as an end.
            with suppress(ConnectionResetError):
                while by_word[b"d"].recv(1):
                    pass
            by_word[b"l"].sendall(b"still here")
            assert received(lives, 10) == b"still here"
