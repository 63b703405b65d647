"""The bulk lane: uploads straight into storages, downloads out of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from support.executor_desk import Desk, bytes_from, make_executor
from xpool_protocol import lane as wire
from xpool_protocol.errors import BrokenError
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.records import (
    Allocate,
    Download,
    Fence,
    Free,
    OpenLane,
    Read,
    Record,
    Upload,
)
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader
from xpool_server.failures import Answers
from xpool_server.lane import SocketLane

QUOTA_NBYTES = 1 << 26


class Bench:
    """An executor with a lane, and the client's end of it."""

    def __init__(self) -> None:
        self.lane = SocketLane("127.0.0.1")
        self.executor = make_executor(Desk.default_kind, QUOTA_NBYTES, lane=self.lane)
        self.streams: list[socket.socket] = []
        [reply] = self.run(OpenLane(1))
        assert isinstance(reply, Reply)
        token, self.addresses = read_value(Reader(reply.value))
        self.token = bytes.fromhex(token)

    def run(self, record: Record) -> Answers:
        with self.executor.batch():
            answers = self.executor.run(bytes_from(record))
            return tuple(one for some in answers for one in some)

    def connect(self, address: str, greeting: bytes | None = None) -> socket.socket:
        kind, _, where = address.partition(":")
        if kind in ("memory", "unix"):
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(10)
            stream.connect("\0" + where.removeprefix("@"))
        else:
            stream = socket.create_connection(("127.0.0.1", int(where)), 10)
        self.streams.append(stream)
        stream.sendall(wire.greeting(self.token) if greeting is None else greeting)
        return stream

    def address(self, kind: str) -> str:
        [one] = [one for one in self.addresses if one.startswith(f"{kind}:")]
        return one

    def opened(self) -> socket.socket:
        stream = self.connect(self.address("unix"))
        assert stream.recv(1) == wire.ACCEPTED
        return stream

    @property
    def next_number(self) -> int:
        return self.executor.operation_count

    def bytes_of(self, storage: int, nbytes: int) -> bytes:
        [reply] = self.run(Read(99, storage, 0, nbytes))
        assert isinstance(reply, Reply), reply
        return b"".join(bytes(part) for part in reply.payloads)

    def close(self) -> None:
        self.lane.close()
        for stream in self.streams:
            stream.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    try:
        yield one
    finally:
        one.close()


def send(stream: socket.socket, number: int, data: bytes) -> None:
    stream.sendall(wire.header_bytes(wire.Header(number, len(data))) + data)


def receive(stream: socket.socket, nbytes: int) -> bytes:
    data = bytearray()
    while len(data) < nbytes:
        part = stream.recv(nbytes - len(data))
        assert part, "the lane ended early"
        data += part
    return bytes(data)


@contextmanager
def sending(stream: socket.socket, number: int, data: bytes) -> Iterator[None]:
    """A client's thread that sends while the log goes on."""
    thread = threading.Thread(target=send, args=(stream, number, data))
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_an_upload_lands_in_its_range(bench: Bench, way: str) -> None:
    stream = bench.connect(bench.address(way))
    assert stream.recv(1) == wire.ACCEPTED
    data = bytes(range(256)) * 40_000
    bench.run(Allocate(7, len(data) + 10))
    number = bench.next_number
    with sending(stream, number, data):
        assert bench.run(Upload(7, 5, len(data))) == ()
        assert bench.bytes_of(7, len(data) + 10)[5:-5] == data


def test_bytes_may_come_before_their_record(bench: Bench) -> None:
    stream = bench.opened()
    bench.run(Allocate(7, 4))
    send(stream, bench.next_number, b"abcd")
    bench.run(Upload(7, 0, 4))
    assert bench.bytes_of(7, 4) == b"abcd"


def test_what_does_not_need_the_bytes_does_not_wait_for_them(bench: Bench) -> None:
    stream = bench.opened()
    bench.run(Allocate(7, 8))
    bench.run(Allocate(8, 4))
    number = bench.next_number
    bench.run(Upload(7, 0, 8))
    stream.sendall(wire.header_bytes(wire.Header(number, 8)) + b"half")
    assert len(bench.bytes_of(8, 4)) == 4  # answered while storage 7 is under way
    stream.sendall(b"more")
    assert bench.bytes_of(7, 8) == b"halfmore"


@pytest.mark.parametrize(
    "record",
    [Fence(50), Free(7), Read(50, 7, 0, 4)],
    ids=lambda one: type(one).__name__,
)
def test_what_needs_the_bytes_waits(bench: Bench, record: Record) -> None:
    stream = bench.opened()
    bench.run(Allocate(7, 4))
    number = bench.next_number
    bench.run(Upload(7, 0, 4))
    is_done = threading.Event()

    def work() -> None:
        bench.run(record)
        is_done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not is_done.wait(0.05)  # it waits; how long does not matter
    send(stream, number, b"abcd")
    thread.join(10)
    assert is_done.is_set()


def test_a_download_comes_whole_and_is_answered(bench: Bench) -> None:
    stream = bench.opened()
    data = bytes(range(256)) * 20_000
    bench.run(Allocate(7, len(data)))
    number = bench.next_number
    with sending(stream, number, data):
        bench.run(Upload(7, 0, len(data)))
    answers: list[Answers] = []
    thread = threading.Thread(
        target=lambda: answers.append(bench.run(Download(60, 7, 256, 1 << 20)))
    )
    thread.start()
    assert wire.header_from(receive(stream, 16)) == (60, 1 << 20)
    assert receive(stream, 1 << 20) == data[256 : 256 + (1 << 20)]
    thread.join(10)
    [[reply]] = answers
    assert isinstance(reply, Reply)
    assert reply.request == 60


