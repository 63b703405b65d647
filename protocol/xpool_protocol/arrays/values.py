"""Arguments and results of array operations: tagged values. SPEC.md section 15.

Python's own values stand for themselves, tuples, lists and slices included; what lives
on the server is a ``Handle``. Encoding is canonical, as in ``xpool_protocol.values``,
whose tags these share where the meaning is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from xpool_protocol import limits
from xpool_protocol.arrays.described import (
    Description,
    read_description,
    write_description,
)
from xpool_protocol.errors import PeerError
from xpool_protocol.values import (
    TAG_COMPLEX,
    TAG_DTYPE,
    TAG_FALSE,
    TAG_FLOAT,
    TAG_HOST_TENSOR,
    TAG_INT,
    TAG_LIST,
    TAG_NONE,
    TAG_TEXT,
    TAG_TRUE,
    DType,
    HostTensor,
    read_sizes,
    read_value,
    write_value,
)
from xpool_protocol.wire import INT64_MAX, INT64_MIN, Reader, Writer

ARRAY_TAG_TUPLE: Final = 32
ARRAY_TAG_HANDLE: Final = 33
ARRAY_TAG_SLICE: Final = 34
ARRAY_TAG_ELLIPSIS: Final = 35
ARRAY_TAG_BIG_INT: Final = 36
ARRAY_TAG_BYTES: Final = 37
ARRAY_TAG_DICT: Final = 38
ARRAY_TAG_ARRAY: Final = 39
ARRAY_TAG_OBJECT: Final = 40
ARRAY_TAG_NAMED_TUPLE: Final = 41
ARRAY_TAG_SCALAR_TYPE: Final = 42
ARRAY_TAG_DESCRIBED_DTYPE: Final = 43
ARRAY_TAG_DESCRIBED_ITEMS: Final = 44
ARRAY_TAG_DESCRIBED_ARRAY: Final = 45

SCALAR_TYPES: Final = (bool, int, float, complex)
"""Python's numeric types where an operation takes a dtype."""

LAYOUT_C: Final = 1
LAYOUT_F: Final = 2
LAYOUT_OWN: Final = 4
"""Bits of ``ArrayMeta.layout``: C-contiguous, Fortran-contiguous, owns its memory."""

_PLAIN_TAGS: Final = frozenset(
    {
        TAG_NONE,
        TAG_FALSE,
        TAG_TRUE,
        TAG_INT,
        TAG_FLOAT,
        TAG_COMPLEX,
        TAG_TEXT,
        TAG_HOST_TENSOR,
        TAG_DTYPE,
    }
)


class Handle(msgspec.Struct, frozen=True, gc=False):
    """An array, or another object, of the session, by its number."""

    number: int


