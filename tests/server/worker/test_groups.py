"""Collectives between executors: gloo for real, every kind, and a rank that is lost."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

import pytest
import torch
from support.executor_desk import QUOTA_NBYTES, geometry
from support.waiting import eventually
from xpool_protocol.group_records import COLLECTIVES, REDUCTIONS
from xpool_protocol.messages import Failure, Reply
from xpool_protocol.records import (
    Allocate,
    Collective,
    DefineGroup,
    Fence,
    FreeGroup,
    OpenMeeting,
    Read,
    Record,
    Write,
)
from xpool_protocol.values import Tensor, read_value
from xpool_protocol.wire import Reader
from xpool_server.devices import open_backend
from xpool_server.executor import Executor
from xpool_server.vouching import Vouching

RANKS = (0, 1)
TIMEOUT_MS = 20_000


class QuietDoor:
    """What a worker of a pool has for others, but for copies."""

    host = "127.0.0.1"
    vouching = Vouching(key=b"the pool's")
    has_room = True

    def news(self) -> None:
        """These desks look again by themselves."""

    def define(self, *_: object) -> None:
        raise AssertionError("no copy is made here")

    line = keep = define


class Desk:
    """One rank: tensors go in, records are made, tensors come out."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.executor = Executor(open_backend("cpu"), QUOTA_NBYTES, door=QuietDoor())
        self._ids = itertools.count(1)
        self.said: list[Reply | Failure] = []

    def once(self, record: Record) -> bool:
        with self.executor.batch():
            answers = self.executor.execute(record)
        self.said += answers or []
        return answers is not None

    def put(self, tensor: torch.Tensor) -> Tensor:
        storage = next(self._ids)
        data = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
        assert self.once(Allocate(storage, len(data)))
        assert self.once(Write(storage, 0, len(data), 0, data))
        return geometry(tensor.contiguous(), storage)

    def get(self, wire: Tensor, like: torch.Tensor) -> torch.Tensor:
        self.said.clear()
        nbytes = like.numel() * like.element_size()
        self.once(Read(1, wire.storage, 0, nbytes))
        (reply,) = self.said
        assert isinstance(reply, Reply), reply
        data = bytearray(b"".join(bytes(chunk) for chunk in reply.payloads))
        return torch.frombuffer(data, dtype=like.dtype).reshape(like.shape)


def both(desks: list[Desk], *records: Record) -> None:
    """Execute a record at each rank until both are over."""
    left = dict(zip(desks, records, strict=True))

    def are_over() -> bool:
        for desk in list(left):
            if desk.once(left[desk]):
                del left[desk]
        return not left

    eventually(are_over, f"the end of {records[0]}", 30)


@pytest.fixture
def desks() -> Iterator[list[Desk]]:
    made = [Desk(rank) for rank in RANKS]
    assert made[0].once(OpenMeeting(1))
    (reply,) = made[0].said
    assert isinstance(reply, Reply)
    address = str(read_value(Reader(reply.value)))
    both(
        made,
        *(DefineGroup(1, rank, 2, address, "secret", TIMEOUT_MS) for rank in RANKS),
    )
    made[0].said.clear()
    assert not made[1].said
    yield made
    for desk in made:
        desk.once(FreeGroup(1))


def what(name: str) -> int:
    return COLLECTIVES.index(name)


def given(rank: int, *shape: int) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.arange(1.0 + rank, 1.0 + rank + count).reshape(shape)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(desks: list[Desk], name: str) -> None:
    kind = torch.int64 if name in ("band", "bor", "bxor") else torch.float32
    tensors = [given(rank, 3).to(kind) for rank in RANKS]
    wires = [desk.put(one) for desk, one in zip(desks, tensors, strict=True)]
    code = REDUCTIONS.index(name)
    both(
        desks,
        *(Collective(1, what("all_reduce"), code, 0, 0, (), (wire,)) for wire in wires),
    )
    a, b = tensors
    expected = {
        "sum": lambda: a + b,
        "avg": lambda: (a + b) / 2,
        "product": lambda: a * b,
        "min": lambda: torch.minimum(a, b),
        "max": lambda: torch.maximum(a, b),
        "band": lambda: a & b,
        "bor": lambda: a | b,
        "bxor": lambda: a ^ b,
    }[name]()
    for desk, wire in zip(desks, wires, strict=True):
        assert torch.equal(desk.get(wire, a), expected)


