"""Order, numbers and batches of the pure-Python device's log, and its ledger."""

from __future__ import annotations

import gc
import os
import select
import threading
from collections.abc import Iterator

import pytest
import torch
from xpool.torch.python_log import BATCH_PAYLOADS, PythonLog
from xpool.torch.python_memory import MemoryLedger
from xpool_protocol import limits
from xpool_protocol.codec import encode
from xpool_protocol.connection import ClientConnection
from xpool_protocol.messages import Welcome
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineOperation,
    Fence,
    Free,
    Record,
    RequestCall,
    Write,
    read_records,
)


@pytest.fixture
def log() -> Iterator[PythonLog]:
    log = PythonLog()
    yield log
    os.close(log.wake_fileno)


def taken(log: PythonLog) -> list[Record]:
    found: list[Record] = []
    while (batch := log.take()) is not None:
        records = list(read_records(batch.records))
        assert len(records) == batch.record_count
        found += records
    return found


def is_awake(log: PythonLog) -> bool:
    return bool(select.select([log.wake_fileno], [], [], 0)[0])


def test_records_come_out_in_order(log: PythonLog) -> None:
    log.append(Allocate(1, 4))
    log.append_call("aten::neg", ("self",), (), ())
    log.append_call("aten::neg", ("self",), (), ())
    request = log.append_request_call("aten::nonzero", ("self",), ())
    log.append(Fence(log.next_request()))
    assert taken(log) == [
        Allocate(1, 4),
        DefineOperation(0, "aten::neg", ("self",)),
        Call(0, (), ()),
        Call(0, (), ()),
        DefineOperation(1, "aten::nonzero", ("self",)),
        RequestCall(request, 1, 1, ()),
        Fence(request + 1),
    ]
    assert log.next_storage() == 1 + limits.MAX_RESERVED_IDS
    assert log.take() is None
    assert log.queued_nbytes() == 0


def test_operation_numbers_count_all_records(log: PythonLog) -> None:
    told: list[int] = []
    log.on_record = told.append
    assert log.append(Allocate(1, 4)) == 0
    log.append_call("aten::neg", ("self",), (), ())
    log.append_later(Free(1))
    log.append_call("aten::neg", ("self",), (), ())
    assert told == [2, 4]


def test_frees_come_before_the_next_record_and_by_themselves(log: PythonLog) -> None:
    log.append(Allocate(1, 4))
    log.append(Allocate(2, 4))
    log.append_later(Free(2))
    log.append_later(Free(1))
    log.append(Allocate(3, 4))
    assert taken(log)[2:] == [Free(2), Free(1), Allocate(3, 4)]
    os.eventfd_read(log.wake_fileno)
    assert not is_awake(log)
    log.append_later(Free(3))
    assert is_awake(log), "the link would not look, and the server not free"
    assert taken(log) == [Free(3)]


def test_a_batch_ends_at_its_size(log: PythonLog) -> None:
    for number in range(20_000):
        log.append(Allocate(number, 1))
    sizes = []
    while (batch := log.take()) is not None:
        sizes.append(len(batch.records))
    assert len(sizes) > 1
    assert all(
        limits.BATCH_NBYTES <= size < limits.BATCH_NBYTES + 16 for size in sizes[:-1]
    )


def test_the_first_record_wakes_the_link(log: PythonLog) -> None:
    assert not is_awake(log)
    log.append(Allocate(1, 1))
    assert os.eventfd_read(log.wake_fileno) == 1
    log.append(Allocate(2, 1))
    assert not is_awake(log)


def test_it_is_woken_when_as_much_waits_as_it_wants(log: PythonLog) -> None:
    log.append(Allocate(1, 1))
    os.eventfd_read(log.wake_fileno)
    assert log.ring_at(9) == log.queued_nbytes() == 3
    log.append(Allocate(2, 1))
    assert not is_awake(log)
    log.append_later(Free(1))
    assert not is_awake(log)
    log.append(Allocate(3, 1))
    assert os.eventfd_read(log.wake_fileno) == 1
    taken(log)
    assert log.ring_at(1) == 0
    log.append_later(Free(2))
    log.append_later(Free(3))
    assert os.eventfd_read(log.wake_fileno) == 1
    assert log.ring_at(1) == 2


def test_payloads_count_for_it(log: PythonLog) -> None:
    log.ring_at(limits.TRANSFER_NBYTES)
    log.append_write(1, 0, memoryview(bytes(limits.TRANSFER_NBYTES)))
    assert is_awake(log)


