"""The table of storages, its ledger, and moving bytes in and out."""

from __future__ import annotations

import pytest
import torch
from support.executor_desk import Desk
from xpool_protocol import limits
from xpool_protocol.errors import (
    ArgumentInvalid,
    HandleUnknown,
    PeerError,
    QuotaExceeded,
)
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.records import STATISTICS_FIELDS, Allocate, Free, Read, Statistics
from xpool_protocol.records import Write as WriteRecord
from xpool_protocol.values import Tensor, read_value
from xpool_protocol.wire import Reader
from xpool_server import storages
from xpool_server.storages import charged_nbytes

KIB = 1 << 10
MIB = 1 << 20


@pytest.mark.parametrize(
    ("nbytes", "charge"), [(0, 512), (1, 512), (512, 512), (513, 1024), (MIB, MIB)]
)
def test_charges_are_whole_granules(nbytes: int, charge: int) -> None:
    desk = Desk()
    assert charged_nbytes(nbytes) == charge
    assert not desk.run(Allocate(1, nbytes))
    assert desk.counter("allocated_nbytes") == charge
    assert not desk.run(Free(1))
    assert desk.counter("allocated_nbytes") == 0
    assert desk.counter("allocated_nbytes_peak") == charge


def test_the_quota_is_exact() -> None:
    desk = Desk(quota_nbytes=4 * KIB)
    assert not desk.run(Allocate(1, 3 * KIB), Allocate(2, KIB))
    fault = desk.fault(Allocate(3, 1))
    assert fault.code == QuotaExceeded.code
    assert fault.exception == "OutOfMemoryError"
    assert fault.text == (
        "xpool: out of memory on the slice: tried to allocate 512 B;"
        " the quota is 4 KiB, 4 KiB are allocated"
    )
    assert not desk.run(Free(2), Free(3), Allocate(3, KIB))


def test_results_are_charged_before_anything_runs() -> None:
    desk = Desk(quota_nbytes=4 * KIB)
    x = desk.put(torch.zeros(512))
    out = Tensor(50, 6, (512,), (1,))
    assert not desk.call("aten::neg", [out], self=x)
    executed = desk.counter("executed_ops")
    fault = desk.fault(
        desk.make_call("aten::neg", [Tensor(51, 6, (512,), (1,))], self=x)
    )
    assert fault.code == QuotaExceeded.code
    assert fault.name == "aten::neg"
    assert desk.counter("executed_ops") == executed
    assert desk.counter("allocated_nbytes") == 4 * KIB
    assert desk.get(out).sum() == 0


def test_results_nobody_could_predict_are_charged_afterwards() -> None:
    desk = Desk(quota_nbytes=4 * KIB)
    x = desk.put(torch.ones(512))
    failure = desk.ask("aten::nonzero", self=x)
    assert isinstance(failure, Failure)
    assert failure.fault.code == QuotaExceeded.code
    assert desk.counter("storage_count") == 1
    assert desk.counter("allocated_nbytes") == 2 * KIB


def test_some_results_do_not_fit_and_none_is_kept() -> None:
    desk = Desk(quota_nbytes=4 * KIB)
    x = desk.put(torch.ones(256))
    failure = desk.ask("aten::split_copy.Tensor", self=x, split_size=10)
    assert failure.fault.code == QuotaExceeded.code
    assert desk.counter("storage_count") == 1


def test_an_allocation_that_exists() -> None:
    desk = Desk()
    assert not desk.run(Allocate(1, 8))
    assert desk.fault(Allocate(1, 8)).code == ArgumentInvalid.code
    assert desk.counter("storage_count") == 0


def test_freeing_twice() -> None:
    desk = Desk()
    assert not desk.run(Allocate(1, 8), Free(1))
    assert desk.fault(Free(1)).code == HandleUnknown.code


def test_the_frameworks_own_refusal_counts_the_same(desk: Desk) -> None:
    """More than any machine has, in a result that a stride of zero makes look small."""
    desk.define("aten::zeros")
    failure = desk.ask("aten::zeros", size=[1 << 45])
    assert failure.fault.code == QuotaExceeded.code
    assert failure.fault.exception == "OutOfMemoryError"
    assert failure.fault.text.startswith("xpool: ")