X, Y = given(0, 4), given(1, 4)
Z = torch.zeros(4)
CASES = [
    # name, root, inputs and outputs of both ranks, what the outputs become
    ("broadcast", 1, ([], []), ([X], [Y]), ([Y], [Y])),
    ("reduce", 0, ([], []), ([X], [Y]), ([X + Y], None)),
    ("all_gather", 0, ([X], [Y]), ([Z, Z], [Z, Z]), ([X, Y], [X, Y])),
    (
        "all_gather_into_tensor",
        0,
        ([X], [Y]),
        ([torch.zeros(8)], [torch.zeros(8)]),
        ([torch.cat([X, Y])], [torch.cat([X, Y])]),
    ),
    (
        "reduce_scatter",
        0,
        ([X, Y], [Y, X]),
        ([Z], [Z]),
        ([X + Y], [X + Y]),
    ),
    (
        "reduce_scatter_tensor",
        0,
        ([torch.cat([X, Z])], [torch.cat([Y, Y])]),
        ([Z], [Z]),
        ([X + Y], [Y]),
    ),
    ("gather", 1, ([X], [Y]), ([], [Z, Z]), ([], [X, Y])),
    ("scatter", 0, ([X, Y], []), ([Z], [Z]), ([X], [Y])),
    ("all_to_all", 0, ([X, Y], [Z, X]), ([Z, Z], [Z, Z]), ([X, Z], [Y, X])),
]


@pytest.mark.parametrize(
    ("name", "root", "inputs", "outputs", "expected"),
    CASES,
    ids=[case[0] for case in CASES],
)
def test_every_kind(desks, name, root, inputs, outputs, expected) -> None:  # type: ignore[no-untyped-def]
    wires = []
    records = []
    for desk, ins, outs in zip(desks, inputs, outputs, strict=True):
        made = tuple(desk.put(one) for one in outs)
        sent = tuple(desk.put(one) for one in ins)
        wires.append(made)
        records.append(Collective(1, what(name), 0, root, 0, sent, made))
    both(desks, *records)
    for desk, made, wanted in zip(desks, wires, expected, strict=True):
        for wire, value in zip(made, wanted or (), strict=wanted is not None):
            assert torch.equal(desk.get(wire, value), value)
        assert not any(isinstance(one, Failure) for one in desk.said)


def test_splits(desks: list[Desk]) -> None:
    sent = [torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5])]
    splits = [((1, 2), (1, 0)), ((0, 2), (2, 2))]
    wanted = [torch.tensor([1.0]), torch.tensor([2.0, 3, 4, 5])]
    wires = [
        desk.put(torch.zeros_like(one)) for desk, one in zip(desks, wanted, strict=True)
    ]
    both(
        desks,
        *(
            Collective(
                1, what("all_to_all_single"), 0, 0, 0, (desk.put(one),), (wire,), *split
            )
            for desk, one, wire, split in zip(desks, sent, wires, splits, strict=True)
        ),
    )
    for desk, wire, value in zip(desks, wires, wanted, strict=True):
        assert torch.equal(desk.get(wire, value), value)


def test_both_may_send_first(desks: list[Desk]) -> None:
    big = [torch.full((100_000,), float(rank)) for rank in RANKS]
    sends = [
        Collective(1, what("send"), 0, 1 - desk.rank, 7, (desk.put(one),), ())
        for desk, one in zip(desks, big, strict=True)
    ]
    both(desks, *sends)
    wires = [desk.put(torch.zeros(100_000)) for desk in desks]
    both(
        desks,
        *(
            Collective(1, what("recv"), 0, 1 - desk.rank, 7, (), (wire,))
            for desk, wire in zip(desks, wires, strict=True)
        ),
    )
    for desk, wire in zip(desks, wires, strict=True):
        assert torch.equal(desk.get(wire, big[0]), big[1 - desk.rank])