@pytest.mark.parametrize(
    "nbytes",
    [
        0,
        1,
        limits.INLINE_NBYTES,
        limits.INLINE_NBYTES + 1,
        3 * limits.TRANSFER_NBYTES + 5,
    ],
)
def test_writes_hold_their_bytes(log: PythonLog, nbytes: int) -> None:
    data = bytes(range(251)) * (nbytes // 251 + 1)
    log.append_write(7, 100, memoryview(data)[:nbytes])
    found = bytearray(nbytes)
    expected_queue = log.queued_nbytes()
    assert expected_queue >= nbytes
    while (batch := log.take()) is not None:
        assert sum(map(len, batch.payloads)) <= limits.TRANSFER_NBYTES
        assert len(batch.payloads) < limits.MAX_FRAMES - 1
        for record in read_records(batch.records):
            assert isinstance(record, Write)
            if record.payload:
                count = -(-record.nbytes // limits.CHUNK_NBYTES)
                first = record.payload - 1
                held = b"".join(map(bytes, batch.payloads[first : first + count]))
            else:
                held = record.data
            assert len(held) == record.nbytes
            found[record.offset - 100 : record.offset - 100 + len(held)] = held
    assert found == data[:nbytes]
    assert log.queued_nbytes() == 0


def test_a_batch_has_a_bounded_number_of_payloads(log: PythonLog) -> None:
    piece = memoryview(bytes(limits.INLINE_NBYTES + 1))
    for _ in range(3 * BATCH_PAYLOADS):
        log.append_write(1, 0, piece)
    counts = []
    while (batch := log.take()) is not None:
        counts.append(len(batch.payloads))
    assert max(counts) == BATCH_PAYLOADS
    assert sum(counts) == 3 * BATCH_PAYLOADS


def test_batches_pass_as_messages(log: PythonLog) -> None:
    """A connection accepts every batch, whatever is in it."""
    connection = ClientConnection()
    connection.hello("token", "key", "test", "none")
    welcome = Welcome(
        version=1,
        lease_id="lease",
        epoch=1,
        server="one",
        framework="none",
        device_kind="cpu",
        device_name="cpu",
        share_percent=100,
        memory_nbytes=1 << 30,
        window_nbytes=limits.WINDOW_NBYTES,
    )
    connection.receive(encode(welcome))
    log.append_write(1, 0, memoryview(bytes(2 * limits.TRANSFER_NBYTES)))
    for number in range(30_000):
        log.append(Allocate(number, 1))
    while (batch := log.take()) is not None:
        frames = connection.batch(*batch)
        assert sum(map(len, frames)) <= limits.MAX_MESSAGE_NBYTES


def test_a_closed_log_records_nothing(log: PythonLog) -> None:
    log.append(Allocate(1, 1))
    log.close()
    log.append(Allocate(2, 1))
    log.append_later(Free(1))
    log.append_write(1, 0, memoryview(bytes(100_000)))
    assert taken(log) == [Allocate(1, 1)]


def test_threads_define_before_they_call(log: PythonLog) -> None:
    """Whoever names an operation first: its definition stands before every call."""
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        for n in range(300):
            log.append_call(f"aten::op{n}", (), (), ())
            log.append_later(Free(n))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    defined: set[int] = set()
    calls = frees = 0
    for record in taken(log):
        if isinstance(record, DefineOperation):
            assert record.operation not in defined
            defined.add(record.operation)
        elif isinstance(record, Call):
            assert record.operation in defined
            calls += 1
        else:
            frees += 1
    assert (len(defined), calls, frees) == (300, 1200, 1200)


def test_a_finalizer_may_record_in_the_middle_of_a_record(log: PythonLog) -> None:
    """The collector runs it on this thread, while the log's lock is held."""

    class Loop:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            log.append_call("aten::neg", (), (), ())
            log.append_later(Free(1))

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(200):
            Loop()
            log.append(Allocate(number, 1))
    finally:
        gc.set_threshold(*threshold)
        gc.collect()
    found = taken(log)
    assert sum(isinstance(one, Allocate) for one in found) == 200
    assert sum(isinstance(one, Call) for one in found) == 200
    assert sum(isinstance(one, Free) for one in found) == 200
    assert found.index(DefineOperation(0, "aten::neg", ())) < found.index(
        Call(0, (), ())
    )


def test_ledger_keeps_the_quota() -> None:
    ledger = MemoryLedger(2048)
    ledger.charge(1024)
    ledger.charge(1024)
    with pytest.raises(torch.OutOfMemoryError, match="2048"):
        ledger.charge(512)
    ledger.release(1024)
    ledger.charge(512)
    assert ledger.counters() == {
        "allocated": 1536,
        "peak": 2048,
        "quota": 2048,
        "allocation_count": 3,
    }
    ledger.reset_peak()
    assert ledger.counters()["peak"] == 1536
