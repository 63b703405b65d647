"""Random numbers: the session's generators are torch's own."""

from __future__ import annotations

import pytest
import torch
from support.executor_desk import Desk
from xpool_protocol import limits
from xpool_protocol.errors import ArgumentInvalid, HandleUnknown
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.records import (
    FreeGenerator,
    NewGenerator,
    ReadGenerator,
    SeedGenerator,
    WriteGenerator,
)
from xpool_protocol.values import Generator

SIZES = [3, 5]


def draw(desk: Desk, generator: int) -> torch.Tensor:
    out = desk.new(7)
    generator_ = Generator(generator)
    assert not desk.call("aten::randn.generator", [out], size=[7], generator=generator_)
    return desk.get(out)


@pytest.mark.parametrize("seed", [0, 1, (1 << 64) - 1])
def test_a_seeded_generator_is_torchs(desk: Desk, seed: int) -> None:
    assert not desk.run(NewGenerator(4), SeedGenerator(4, seed))
    local = torch.Generator().manual_seed(seed)
    assert torch.equal(draw(desk, 4), torch.randn(7, generator=local))
    assert torch.equal(draw(desk, 4), torch.randn(7, generator=local))


def test_a_new_generator_has_the_default_seed(desk: Desk) -> None:
    assert not desk.run(NewGenerator(4))
    assert torch.equal(draw(desk, 4), torch.randn(7, generator=torch.Generator()))


def test_the_default_generator_serves_operations_without_one(desk: Desk) -> None:
    assert not desk.run(SeedGenerator(0, 11))
    out = desk.new(7)
    assert not desk.call("aten::rand", [out], size=[7])
    local = torch.Generator().manual_seed(11)
    assert torch.equal(desk.get(out), torch.rand(7, generator=local))
    assert torch.equal(draw(desk, 0), torch.randn(7, generator=local))


def test_dropout_repeats_with_its_seed(desk: Desk) -> None:
    outs = []
    for _ in range(2):
        assert not desk.run(SeedGenerator(0, 5))
        outs.append((desk.new(64), desk.new(64, dtype=11)))
        given = {"input": torch.ones(64), "p": 0.5, "train": True}
        assert not desk.call("aten::native_dropout", outs[-1], **given)
    assert torch.equal(desk.get(outs[0][0]), desk.get(outs[1][0]))


def test_saving_and_restoring(desk: Desk) -> None:
    assert not desk.run(NewGenerator(4), SeedGenerator(4, 3))
    draw(desk, 4)
    (reply,) = desk.run(ReadGenerator(1, 4))
    assert isinstance(reply, Reply)
    (state,) = reply.payloads
    assert len(state) <= limits.MAX_GENERATOR_STATE_NBYTES
    first = draw(desk, 4)
    assert not desk.run(WriteGenerator(4, bytes(state)))
    assert torch.equal(draw(desk, 4), first)


def test_a_state_that_is_none(desk: Desk) -> None:
    assert not desk.run(NewGenerator(4), SeedGenerator(4, 3))
    for state in (b"", b"x", bytes(5056), bytes([255]) * 5056):
        assert desk.fault(WriteGenerator(4, state)).code == 500
    local = torch.Generator().manual_seed(3)
    assert torch.equal(draw(desk, 4), torch.randn(7, generator=local))


def test_generators_that_do_not_exist(desk: Desk) -> None:
    for record in (SeedGenerator(9, 1), WriteGenerator(9, b""), FreeGenerator(9)):
        assert desk.fault(record).code == HandleUnknown.code
    (failure,) = desk.run(ReadGenerator(2, 9))
    assert isinstance(failure, Failure)
    assert failure.request == 2


def test_making_and_freeing(desk: Desk) -> None:
    assert not desk.run(NewGenerator(4))
    assert desk.fault(NewGenerator(4)).code == ArgumentInvalid.code
    assert desk.fault(NewGenerator(0)).code == ArgumentInvalid.code
    assert not desk.run(FreeGenerator(4), NewGenerator(4))
    assert desk.fault(FreeGenerator(0)).code == ArgumentInvalid.code


def test_generators_are_bounded(desk: Desk) -> None:
    records = [NewGenerator(one + 1) for one in range(limits.MAX_GENERATORS)]
    assert not desk.run(*records)
    assert desk.fault(NewGenerator(5000)).code == ArgumentInvalid.code
