"""Descriptions of dtypes that have fields, or are plain bytes. SPEC.md section 15.

A description says what NumPy's dtype says: names, offsets and an itemsize. It holds no
code, and nothing of it is believed before it has been bounded.
"""

from __future__ import annotations

import math
import re
from typing import Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.wire import Reader, Writer

KIND_PLAIN: Final = 0
KIND_FIELDS: Final = 1

MAX_PLAIN_NBYTES: Final = 32
"""Length of ``dtype.str``, in bytes."""

_PLAIN: Final = re.compile(
    r"[<>|]([biufcSUVMm])([1-9][0-9]{0,9})(\[[0-9]*[A-Za-z]{1,2}\])?"
)
_UNITED: Final = "Mm"
_WIDE: Final = "U"


class DtypeField(msgspec.Struct, frozen=True, gc=False):
    """One field of a dtype."""

    name: str
    title: str
    """Another name of NumPy's; empty: none."""
    offset: int
    """In bytes, from the item's begin."""
    sizes: tuple[int, ...]
    """Of a field that is an array of items; empty: one item."""
    dtype: Description


class FieldsDtype(msgspec.Struct, frozen=True, gc=False):
    """A dtype with fields."""

    itemsize: int
    is_aligned: bool
    """The fields lie as C would lay them."""
    fields: tuple[DtypeField, ...]


Description: TypeAlias = str | FieldsDtype
"""``dtype.str`` of a dtype without fields, or the fields."""


def plain_nbytes(text: str) -> int:
    """Bytes of an item of a dtype without fields.

    Raises:
        PeerError: it is none that arrays have.

    >>> plain_nbytes("<f8"), plain_nbytes("<U3"), plain_nbytes("|V10")
    (8, 12, 10)
    """
    found = _PLAIN.fullmatch(text)
    if found is None or bool(found[3]) > (found[1] in _UNITED):
        raise PeerError(f"{text!r} is no dtype of a field")
    nbytes = int(found[2]) * (4 if found[1] == _WIDE else 1)
    if nbytes > limits.MAX_DTYPE_NBYTES:
        raise PeerError(f"an item of {nbytes} bytes is over the limit")
    return nbytes


def item_nbytes(description: Description) -> int:
    """Bytes of an item of a described dtype."""
    if isinstance(description, str):
        return plain_nbytes(description)
    return description.itemsize


def count_fields(description: Description) -> int:
    """All fields, those within others included."""
    if isinstance(description, str):
        return 0
    return sum(1 + count_fields(one.dtype) for one in description.fields)


def write_description(writer: Writer, description: Description, depth: int = 0) -> None:
    """Append a description.

    Raises:
        ValueError: it exceeds a limit.
    """
    if depth >= limits.MAX_DTYPE_DEPTH:
        raise ValueError("a dtype is nested too deep for the wire")
    if depth == 0 and count_fields(description) > limits.MAX_DTYPE_FIELDS:
        raise ValueError(f"a dtype has more than {limits.MAX_DTYPE_FIELDS:,} fields")
    if item_nbytes(description) > limits.MAX_DTYPE_NBYTES:
        raise ValueError("an item of a dtype is too large for the wire")
    if isinstance(description, str):
        writer.uint8(KIND_PLAIN)
        writer.text(description)
        return
    writer.uint8(KIND_FIELDS)
    writer.uvarint(description.itemsize)
    writer.uint8(description.is_aligned)
    writer.uvarint(len(description.fields))
    for field in description.fields:
        for text in (field.name, field.title):
            if len(text.encode()) > limits.MAX_NAME_NBYTES:
                raise ValueError("the name of a field is too long for the wire")
            writer.text(text)
        writer.uvarint(field.offset)
        writer.uvarint(len(field.sizes))
        for size in field.sizes:
            writer.uvarint(size)
        write_description(writer, field.dtype, depth + 1)


class _Read:
    """How much of a description has been read."""

    fields = 0


def read_description(reader: Reader) -> Description:
    """Take a description, or raise ``PeerError``."""
    return _read(reader, _Read(), 0)


def _read(reader: Reader, so_far: _Read, depth: int) -> Description:
    if depth >= limits.MAX_DTYPE_DEPTH:
        raise PeerError("a dtype is nested too deep")
    kind = reader.uint8()
    if kind == KIND_PLAIN:
        text = reader.text(MAX_PLAIN_NBYTES, "dtype")
        plain_nbytes(text)
        return text
    if kind != KIND_FIELDS:
        raise PeerError(f"kind {kind} of a dtype is unknown")
    itemsize = reader.uvarint(limits.MAX_DTYPE_NBYTES, "itemsize")
    is_aligned = reader.uint8()
    if is_aligned > 1 or not itemsize:
        raise PeerError("an item of no bytes, or an unknown mark")
    count = reader.uvarint(limits.MAX_DTYPE_FIELDS, "number of fields")
    so_far.fields += count
    if so_far.fields > limits.MAX_DTYPE_FIELDS:
        raise PeerError(f"a dtype has more than {limits.MAX_DTYPE_FIELDS} fields")
    fields = tuple([_read_field(reader, so_far, depth, itemsize) for _ in range(count)])
    return FieldsDtype(itemsize, bool(is_aligned), fields)


def _read_field(reader: Reader, so_far: _Read, depth: int, itemsize: int) -> DtypeField:
    name = reader.text(limits.MAX_NAME_NBYTES, "name of a field")
    title = reader.text(limits.MAX_NAME_NBYTES, "title of a field")
    offset = reader.uvarint(limits.MAX_DTYPE_NBYTES, "offset")
    ndim = reader.uvarint(limits.MAX_DIMS, "number of dimensions")
    sizes = tuple(
        [reader.uvarint(limits.MAX_DTYPE_NBYTES, "size") for _ in range(ndim)]
    )
    dtype = _read(reader, so_far, depth + 1)
    end = offset + item_nbytes(dtype) * math.prod(sizes)
    if end > itemsize:
        raise PeerError(f"field {name!r} ends at byte {end} of {itemsize}")
    return DtypeField(name, title, offset, sizes, dtype)
