"""Reading from a blocking stream."""

from __future__ import annotations

import socket


def fill_from(stream: socket.socket, view: memoryview) -> None:
    """Receive exactly as much as the view holds.

    Raises:
        EOFError: the stream ended before.
        OSError: it broke, or was silent for its timeout.
    """
    at = 0
    while at < len(view):
        count = stream.recv_into(view[at:])
        if not count:
            raise EOFError("the bulk lane was closed")
        at += count
