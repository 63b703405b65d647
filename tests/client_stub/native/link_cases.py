"""``link_cases.py CASE…``: cases against a scripted server; prints what they saw.

Runs with either link (``XPOOL_LINK``): what it prints must not depend on it. A process
has one session in its life: only the last case may end it.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import zmq
from xpool.lease_pipe import Lease
from xpool.link import Mark
from xpool.native import build
from xpool.native.library import NativeLibrary
from xpool.native.pump import NativeLink
from xpool.pace import BURST, PACE_NBYTES, PACE_NS
from xpool.session import RemoteFault, Session, open_session
from xpool_protocol import limits
from xpool_protocol.codec import HEADER, MAGIC, Frames, decode, encode
from xpool_protocol.connection import ServerConnection, redirect
from xpool_protocol.errors import LeaseExpired, PoolError
from xpool_protocol.messages import (
    Ack,
    Batch,
    Bye,
    Fault,
    Goodbye,
    Hello,
    Pong,
    Reply,
    Welcome,
)
from xpool_protocol.records import Fence, read_records

DEADLINE_MS = 20_000
NONE = b"\x00"
STREAM = 4000
"""Records that are issued without a wait."""
LATE = Fault(500, "too late", "RuntimeError", 3, "aten::add")


class Server:
    """A node and a worker at one address; the session is the case's to play."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.set(zmq.LINGER, 1000)
        self.socket.set(zmq.RCVTIMEO, DEADLINE_MS)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self.connection = ServerConnection()
        self.peer = b""
        self.opened = threading.Thread(target=self._open)
        self.opened.start()

    def _open(self) -> None:
        while not self.peer:
            peer, *frames = self.socket.recv_multipart()
            hello = decode(frames)
            assert isinstance(hello, Hello)
            if not hello.session_key:
                self._send_to(peer, redirect(self.address, "key"))
                continue
            self.peer = peer
            self.connection.receive(frames)
            welcome = Welcome(
                *(1, "lease", 1, "one", "none", "cpu", "none", 100),
                memory_nbytes=1 << 30,
                window_nbytes=limits.WINDOW_NBYTES,
            )
            self.send(self.connection.welcome(welcome))

    def _send_to(self, peer: bytes, frames: Frames | Sequence[bytes]) -> None:
        self.socket.send_multipart([peer, *frames])

    def send(self, frames: Frames | Sequence[bytes]) -> None:
        self._send_to(self.peer, frames)

    def receive(self) -> Any:
        _, *frames = self.socket.recv_multipart()
        return self.connection.receive(frames)

    def batch(self) -> list[int]:
        """The requests of the next batch, which is acknowledged."""
        message = self.receive()
        assert isinstance(message, Batch), message
        self.send(self.connection.ack(message.sequence))
        return [
            record.request
            for record in read_records(message.records)
            if isinstance(record, Fence)
        ]

    def requests(self, count: int) -> list[int]:
        """So many requests, however they are batched."""
        found: list[int] = []
        while len(found) < count:
            found += self.batch()
        return found

    def each_request(self, count: int) -> Iterator[int]:
        """So many requests, as they come."""
        while count:
            batch = self.batch()
            count -= len(batch)
            yield from batch

    def reply(self, request: int, value: bytes = NONE) -> None:
        self.send(self.connection.reply(request, value))

    def close(self) -> None:
        self.socket.close()
        self.context.term()


class Client:
    """A session with the library's log behind it."""

    def __init__(self, address: str) -> None:
        path = build.built_library()
        assert path is not None
        library = NativeLibrary(path, build.torch_folder())
        self.device = library.device(0)
        lease = Lease(
            lease_id="lease",
            epoch=1,
            token="token",
            address=address,
            node_name="one",
            device_kind="cpu",
            device_name="none",
            device_index=0,
            share_percent=100,
            memory_nbytes=1 << 30,
        )
        self.session: Session = open_session(lease, self.device, "none")
        self.device.attach(self.session)
        library.connect([self.device])
        self.link = self.session.link

    def fence(self) -> int:
        return self.device.request("fence")

    def outcome(self, request: int) -> str:
        """What waiting for a request comes to, in one line."""
        try:
            return f"value {self.session.wait(request).value.hex()}"
        except RemoteFault as fault:
            return f"fault {fault}"
        except PoolError as error:
            return f"{type(error).__name__} {error}"

    def until_over(self) -> str:
        """Why the session ended, once it has."""
        over = threading.Event()
        self.link.on_over(lambda _: over.set())
        assert over.wait(DEADLINE_MS / 1000)
        return f"{type(self.link.over).__name__} {self.link.over}"


def mark_line(mark: Mark) -> str:
    assert mark.reached.wait(DEADLINE_MS / 1000)
    is_stamped = 0 < mark.at_ns <= time.monotonic_ns()
    return f"stamped {is_stamped}, error {mark.error}"


