"""The real worker process over the real transport."""

from __future__ import annotations

import torch
from support.worker_client import WorkerClient, data_of, value_of
from xpool_protocol.messages import Welcome
from xpool_protocol.records import (
    STATISTICS_FIELDS,
    Allocate,
    Call,
    DefineOperation,
    Read,
    Statistics,
    Write,
)
from xpool_protocol.values import Tensor
from xpool_server import control


def row(storage: int, size: int) -> Tensor:
    return Tensor(storage, 6, (size,), (1,))


def floats(*numbers: float) -> bytes:
    return bytes(torch.tensor(numbers, dtype=torch.float32).view(torch.uint8).tolist())


def test_a_whole_session() -> None:
    with WorkerClient.open() as client:
        welcome = client.welcome
        assert isinstance(welcome, Welcome)
        assert (welcome.lease_id, welcome.epoch, welcome.device_kind) == (
            "lease-1",
            3,
            "cpu",
        )
        assert welcome.properties["total_memory"] == 1 << 28
        assert welcome.framework == f"torch {torch.__version__}"
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
        assert named["executed_ops"] == 1
        assert named["storage_count"] == 2
        assert isinstance(named["received_nbytes"], int)
        assert named["received_nbytes"] > 0
        client.link.send(client.connection.bye("done"))
        closed = client.process.hear_until(
            lambda line: isinstance(line, control.SessionClosed)
        )
        assert isinstance(closed, control.SessionClosed)
        assert closed.reason == "client left"
        assert closed.counters["executed_ops"] == 1
        assert client.process.wait() == 0