class ArrayMeta(msgspec.Struct, frozen=True, gc=False):
    """An array that an operation returned: its number and what it looks like."""

    number: int
    dtype: int | Description
    """A code, or what a described dtype looks like."""
    layout: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes; may be negative."""
    base: int = -1
    """An argument of the call that lies in the same memory; -1: none."""


class ObjectMeta(msgspec.Struct, frozen=True, gc=False):
    """Another object that an operation returned."""

    number: int
    type_name: str


class DescribedDType(msgspec.Struct, frozen=True, gc=False):
    """A dtype that ``DefineArrayDtype`` has described, by its code."""

    code: int


class DescribedItems(msgspec.Struct, frozen=True, gc=False):
    """A small array of a described dtype, by value."""

    dtype: int
    sizes: tuple[int, ...]
    data: bytes
    """The items in row-major order: as many bytes as they take, or the call fails."""


class NamedTuple(msgspec.Struct, frozen=True, gc=False):
    """A tuple whose items have names."""

    type_name: str
    fields: tuple[str, ...]
    items: tuple[Any, ...]


def write_array_value(  # noqa: C901  one case per tag
    writer: Writer, value: Any, depth: int = 0
) -> None:
    """Append one tagged value.

    Raises:
        TypeError: the value has no place on the wire.
        ValueError: it exceeds a limit. What was written of it stays in the buffer.
    """
    match value:
        case bool():
            writer.uint8(TAG_TRUE if value else TAG_FALSE)
        case int():
            _write_int(writer, int(value))
        case tuple():
            _write_items(writer, ARRAY_TAG_TUPLE, value, depth)
        case list():
            _write_items(writer, TAG_LIST, value, depth)
        case Handle():
            writer.uint8(ARRAY_TAG_HANDLE)
            writer.uvarint(value.number)
        case slice():
            _check_depth(depth)
            writer.uint8(ARRAY_TAG_SLICE)
            for part in (value.start, value.stop, value.step):
                write_array_value(writer, part, depth + 1)
        case ellipsis if ellipsis is Ellipsis:
            writer.uint8(ARRAY_TAG_ELLIPSIS)
        case bytes():
            if len(value) > limits.MAX_STRING_NBYTES:
                raise ValueError(f"{len(value)} bytes are too many for an argument")
            writer.uint8(ARRAY_TAG_BYTES)
            writer.sized(value)
        case dict():
            _check_depth(depth)
            _check_count(len(value))
            writer.uint8(ARRAY_TAG_DICT)
            writer.uvarint(len(value))
            for key, item in value.items():
                _write_name(writer, key)
                write_array_value(writer, item, depth + 1)
        case ArrayMeta():
            is_plain = isinstance(value.dtype, int)
            writer.uint8(ARRAY_TAG_ARRAY if is_plain else ARRAY_TAG_DESCRIBED_ARRAY)
            _write_meta(writer, value)
        case DescribedDType():
            writer.uint8(ARRAY_TAG_DESCRIBED_DTYPE)
            writer.uvarint(value.code)
        case DescribedItems():
            if len(value.data) > limits.MAX_HOST_TENSOR_NBYTES:
                raise ValueError(
                    f"{len(value.data)} bytes are too many for an argument"
                )
            writer.uint8(ARRAY_TAG_DESCRIBED_ITEMS)
            write_geometry(writer, value.dtype, value.sizes)
            writer.sized(value.data)
        case ObjectMeta():
            writer.uint8(ARRAY_TAG_OBJECT)
            writer.uvarint(value.number)
            _write_name(writer, value.type_name)
        case NamedTuple():
            _check_depth(depth)
            _check_count(len(value.items))
            if len(value.fields) != len(value.items):
                raise ValueError("a named tuple has a name for each item")
            writer.uint8(ARRAY_TAG_NAMED_TUPLE)
            _write_name(writer, value.type_name)
            writer.uvarint(len(value.items))
            for name, item in zip(value.fields, value.items, strict=True):
                _write_name(writer, name)
                write_array_value(writer, item, depth + 1)
        case type():
            if value not in SCALAR_TYPES:
                raise TypeError(f"the type {value.__name__} has no place on the wire")
            writer.uint8(ARRAY_TAG_SCALAR_TYPE)
            writer.uint8(SCALAR_TYPES.index(value))
        case None | float() | complex() | str() | HostTensor() | DType():
            write_value(writer, value)
        case _:
            raise TypeError(f"a {type(value).__name__} has no place on the wire")


def _write_int(writer: Writer, value: int) -> None:
    if INT64_MIN <= value <= INT64_MAX:
        writer.uint8(TAG_INT)
        writer.svarint(value)
        return
    nbytes = (value.bit_length() + 8) // 8
    if nbytes > limits.MAX_BIG_INT_NBYTES:
        raise ValueError("an integer is too large for the wire")
    writer.uint8(ARRAY_TAG_BIG_INT)
    writer.sized(value.to_bytes(nbytes, "little", signed=True))


def _check_depth(depth: int) -> None:
    if depth >= limits.MAX_ARRAY_DEPTH:
        raise ValueError("values are nested too deep for the wire")


def _check_count(count: int) -> None:
    if count > limits.MAX_LIST:
        raise ValueError(f"{count} items are too many for the wire")


def _write_items(
    writer: Writer, tag: int, items: tuple[Any, ...] | list[Any], depth: int
) -> None:
    _check_depth(depth)
    _check_count(len(items))
    writer.uint8(tag)
    writer.uvarint(len(items))
    for item in items:
        write_array_value(writer, item, depth + 1)


def _write_name(writer: Writer, name: str) -> None:
    data = name.encode()
    if len(data) > limits.MAX_NAME_NBYTES:
        raise ValueError(f"a name of {len(data)} bytes is too long for the wire")
    writer.sized(data)


def _write_meta(writer: Writer, meta: ArrayMeta) -> None:
    writer.uvarint(meta.number)
    if isinstance(meta.dtype, int):
        writer.uint8(meta.dtype)
    else:
        write_description(writer, meta.dtype)
    writer.uint8(meta.layout)
    writer.uvarint(len(meta.sizes))
    for size in meta.sizes:
        writer.uvarint(size)
    for stride in meta.strides:
        writer.svarint(stride)
    writer.uvarint(meta.base + 1)


def read_geometry(reader: Reader) -> tuple[int, tuple[int, ...]]:
    """A dtype code and sizes, each number bounded; the dtype may be a described one."""
    code = reader.uvarint(LAST_ARRAY_DTYPE, "dtype code")
    if code < limits.FIRST_ARRAY_DTYPE and code not in ARRAY_DTYPES:
        raise PeerError(f"dtype code {code} is none of an array")
    return code, read_sizes(reader, "an array")


def write_geometry(writer: Writer, dtype: int, sizes: tuple[int, ...]) -> None:
    """The inverse of ``read_geometry``."""
    writer.uvarint(dtype)
    writer.uvarint(len(sizes))
    for size in sizes:
        writer.uvarint(size)


ARRAY_DTYPES: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 27, 28, 29})
"""Codes of the dtypes that arrays have, of those in SPEC.md section 4."""

LAST_ARRAY_DTYPE: Final = limits.FIRST_ARRAY_DTYPE + limits.MAX_ARRAY_DTYPES - 1
"""Code of the last dtype that a session can describe."""


def _read_dtype(reader: Reader) -> int:
    code = reader.uint8()
    if code not in ARRAY_DTYPES:
        raise PeerError(f"dtype code {code} is none of an array")
    return code


def _read_count(reader: Reader, depth: int) -> int:
    if depth >= limits.MAX_ARRAY_DEPTH:
        raise PeerError("values are nested too deep")
    return reader.uvarint(limits.MAX_LIST, "number of items")


def _read_name(reader: Reader) -> str:
    return reader.text(limits.MAX_NAME_NBYTES, "name")


def _read_tuple(reader: Reader, depth: int) -> tuple[Any, ...]:
    count = _read_count(reader, depth)
    return tuple([read_array_value(reader, depth + 1) for _ in range(count)])


def _read_list(reader: Reader, depth: int) -> list[Any]:
    count = _read_count(reader, depth)
    return [read_array_value(reader, depth + 1) for _ in range(count)]


def _read_handle(reader: Reader, depth: int) -> Handle:
    return Handle(reader.uvarint(limits.MAX_STORAGE_ID, "handle"))


def _read_slice(reader: Reader, depth: int) -> slice:
    if depth >= limits.MAX_ARRAY_DEPTH:
        raise PeerError("values are nested too deep")
    start, stop, step = (read_array_value(reader, depth + 1) for _ in range(3))
    return slice(start, stop, step)


def _read_big_int(reader: Reader, depth: int) -> int:
    data = reader.sized(limits.MAX_BIG_INT_NBYTES, "integer")
    value = int.from_bytes(data, "little", signed=True)
    if INT64_MIN <= value <= INT64_MAX or (value.bit_length() + 8) // 8 != len(data):
        raise PeerError("an integer is not in its shortest form")
    return value


def _read_bytes(reader: Reader, depth: int) -> bytes:
    return reader.sized(limits.MAX_STRING_NBYTES, "bytes")


def _read_dict(reader: Reader, depth: int) -> dict[str, Any]:
    count = _read_count(reader, depth)
    found = {}
    for _ in range(count):
        key = _read_name(reader)
        if key in found:
            raise PeerError(f"the key {key!r} stands twice")
        found[key] = read_array_value(reader, depth + 1)
    return found


def _read_meta(reader: Reader, depth: int) -> ArrayMeta:
    number = reader.uvarint(limits.MAX_STORAGE_ID, "handle")
    return _read_rest_of_meta(reader, number, _read_dtype(reader))


def _read_described_meta(reader: Reader, depth: int) -> ArrayMeta:
    number = reader.uvarint(limits.MAX_STORAGE_ID, "handle")
    return _read_rest_of_meta(reader, number, read_description(reader))


def _read_rest_of_meta(
    reader: Reader, number: int, dtype: int | Description
) -> ArrayMeta:
    layout = reader.uint8()
    if layout & ~(LAYOUT_C | LAYOUT_F | LAYOUT_OWN):
        raise PeerError(f"layout bits {layout:#x} are unknown")
    sizes = read_sizes(reader, "an array")
    strides = tuple([reader.svarint("stride") for _ in sizes])
    base = reader.uvarint(limits.MAX_STORAGE_ID + 1, "base") - 1
    return ArrayMeta(number, dtype, layout, sizes, strides, base)


def read_described(reader: Reader) -> int:
    """The code of a described dtype, or ``PeerError``."""
    code = reader.uvarint(LAST_ARRAY_DTYPE, "dtype code")
    if code < limits.FIRST_ARRAY_DTYPE:
        raise PeerError(f"dtype code {code} is none of a described dtype")
    return code


def _read_described_dtype(reader: Reader, depth: int) -> DescribedDType:
    return DescribedDType(read_described(reader))


def _read_described_items(reader: Reader, depth: int) -> DescribedItems:
    code = read_described(reader)
    sizes = read_sizes(reader, "an array")
    data = reader.sized(limits.MAX_HOST_TENSOR_NBYTES, "array")
    return DescribedItems(code, sizes, data)


def _read_object(reader: Reader, depth: int) -> ObjectMeta:
    number = reader.uvarint(limits.MAX_STORAGE_ID, "handle")
    return ObjectMeta(number, _read_name(reader))


def _read_named_tuple(reader: Reader, depth: int) -> NamedTuple:
    type_name = _read_name(reader)
    count = _read_count(reader, depth)
    fields, items = [], []
    for _ in range(count):
        fields.append(_read_name(reader))
        items.append(read_array_value(reader, depth + 1))
    return NamedTuple(type_name, tuple(fields), tuple(items))


def _read_scalar_type(reader: Reader, depth: int) -> type:
    index = reader.uint8()
    if index >= len(SCALAR_TYPES):
        raise PeerError(f"scalar type {index} is unknown")
    return SCALAR_TYPES[index]


_READERS: Final[dict[int, Callable[[Reader, int], Any]]] = {
    TAG_LIST: _read_list,
    ARRAY_TAG_TUPLE: _read_tuple,
    ARRAY_TAG_HANDLE: _read_handle,
    ARRAY_TAG_SLICE: _read_slice,
    ARRAY_TAG_ELLIPSIS: lambda reader, depth: Ellipsis,
    ARRAY_TAG_BIG_INT: _read_big_int,
    ARRAY_TAG_BYTES: _read_bytes,
    ARRAY_TAG_DICT: _read_dict,
    ARRAY_TAG_ARRAY: _read_meta,
    ARRAY_TAG_OBJECT: _read_object,
    ARRAY_TAG_NAMED_TUPLE: _read_named_tuple,
    ARRAY_TAG_SCALAR_TYPE: _read_scalar_type,
    ARRAY_TAG_DESCRIBED_DTYPE: _read_described_dtype,
    ARRAY_TAG_DESCRIBED_ITEMS: _read_described_items,
    ARRAY_TAG_DESCRIBED_ARRAY: _read_described_meta,
}


def read_array_value(reader: Reader, depth: int = 0) -> Any:
    """Take one tagged value, or raise ``PeerError``."""
    tag = reader.peek()
    read = _READERS.get(tag)
    if read is not None:
        reader.uint8()
        return read(reader, depth)
    if tag in _PLAIN_TAGS:
        return read_value(reader)
    raise PeerError(f"array value tag {tag} is unknown")
