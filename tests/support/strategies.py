"""Hypothesis strategies for everything on the wire, made from the structs' own fields.

A field that is added to a message or record is drawn at once; a record's integer
field without a bound in ``BOUNDS`` is an error, so that nobody forgets one.
"""

from __future__ import annotations

import math
import types
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from hypothesis import strategies as st
from support import array_strategies
from xpool_protocol import kernel_records, limits, messages, records, values
from xpool_protocol.arrays.values import LAST_ARRAY_DTYPE
from xpool_protocol.group_records import COLLECTIVES, REDUCTIONS
from xpool_protocol.messages import Message
from xpool_protocol.records import Record
from xpool_protocol.values import HostTensor, SparseTensor, Tensor, Value
from xpool_protocol.wire import INT64_MAX, INT64_MIN, UINT64_MAX, Writer

BOUNDS: dict[str, tuple[int, int]] = {
    "operation": (0, limits.MAX_OPERATIONS - 1),
    "request": (1, limits.MAX_STORAGE_ID),
    "storage": (0, limits.MAX_STORAGE_ID),
    "first_storage": (0, limits.MAX_STORAGE_ID),
    "generator": (0, limits.MAX_STORAGE_ID),
    "graph": (0, limits.MAX_STORAGE_ID),
    "plan": (0, limits.MAX_STORAGE_ID),
    "first": (0, limits.MAX_PLAN_RECORDS),
    "count": (0, limits.MAX_PLAN_RECORDS),
    "check": (0, (1 << 32) - 1),
    "storages": (0, limits.MAX_GRAPH_STORAGES),
    "nbytes": (0, limits.MAX_STORAGE_NBYTES),
    "offset": (0, limits.MAX_STORAGE_NBYTES),
    "seed": (0, UINT64_MAX),
    "peer": (0, limits.MAX_PEERS - 1),
    "group": (0, limits.MAX_STORAGE_ID),
    "rank": (0, 3),
    "size": (4, limits.MAX_RANKS),
    "timeout_ms": (0, limits.MAX_GROUP_TIMEOUT_MS),
    "what": (0, len(COLLECTIVES) - 1),
    "reduction": (0, len(REDUCTIONS) - 1),
    "root": (0, limits.MAX_RANKS - 1),
    "tag": (0, limits.MAX_TAG),
    "array_operation": (0, limits.MAX_OPERATIONS - 1),
    "array_dtype": (limits.FIRST_ARRAY_DTYPE, LAST_ARRAY_DTYPE),
    "number": (0, limits.MAX_STORAGE_ID),
    "first_number": (0, limits.MAX_STORAGE_ID),
}
"""Least and greatest value of each integer field of a record."""


def integers(low: int, high: int) -> st.SearchStrategy[int]:
    """Mostly small or at an end: where encodings change their length."""
    small = max(low, -150)
    return st.one_of(
        st.integers(small, min(high, small + 300)),
        st.sampled_from([low, high]),
        st.integers(low, high),
    )


