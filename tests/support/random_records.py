"""Random records, mostly sensible, for whoever executes them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from support.executor_desk import bytes_from
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

ROOM_NBYTES = 256
LIVE = range(4)
"""Storages that are there at the beginning, of so many bytes each."""

ids = st.integers(0, 6)
small = st.integers(0, 5)
requests = st.integers(1, 5)
FOUR_BYTES = st.binary(min_size=4, max_size=4)
dtypes = st.sampled_from([6, 6, 6, 6, 4, 5, 7, 9, 11])
shapes = st.sampled_from([(2, 3), (2, 3), (3,), (), (0, 3), (1, 3)])
new_ids = st.integers(10, 14)


def mostly(common: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> Any:
    """Nine times of ten what makes sense, so that most calls get as far as torch."""
    return st.integers(0, 9).flatmap(lambda roll: common if roll else rare)


@st.composite
def wild_tensors(draw: Any) -> Tensor:
    sizes = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 30]), max_size=3)))
    strides = row_major_strides(sizes)
    if draw(st.booleans()):
        strides = tuple(draw(st.sampled_from([0, 1, 2, 1 << 46])) for _ in sizes)
    flags = draw(st.sampled_from([0, 1, 2, 3]))
    offset = draw(st.sampled_from([0, 1, 1 << 46]))
    return Tensor(draw(ids), draw(dtypes), sizes, strides, offset, flags)


def rows(storages: st.SearchStrategy[int]) -> Any:
    return st.builds(
        lambda storage, dtype, sizes: Tensor(
            storage, dtype, sizes, row_major_strides(sizes)
        ),
        storages,
        dtypes,
        shapes,
    )


tensors = mostly(rows(st.sampled_from([*LIVE, 10, 11])), wild_tensors())
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
anything = st.one_of(tensors, plain, st.lists(tensors, max_size=3), st.lists(small))

# What the arguments of OPERATIONS are, one after the other; all but the first may be
# left out by drawing fewer.
SENSIBLE: list[list[Any]] = [
    [tensors, tensors, st.integers(-2, 2)],
    [tensors, tensors, st.integers(-2, 2)],
    [tensors, tensors, tensors],
    [tensors],
    [st.lists(tensors, min_size=1, max_size=3), st.integers(-1, 1)],
    [tensors],
    [tensors, tensors],
    [tensors],
    [tensors, st.sampled_from([[6], [3, 2], [-1]])],
    [st.sampled_from([[2, 3], [3], [], [2000], [1 << 40]]), dtypes.map(DType)],
    [st.lists(tensors, max_size=3), st.integers(-2, 2)],
    [tensors, st.integers(-1, 1)],
    [tensors, st.just(MemoryFormat(0))],
    [tensors, st.just(0.0), st.just(1.0), small.map(Generator)],
    [tensors, st.just([900])],
    [tensors],
    [tensors],
]


@st.composite
def calls(draw: Any) -> tuple[int, tuple[tuple[int, Any], ...]]:
    """An operation and arguments for it."""
    operation = draw(st.integers(0, len(OPERATIONS)))
    given = [draw(mostly(kind, anything)) for kind in SENSIBLE[operation]]
    if draw(st.integers(0, 9)) == 0:
        given = given[: draw(st.integers(0, len(given)))]
    return operation, tuple(enumerate(given))


outputs = st.one_of(
    st.tuples(rows(new_ids)),
    st.just((None,)),
    st.lists(st.none() | rows(new_ids) | wild_tensors(), max_size=3).map(tuple),
)

call_records = st.one_of(
    st.builds(
        lambda call, out: Call(operation=call[0], arguments=call[1], outputs=out),
        calls(),
        outputs,
    ),
    st.builds(
        lambda request, at, call: RequestCall(
            request, at, operation=call[0], arguments=call[1]
        ),
        requests,
        st.integers(3, 19),
        calls(),
    ),
)
other_records = st.one_of(
    st.builds(Allocate, ids, st.sampled_from([0, 1, 36, 256, 4000, 9000, 1 << 46])),
    st.builds(Free, ids),
    st.builds(Write, ids, small, st.just(4), st.just(0), FOUR_BYTES),
    st.builds(Write, ids, small, st.sampled_from([2, 4, 6]), requests, st.just(b"")),
    st.builds(Read, requests, ids, small, st.sampled_from([0, 4, 1 << 20])),
    st.builds(Fence, requests),
    st.builds(Statistics, requests),
    st.builds(NewGenerator, small),
    st.builds(SeedGenerator, small, st.integers(0, (1 << 64) - 1)),
    st.builds(ReadGenerator, requests, small),
    st.builds(WriteGenerator, small, st.binary(max_size=20)),
    st.builds(FreeGenerator, small),
)
records: st.SearchStrategy[Record] = st.booleans().flatmap(
    lambda is_call: call_records if is_call else other_records
)


def opening() -> bytes:
    """Operations, and storages with known bytes."""
    items: list[Record] = [
        DefineOperation(number, name, names)
        for number, (name, names) in enumerate(OPERATIONS)
    ]
    for storage in LIVE:
        items += [Allocate(storage, ROOM_NBYTES), zeros(storage, ROOM_NBYTES)]
    return bytes_from(*items)


def zeros(storage: int, nbytes: int) -> Write:
    return Write(storage, 0, nbytes, 0, bytes(nbytes))


def determined(record: Record) -> list[Record]:
    """A record without undefined bytes."""
    if isinstance(record, Allocate) and record.nbytes <= QUOTA_NBYTES:
        return [record, zeros(record.storage, record.nbytes)]
    return [record]


streams = st.lists(records, min_size=1, max_size=25).map(
    lambda items: bytes_from(*(one for item in items for one in determined(item)))
)