def in_threads(count: int, work: Callable[[int], str]) -> list[str]:
    found = [""] * count

    def run(index: int) -> None:
        found[index] = work(index)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_MS / 1000)
    return found


# ---- the cases: what they return must be the same with both links


def case_answers_in_another_order(server: Server, client: Client) -> Any:
    asked = [client.fence() for _ in range(3)]
    for request in reversed(server.requests(3)):
        server.reply(request, bytes([3]) + bytes([2 * request]))
    return [client.outcome(request) for request in asked]


def case_a_failure_before_anybody_waits(server: Server, client: Client) -> Any:
    failed, next_one = client.fence(), client.fence()
    server.requests(2)
    server.send(server.connection.failure(failed, LATE))
    server.reply(next_one)
    client.outcome(next_one)
    return client.outcome(failed)


def case_an_answer_before_anybody_waits(server: Server, client: Client) -> Any:
    first, second = client.fence(), client.fence()
    for request in server.requests(2):
        server.reply(request)
    return [client.outcome(second), client.outcome(first)]


def case_threads_wait_at_once(server: Server, client: Client) -> Any:
    asked = [client.fence() for _ in range(16)]

    def serve() -> None:
        for request in sorted(server.requests(16), key=lambda one: one * 7 % 16):
            server.reply(request, bytes([3]) + bytes([2 * request]))

    serving = threading.Thread(target=serve)
    serving.start()
    found = in_threads(16, lambda index: client.outcome(asked[index]))
    serving.join()
    return [
        one == f"value 03{bytes([2 * request]).hex()}"
        for request, one in zip(asked, found, strict=True)
    ]


def case_a_failure_is_the_answer(server: Server, client: Client) -> Any:
    asked = client.fence()
    (request,) = server.requests(1)
    server.send(server.connection.failure(request, LATE))
    return [client.outcome(asked), sorted(client.link.faults)]


def case_a_late_failure_is_known_by_the_next_answer(
    server: Server, client: Client
) -> Any:
    missed = 0
    for operation in range(300):
        asked = client.fence()
        (request,) = server.requests(1)
        late = msgspec.structs.replace(LATE, operation=operation)
        server.send(server.connection.failure(0, late))
        server.reply(request)
        client.outcome(asked)
        missed += client.link.faults.pop(operation, None) is None
    return f"{missed} missed"


def case_marks(server: Server, client: Client) -> Any:
    early, late, failed = client.fence(), client.fence(), client.fence()
    mark = client.session.mark(early)
    for request in server.requests(3)[:2]:
        server.reply(request)
    lines = [mark_line(mark), client.outcome(late)]
    failing = client.session.mark(failed)
    server.send(server.connection.failure(failed, LATE))
    lines.append(mark_line(failing))
    return [*lines, sorted(client.link.faults)]


def case_a_mark_for_what_has_been_answered(server: Server, client: Client) -> Any:
    first, second = client.fence(), client.fence()
    for request in server.requests(2):
        server.reply(request)
    return [client.outcome(second), mark_line(client.session.mark(first))]


def case_pong_and_ack_need_nobody(server: Server, client: Client) -> Any:
    server.send(encode(Pong(5)))
    asked = client.fence()
    (request,) = server.requests(1)
    server.reply(request)
    return client.outcome(asked)


def case_a_stream_is_gathered(server: Server, client: Client) -> Any:
    began_ns, found, batches, nbytes = time.monotonic_ns(), 0, 0, 0
    for _ in range(STREAM):
        client.fence()
    while found < STREAM:
        message = server.receive()
        server.send(server.connection.ack(message.sequence))
        found += len(list(read_records(message.records)))
        batches, nbytes = batches + 1, nbytes + len(message.records)
    paces = (time.monotonic_ns() - began_ns) // PACE_NS
    return batches <= BURST + paces + 1 + nbytes // PACE_NBYTES


def case_what_is_awaited_does_not_wait_for_more(server: Server, client: Client) -> Any:
    def serve() -> None:
        for request in server.each_request(100):
            server.reply(request)

    serving = threading.Thread(target=serve)
    serving.start()
    found = {client.outcome(client.fence()) for _ in range(100)}
    serving.join()
    return sorted(found)


def case_a_late_failure_is_noticed_by_itself(server: Server, client: Client) -> Any:
    for operation in range(20):
        asked = client.fence()
        (request,) = server.requests(1)
        server.reply(request)
        client.outcome(asked)
        late = msgspec.structs.replace(LATE, operation=operation)
        server.send(server.connection.failure(0, late))
        deadline = time.monotonic() + DEADLINE_MS / 1000
        while operation not in client.link.faults:
            assert time.monotonic() < deadline
            time.sleep(0.0002)
        client.link.faults.pop(operation)
    return "all noticed"