def texts(limit: int) -> st.SearchStrategy[str]:
    return st.text(max_size=min(limit // 4, 20))


# ---- values


@st.composite
def sizes(draw: st.DrawFn, max_items: int = limits.MAX_ITEMS) -> tuple[int, ...]:
    """Up to six dimensions whose product, empty ones as one, is bounded."""
    left = max_items
    drawn = []
    for _ in range(draw(st.integers(0, 6))):
        size = draw(integers(0, min(left, limits.MAX_EXTENT)))
        left //= size or 1
        drawn.append(size)
    return tuple(drawn)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    extents = draw(sizes())
    strides = values.row_major_strides(extents)
    if draw(st.booleans()) or any(stride > limits.MAX_EXTENT for stride in strides):
        shape = strides
    else:
        each = [integers(0, limits.MAX_EXTENT) for _ in extents]
        shape = draw(st.tuples(*each))
    return Tensor(
        draw(integers(*BOUNDS["storage"])),
        draw(st.sampled_from(sorted(values.ITEM_NBYTES))),
        extents,
        shape,
        draw(integers(0, limits.MAX_EXTENT)),
        draw(st.integers(0, values.FLAG_CONJ | values.FLAG_NEG)),
    )


@st.composite
def sparse_tensors(draw: st.DrawFn) -> SparseTensor:
    layout = draw(st.sampled_from(sorted(values.SPARSE_PARTS)))
    extents = draw(sizes())
    count = values.SPARSE_PARTS[layout]
    return SparseTensor(
        layout,
        extents,
        draw(st.integers(0, len(extents))),
        draw(st.tuples(*[tensors()] * count)),
        layout == values.LAYOUT_COO and draw(st.booleans()),
    )


@st.composite
def host_tensors(draw: st.DrawFn) -> HostTensor:
    dtype = draw(st.sampled_from(sorted(values.ITEM_NBYTES)))
    extents = draw(sizes(max_items=64))
    nbytes = values.ITEM_NBYTES[dtype] * math.prod(extents)
    data = draw(st.binary(min_size=nbytes, max_size=nbytes))
    is_wrapped = not extents and draw(st.booleans())
    return HostTensor(dtype, extents, data, is_wrapped)


CODES = st.integers(0, values.MAX_CODE)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    integers(INT64_MIN, INT64_MAX),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    texts(limits.MAX_STRING_NBYTES),
    tensors(),
    sparse_tensors(),
    host_tensors(),
    st.builds(values.DType, st.sampled_from(sorted(values.ITEM_NBYTES))),
    st.builds(values.Device, CODES),
    st.builds(values.Layout, CODES),
    st.builds(values.MemoryFormat, CODES),
    st.builds(values.Generator, integers(*BOUNDS["generator"])),
)


def _nested(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return SCALARS
    packed = st.lists(integers(INT64_MIN, INT64_MAX), max_size=5)
    mixed = st.lists(_nested(depth - 1), max_size=4)
    return st.one_of(SCALARS, packed, mixed)


WIRE_VALUES: st.SearchStrategy[Value] = _nested(limits.MAX_DEPTH)

ARGUMENTS = st.dictionaries(
    st.integers(0, limits.MAX_ARGUMENTS - 1), WIRE_VALUES, max_size=4
).map(lambda found: tuple(sorted(found.items(), key=lambda item: item[0])))


# ---- records


def _numbers(high: int) -> st.SearchStrategy[Any]:
    return st.lists(integers(0, high), max_size=5).map(tuple)


NAMES = texts(limits.MAX_NAME_NBYTES)
KERNEL_NAMES = texts(limits.MAX_KERNEL_NAME_NBYTES)
EXTENTS = st.tuples(*[integers(0, limits.MAX_KERNEL_EXTENT)] * 3)
KERNEL_ARGUMENTS: st.SearchStrategy[Any] = st.lists(
    st.one_of(
        st.builds(kernel_records.BytesArgument, st.binary(max_size=64)),
        st.builds(
            kernel_records.StorageArgument,
            integers(*BOUNDS["storage"]),
            integers(0, limits.MAX_STORAGE_NBYTES),
        ),
        st.builds(kernel_records.ArrayArgument, integers(*BOUNDS["storage"])),
        st.just(kernel_records.NullArgument()),
    ),
    max_size=5,
).map(tuple)


@st.composite
def modules(draw: st.DrawFn) -> records.MakeModule:
    number, code = draw(integers(*BOUNDS["storage"])), draw(st.binary(max_size=64))
    if draw(st.booleans()):
        return records.MakeModule(number, 1, code)
    lists = st.lists(KERNEL_NAMES, max_size=3).map(tuple)
    return records.MakeModule(number, 0, code, draw(lists), draw(lists))


FIELDS: dict[tuple[type, str], st.SearchStrategy[Any]] = {
    (records.DefineOperation, "name"): NAMES,
    (records.DefineOperation, "argument_names"): st.lists(NAMES, max_size=5).map(tuple),
    (records.Call, "arguments"): ARGUMENTS,
    (records.Call, "outputs"): st.lists(st.none() | tensors(), max_size=4).map(tuple),
    (records.RequestCall, "arguments"): ARGUMENTS,
    (records.Read, "nbytes"): integers(0, limits.TRANSFER_NBYTES),
    (records.WriteGenerator, "state"): st.binary(max_size=64),
    (records.DefinePeer, "address"): NAMES,
    (records.DefinePeer, "key"): NAMES,
    (records.DefinePeer, "name"): NAMES,
    **{
        (kind, "ticket"): st.binary(min_size=16, max_size=16)
        for kind in (records.Send, records.Receive)
    },
    **{
        (kind, "nbytes"): integers(0, limits.TRANSFER_NBYTES)
        for kind in (records.Send, records.Receive)
    },
    (records.UploadKnown, "digest"): st.binary(min_size=32, max_size=32),
    **{
        (kind, "module"): integers(*BOUNDS["storage"])
        for kind in (
            records.FreeModule,
            records.LaunchKernel,
            records.KernelAttributes,
            records.SetKernelAttribute,
        )
    },
    **{
        (kind, "name"): KERNEL_NAMES
        for kind in (
            records.LaunchKernel,
            records.KernelAttributes,
            records.SetKernelAttribute,
        )
    },
    (records.LaunchKernel, "grid"): EXTENTS,
    (records.LaunchKernel, "block"): EXTENTS,
    (records.LaunchKernel, "shared_nbytes"): integers(0, limits.MAX_KERNEL_EXTENT),
    (records.LaunchKernel, "flags"): st.integers(0, 1),
    (records.LaunchKernel, "arguments"): KERNEL_ARGUMENTS,
    (records.SetKernelAttribute, "attribute"): st.sampled_from([8, 9]),
    (records.SetKernelAttribute, "value"): integers(INT64_MIN, INT64_MAX),
    (records.DefineGroup, "address"): NAMES,
    (records.DefineGroup, "secret"): NAMES,
    **{
        (records.Collective, name): st.lists(tensors(), max_size=3).map(tuple)
        for name in ("inputs", "outputs")
    },
    **{
        (records.Collective, name): _numbers(limits.MAX_EXTENT)
        for name in ("input_splits", "output_splits")
    },
    (records.DefineGraph, "parameters"): _numbers(limits.MAX_GRAPH_STORAGES - 1),
    (records.DefineGraph, "results"): _numbers(limits.MAX_GRAPH_STORAGES - 1),
    (records.DefineGraph, "records"): st.binary(max_size=64),
    (records.DefinePlan, "records"): st.binary(max_size=64),
    (records.DefinePlan, "layout"): st.binary(max_size=64),
    (records.RunPlan, "values"): st.binary(max_size=64),
    (records.RunGraph, "parameters"): _numbers(limits.MAX_STORAGE_ID),
    (records.RunGraph, "results"): _numbers(limits.MAX_STORAGE_ID),
    (records.DefineArrayOperation, "name"): NAMES,
    (records.DefineArrayDtype, "description"): array_strategies.DESCRIPTIONS,
    (records.ArrayCall, "results"): array_strategies.RESULTS,
    **{
        (kind, name): drawn
        for kind in (records.ArrayCall, records.ArrayRequest)
        for name, drawn in (
            ("arguments", array_strategies.ARGUMENTS),
            ("keywords", array_strategies.KEYWORDS),
        )
    },
    (records.FreeArrays, "numbers"): _numbers(limits.MAX_STORAGE_ID),
    (records.ArrayOverStorage, "is_taken"): st.booleans(),
    (records.ArrayOverStorage, "tensor"): tensors(),
}


def _field_of_record(kind: type, field: msgspec.structs.FieldInfo) -> Any:
    own = FIELDS.get((kind, field.name))
    if own is not None:
        return own
    assert field.type is int, f"{kind.__name__}.{field.name} has no strategy"
    return integers(*BOUNDS[field.name])


@st.composite
def writes(draw: st.DrawFn) -> records.Write:
    storage, offset = draw(integers(*BOUNDS["storage"])), draw(integers(0, 1 << 40))
    if draw(st.booleans()):
        data = draw(st.binary(max_size=64))
        return records.Write(storage, offset, len(data), 0, data)
    nbytes = draw(integers(0, limits.TRANSFER_NBYTES))
    return records.Write(storage, offset, nbytes, draw(st.integers(1, 255)))


RECORD_KINDS: tuple[type[Record], ...] = get_args(Record)


def records_of(kind: type[Record]) -> st.SearchStrategy[Any]:
    """Records of one kind, with every field drawn."""
    if kind is records.Write:
        return writes()
    if kind is records.PutArray:
        return array_strategies.put_arrays()
    if kind is records.MakeModule:
        return modules()
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, *[_field_of_record(kind, field) for field in fields])


WIRE_RECORDS: st.SearchStrategy[Record] = st.one_of(*map(records_of, RECORD_KINDS))


def encoded(written: list[Record]) -> bytes:
    """The records of one batch as bytes."""
    writer = Writer()
    for record in written:
        records.write_record(writer, record)
    return bytes(writer.buffer)


# ---- messages


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """What a field of a message may hold, from its type and its bounds."""
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        return _bounded(inner, metas[0])
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of(*map(of_type, get_args(kind)))
    if kind is int:
        return integers(INT64_MIN, INT64_MAX)
    if kind is float:
        return st.floats(allow_nan=False)
    assert issubclass(kind, msgspec.Struct), f"no strategy for {kind}"
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, *[of_type(field.type) for field in fields])


