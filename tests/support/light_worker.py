"""A session worker that welcomes its client and executes nothing. No torch.

Speaks ``xpool_server.control`` to its node and the wire to its client, as the real
worker does, so that tests of the node and of ``xpool run`` start quickly.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys

from xpool_protocol import transport
from xpool_protocol.connection import ServerConnection
from xpool_protocol.errors import PoolError, TokenInvalid
from xpool_protocol.messages import Bye, Hello, Ping, Welcome
from xpool_server.control import (
    MAX_LINE_NBYTES,
    EndSession,
    FromWorker,
    OpenSession,
    ResizeSession,
    SessionClosed,
    SessionOpened,
    SessionResized,
    SessionStatistics,
    WorkerReady,
    line_from,
    to_worker,
)
from xpool_server.leash import die_with_parent

IN_USE_NBYTES = 4096


class LightWorker:
    def __init__(self, control: socket.socket, *, is_stubborn: bool) -> None:
        self.control = control
        self.is_stubborn = is_stubborn
        self.listener = transport.listen("tcp://127.0.0.1:0")
        self.listener.watch(control.fileno())
        self.session: OpenSession | None = None
        self.connection = ServerConnection()
        self.peer: transport.PeerId | None = None
        self.unread = b""

    def say(self, message: FromWorker) -> None:
        self.control.sendall(line_from(message))

    def serve(self) -> None:
        self.say(WorkerReady(self.listener.uri, os.getpid(), "light"))
        while True:
            message = self.listener.receive(None)
            # The node's word first: it told us of the session before its client.
            while select.select([self.control], [], [], 0)[0]:
                self.hear_node()
            if message is not None:
                self.hear_client(*message)

    def hear_node(self) -> None:
        data = self.control.recv(MAX_LINE_NBYTES)
        if not data:
            sys.exit(0)
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            match to_worker(line):
                case OpenSession() as session:
                    self.session = session
                case ResizeSession(_, memory_nbytes):
                    # More than this is in use here.
                    is_refused = memory_nbytes < IN_USE_NBYTES
                    text = "too much is in use" if is_refused else ""
                    self.say(SessionResized(memory_nbytes, text))
                case EndSession(code, text) if not self.is_stubborn:
                    self.leave(PoolError.from_wire(code, text), "ended")

    def hear_client(self, peer: transport.PeerId, frames: list[memoryview]) -> None:
        assert self.session is not None
        match self.connection.receive(frames):
            case Hello() as hello:
                if hello.session_key != self.session.session_key:
                    self.leave(TokenInvalid("that is not the key"), "wrong key")
                self.peer = peer
                welcome = Welcome(
                    version=self.connection.version,
                    lease_id=self.session.lease_id,
                    epoch=self.session.epoch,
                    server=self.session.server,
                    framework="light",
                    device_kind="cpu",
                    device_name="light device",
                    share_percent=self.session.share_percent,
                    memory_nbytes=self.session.memory_nbytes,
                    window_nbytes=self.connection.window_nbytes,
                )
                self.listener.send(peer, self.connection.welcome(welcome))
                self.say(SessionOpened(self.session.lease_id))
                self.say(SessionStatistics({"executed_ops": 7, "busy_ns": 1000}))
            case Ping() as ping:
                self.listener.send(peer, self.connection.pong(ping))
            case Bye(reason):
                self.leave(None, reason)

    def leave(self, error: PoolError | None, reason: str) -> None:
        if error is not None and self.peer is not None:
            self.listener.send(self.peer, self.connection.goodbye(error))
        self.say(SessionClosed(reason, {"executed_ops": 7}))
        self.listener.close()
        sys.exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--device")
    parser.add_argument("--stubborn", action="store_true", help="never ends itself")
    parser.add_argument("--broken", action="store_true", help="fails at once")
    args = parser.parse_args()
    die_with_parent(args.parent)
    if args.broken:
        sys.exit(3)
    with socket.socket(fileno=args.control_fd) as control:
        LightWorker(control, is_stubborn=args.stubborn).serve()


if __name__ == "__main__":
    main()
