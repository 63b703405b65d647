"""The bulk lane through memory that client and server share."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from support.executor_desk import Desk, bytes_from, make_executor
from xpool.lane import LaneEnd, lane_to
from xpool_protocol import lane as wire
from xpool_protocol.errors import BrokenError
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.records import (
    Allocate,
    Download,
    OpenLane,
    Read,
    Record,
    Upload,
)
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader
from xpool_server.failures import Answers
from xpool_server.lane import SocketLane
from xpool_server.shared_ring import SharedRing

MIB = 1 << 20
QUOTA_NBYTES = 1 << 26


class Client:
    """What the native client does with its end, byte by byte."""

    def __init__(self, end: LaneEnd) -> None:
        assert end.shared is not None
        self.stream = end.stream
        self.stream.settimeout(10)
        self.freed = end.shared.freed
        self.freed.settimeout(10)
        self.memory = mmap.mmap(end.shared.memory, wire.MEMORY_NBYTES)
        os.close(end.shared.memory)
        self.sent = self.confirmed = self.received = 0

    def upload(self, number: int, data: bytes, slot_nbytes: int = MIB) -> None:
        self.stream.sendall(wire.header_bytes(wire.Header(number, len(data))))
        for at in range(0, len(data), slot_nbytes):
            part = data[at : at + slot_nbytes]
            while self.sent - self.confirmed >= wire.SLOTS:
                told = self.freed.recv(1)
                assert told == wire.FREED
                self.confirmed += 1
            begin = wire.slot_at(self.sent)
            self.memory[begin : begin + len(part)] = part
            self.sent += 1
            self.stream.sendall(wire.count_bytes(len(part)))

    def download(self) -> tuple[int, bytes]:
        number, nbytes = wire.header_from(self.exactly(wire.HEADER_NBYTES))
        data = b""
        while len(data) < nbytes:
            count = wire.count_from(self.exactly(wire.COUNT_NBYTES))
            begin = wire.DOWNLOAD_SLOTS_AT + wire.slot_at(self.received)
            data += self.memory[begin : begin + count]
            self.received += 1
            self.freed.sendall(wire.FREED)
        return number, data

    def exactly(self, nbytes: int) -> bytes:
        data = b""
        while len(data) < nbytes:
            part = self.stream.recv(nbytes - len(data))
            assert part, "the lane ended early"
            data += part
        return data

    def close(self) -> None:
        self.stream.close()
        self.freed.close()


class Bench:
    """An executor with a lane, and where its client may come."""

    def __init__(self) -> None:
        self.lane = SocketLane("127.0.0.1")
        self.executor = make_executor(Desk.default_kind, QUOTA_NBYTES, lane=self.lane)
        [reply] = self.run(OpenLane(1))
        assert isinstance(reply, Reply)
        self.token, self.addresses = read_value(Reader(reply.value))
        self.clients: list[Client] = []

    def run(self, record: Record) -> Answers:
        with self.executor.batch():
            answers = self.executor.run(bytes_from(record))
            return tuple(one for some in answers for one in some)

    def running(self, record: Record) -> tuple[threading.Thread, list[Answers]]:
        """The same in a thread of its own, and what it answers."""
        answers: list[Answers] = []
        thread = threading.Thread(target=lambda: answers.append(self.run(record)))
        thread.start()
        return thread, answers

    def connected(self) -> Client:
        end = lane_to(self.addresses, "127.0.0.1", self.token)
        assert end is not None
        client = Client(end)
        self.clients.append(client)
        return client

    def greeted_with(self, *fds: int) -> bytes:
        """What a client hears that brings these descriptors."""
        name = self.addresses[0].partition("@")[2]
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(10)
            stream.connect(f"\0{name}")
            greeting = wire.greeting(bytes.fromhex(self.token), is_shared=True)
            socket.send_fds(stream, [greeting], fds)
            with suppress(ConnectionResetError):
                return stream.recv(1)
        return b""

    def bytes_of(self, storage: int, nbytes: int) -> bytes:
        [reply] = self.run(Read(99, storage, 0, nbytes))
        assert isinstance(reply, Reply), reply
        return b"".join(bytes(part) for part in reply.payloads)

    def upload(
        self, client: Client, storage: int, data: bytes, slot_nbytes: int = MIB
    ) -> None:
        number = self.executor.operation_count
        assert self.run(Upload(storage, 0, len(data))) == ()
        client.upload(number, data, slot_nbytes)

    def close(self) -> None:
        self.lane.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    try:
        yield one
    finally:
        one.close()


def pattern(nbytes: int) -> bytes:
    """Bytes of which no two slots are alike."""
    words = range(nbytes // 4 + 1)
    return b"".join(word.to_bytes(4, "little") for word in words)[:nbytes]


@pytest.mark.parametrize("slot_nbytes", [MIB, MIB - 3, 300_001])
def test_more_than_all_slots_hold_goes_there_and_back(
    bench: Bench, slot_nbytes: int
) -> None:
    client = bench.connected()
    data = pattern(2 * wire.SLOTS * MIB + 77)
    bench.run(Allocate(7, len(data)))
    bench.upload(client, 7, data, slot_nbytes)
    assert bench.bytes_of(7, len(data)) == data
    asking, answers = bench.running(Download(60, 7, 0, len(data)))
    assert client.download() == (60, data)
    asking.join(10)
    [[reply]] = answers
    assert isinstance(reply, Reply)


def test_slots_of_many_transfers_follow_one_another(bench: Bench) -> None:
    client = bench.connected()
    for storage in range(1, 2 * wire.SLOTS):
        data = pattern(storage * 1000)
        bench.run(Allocate(storage, len(data)))
        bench.upload(client, storage, data)
    for storage in range(1, 2 * wire.SLOTS):
        assert bench.bytes_of(storage, storage * 1000) == pattern(storage * 1000)


def sealed(nbytes: int, seals: int) -> int:
    memory = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, nbytes)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return memory


@pytest.mark.parametrize(
    ("nbytes", "seals"),
    [
        (wire.MEMORY_NBYTES - 4096, fcntl.F_SEAL_SHRINK),
        (wire.MEMORY_NBYTES * 1024, fcntl.F_SEAL_SHRINK),
        (wire.MEMORY_NBYTES, 0),
        (wire.MEMORY_NBYTES, fcntl.F_SEAL_GROW),
    ],
    ids=["too small", "too large", "unsealed", "may shrink"],
)
def test_memory_that_is_not_as_agreed_is_refused(
    bench: Bench, nbytes: int, seals: int
) -> None:
    memory = sealed(nbytes, seals)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert bench.greeted_with(memory, theirs.fileno()) == b""
    os.close(memory)
    bench.connected()  # who has it right is still served


def no_descriptors() -> tuple[int, ...]:
    return ()


def only_one() -> tuple[int, ...]:
    return (sealed(wire.MEMORY_NBYTES, fcntl.F_SEAL_SHRINK),)


def no_socket() -> tuple[int, ...]:
    return (*only_one(), os.open(os.devnull, os.O_RDWR))


def no_memory() -> tuple[int, ...]:
    return (os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR))


@pytest.mark.parametrize(
    "descriptors", [no_descriptors, only_one, no_socket, no_memory]
)
def test_other_descriptors_are_refused_and_closed(
    bench: Bench, descriptors: Callable[[], tuple[int, ...]]
) -> None:
    bench.greeted_with()  # the door has opened what it keeps open
    before = len(os.listdir("/proc/self/fd"))
    fds = descriptors()
    assert bench.greeted_with(*fds) == b""
    for fd in fds:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("count", [0, MIB + 1, 0xFFFFFFFF])
def test_a_slot_that_claims_too_much_breaks_the_lane_alone(
    bench: Bench, count: int
) -> None:
    client = bench.connected()
    bench.run(Allocate(7, 64))
    number = bench.executor.operation_count
    bench.run(Upload(7, 0, 64))
    client.stream.sendall(wire.header_bytes(wire.Header(number, 64)))
    client.stream.sendall(count.to_bytes(4, "little"))
    failures = bench.run(Read(50, 7, 0, 64))
    assert all(isinstance(one, Failure) for one in failures)
    assert "slot" in failures[-1].fault.text  # type: ignore[union-attr]
    bench.run(Allocate(8, 4))
    assert len(bench.bytes_of(8, 4)) == 4


def test_a_slot_with_bytes_of_two_transfers_breaks_the_lane(bench: Bench) -> None:
    client = bench.connected()
    bench.run(Allocate(7, 4))
    bench.run(Allocate(8, 4))
    number = bench.executor.operation_count
    bench.run(Upload(7, 0, 4))
    bench.run(Upload(8, 0, 4))
    client.memory[:8] = b"goodevil"
    client.stream.sendall(wire.header_bytes(wire.Header(number, 4)))
    client.stream.sendall(wire.count_bytes(8))
    failures = bench.run(Read(50, 8, 0, 4))
    assert "two transfers" in failures[-1].fault.text  # type: ignore[union-attr]


def test_who_frees_too_early_harms_only_its_own_bytes(bench: Bench) -> None:
    client = bench.connected()
    data = pattern(16 * MIB)
    bench.run(Allocate(7, len(data)))
    bench.upload(client, 7, data)
    client.freed.sendall(wire.FREED * wire.SLOTS * 5)
    asking, answers = bench.running(Download(60, 7, 0, len(data)))
    asking.join(10)
    [[reply]] = answers
    assert isinstance(reply, Reply)
    assert bench.bytes_of(7, len(data)) == data


def test_a_client_that_goes_ends_the_sending(bench: Bench) -> None:
    client = bench.connected()
    bench.run(Allocate(7, 16 * MIB))
    asking, answers = bench.running(Download(60, 7, 0, 16 * MIB))
    client.exactly(wire.HEADER_NBYTES + wire.SLOTS * wire.COUNT_NBYTES)
    client.close()
    asking.join(10)
    [[failure]] = answers
    assert isinstance(failure, Failure)
    assert "broke off" in failure.fault.text


def test_closing_ends_who_waits_for_a_slot() -> None:
    memory = sealed(wire.MEMORY_NBYTES, fcntl.F_SEAL_SHRINK)
    ours, theirs = socket.socketpair()
    stream, other = socket.socketpair()
    with ours, stream, other:
        ring = SharedRing(memory, theirs)
        os.close(memory)
        ended: list[type[BaseException]] = []

        def send() -> None:
            try:
                ring.send(stream, bytes(16 * MIB))
            except (EOFError, OSError, BrokenError) as error:
                ended.append(type(error))

        sending = threading.Thread(target=send)
        sending.start()
        other.recv(wire.SLOTS * wire.COUNT_NBYTES, socket.MSG_WAITALL)
        ring.close()
        sending.join(10)
        assert ended
