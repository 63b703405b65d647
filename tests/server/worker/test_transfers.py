"""Copies between devices: real doors and lines on loopback, and what strangers send."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from support.executor_desk import QUOTA_NBYTES
from support.waiting import eventually
from xpool_protocol.errors import UsageError, WorkerLost
from xpool_protocol.messages import Failure, Fault, Reply
from xpool_protocol.records import (
    Allocate,
    DefinePeer,
    Fence,
    Read,
    Receive,
    Record,
    Send,
    Write,
)
from xpool_server.addresses import peer_listener
from xpool_server.devices import open_backend
from xpool_server.executor import Executor
from xpool_server.peers import ANSWER, HELLO, MAX_HELD_NBYTES, Peers, received
from xpool_server.vouching import Vouching

TICKET = bytes(range(16))
VOUCHING = Vouching(key=b"the pool's")


class Worker:
    """An executor with a door; records go in as a session gives them."""

    def __init__(self, listen: str = "tcp://127.0.0.1:0") -> None:
        self.door = Peers(*peer_listener(listen, None), VOUCHING)
        self.executor = Executor(open_backend("cpu"), QUOTA_NBYTES, door=self.door)

    @property
    def address(self) -> str:
        return self.door.properties()["peer_address"]

    @property
    def key(self) -> str:
        return self.door.properties()["peer_key"]

    def peer(self, number: int, name: str) -> DefinePeer:
        return DefinePeer(number, self.address, self.key, name)

    def once(self, record: Record) -> list[Reply | Failure] | None:
        with self.executor.batch():
            answers = self.executor.execute(record)
        return None if answers is None else list(answers)

    def run(self, *records: Record) -> list[Reply | Failure]:
        """Execute records, each until it is over."""
        said: list[Reply | Failure] = []
        for record in records:
            found: list[Any] = []

            def is_over(record: Record = record, found: list[Any] = found) -> bool:
                answers = self.once(record)
                found.extend(answers or [])
                return answers is not None

            eventually(is_over, f"the end of {record}", 10)
            said += found
        return said

    def bytes_of(self, storage: int, nbytes: int) -> bytes:
        (reply,) = self.run(Read(99, storage, 0, nbytes))
        assert isinstance(reply, Reply), reply
        return b"".join(bytes(chunk) for chunk in reply.payloads)

    def fault_of(self, storage: int) -> Fault:
        (failure,) = self.run(Read(99, storage, 0, 1))
        assert isinstance(failure, Failure)
        return failure.fault


@pytest.fixture(params=["tcp://127.0.0.1:0", "ipc:///nowhere/worker"])
def two(request: pytest.FixtureRequest) -> Iterator[tuple[Worker, Worker]]:
    source, target = Worker(request.param), Worker(request.param)
    source.run(
        target.peer(1, "cuda:1 on two"), Allocate(1, 8), Write(1, 0, 8, 0, b"abcdefgh")
    )
    target.run(
        source.peer(0, "cuda:0 on one"), Allocate(5, 8), Write(5, 0, 8, 0, bytes(8))
    )
    yield source, target
    source.door.close()
    target.door.close()


def test_bytes_come_as_they_were(two: tuple[Worker, Worker]) -> None:
    source, target = two
    assert source.run(Send(1, 2, 4, TICKET, 1), Write(1, 0, 8, 0, b"xxxxxxxx")) == []
    assert target.run(Receive(5, 3, 4, TICKET, 0)) == []
    assert target.bytes_of(5, 8) == b"\0\0\0cdef\0"


def test_a_target_waits_for_its_source(two: tuple[Worker, Worker]) -> None:
    source, target = two
    assert target.once(Receive(5, 0, 8, TICKET, 0)) is None
    assert target.executor.operation_count == 3, "it is still the next record"
    source.run(Send(1, 0, 8, TICKET, 1))
    assert target.run(Receive(5, 0, 8, TICKET, 0)) == []
    assert target.bytes_of(5, 8) == b"abcdefgh"


def test_a_fault_travels(two: tuple[Worker, Worker]) -> None:
    source, target = two
    told = source.run(Send(77, 0, 4, TICKET, 1))
    assert [answer.fault.text for answer in told if isinstance(answer, Failure)]
    assert target.run(Receive(5, 0, 4, TICKET, 0)) == [], "told where it happened"
    fault = target.fault_of(5)
    assert "storage 77 does not exist" in fault.text
    assert "of cuda:0 on one" in fault.text
    assert target.run(Allocate(6, 8), Fence(7)) == [Reply(7, b"\0")], "nothing else"


@pytest.mark.parametrize("begun", [True, False])
def test_a_source_that_is_gone_is_named(
    two: tuple[Worker, Worker], begun: bool
) -> None:
    source, target = two
    receive = Receive(5, 0, 8, TICKET, 0)
    if begun:
        assert target.once(receive) is None
    source.door.close()
    (failure,) = target.run(receive)
    assert isinstance(failure, Failure)
    assert "a copy from cuda:0 on one has not arrived" in failure.fault.text
    assert "is gone" in target.fault_of(5).text
    assert target.run(Allocate(6, 8)) == []


def test_a_place_that_does_not_exist_still_takes_the_bytes(
    two: tuple[Worker, Worker],
) -> None:
    source, target = two
    source.run(Send(1, 0, 8, TICKET, 1))
    (failure,) = target.run(Receive(66, 0, 8, TICKET, 0))
    assert isinstance(failure, Failure)
    eventually(lambda: source.door._held_nbytes == 0, "the source is rid of it", 5)
    (failure,) = target.run(Receive(5, 4, 8, bytes(16), 3))
    assert isinstance(failure, Failure)
    assert "peer 3 was never defined" in failure.fault.text


def test_a_source_waits_for_room_and_for_no_dead_target(
    two: tuple[Worker, Worker],
) -> None:
    source, target = two
    source.door._held_nbytes += MAX_HELD_NBYTES
    assert source.once(Send(1, 0, 8, TICKET, 1)) is None
    source.door._held_nbytes -= MAX_HELD_NBYTES
    assert source.run(Send(1, 0, 8, TICKET, 1)) == []
    assert source.door._held_nbytes == 8
    target.door.close()
    eventually(lambda: source.door._held_nbytes == 0, "what it kept is dropped", 5)
    assert source.run(Send(1, 0, 8, bytes(16), 1)) == []
    assert source.door._held_nbytes == 0


def test_a_ticket_is_good_once(two: tuple[Worker, Worker]) -> None:
    source, target = two
    source.run(Send(1, 0, 8, TICKET, 1))
    (failure,) = source.run(Send(1, 0, 8, TICKET, 1))
    assert isinstance(failure, Failure)
    assert "good for one copy" in failure.fault.text
    target.run(Receive(5, 0, 8, TICKET, 0))
    assert target.once(Receive(5, 0, 8, TICKET, 0)) is None


def test_a_worker_without_a_door_says_so() -> None:
    executor = Executor(open_backend("cpu"), QUOTA_NBYTES)
    for record in (DefinePeer(1, "a", "b", "c"), Receive(5, 0, 8, TICKET, 0)):
        with executor.batch():
            answers = executor.execute(record)
        assert answers is not None
        (failure,) = answers
        assert isinstance(failure, Failure)
        assert "exchanges nothing with other workers" in failure.fault.text


# ---- strangers at the door


@pytest.fixture
def worker() -> Iterator[Worker]:
    one = Worker()
    yield one
    one.door.close()


def knock(worker: Worker) -> socket.socket:
    address = VOUCHING.opened(worker.address)
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), 5)


def hello(key: str) -> bytes:
    return HELLO + bytes([len(key)]) + key.encode()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        hello("wrong"),
        hello(""),
        b"\xff" * 64,
        HELLO + b"\xff",
    ],
)
def test_strangers_are_hung_up_on(worker: Worker, said: bytes) -> None:
    with knock(worker) as guest:
        guest.sendall(said)
        if said == HELLO + b"\xff":
            guest.sendall(bytes(255))
        # A reset: it hung up before it had read everything.
        with contextlib.suppress(ConnectionResetError):
            assert guest.recv(1) == b""


def test_a_guest_gets_only_what_it_has_a_ticket_for(worker: Worker) -> None:
    worker.run(Allocate(1, 4), Write(1, 0, 4, 0, b"wxyz"), worker.peer(1, "itself"))
    with knock(worker) as guest:
        guest.sendall(hello(worker.key) + bytes(16))
        worker.run(Send(1, 0, 4, TICKET, 1))
        guest.settimeout(0.2)
        with pytest.raises(TimeoutError):
            guest.recv(1)
    with knock(worker) as guest:
        guest.sendall(hello(worker.key) + TICKET)
        assert received(guest, 9) == ANSWER.pack(0, 4) + b"wxyz"


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.pack(0, 9) + bytes(9),
        ANSWER.pack(0, 1 << 31),
        ANSWER.pack(1, 1 << 20),
        ANSWER.pack(1, 3) + b"\xff\xff\xff",
        ANSWER.pack(7, 8) + bytes(8),
        struct.pack("<B", 0),
    ],
)
def test_a_peer_that_lies_is_a_failure(worker: Worker, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as liar:
        address = VOUCHING.sealed(f"tcp://127.0.0.1:{liar.getsockname()[1]}")
        worker.run(Allocate(5, 8), DefinePeer(0, address, "key", "a liar"))
        guest, _ = liar.accept()
        with guest:
            assert worker.once(Receive(5, 0, 8, TICKET, 0)) is None
            wanted = hello("key") + TICKET
            assert guest.recv(len(wanted), socket.MSG_WAITALL) == wanted
            guest.sendall(answer)
            with contextlib.suppress(OSError):  # it may have hung up on us already
                guest.shutdown(socket.SHUT_WR)
            (failure,) = worker.run(Receive(5, 0, 8, TICKET, 0))
    assert isinstance(failure, Failure)
    assert "a copy from a liar has not arrived" in failure.fault.text


def test_a_faults_text_is_bounded_by_its_type(worker: Worker) -> None:
    fault = Fault(WorkerLost.code, "x" * 20_000)
    data = msgspec.msgpack.encode(fault)
    with socket.create_server(("127.0.0.1", 0)) as liar:
        address = VOUCHING.sealed(f"tcp://127.0.0.1:{liar.getsockname()[1]}")
        worker.run(Allocate(5, 8), DefinePeer(0, address, "key", "a liar"))
        guest, _ = liar.accept()
        with guest:
            worker.once(Receive(5, 0, 8, TICKET, 0))
            guest.sendall(ANSWER.pack(1, len(data)) + data)
            (failure,) = worker.run(Receive(5, 0, 8, TICKET, 0))
    assert isinstance(failure, Failure)
    assert "a fault is malformed" in failure.fault.text


@pytest.mark.parametrize("address", ["", "tcp://127.0.0.1:x", "http://x:1", "tcp://:0"])
def test_an_address_that_is_none_is_a_dead_line(worker: Worker, address: str) -> None:
    address = VOUCHING.sealed(address)
    worker.run(Allocate(5, 8), DefinePeer(0, address, "key", "nobody"))
    (failure,) = worker.run(Receive(5, 0, 8, TICKET, 0))
    assert isinstance(failure, Failure)
    assert "the worker of nobody is gone" in failure.fault.text


def test_nobody_is_dialled_whom_no_server_of_the_pool_vouches_for(
    worker: Worker,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as victim:
        address = f"tcp://127.0.0.1:{victim.getsockname()[1]}"
        elsewhere = Vouching(key=b"another pool's").sealed(address)
        moved = VOUCHING.sealed("tcp://127.0.0.1:9").replace(":9#", address[15:] + "#")
        sealed = VOUCHING.sealed(address)
        for forged in (address, f"{address}#", elsewhere, moved, sealed[:-1], "#", ""):
            (failure,) = worker.run(DefinePeer(0, forged, "key", "a victim"))
            assert isinstance(failure, Failure)
            assert failure.fault.code == 502
            assert "no server of this pool vouches for" in failure.fault.text
        worker.run(DefinePeer(0, sealed, "key", "a victim"))
        first, _ = victim.accept()
        with first:
            assert first.recv(8, socket.MSG_WAITALL) == HELLO, "the first that came"
        victim.setblocking(False)
        with pytest.raises(BlockingIOError):
            victim.accept()


def test_ports_are_those_that_a_worker_may_take() -> None:
    from xpool_server.addresses import PortRange

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="are taken"):
            peer_listener("tcp://127.0.0.1:0", PortRange(port, port))
    listener, address, host = peer_listener("tcp://127.0.0.1:0", PortRange(port, port))
    with listener:
        assert (address, host) == (f"tcp://:{port}", "127.0.0.1")
    every, _, host = peer_listener("tcp://*:7710", None)
    with every:
        assert host == ""
