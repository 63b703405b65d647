"""A longer network on one machine: TCP forwarded after a fixed one-way delay.

    python -m xpool_perf.delay --listen 127.0.0.2 --target 127.0.0.1 --ports 7800-7807
                               --one-way-ms 15

Listens on every port of the range and forwards each connection to the same port of the
target. Both directions carry every byte, in order, not before its delay is over. Prints
``ready`` once all ports listen; ends on SIGTERM.

What it is not: TCP ends here, so there is neither loss nor a congestion window, and a
long fat path is slower than this one says. Its own work adds to the round trip (some
0.1 ms on a quiet core), so a scenario states the round trip measured through it and
never the setting.
"""

from __future__ import annotations

import argparse
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, TypeAlias

READ_NBYTES: Final = 256 << 10
MAX_QUEUED_NBYTES: Final = 64 << 20
"""Of one direction; what is not read yet waits at its sender, as on a real path."""

CONNECT_TIMEOUT_S: Final = 5.0
NS_PER_S: Final = 1_000_000_000

Clock: TypeAlias = Callable[[], int]


@dataclass(slots=True, eq=False)
class Way:
    """One direction of one connection: what was read waits until it is due."""

    source: socket.socket
    sink: socket.socket
    queue: deque[tuple[int, memoryview]] = field(default_factory=deque)
    """When it is due, and what; an empty view is the end of the stream."""

    queued_nbytes: int = 0
    is_reading: bool = True
    is_blocked: bool = False
    """The sink takes nothing at the moment."""

    is_over: bool = False

    def take_in(self, due_ns: int) -> None:
        """Read what the source has."""
        data = self.source.recv(READ_NBYTES)
        self.queue.append((due_ns, memoryview(data)))
        self.queued_nbytes += len(data)
        self.is_reading = bool(data)

    def wants_to_read(self) -> bool:
        """Whether there is room for more."""
        return self.is_reading and self.queued_nbytes < MAX_QUEUED_NBYTES

    def hand_on(self, now_ns: int) -> None:
        """Send what is due, as far as the sink takes it."""
        self.is_blocked = False
        while self.queue and self.queue[0][0] <= now_ns:
            due_ns, data = self.queue[0]
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
                self.queue.popleft()
                self.is_over = True
                return
            try:
                count = self.sink.send(data)
            except BlockingIOError:
                self.is_blocked = True
                return
            self.queued_nbytes -= count
            if count == len(data):
                self.queue.popleft()
            else:
                self.queue[0] = (due_ns, data[count:])


class DelayedPath:
    """Forwards from listeners to targets; one thread, one ``select``."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        target: str,
        delay_ns: int,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._listeners = list(listeners)
        self._target = target
        self._delay_ns = delay_ns
        self._clock = clock
        self._ways: list[Way] = []
        self._waker, self._wake_end = socket.socketpair()
        self._is_stopping = False

    def stop(self) -> None:
        """Let ``run`` return; safe in a signal handler."""
        self._is_stopping = True
        self._waker.send(b"x")

    def run(self) -> None:
        """Forward until stopped."""
        while not self._is_stopping:
            reading = {way.source: way for way in self._ways if way.wants_to_read()}
            blocked = [way.sink for way in self._ways if way.is_blocked]
            # select, not epoll: its timeout is in microseconds.
            readable, _, _ = select.select(
                [*self._listeners, self._wake_end, *reading],
                blocked,
                [],
                self._patience_s(),
            )
            due_ns = self._clock() + self._delay_ns
            for one in readable:
                if one in reading:
                    self._guarded(reading[one], Way.take_in, due_ns)
                elif one is not self._wake_end:
                    self._accept(one)
            now_ns = self._clock()
            for way in list(self._ways):
                if way.queue and way.queue[0][0] <= now_ns:
                    self._guarded(way, Way.hand_on, now_ns)

    def close(self) -> None:
        """Close every socket."""
        for way in self._ways:
            way.source.close()
            way.sink.close()
        for one in (*self._listeners, self._waker, self._wake_end):
            one.close()

    def _patience_s(self) -> float | None:
        due = [
            way.queue[0][0] for way in self._ways if way.queue and not way.is_blocked
        ]
        if not due:
            return None
        return max(0, min(due) - self._clock()) / NS_PER_S

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        port = listener.getsockname()[1]
        try:
            server = socket.create_connection((self._target, port), CONNECT_TIMEOUT_S)
        except OSError:
            client.close()  # as if nobody listened: the client sees it as a reset
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
        self._ways += [Way(client, server), Way(server, client)]

    def _guarded(self, way: Way, act: Callable[[Way, int], None], ns: int) -> None:
        """A connection that breaks breaks on both sides; an ended one is forgotten."""
        if way not in self._ways:
            return  # its twin has broken in this very round
        try:
            act(way, ns)
        except OSError:
            self._forget(way, is_broken=True)
        else:
            if way.is_over:
                self._forget(way, is_broken=False)

    def _forget(self, way: Way, *, is_broken: bool) -> None:
        twin = next((other for other in self._ways if other.source is way.sink), None)
        self._ways.remove(way)
        if is_broken and twin is not None:
            self._ways.remove(twin)
            twin = None
        if twin is None:
            way.source.close()
            way.sink.close()


def listeners_on(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """One listening socket for each port.

    Raises:
        OSError: one of them is taken.
    """
    found: list[socket.socket] = []
    try:
        found += (socket.create_server((host, port), backlog=128) for port in ports)
    except OSError:
        for one in found:
            one.close()
        raise
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Forward until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m xpool_perf.delay", description="Forward TCP after a delay."
    )
    parser.add_argument("--listen", required=True, metavar="HOST")
    parser.add_argument("--target", required=True, metavar="HOST")
    parser.add_argument("--ports", required=True, metavar="FIRST-LAST")
    parser.add_argument("--one-way-ms", required=True, type=float, metavar="MS")
    args = parser.parse_args(argv)
    first, _, last = args.ports.partition("-")
    ports = range(int(first), int(last or first) + 1)
    delay_ns = round(args.one_way_ms * 1e6)
    path = DelayedPath(listeners_on(args.listen, ports), args.target, delay_ns)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        path.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    print("ready", flush=True)
    path.run()
    path.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
