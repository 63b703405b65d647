"""Records of the log about arrays. SPEC.md sections 5 and 15.

Arrays live beside storages, under numbers of their own. A call names its operation by a
row of the session's table, which ``DefineArrayOperation`` fills.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.arrays.described import (
    Description,
    read_description,
    write_description,
)
from xpool_protocol.arrays.values import (
    read_array_value,
    read_described,
    read_geometry,
    write_array_value,
    write_geometry,
)
from xpool_protocol.errors import PeerError
from xpool_protocol.values import ITEM_NBYTES, Tensor, read_tensor, write_tensor
from xpool_protocol.wire import Reader, Writer

DEFINE_ARRAY_OPERATION: Final = 44
ARRAY_CALL: Final = 45
ARRAY_REQUEST: Final = 46
FREE_ARRAYS: Final = 47
PUT_ARRAY: Final = 48
ARRAY_OVER_STORAGE: Final = 49
STORAGE_OVER_ARRAY: Final = 50
DEFINE_ARRAY_DTYPE: Final = 54

ARRAY_KINDS: Final = frozenset(range(DEFINE_ARRAY_OPERATION, STORAGE_OVER_ARRAY + 1))
"""Those that come in rows, which a server may execute in another language."""

ORDER_C: Final = 0
ORDER_F: Final = 1


class DefineArrayOperation(msgspec.Struct, frozen=True, gc=False):
    """Names an array operation once; calls then use its number."""

    array_operation: int
    name: str
    """``cupy.add``, ``ndarray.__getitem__``: section 15 says how they are made."""


class ArrayResult(msgspec.Struct, frozen=True, gc=False):
    """What the client calls a result, and what it expects it to be."""

    number: int
    dtype: int
    sizes: tuple[int, ...]


class ArrayCall(msgspec.Struct, frozen=True, gc=False):
    """Run an operation whose results the client has predicted and named."""

    array_operation: int
    results: tuple[ArrayResult, ...]
    """Empty: what the operation returns is dropped."""
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class ArrayRequest(msgspec.Struct, frozen=True, gc=False):
    """Run an operation and tell what it returned; the client waits."""

    request: int
    first_number: int
    """New results get this number and those that follow."""
    array_operation: int
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class FreeArrays(msgspec.Struct, frozen=True, gc=False):
    """The client will not name these arrays and objects again."""

    numbers: tuple[int, ...]


class PutArray(msgspec.Struct, frozen=True, gc=False):
    """Make an array of bytes that stand here."""

    number: int
    dtype: int
    order: int
    """0: the last index varies fastest; 1: the first."""
    sizes: tuple[int, ...]
    data: bytes


class ArrayOverStorage(msgspec.Struct, frozen=True, gc=False):
    """Make an array of memory that a storage has; both are the same bytes."""

    number: int
    is_taken: bool
    """The storage's id ends here."""
    tensor: Tensor


class StorageOverArray(msgspec.Struct, frozen=True, gc=False):
    """Make a storage of the memory of a contiguous array; both are the same bytes."""

    storage: int
    number: int


class DefineArrayDtype(msgspec.Struct, frozen=True, gc=False):
    """Describes a dtype once; its code then stands for it."""

    array_dtype: int
    description: Description


ArrayRecord: TypeAlias = (
    DefineArrayOperation
    | DefineArrayDtype
    | ArrayCall
    | ArrayRequest
    | FreeArrays
    | PutArray
    | ArrayOverStorage
    | StorageOverArray
)


def write_array_record(writer: Writer, record: ArrayRecord) -> None:
    """Append one record in its canonical form.

    Raises:
        TypeError: an argument has no place on the wire.
        ValueError: a number, a count or a length does not fit.
    """
    match record:
        case ArrayCall():
            writer.uint8(ARRAY_CALL)
            writer.uvarint(record.array_operation)
            writer.uvarint(len(record.results))
            for result in record.results:
                writer.uvarint(result.number)
                write_geometry(writer, result.dtype, result.sizes)
            _write_arguments(writer, record.arguments, record.keywords)
        case ArrayRequest():
            writer.uint8(ARRAY_REQUEST)
            writer.uvarint(record.request)
            writer.uvarint(record.first_number)
            writer.uvarint(record.array_operation)
            _write_arguments(writer, record.arguments, record.keywords)
        case DefineArrayOperation():
            writer.uint8(DEFINE_ARRAY_OPERATION)
            writer.uvarint(record.array_operation)
            writer.text(record.name)
        case DefineArrayDtype():
            writer.uint8(DEFINE_ARRAY_DTYPE)
            writer.uvarint(record.array_dtype)
            write_description(writer, record.description)
        case FreeArrays():
            writer.uint8(FREE_ARRAYS)
            writer.uvarint(len(record.numbers))
            for number in record.numbers:
                writer.uvarint(number)
        case PutArray():
            writer.uint8(PUT_ARRAY)
            writer.uvarint(record.number)
            write_geometry(writer, record.dtype, record.sizes)
            writer.uint8(record.order)
            writer.sized(record.data)
        case ArrayOverStorage():
            writer.uint8(ARRAY_OVER_STORAGE)
            writer.uvarint(record.number)
            writer.uint8(record.is_taken)
            write_tensor(writer, record.tensor)
        case StorageOverArray():
            writer.uint8(STORAGE_OVER_ARRAY)
            writer.uvarint(record.storage)
            writer.uvarint(record.number)