def _bounded(kind: Any, meta: msgspec.Meta) -> st.SearchStrategy[Any]:
    if kind is int:
        assert meta.ge is not None
        return integers(int(meta.ge), UINT64_MAX if meta.le is None else int(meta.le))
    assert meta.max_length is not None
    if kind is str:
        return texts(meta.max_length)
    if get_origin(kind) is tuple:
        return st.lists(of_type(get_args(kind)[0]), max_size=4).map(tuple)
    keys, held = get_args(kind)
    return st.dictionaries(of_type(keys), of_type(held), max_size=4)


PAYLOADS = st.lists(st.binary(max_size=40), max_size=4).map(tuple)
NUMBERS = integers(0, UINT64_MAX)
RECORD_BYTES = st.lists(WIRE_RECORDS, max_size=3).map(encoded)


def _value_bytes(value: Value) -> bytes:
    writer = Writer()
    values.write_value(writer, value)
    return bytes(writer.buffer)


# Not msgpack: their bodies are written by hand, and so are their strategies.
BY_HAND: dict[type[Message], st.SearchStrategy[Any]] = {
    messages.Batch: st.builds(messages.Batch, NUMBERS, NUMBERS, RECORD_BYTES, PAYLOADS),
    messages.Ack: st.builds(messages.Ack, NUMBERS, NUMBERS),
    messages.Reply: st.builds(
        messages.Reply, NUMBERS, WIRE_VALUES.map(_value_bytes), PAYLOADS
    ),
    messages.Failure: st.builds(messages.Failure, NUMBERS, of_type(messages.Fault)),
    messages.Ping: st.builds(messages.Ping, NUMBERS),
    messages.Pong: st.builds(messages.Pong, NUMBERS),
}
MESSAGE_KINDS: tuple[type[Message], ...] = get_args(Message)


def messages_of(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Messages of one kind, with every field drawn."""
    return BY_HAND[kind] if kind in BY_HAND else of_type(kind)


WIRE_MESSAGES: st.SearchStrategy[Message] = st.one_of(*map(messages_of, MESSAGE_KINDS))


# ---- damage


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with up to three spots replaced, cut out or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(len(data), at + 4)))
        data[at:until] = draw(st.binary(max_size=4))
    return bytes(data)
