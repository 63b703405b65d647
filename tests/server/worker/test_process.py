"""The real worker process over the real transport."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import torch
from support.worker_client import (
    DEADLINE_S,
    WorkerClient,
    WorkerProcess,
    data_of,
    lease,
    value_of,
)
from xpool_protocol import limits, transport
from xpool_protocol.codec import encode
from xpool_protocol.errors import BrokenError, LeaseExpired, PeerError, TokenInvalid
from xpool_protocol.messages import Failure, Goodbye, Ping, Pong, Welcome
from xpool_protocol.records import (
    STATISTICS_FIELDS,
    Allocate,
    Call,
    DefineOperation,
    Fence,
    Read,
    Statistics,
    Write,
)
from xpool_protocol.values import Tensor
from xpool_server import control

QUOTA_NBYTES = 1 << 28


def row(storage: int, size: int) -> Tensor:
    return Tensor(storage, 6, (size,), (1,))


def floats(*numbers: float) -> bytes:
    return bytes(torch.tensor(numbers, dtype=torch.float32).view(torch.uint8).tolist())


@pytest.fixture
def ready() -> Iterator[tuple[WorkerProcess, str]]:
    """A worker that waits for a lease, and its address."""
    process = WorkerProcess()
    try:
        line = process.hear()
        assert isinstance(line, control.WorkerReady)
        assert line.pid == process.process.pid
        assert line.framework == f"torch {torch.__version__}"
        yield process, line.address
    finally:
        process.close()


def closed(process: WorkerProcess) -> control.SessionClosed:
    line = process.hear_until(lambda one: isinstance(one, control.SessionClosed))
    assert isinstance(line, control.SessionClosed)
    return line


def test_a_whole_session() -> None:
    with WorkerClient.open(QUOTA_NBYTES) as client:
        welcome = client.welcome
        assert isinstance(welcome, Welcome)
        assert (welcome.lease_id, welcome.epoch) == ("lease-1", 3)
        assert welcome.device_kind == "cpu"
        assert welcome.memory_nbytes == QUOTA_NBYTES
        assert welcome.properties["total_memory"] == QUOTA_NBYTES
        assert client.process.hear() == control.SessionOpened("lease-1")
        client.run(
            Allocate(1, 8),
            Write(1, 0, 8, 0, floats(1, 2)),
            DefineOperation(0, "aten::add.Tensor", ("self", "other", "alpha")),
            Call(0, ((0, row(1, 2)), (1, row(1, 2))), (row(2, 2),)),
        )
        reply = client.answer(lambda request: Read(request, 2, 0, 8))
        assert data_of(reply) == floats(2, 4)
        counters = value_of(client.answer(Statistics))
        assert isinstance(counters, list)
        named = dict(zip(STATISTICS_FIELDS, counters, strict=True))
        assert (named["executed_ops"], named["storage_count"]) == (1, 2)
        told = client.process.hear_until(
            lambda line: (
                isinstance(line, control.SessionStatistics)
                and line.counters["executed_ops"] == 1
            )
        )
        assert isinstance(told, control.SessionStatistics)
        assert told.counters.keys() == set(STATISTICS_FIELDS)
        client.link.send(client.connection.bye("done"))
        last = closed(client.process)
        assert last.reason == "client left"
        assert last.counters["executed_ops"] == 1
        assert client.process.wait() == 0


def test_a_late_failure_arrives_before_the_acknowledgement() -> None:
    with WorkerClient.open() as client:
        client.run(
            Allocate(1, 16),
            DefineOperation(0, "aten::mm", ("self", "mat2")),
            Call(0, ((0, row(1, 4)), (1, row(1, 4))), (row(2, 1),)),
        )
        (failure,) = client.failures
        assert failure.fault.operation == 2
        assert failure.fault.name == "aten::mm"
        answer = client.answer(Fence)
        assert isinstance(answer, Failure)
        assert answer.fault == failure.fault
        assert value_of(client.answer(Fence)) is None


def test_a_chunked_transfer_and_the_memory_limit_beneath() -> None:
    """16 MiB up and down; then memory that the ledger could not foresee."""
    nbytes = limits.TRANSFER_NBYTES
    data = os.urandom(1 << 20) * (nbytes >> 20)
    step = limits.CHUNK_NBYTES
    chunks = [data[at : at + step] for at in range(0, nbytes, step)]
    with WorkerClient.open(64 << 20) as client:
        client.run(Allocate(1, nbytes), Write(1, 0, nbytes, 1), payloads=chunks)
        reply = client.answer(lambda request: Read(request, 1, 0, nbytes))
        assert data_of(reply) == data
        # Scratch memory of 8 GiB, for a result of four bytes.
        client.run(
            DefineOperation(0, "aten::ones", ("size",)),
            Call(0, ((0, [1 << 31]),), (row(2, 1),)),
        )
        (failure,) = client.failures
        assert failure.fault.exception == "OutOfMemoryError"
        assert data_of(client.answer(lambda one: Read(one, 1, 0, 4))) == data[:4]


def test_the_key_is_asked_for(ready: tuple[WorkerProcess, str]) -> None:
    process, address = ready
    early = WorkerClient(process, address)
    try:
        goodbye = early.greet()  # no lease yet: every key is wrong
        assert isinstance(goodbye, Goodbye)
        assert goodbye.code == TokenInvalid.code
    finally:
        early.link.close()
    process.tell(lease())
    wrong, right = WorkerClient(process, address), WorkerClient(process, address)
    try:
        goodbye = wrong.greet("not the key")
        assert isinstance(goodbye, Goodbye)
        assert goodbye.code == TokenInvalid.code
        assert isinstance(right.greet(), Welcome)
    finally:
        wrong.link.close()
        right.link.close()


def test_garbage_of_a_stranger_and_of_the_owner() -> None:
    with WorkerClient.open() as client:
        with transport.connect(client.link.uri) as stranger:
            for frames in ([b"garbage"], [b""] * 3, [bytes(1000)]):
                stranger.send(frames)
            client.link.send(encode(Ping(1)))
            assert isinstance(client.receive(), Pong)
        client.link.send([b"garbage"])
        goodbye = client.receive()
        assert isinstance(goodbye, Goodbye)
        assert goodbye.code == PeerError.code
        assert closed(client.process).reason.startswith("the client broke the protocol")
        assert client.process.wait() == 0


def test_the_node_ends_the_session() -> None:
    with WorkerClient.open() as client:
        client.process.tell(control.EndSession(LeaseExpired.code, "the lease ran out"))
        goodbye = client.receive()
        assert goodbye == Goodbye(LeaseExpired.code, "the lease ran out")
        assert closed(client.process).reason == "the lease ran out"
        assert client.process.wait() == 0


def test_the_node_ends_a_worker_without_a_session(
    ready: tuple[WorkerProcess, str],
) -> None:
    process, _ = ready
    process.tell(control.EndSession(300, "not needed"))
    assert closed(process).counters == {}
    assert process.wait() == 0


def test_a_worker_ends_with_its_node(ready: tuple[WorkerProcess, str]) -> None:
    process, _ = ready
    process.control.shutdown(socket.SHUT_WR)
    assert process.wait() == 0


def test_nonsense_from_the_node(ready: tuple[WorkerProcess, str]) -> None:
    process, _ = ready
    process.control.sendall(b'{"type":"novelty"}\n')
    assert process.wait() == 2
    assert process.stderr().startswith("xpool worker: ")


def test_ctrl_c_is_the_nodes_business() -> None:
    with WorkerClient.open() as client:
        client.process.process.send_signal(signal.SIGINT)
        assert value_of(client.answer(Fence)) is None


def test_a_killed_worker_is_noticed_by_its_client() -> None:
    with WorkerClient.open() as client:
        client.process.process.kill()
        with pytest.raises(BrokenError):
            client.link.receive(DEADLINE_S)


def test_a_killed_parent_takes_its_worker_along() -> None:
    script = (
        "import sys, time; sys.path[:0] = sys.argv[1:]\n"
        "from support.worker_client import WorkerProcess\n"
        "worker = WorkerProcess(); worker.hear()\n"
        "print(worker.process.pid, flush=True); time.sleep(600)\n"
    )
    paths = [str(Path(__file__).resolve().parents[2])]
    paths += [one for one in sys.path if one.endswith(("protocol", "server"))]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *paths], stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()
    worker.wait(DEADLINE_S)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--device", "tpu"], "'tpu' is no device of a worker: write cpu or cuda"),
        (["--device", "npu:0"], "no device type 'npu' here"),
        (["--device", "cpu", "--listen", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: list[str], text: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "xpool_server.worker"),
                *("--control-fd", str(theirs.fileno())),
                *("--listen", "tcp://127.0.0.1:0", *arguments),
            ],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | WorkerProcess.environment(),
        )
    assert done.returncode == 2
    assert done.stderr.startswith("xpool worker: ")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