def _write_arguments(
    writer: Writer, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    writer.uvarint(len(arguments))
    for value in arguments:
        write_array_value(writer, value)
    writer.uvarint(len(keywords))
    for name, value in keywords.items():
        writer.text(name)
        write_array_value(writer, value)


def _read_arguments(reader: Reader) -> tuple[tuple[Any, ...], dict[str, Any]]:
    count = reader.uvarint(limits.MAX_ARGUMENTS, "number of arguments")
    arguments = tuple([read_array_value(reader) for _ in range(count)])
    keywords: dict[str, Any] = {}
    for _ in range(reader.uvarint(limits.MAX_ARGUMENTS, "number of keywords")):
        name = reader.text(limits.MAX_NAME_NBYTES, "keyword")
        if name in keywords:
            raise PeerError(f"the keyword {name!r} stands twice")
        keywords[name] = read_array_value(reader)
    return arguments, keywords


def _number(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_STORAGE_ID, "array number")


def _operation(reader: Reader) -> int:
    return reader.uvarint(limits.MAX_OPERATIONS - 1, "array operation")


def read_define_array_operation(reader: Reader) -> DefineArrayOperation:
    """The fields of a ``DefineArrayOperation``, or ``PeerError``."""
    return DefineArrayOperation(
        _operation(reader), reader.text(limits.MAX_NAME_NBYTES, "operation name")
    )


def read_define_array_dtype(reader: Reader) -> DefineArrayDtype:
    """The fields of a ``DefineArrayDtype``, or ``PeerError``."""
    code = read_described(reader)
    description = read_description(reader)
    if isinstance(description, str) and not description.startswith("|V"):
        raise PeerError(f"dtype {description} needs no description")
    return DefineArrayDtype(code, description)


def read_array_call(reader: Reader) -> ArrayCall:
    """The fields of an ``ArrayCall``, or ``PeerError``."""
    operation = _operation(reader)
    count = reader.uvarint(limits.MAX_ARRAY_RESULTS, "number of results")
    results = tuple(
        [ArrayResult(_number(reader), *read_geometry(reader)) for _ in range(count)]
    )
    return ArrayCall(operation, results, *_read_arguments(reader))


def read_array_request(reader: Reader, request: int) -> ArrayRequest:
    """The fields of an ``ArrayRequest`` behind its request, or ``PeerError``."""
    return ArrayRequest(
        request, _number(reader), _operation(reader), *_read_arguments(reader)
    )


def read_free_arrays(reader: Reader) -> FreeArrays:
    """The fields of a ``FreeArrays``, or ``PeerError``."""
    count = reader.uvarint(limits.MAX_LIST, "number of arrays")
    return FreeArrays(tuple([_number(reader) for _ in range(count)]))


def read_put_array(reader: Reader) -> PutArray:
    """The fields of a ``PutArray``, or ``PeerError``."""
    number = _number(reader)
    dtype, sizes = read_geometry(reader)
    order = reader.uint8()
    if order not in (ORDER_C, ORDER_F):
        raise PeerError(f"order {order} is unknown")
    data = reader.sized(limits.INLINE_NBYTES, "array")
    nbytes = ITEM_NBYTES.get(dtype, 0)
    for size in sizes:
        nbytes *= size
    # Of a described dtype only the session knows the itemsize.
    if dtype in ITEM_NBYTES and nbytes != len(data):
        raise PeerError(f"an array of {nbytes} bytes came with {len(data)} bytes")
    return PutArray(number, dtype, order, sizes, data)


def read_array_over_storage(reader: Reader) -> ArrayOverStorage:
    """The fields of an ``ArrayOverStorage``, or ``PeerError``."""
    number = _number(reader)
    is_taken = reader.uint8()
    if is_taken > 1:
        raise PeerError(f"mark {is_taken} is unknown")
    return ArrayOverStorage(number, bool(is_taken), read_tensor(reader))


def read_storage_over_array(reader: Reader) -> StorageOverArray:
    """The fields of a ``StorageOverArray``, or ``PeerError``."""
    storage = reader.uvarint(limits.MAX_STORAGE_ID, "storage id")
    return StorageOverArray(storage, _number(reader))
