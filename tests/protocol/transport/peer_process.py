"""The other process of ``test_processes.py``: ``python peer_process.py ROLE URI``.

Every role prints one line when it is ready, and ends when its input does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from xpool_protocol.errors import ClosedError
from xpool_protocol.transport import Link, connect, listen


def say(text: str) -> None:
    print(text, flush=True)


def echo(uri: str) -> None:
    """Listen and send everything back."""
    with listen(uri) as listener:
        listener.watch(sys.stdin.fileno())
        say(listener.uri)
        while True:
            message = listener.receive(None)
            if message is None:
                break
            listener.send(*message)


def call(uri: str) -> None:
    """Connect, say hello, and stay."""
    with connect(uri) as link:
        link.send([b"hello"])
        assert link.receive(10) is not None
        say("ready")
        sys.stdin.read()


def send_and_exit(uri: str) -> None:
    """Send much and end without another look; closing has to flush it."""
    link = connect(uri, linger_s=10)
    for number in range(50):
        link.send([b"%d" % number, bytes(200_000)])
    link.close()
    say("closed")
    os._exit(0)


def fork(uri: str) -> None:
    """Use what was inherited in a forked child, then open one's own there."""
    link = connect(uri)
    link.send([b"parent", bytes(100_000)])
    assert link.receive(10) is not None
    child = os.fork()
    if child == 0:
        _check_inherited(link)
        with connect(uri) as own:
            own.send([b"child", bytes(100_000)])
            answer = own.receive(10)
            assert answer is not None
            assert bytes(answer[0]) == b"child"
        say("child done")
        sys.exit(7)  # the long way out, with all that runs at exit
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    link.send([b"parent again", bytes(100_000)])
    answer = link.receive(10)
    assert answer is not None
    assert bytes(answer[0]) == b"parent again"
    link.close()
    say("parent done")


def _check_inherited(link: Link) -> None:
    calls: list[Callable[[], object]] = [
        lambda: link.send([b"from the child"]),
        lambda: link.receive(0),
        link.wake,
    ]
    for attempt in calls:
        try:
            attempt()
        except ClosedError as error:
            complaint = str(error)
        else:
            complaint = "none"
        assert "does not survive a fork" in complaint, complaint
    link.close()
    link.close()


if __name__ == "__main__":
    roles = {"echo": echo, "call": call, "send_and_exit": send_and_exit, "fork": fork}
    roles[sys.argv[1]](sys.argv[2])
