"""Whatever a client sends: faults, never an exception, and an honest ledger."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.executor_desk import Desk
from xpool_protocol.messages import Failure
from xpool_protocol.records import (
    Allocate,
    Call,
    DefineOperation,
    Fence,
    Free,
    FreeGenerator,
    NewGenerator,
    Read,
    ReadGenerator,
    Record,
    RequestCall,
    SeedGenerator,
    Statistics,
    Write,
    WriteGenerator,
)
from xpool_protocol.values import (
    Device,
    DType,
    Generator,
    HostTensor,
    Layout,
    MemoryFormat,
    Tensor,
    row_major_strides,
)

QUOTA_NBYTES = 8 << 10

OPERATIONS = [
    ("aten::add.Tensor", ("self", "other", "alpha")),
    ("aten::add_.Tensor", ("self", "other", "alpha")),
    ("aten::mul.out", ("self", "other", "out")),
    ("aten::neg", ("self",)),
    ("aten::cat", ("tensors", "dim")),
    ("aten::nonzero", ("self",)),
    ("aten::nonzero.out", ("self", "out")),
    ("aten::t_", ("self",)),
    ("aten::view", ("self", "size")),
    ("aten::zeros", ("size", "dtype", "layout", "device", "pin_memory")),
    ("aten::_foreach_add_.Scalar", ("self", "scalar")),
    ("aten::unbind.int", ("self", "dim")),
    ("aten::clone", ("self", "memory_format")),
    ("aten::normal_", ("self", "mean", "std", "generator")),
    ("aten::resize_", ("self", "size")),
    ("aten::no_such", ("self",)),
]

ids = st.integers(0, 6)
small = st.integers(0, 5)
dtypes = st.sampled_from([0, 4, 5, 6, 7, 9, 11])


@st.composite
def tensors(draw: Any) -> Tensor:
    sizes = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 30]), max_size=3)))
    strides = row_major_strides(sizes)
    if draw(st.integers(0, 4)) == 0:
        strides = tuple(draw(st.sampled_from([0, 1, 2, 1 << 46])) for _ in sizes)
    flags = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3]))
    offset = draw(st.sampled_from([0, 0, 0, 1, 1 << 46]))
    return Tensor(draw(ids), draw(dtypes), sizes, strides, offset, flags)


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.just("text"),
    dtypes.map(DType),
    small.map(Device),
    small.map(Layout),
    small.map(MemoryFormat),
    small.map(Generator),
    st.booleans().map(lambda wrapped: HostTensor(6, (), bytes(4), wrapped)),
)
values = st.one_of(
    tensors(), tensors(), plain, st.lists(tensors(), max_size=3), st.lists(small)
)
# A tensor first, as most operations have it; the rest may be anything.
arguments = st.tuples(tensors(), st.lists(values, max_size=4)).map(
    lambda pair: tuple(enumerate([pair[0], *pair[1]]))
)
outputs = st.lists(st.none() | tensors(), max_size=3).map(tuple)
operations = st.integers(0, len(OPERATIONS))

records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Call, operations, arguments, outputs),
    st.builds(Call, operations, arguments, outputs),
    st.builds(RequestCall, small, st.integers(3, 9), operations, arguments),
    st.builds(Allocate, ids, st.sampled_from([0, 1, 36, 120, 4000, 9000, 1 << 46])),
    st.builds(Free, ids),
    st.builds(Write, ids, small, st.just(4), small, st.binary(min_size=4, max_size=4)),
    st.builds(Read, small, ids, small, st.sampled_from([0, 4, 1 << 20])),
    st.builds(Fence, small),
    st.builds(Statistics, small),
    st.builds(NewGenerator, small),
    st.builds(SeedGenerator, small, st.integers(0, (1 << 64) - 1)),
    st.builds(ReadGenerator, small, small),
    st.builds(WriteGenerator, small, st.binary(max_size=20)),
    st.builds(FreeGenerator, small),
)


@settings(max_examples=300)
@given(st.lists(records, max_size=25))
def test_any_records_leave_faults_and_an_honest_ledger(batch: list[Record]) -> None:
    desk = Desk(QUOTA_NBYTES)
    for number, (name, names) in enumerate(OPERATIONS):
        desk.run(DefineOperation(number, name, names))
    for count, record in enumerate(batch):
        # ``run`` compares the ledger with the table after every record.
        for answer in desk.run(record, payloads=[b"1234", b"56"]):
            request = getattr(record, "request", 0)
            assert answer.request == request
            if isinstance(answer, Failure):
                assert answer.fault.operation <= len(OPERATIONS) + count
        assert desk.storages.allocated_nbytes <= QUOTA_NBYTES
    # Whatever happened, the session still works.
    desk.run(*(Free(one) for one in range(5000) if one in desk.storages))
    assert desk.storages.allocated_nbytes == 0
    assert not desk.run(Allocate(77, QUOTA_NBYTES))
