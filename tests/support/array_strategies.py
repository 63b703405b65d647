"""Hypothesis strategies for array values and array records."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from xpool_protocol import limits
from xpool_protocol.arrays import described, records, values
from xpool_protocol.values import ITEM_NBYTES, DType, HostTensor
from xpool_protocol.wire import INT64_MAX, INT64_MIN

NAMES = st.text(max_size=20)
NUMBERS = st.one_of(
    st.integers(0, 300),
    st.sampled_from([0, limits.MAX_STORAGE_ID]),
    st.integers(0, limits.MAX_STORAGE_ID),
)
DTYPES = st.sampled_from(sorted(values.ARRAY_DTYPES))
CODES = st.integers(limits.FIRST_ARRAY_DTYPE, values.LAST_ARRAY_DTYPE)
SIZES = st.lists(st.integers(0, 300), max_size=5).map(tuple)


PLAIN_DTYPES = st.sampled_from(["<f8", ">i4", "|S10", "<U3", "<M8[us]", "|V16", "|b1"])


@st.composite
def described_dtypes(draw: st.DrawFn, depth: int = 0) -> described.Description:
    """A dtype with fields one behind the other, with gaps here and there."""
    fields, end = [], 0
    for name in draw(st.lists(NAMES, max_size=3)):
        is_plain = depth >= 2 or draw(st.booleans())
        inner = draw(PLAIN_DTYPES if is_plain else described_dtypes(depth + 1))
        sizes = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
        offset = end + draw(st.integers(0, 2))
        title = draw(NAMES)
        fields.append(described.DtypeField(name, title, offset, sizes, inner))
        end = offset + described.item_nbytes(inner) * math.prod(sizes)
    itemsize = end + draw(st.integers(1, 3))
    return described.FieldsDtype(itemsize, draw(st.booleans()), tuple(fields))


DESCRIPTIONS = st.one_of(described_dtypes(), st.just("|V16"))


@st.composite
def host_arrays(draw: st.DrawFn) -> HostTensor:
    dtype = draw(DTYPES)
    extents = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    nbytes = ITEM_NBYTES[dtype] * math.prod(extents)
    return HostTensor(dtype, extents, draw(st.binary(min_size=nbytes, max_size=nbytes)))


@st.composite
def metas(draw: st.DrawFn) -> values.ArrayMeta:
    extents = draw(SIZES)
    strides = draw(st.tuples(*[st.integers(-(1 << 40), 1 << 40)] * len(extents)))
    return values.ArrayMeta(
        *(draw(NUMBERS), draw(st.one_of(DTYPES, DESCRIPTIONS))),
        *(draw(st.integers(0, 7)), extents, strides),
        draw(st.just(-1) | NUMBERS),
    )


def named_tuples(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.lists(st.tuples(NAMES, items), max_size=3)
    return st.builds(
        lambda name, drawn: values.NamedTuple(
            name, tuple(one for one, _ in drawn), tuple(one for _, one in drawn)
        ),
        NAMES,
        pairs,
    )


LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(INT64_MIN, INT64_MAX),
    st.integers(-(1 << 500), 1 << 500),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=40),
    st.just(...),
    st.builds(values.Handle, NUMBERS),
    st.builds(values.ObjectMeta, NUMBERS, NAMES),
    st.builds(DType, DTYPES),
    st.sampled_from(values.SCALAR_TYPES),
    host_arrays(),
    metas(),
    st.builds(values.DescribedDType, CODES),
    st.builds(values.DescribedItems, CODES, SIZES, st.binary(max_size=40)),
)


def _nested(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return LEAVES
    inner = _nested(depth - 1)
    items = st.lists(inner, max_size=3)
    return st.one_of(
        LEAVES,
        items,
        items.map(tuple),
        st.builds(slice, inner, inner, inner),
        st.dictionaries(NAMES, inner, max_size=3),
        named_tuples(inner),
    )


ARRAY_VALUES: st.SearchStrategy[Any] = _nested(3)
ARGUMENTS = st.lists(ARRAY_VALUES, max_size=3).map(tuple)
KEYWORDS = st.dictionaries(NAMES, ARRAY_VALUES, max_size=2)
RESULTS = st.lists(
    st.builds(records.ArrayResult, NUMBERS, DTYPES | CODES, SIZES), max_size=3
).map(tuple)


@st.composite
def put_arrays(draw: st.DrawFn) -> records.PutArray:
    host = draw(host_arrays())
    order = draw(st.integers(0, 1))
    if draw(st.booleans()):
        data = draw(st.binary(max_size=40))
        return records.PutArray(*(draw(NUMBERS), draw(CODES), order, (3,), data))
    return records.PutArray(draw(NUMBERS), host.dtype, order, host.sizes, host.data)