def test_what_is_not_laid_out_in_rows(desks: list[Desk]) -> None:
    wires = []
    for desk in desks:
        base = desk.put(given(desk.rank, 2, 3))
        wires.append((base, Tensor(base.storage, base.dtype, (3, 2), (1, 3), 0)))
    both(
        desks,
        *(
            Collective(1, what("all_reduce"), 0, 0, 0, (), (turned,))
            for _, turned in wires
        ),
    )
    for desk, (base, _) in zip(desks, wires, strict=True):
        value = desk.get(base, given(0, 2, 3))
        assert torch.equal(value, given(0, 2, 3) + given(1, 2, 3))


def test_a_rank_that_is_lost_fails_the_others_and_nothing_else(
    desks: list[Desk],
) -> None:
    first, second = desks
    wire, other = first.put(X), first.put(Y)
    record = Collective(1, what("all_reduce"), 0, 0, 0, (), (wire,))
    assert not first.once(record)
    second.once(FreeGroup(1))
    eventually(lambda: first.once(record), "the end of the collective", 30)
    (failure,) = first.said
    assert isinstance(failure, Failure)
    assert failure.fault.name == "c10d::all_reduce"
    assert "another rank has ended, failed or is too late" in failure.fault.text
    first.said.clear()
    assert first.once(Collective(1, what("broadcast"), 0, 1, 0, (), (other,)))
    assert first.said == [], "it only met the first failure"
    assert first.once(Read(9, other.storage, 0, 4))
    (answer,) = first.said
    assert isinstance(answer, Failure)
    assert answer.fault == failure.fault
    fresh = first.put(Z)
    assert torch.equal(first.get(fresh, Z), Z)


def test_a_poisoned_tensor_ends_the_group_at_once(desks: list[Desk]) -> None:
    first, second = desks
    assert second.once(Write(999, 0, 1, 0, b"x")), "a failure"
    poisoned = second.put(Y)
    assert second.once(Write(poisoned.storage, 1 << 20, 1, 0, b"x"))
    wire = first.put(X)
    both(
        desks,
        Collective(1, what("all_reduce"), 0, 0, 0, (), (wire,)),
        Collective(1, what("all_reduce"), 0, 0, 0, (), (poisoned,)),
    )
    assert any(isinstance(one, Failure) for one in first.said)


def test_a_rank_that_never_comes_is_waited_for_as_long_as_was_said() -> None:
    desk = Desk(0)
    assert desk.once(OpenMeeting(1))
    (reply,) = desk.said
    assert isinstance(reply, Reply)
    address = str(read_value(Reader(reply.value)))
    desk.said.clear()
    define = DefineGroup(1, 0, 2, address, "secret", 300)
    eventually(lambda: desk.once(define), "the end of its patience", 30)
    (failure,) = desk.said
    assert isinstance(failure, Failure)
    assert "could not join its process group" in failure.fault.text
    wire = desk.put(X)
    assert desk.once(Collective(1, what("all_reduce"), 0, 0, 0, (), (wire,)))
    desk.said.clear()
    assert desk.once(Fence(3))
    assert isinstance(desk.said[0], Failure)


def test_a_meeting_is_where_a_server_of_the_pool_says_it_is() -> None:
    desk = Desk(1)
    with socket.create_server(("127.0.0.1", 0)) as victim:
        address = f"127.0.0.1:{victim.getsockname()[1]}"
        forged = Vouching(key=b"another pool's").sealed(address)
        for group, where in enumerate((address, forged), 1):
            define = DefineGroup(group, 1, 2, where, "secret", TIMEOUT_MS)
            eventually(lambda define=define: desk.once(define), "the refusal", 10)
            failure = desk.said.pop()
            assert isinstance(failure, Failure)
            assert "no server of this pool vouches for" in failure.fault.text
        victim.setblocking(False)
        with pytest.raises(BlockingIOError):
            victim.accept()


def test_groups_that_do_not_exist_or_exist_already(desks: list[Desk]) -> None:
    first = desks[0]
    wire = first.put(X)
    assert first.once(Collective(8, what("all_reduce"), 0, 0, 0, (), (wire,)))
    assert first.once(DefineGroup(1, 0, 2, "127.0.0.1:1", "s", 100))
    assert first.once(FreeGroup(77))
    texts = [one.fault.text for one in first.said if isinstance(one, Failure)]
    assert "group 8 was never defined" in texts[0]
    assert "group 1 cannot be made" in texts[1]
