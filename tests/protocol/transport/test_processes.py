"""Links and listeners between real processes that are killed, stopped and forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from xpool_protocol.errors import BrokenError, ClosedError
from xpool_protocol.transport import Link, Listener, PeerId, connect, listen

PATIENCE_S = 20.0  # a Python interpreter starts slowly on a busy machine
PEER = Path(__file__).with_name("peer_process.py")

Start = Callable[[str, str], "subprocess.Popen[str]"]


@pytest.fixture(params=["tcp", "ipc"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"tcp": "tcp://127.0.0.1:0", "ipc": f"ipc://{tmp_path}/socket"}[
        request.param
    ]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start() -> Iterator[Start]:
    """Start ``peer_process.py`` in a role; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(role: str, uri: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(PEER), role, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with process:  # closes its pipes and waits for it
            pass


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    text = process.stdout.readline().strip()
    assert text, f"the peer ended with {process.wait()}"
    return text


def broken_after_s(link: Link) -> float:
    begin = time.monotonic()
    with pytest.raises(BrokenError, match="lost the connection to"):
        link.receive(PATIENCE_S)
    return time.monotonic() - begin


def next_frame(link: Link) -> bytes:
    frames = link.receive(PATIENCE_S)
    assert frames is not None
    return bytes(frames[0])


def next_call(listener: Listener) -> tuple[PeerId, bytes]:
    message = listener.receive(PATIENCE_S)
    assert message is not None
    return message[0], bytes(message[1][0])


def test_a_killed_server_breaks_its_links(
    address: str, start: Start, stack: ExitStack
) -> None:
    server = start("echo", address)
    link = stack.enter_context(connect(line(server)))
    link.send([b"hello"])
    assert next_frame(link) == b"hello"
    server.send_signal(signal.SIGKILL)
    assert broken_after_s(link) < 2


def test_a_server_that_ends_breaks_its_links(
    address: str, start: Start, stack: ExitStack
) -> None:
    server = start("echo", address)
    link = stack.enter_context(connect(line(server)))
    link.send([b"hello"])
    assert next_frame(link) == b"hello"
    assert server.stdin is not None
    server.stdin.close()
    broken_after_s(link)
    assert server.wait(PATIENCE_S) == 0


def test_a_stopped_server_is_missed(
    address: str, start: Start, stack: ExitStack
) -> None:
    """The process lives and its socket is open, but it gives no sign of life."""
    server = start("echo", address)
    link = stack.enter_context(
        connect(line(server), heartbeat_interval_s=0.1, heartbeat_timeout_s=0.3)
    )
    link.send([b"hello"])
    assert next_frame(link) == b"hello"
    # Silence alone is not death: many heartbeats pass without a message.
    assert link.receive(1.0) is None
    server.send_signal(signal.SIGSTOP)
    try:
        assert 0.25 < broken_after_s(link) < 5
    finally:
        server.send_signal(signal.SIGCONT)


def test_a_listener_misses_a_stopped_client(
    address: str, start: Start, stack: ExitStack
) -> None:
    listener = stack.enter_context(
        listen(address, heartbeat_interval_s=0.1, heartbeat_timeout_s=0.3)
    )
    client = start("call", listener.uri)
    peer, _ = next_call(listener)
    listener.send(peer, [b"welcome"])
    assert line(client) == "ready"
    client.send_signal(signal.SIGSTOP)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not listener.statistics().messages_undeliverable:
            listener.send(peer, [b"are you there?"])
            assert listener.receive(0.01) is None
            assert time.monotonic() < deadline
    finally:
        client.send_signal(signal.SIGCONT)


def test_a_listener_survives_a_killed_client(
    address: str, start: Start, stack: ExitStack
) -> None:
    listener = stack.enter_context(listen(address))
    client = start("call", listener.uri)
    peer, _ = next_call(listener)
    listener.send(peer, [b"welcome"])
    assert line(client) == "ready"
    client.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 2
    while not listener.statistics().messages_undeliverable:
        listener.send(peer, [b"are you there?"])
        assert listener.receive(0.01) is None
        assert time.monotonic() < deadline
    second = start("call", listener.uri)
    peer, first_frame = next_call(listener)
    assert first_frame == b"hello"
    listener.send(peer, [b"welcome"])
    assert line(second) == "ready"


def test_a_dead_servers_address_can_be_used_again(
    address: str, start: Start, stack: ExitStack
) -> None:
    server = start("echo", address)
    uri = line(server)
    server.kill()
    server.wait(PATIENCE_S)
    listener = stack.enter_context(listen(uri))  # ipc: its socket file is still there
    link = stack.enter_context(connect(uri))
    link.send([b"hello"])
    assert next_call(listener)[1] == b"hello"


def test_a_process_that_ends_has_sent_what_it_closed_over(
    address: str, start: Start, stack: ExitStack
) -> None:
    listener = stack.enter_context(listen(address))
    process = start("send_and_exit", listener.uri)
    assert [next_call(listener)[1] for _ in range(50)] == [
        b"%d" % number for number in range(50)
    ]
    assert line(process) == "closed"
    assert process.wait(PATIENCE_S) == 0


def test_a_forked_child_opens_its_own(address: str, start: Start) -> None:
    server = start("echo", address)
    process = start("fork", line(server))
    assert line(process) == "child done"
    assert line(process) == "parent done"
    assert process.wait(PATIENCE_S) == 0


def test_inproc_ends_do_not_survive_a_fork_either(stack: ExitStack) -> None:
    listener = stack.enter_context(listen("inproc://forked"))
    link = stack.enter_context(connect("inproc://forked"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            link.receive(0)
        except ClosedError:
            # The parent's listener does not listen here.
            with listen("inproc://forked") as own, connect("inproc://forked") as other:
                other.send([b"mine"])
                status = 0 if own.receive(PATIENCE_S) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert listener.receive(0) is None