def test_handles_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "MAX_HANDLES", 3)
    desk = Desk()
    assert not desk.run(Allocate(1, 8), Allocate(2, 8), Allocate(3, 8))
    with pytest.raises(PeerError, match="more than 3 storages"):
        desk.run(Allocate(4, 8))


def test_views_of_a_storage_are_bounded(desk: Desk) -> None:
    wire = desk.put(torch.arange(64, dtype=torch.float32))
    for offset in range(64):
        view = Tensor(wire.storage, 6, (1,), (1,), offset)
        results, _ = desk.ask("aten::item", self=view)
        assert results == [float(offset)]
    entry = desk.storages.entry(wire.storage)
    assert len(entry.views) <= storages.MAX_VIEWS


# ---- bytes ----


@pytest.mark.parametrize(
    "nbytes", [1, limits.CHUNK_NBYTES, 3 * limits.CHUNK_NBYTES + 7]
)
def test_payload_frames_in_and_out(nbytes: int) -> None:
    desk = Desk(quota_nbytes=64 * MIB)
    data = bytes(i % 251 for i in range(nbytes))
    step = limits.CHUNK_NBYTES
    frames = [data[at : at + step] for at in range(0, nbytes, step)]
    payloads = [b"other", *frames, b"others"]
    assert not desk.run(
        Allocate(1, nbytes + 16), WriteRecord(1, 5, nbytes, 2), payloads=payloads
    )
    (reply,) = desk.run(Read(1, 1, 5, nbytes))
    assert isinstance(reply, Reply)
    assert [len(one) for one in reply.payloads] == [len(one) for one in frames]
    assert b"".join(bytes(one) for one in reply.payloads) == data
    assert read_value(Reader(reply.value)) is None


def test_what_was_read_does_not_change_later(desk: Desk) -> None:
    wire = desk.put(torch.ones(4))
    (reply,) = desk.run(Read(1, wire.storage, 0, 16))
    assert not desk.call("aten::zero_", [None], self=wire)
    assert isinstance(reply, Reply)
    assert bytes(reply.payloads[0]) == bytes(torch.ones(4).view(torch.uint8).tolist())


@pytest.mark.parametrize(
    "record",
    [
        WriteRecord(1, 1, 8, 0, bytes(8)),
        WriteRecord(1, 1 << 46, 1, 0, b"x"),
        WriteRecord(1, 0, 8, 1),
        WriteRecord(1, 0, 8, 3),
        WriteRecord(1, 0, 2, 2),
    ],
)
def test_writes_that_do_not_fit(desk: Desk, record: WriteRecord) -> None:
    """Outside the storage, or with more or fewer bytes than announced."""
    assert not desk.run(Allocate(1, 8))
    fault = desk.fault(record, payloads=[b"123", b"4"])
    assert fault.code == ArgumentInvalid.code
    (failure,) = desk.run(Read(1, 1, 0, 8))
    assert failure == Failure(1, fault)


def test_reads_that_do_not_fit(desk: Desk) -> None:
    assert not desk.run(Allocate(1, 8))
    for offset, nbytes in ((1, 8), (9, 0), (1 << 46, 1)):
        fault = desk.fault(Read(1, 1, offset, nbytes))
        assert fault.code == ArgumentInvalid.code
    assert desk.fault(Read(1, 2, 0, 0)).code == HandleUnknown.code
    (reply,) = desk.run(Read(1, 1, 8, 0))
    assert isinstance(reply, Reply)
    assert reply.payloads == ()


def test_statistics(desk: Desk) -> None:
    desk.put(torch.ones(4))
    (reply,) = desk.run(Statistics(4))
    assert isinstance(reply, Reply)
    values = read_value(Reader(reply.value))
    assert isinstance(values, list)
    named = dict(zip(STATISTICS_FIELDS, values, strict=True))
    assert named["allocated_nbytes"] == 512
    assert named["storage_count"] == 1
    assert desk.executor.counters().keys() == set(STATISTICS_FIELDS)


def test_time_is_counted(desk: Desk) -> None:
    before = desk.counter("busy_ns")
    out = Tensor(900, 6, (200, 200), (200, 1))
    assert not desk.call("aten::rand", [out], size=[200, 200])
    assert desk.counter("busy_ns") > before