@pytest.mark.parametrize(
    "record", [Upload(9, 0, 4), Upload(7, 2, 4)], ids=["no storage", "out of range"]
)
def test_a_bad_upload_fails_and_its_bytes_are_dropped(
    bench: Bench, record: Upload
) -> None:
    stream = bench.opened()
    bench.run(Allocate(7, 4))
    bench.run(Allocate(8, 4))
    bad = bench.next_number
    [failure] = bench.run(record)
    assert isinstance(failure, Failure)
    assert failure.fault.operation == bad
    send(stream, bad, b"lost")
    good = bench.next_number
    bench.run(Upload(8, 0, 4))
    send(stream, good, b"kept")
    assert bench.bytes_of(8, 4) == b"kept"


def test_a_bad_download_says_so_on_both_ways(bench: Bench) -> None:
    stream = bench.opened()
    [failure] = bench.run(Download(61, 5, 0, 4))
    assert isinstance(failure, Failure)
    assert failure.request == 61
    assert wire.header_from(receive(stream, 16)) == (61, wire.FAILED)


def test_a_lane_that_breaks_in_the_middle_poisons_what_was_under_way(
    bench: Bench,
) -> None:
    stream = bench.opened()
    bench.run(Allocate(7, 8))
    bench.run(Allocate(8, 4))
    number = bench.next_number
    bench.run(Upload(7, 0, 8))
    stream.sendall(wire.header_bytes(wire.Header(number, 8)) + b"half")
    stream.close()
    failures = bench.run(Read(50, 7, 0, 8))
    assert [one.request for one in failures if isinstance(one, Failure)] == [0, 50]
    for one in failures:
        assert isinstance(one, Failure)
        assert one.fault.operation == number
        assert "broke off" in one.fault.text
    assert len(bench.bytes_of(8, 4)) == 4  # nothing else is harmed
    [late] = bench.run(Upload(8, 0, 4))
    assert isinstance(late, Failure)
    assert "the bulk lane is broken" in late.fault.text


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(40),
        wire.MAGIC + bytes(wire.TOKEN_NBYTES),
        b"\x00" * wire.GREETING_NBYTES,
    ],
)
def test_a_stranger_is_sent_away_and_the_client_still_served(
    bench: Bench, greeting: bytes
) -> None:
    stranger = bench.connect(bench.address("tcp"), greeting)
    # A reset where what it sent beyond a greeting was never read.
    with suppress(ConnectionResetError):
        assert stranger.recv(1) == b""
    stream = bench.connect(bench.address("tcp"))
    assert stream.recv(1) == wire.ACCEPTED


def test_only_one_lane_is_taken(bench: Bench) -> None:
    first = bench.opened()
    with suppress(ConnectionError):  # nobody listens any more, or is about to stop
        again = bench.connect(bench.address("tcp"))
        assert again.recv(1) == b""
    bench.run(Allocate(7, 4))
    number = bench.next_number
    bench.run(Upload(7, 0, 4))
    send(first, number, b"abcd")
    assert bench.bytes_of(7, 4) == b"abcd"


@pytest.mark.parametrize("header", [(999, 4), (None, 5)], ids=["number", "length"])
def test_a_header_that_contradicts_the_log_breaks_the_lane(
    bench: Bench, header: tuple[int | None, int]
) -> None:
    stream = bench.opened()
    bench.run(Allocate(7, 4))
    number = bench.next_number
    bench.run(Upload(7, 0, 4))
    said = number if header[0] is None else header[0]
    stream.sendall(wire.header_bytes(wire.Header(said, header[1])) + bytes(8))
    failures = bench.run(Read(50, 7, 0, 4))
    assert all(isinstance(one, Failure) for one in failures)
    assert "the bulk lane brings" in failures[-1].fault.text  # type: ignore[union-attr]


def test_without_a_lane_uploads_and_downloads_fail_alone() -> None:
    desk = Desk()
    with desk.executor.batch():
        desk.executor.execute(Allocate(1, 4))
        [upload] = desk.executor.execute(Upload(1, 0, 4))
        [download] = desk.executor.execute(Download(5, 2, 0, 4))
        [opened] = desk.executor.execute(OpenLane(6))
    assert isinstance(upload, Failure)
    assert "no bulk lane" in upload.fault.text
    assert isinstance(download, Failure)
    assert isinstance(opened, Reply)
    assert read_value(Reader(opened.value))[1] == []  # type: ignore[index]


def test_closing_ends_whoever_waits(bench: Bench) -> None:
    bench.opened()
    bench.run(Allocate(7, 4))
    bench.run(Upload(7, 0, 4))
    waiter = threading.Thread(target=bench.lane.wait_for_uploads)
    waiter.start()
    bench.lane.close()
    waiter.join(10)
    assert not waiter.is_alive()
    with pytest.raises(BrokenError):
        bench.lane.send(1, 0, ())


def test_a_lane_opened_and_never_used_ends_with_its_session(bench: Bench) -> None:
    names = {thread.name for thread in threading.enumerate()}
    assert "xpool-lane" in names
    bench.lane.close()
    deadline = time.monotonic() + 10
    while "xpool-lane" in {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