def case_threads_ask_one_after_another(server: Server, client: Client) -> Any:
    count, each = 6, 50

    def serve() -> None:
        for request in server.each_request(count * each):
            server.send(server.connection.failure(0, LATE))
            server.reply(request, bytes([3]) + bytes([2 * (request % 50)]))

    def ask(index: int) -> str:
        asked = [client.fence() for _ in range(each)]
        found = [client.outcome(request) for request in asked]
        return str(
            found == [f"value 03{bytes([2 * (one % 50)]).hex()}" for one in asked]
        )

    serving = threading.Thread(target=serve)
    serving.start()
    found = in_threads(count, ask)
    serving.join()
    client.link.faults.clear()
    return found


def case_marks_beside_reads(server: Server, client: Client) -> Any:
    def serve() -> None:
        for request in server.each_request(100):
            server.reply(request)

    serving = threading.Thread(target=serve)
    serving.start()
    lines = set()
    for _ in range(50):
        client.outcome(client.fence())
        lines.add(mark_line(client.session.mark(client.fence())))
    serving.join()
    return sorted(lines)


def case_goodbye(server: Server, client: Client) -> Any:
    asked = client.fence()
    server.requests(1)
    server.send(encode(Goodbye(LeaseExpired.code, "the lease is over")))
    return [client.outcome(asked), client.until_over(), client.outcome(asked)]


def refusing(frames: Sequence[bytes]) -> Callable[[Server, Client], Any]:
    def case(server: Server, client: Client) -> Any:
        server.send(frames)
        return client.until_over()

    return case


case_garbage = refusing([b"garbage"])
case_a_message_of_another_direction = refusing([bytes(encode(Bye("no"))[0])])
case_a_second_welcome = refusing([HEADER.pack(MAGIC, 1, Welcome.kind, 0, 1, 0)])
case_an_ack_of_nothing_sent = refusing([bytes(encode(Ack(9, 1 << 26))[0])])
case_an_ack_that_shrinks_the_window = refusing([bytes(encode(Ack(0, 1 << 25))[0])])
case_a_malformed_failure = refusing([HEADER.pack(MAGIC, 1, 0x45, 0, 1, 1) + b"\xc1"])
case_an_unknown_version = refusing([HEADER.pack(MAGIC, 9, Reply.kind, 0, 1, 1)])
case_too_many_frames = refusing([b"frame"] * 300)
case_too_many_bytes = refusing([bytes(16 << 20)] * 7)


def case_the_path_breaks(server: Server, client: Client) -> Any:
    asked = client.fence()
    server.requests(1)
    server.close()
    over = client.until_over().replace(server.address, "ADDRESS")
    return [over, client.outcome(asked).replace(server.address, "ADDRESS")]


def case_what_came_before_the_break_counts(server: Server, client: Client) -> Any:
    asked = client.fence()
    (request,) = server.requests(1)
    server.reply(request)
    server.close()
    client.until_over()
    return client.outcome(asked)


def case_the_keeper_ends_it(server: Server, client: Client) -> Any:
    asked = client.fence()
    ending = threading.Timer(0.1, client.link.end_with, [LeaseExpired("by hand")])
    ending.start()
    found = in_threads(3, lambda index: client.outcome(asked + index))
    ending.join()
    last = server.receive()
    while isinstance(last, Batch):
        last = server.receive()
    return [*found, client.outcome(asked), repr(last)]


def case_leaving(server: Server, client: Client) -> Any:
    client.link.hold(True)
    client.fence()
    leaving = threading.Thread(target=client.session.leave, args=["enough"])
    client.link.hold(False)
    seen = [server.batch()]
    leaving.start()
    bye = server.receive()
    leaving.join()
    client.session.leave("again")
    return [seen, repr(bye), client.until_over(), client.outcome(99)]


def case_nothing_goes_while_held(server: Server, client: Client) -> Any:
    client.link.hold(True)
    asked = [client.fence() for _ in range(50)]
    client.link.hold(False)
    found = server.batch()
    return [found == asked, client.link.sent_nbytes > 0]


def case_a_signal_handler_runs_during_a_wait(server: Server, client: Client) -> Any:
    class Alarm(Exception):
        pass

    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) == 2:
            raise Alarm

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    asked = client.fence()
    try:
        client.session.wait(asked)
    except Alarm:
        signal.setitimer(signal.ITIMER_REAL, 0)
    (request,) = server.requests(1)
    server.reply(request)
    return [len(seen) >= 2, client.outcome(asked)]


CASES = {
    name.removeprefix("case_"): case
    for name, case in list(globals().items())
    if name.startswith("case_")
}


def main(names: list[str]) -> None:
    server = Server()
    client = Client(server.address)
    server.opened.join()
    seen = [CASES[name](server, client) for name in names]
    is_native = isinstance(client.link, NativeLink)
    client.session.leave("the case is over")
    print(json.dumps({"is_native": is_native, "seen": seen}))
    if not server.socket.closed:
        server.close()


if __name__ == "__main__":
    main(sys.argv[1:])
