"""Arguments and results on the wire: tagged values. SPEC.md section 4.

Python's None, bool, int, float, complex, str and list stand for themselves; what
a framework has besides stands as one of the small classes below. Nothing here
knows a framework: codes are numbers from the tables in SPEC.md.

Encoding is canonical: one value has one encoding, and ``read_value`` refuses any
other, so equal bytes mean equal calls.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import msgspec

from xpool_protocol import limits
from xpool_protocol.errors import PeerError
from xpool_protocol.wire import Reader, Writer

TAG_NONE: Final = 0
TAG_FALSE: Final = 1
TAG_TRUE: Final = 2
TAG_INT: Final = 3
TAG_FLOAT: Final = 4
TAG_COMPLEX: Final = 5
TAG_TEXT: Final = 6
TAG_LIST: Final = 7
TAG_INTS: Final = 8
TAG_TENSOR: Final = 9
TAG_HOST_TENSOR: Final = 10
TAG_DTYPE: Final = 11
TAG_DEVICE: Final = 12
TAG_LAYOUT: Final = 13
TAG_MEMORY_FORMAT: Final = 14
TAG_GENERATOR: Final = 15
TAG_SPARSE: Final = 16

FLAG_CONJ: Final = 1
FLAG_NEG: Final = 2
FLAG_ROW_MAJOR: Final = 4
FLAG_WRAPPED: Final = 1
FLAG_COALESCED: Final = 1

LAYOUT_STRIDED: Final = 0
LAYOUT_COO: Final = 1
SPARSE_PARTS: Final[dict[int, int]] = {LAYOUT_COO: 2, 2: 3, 4: 3, 5: 3, 6: 3}
"""Tensors that a sparse one is made of, by layout code: COO; CSR, CSC, BSR, BSC."""

MAX_CODE: Final = 63
"""Largest dtype, layout or memory format code a peer may name."""

ITEM_NBYTES: Final[dict[int, int]] = {
    0: 1,
    1: 1,
    2: 2,
    3: 4,
    4: 8,
    5: 2,
    6: 4,
    7: 8,
    8: 4,
    9: 8,
    10: 16,
    11: 1,
    15: 2,
    23: 1,
    24: 1,
    25: 1,
    26: 1,
    27: 2,
    28: 4,
    29: 8,
}
"""Bytes per item by dtype code; a dtype that is not here can't cross the wire."""


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """A view of a storage on the server: the storage is the handle."""

    storage: int
    dtype: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    """In items, one per dimension; never negative."""
    offset: int = 0
    """In items from the start of the storage."""
    flags: int = 0
    """``FLAG_CONJ`` and ``FLAG_NEG``: lazy conjugation and negation."""


class SparseTensor(msgspec.Struct, frozen=True, gc=False):
    """A sparse tensor as the strided ones that it is made of."""

    layout: int
    sizes: tuple[int, ...]
    dense_dim: int
    """How many of the last dimensions are dense."""
    parts: tuple[Tensor, ...]
    """COO: indices, values. Otherwise: compressed indices, plain indices, values."""
    is_coalesced: bool = False
    """COO: the indices are sorted and each stands there once."""


class HostTensor(msgspec.Struct, frozen=True, gc=False):
    """A small tensor passed by value: row-major bytes, little-endian."""

    dtype: int
    sizes: tuple[int, ...]
    data: bytes
    is_wrapped: bool = False
    """A Python number in the place of a tensor: it takes no part in promotion."""


class DType(msgspec.Struct, frozen=True, gc=False):
    """A dtype by its code."""

    code: int


class Device(msgspec.Struct, frozen=True, gc=False):
    """One of the session's devices; ``index`` counts within the session."""

    index: int


class Layout(msgspec.Struct, frozen=True, gc=False):
    """A layout by its code."""

    code: int


class MemoryFormat(msgspec.Struct, frozen=True, gc=False):
    """A memory format by its code."""

    code: int


class Generator(msgspec.Struct, frozen=True, gc=False):
    """A random generator of the session; 0 is the device's default one."""

    id: int


Value: TypeAlias = (
    bool
    | int
    | float
    | complex
    | str
    | list["Value"]
    | Tensor
    | SparseTensor
    | HostTensor
    | DType
    | Device
    | Layout
    | MemoryFormat
    | Generator
    | None
)


def row_major_strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous tensor, in items.

    A zero extent counts as one, so an empty tensor keeps usable strides.

    >>> row_major_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides = []
    step = 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size or 1
    return tuple(reversed(strides))


def span_items(sizes: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Items from the first to the last that a geometry touches; 0 if it is empty.

    >>> span_items((2, 3), (10, 2))
    15
    """
    last = 1
    for size, stride in zip(sizes, strides, strict=True):
        if size == 0:
            return 0
        last += (size - 1) * stride
    return last


def _write_geometry(
    writer: Writer,
    dtype: int,
    flags: int,
    offset: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
) -> None:
    is_row_major = strides == row_major_strides(sizes)
    writer.uint8(dtype)
    writer.uint8(flags | (FLAG_ROW_MAJOR if is_row_major else 0))
    writer.uvarint(offset)
    writer.uvarint(len(sizes))
    for size in sizes:
        writer.uvarint(size)
    if not is_row_major:
        for stride in strides:
            writer.uvarint(stride)


def _read_dtype(reader: Reader) -> int:
    code = reader.uint8()
    if code not in ITEM_NBYTES:
        raise PeerError(f"dtype code {code} is unknown")
    return code


def read_sizes(reader: Reader, what: str = "a tensor") -> tuple[int, ...]:
    """Sizes and their count, bounded one by one and together; ``what`` has them."""
    ndim = reader.uvarint(limits.MAX_DIMS, "number of dimensions")
    sizes = []
    items = 1
    for _ in range(ndim):
        size = reader.uvarint(limits.MAX_EXTENT, "size")
        items *= size or 1
        sizes.append(size)
    if items > limits.MAX_ITEMS:
        raise PeerError(f"{what} of {items} items is over the limit")
    return tuple(sizes)


def read_tensor(reader: Reader) -> Tensor:
    """Storage id and geometry, each number bounded."""
    storage = reader.uvarint(limits.MAX_STORAGE_ID, "storage id")
    dtype = _read_dtype(reader)
    flags = reader.uint8()
    if flags & ~(FLAG_CONJ | FLAG_NEG | FLAG_ROW_MAJOR):
        raise PeerError(f"tensor flags {flags:#x} are unknown")
    offset = reader.uvarint(limits.MAX_EXTENT, "storage offset")
    sizes = read_sizes(reader)
    row_major = row_major_strides(sizes)
    if flags & FLAG_ROW_MAJOR:
        strides = row_major
    else:
        strides = tuple([reader.uvarint(limits.MAX_EXTENT, "stride") for _ in sizes])
        if strides == row_major:
            raise PeerError("row-major strides must be sent as a flag")
    return Tensor(storage, dtype, sizes, strides, offset, flags & ~FLAG_ROW_MAJOR)


def write_tensor(writer: Writer, tensor: Tensor) -> None:
    """The inverse of ``read_tensor``."""
    writer.uvarint(tensor.storage)
    _write_geometry(
        writer,
        tensor.dtype,
        tensor.flags,
        tensor.offset,
        tensor.sizes,
        tensor.strides,
    )


def _write_sparse(writer: Writer, tensor: SparseTensor) -> None:
    if len(tensor.parts) != SPARSE_PARTS.get(tensor.layout):
        raise ValueError(
            f"a sparse tensor of layout {tensor.layout} and {len(tensor.parts)} parts"
            " has no place on the wire"
        )
    writer.uint8(tensor.layout)
    writer.uint8(FLAG_COALESCED if tensor.is_coalesced else 0)
    writer.uvarint(tensor.dense_dim)
    writer.uvarint(len(tensor.sizes))
    for size in tensor.sizes:
        writer.uvarint(size)
    for part in tensor.parts:
        write_tensor(writer, part)


def _read_sparse(reader: Reader) -> SparseTensor:
    layout = reader.uint8()
    count = SPARSE_PARTS.get(layout)
    if count is None:
        raise PeerError(f"sparse layout {layout} is unknown")
    flags = reader.uint8()
    if flags & ~(FLAG_COALESCED if layout == LAYOUT_COO else 0):
        raise PeerError(f"sparse tensor flags {flags:#x} are unknown")
    dense_dim = reader.uvarint(limits.MAX_DIMS, "number of dense dimensions")
    sizes = read_sizes(reader)
    if dense_dim > len(sizes):
        raise PeerError(f"{dense_dim} of {len(sizes)} dimensions can't be dense")
    parts = tuple([read_tensor(reader) for _ in range(count)])
    return SparseTensor(layout, sizes, dense_dim, parts, bool(flags))


def _write_host_tensor(writer: Writer, tensor: HostTensor) -> None:
    nbytes = ITEM_NBYTES[tensor.dtype] * math.prod(tensor.sizes)
    if len(tensor.data) != nbytes or nbytes > limits.MAX_HOST_TENSOR_NBYTES:
        raise ValueError(
            f"a host tensor of {tensor.sizes} has {nbytes} bytes, not"
            f" {len(tensor.data)}; at most {limits.MAX_HOST_TENSOR_NBYTES} travel"
        )
    writer.uint8(tensor.dtype)
    writer.uint8(FLAG_WRAPPED if tensor.is_wrapped else 0)
    writer.uvarint(len(tensor.sizes))
    for size in tensor.sizes:
        writer.uvarint(size)
    writer.raw(tensor.data)


def _read_host_tensor(reader: Reader) -> HostTensor:
    dtype = _read_dtype(reader)
    flags = reader.uint8()
    if flags & ~FLAG_WRAPPED:
        raise PeerError(f"host tensor flags {flags:#x} are unknown")
    sizes = read_sizes(reader)
    if flags and sizes:
        raise PeerError("a wrapped number has no dimensions")
    nbytes = ITEM_NBYTES[dtype] * math.prod(sizes)
    if nbytes > limits.MAX_HOST_TENSOR_NBYTES:
        raise PeerError(f"host tensor of {nbytes} bytes is too large")
    return HostTensor(dtype, sizes, reader.raw(nbytes, "host tensor"), bool(flags))


def _is_int(value: object) -> bool:
    """Whether a value's tag is ``TAG_INT``: a bool is none, an IntEnum is one."""
    return isinstance(value, int) and not isinstance(value, bool)


def _write_list(
    writer: Writer, items: list[Value] | tuple[Value, ...], depth: int
) -> None:
    if len(items) > limits.MAX_LIST:
        raise ValueError(f"a list of {len(items)} items is too long for the wire")
    if depth >= limits.MAX_DEPTH:
        raise ValueError("lists are nested too deep for the wire")
    if items and all(map(_is_int, items)):
        writer.uint8(TAG_INTS)
        writer.uvarint(len(items))
        for item in items:
            writer.svarint(item)  # type: ignore[arg-type]  # checked above
        return
    writer.uint8(TAG_LIST)
    writer.uvarint(len(items))
    for item in items:
        write_value(writer, item, depth + 1)


def _write_text(writer: Writer, text: str) -> None:
    data = text.encode()
    if len(data) > limits.MAX_STRING_NBYTES:
        raise ValueError(f"a text of {len(data)} bytes is too long for the wire")
    writer.sized(data)


def write_value(  # noqa: C901  one case per tag
    writer: Writer, value: Value | tuple[Value, ...], depth: int = 0
) -> None:
    """Append one tagged value.

    Raises:
        TypeError: the value has no place on the wire.
        ValueError: an integer does not fit 64 bits, a list or text is too long, or
            a host tensor's bytes are not as many as its sizes say. What was written
            of the value so far stays in the buffer.
    """
    match value:
        case None:
            writer.uint8(TAG_NONE)
        case bool():
            writer.uint8(TAG_TRUE if value else TAG_FALSE)
        case int():
            writer.uint8(TAG_INT)
            writer.svarint(value)
        case float():
            writer.uint8(TAG_FLOAT)
            writer.float64(value)
        case complex():
            writer.uint8(TAG_COMPLEX)
            writer.float64(value.real)
            writer.float64(value.imag)
        case str():
            writer.uint8(TAG_TEXT)
            _write_text(writer, value)
        case Tensor():
            writer.uint8(TAG_TENSOR)
            write_tensor(writer, value)
        case list() | tuple():
            _write_list(writer, value, depth)
        case HostTensor():
            writer.uint8(TAG_HOST_TENSOR)
            _write_host_tensor(writer, value)
        case DType():
            writer.uint8(TAG_DTYPE)
            writer.uint8(value.code)
        case Device():
            writer.uint8(TAG_DEVICE)
            writer.uint8(value.index)
        case Layout():
            writer.uint8(TAG_LAYOUT)
            writer.uint8(value.code)
        case MemoryFormat():
            writer.uint8(TAG_MEMORY_FORMAT)
            writer.uint8(value.code)
        case Generator():
            writer.uint8(TAG_GENERATOR)
            writer.uvarint(value.id)
        case SparseTensor():
            writer.uint8(TAG_SPARSE)
            _write_sparse(writer, value)
        case _:
            raise TypeError(f"a {type(value).__name__} has no place on the wire")


def _read_code(reader: Reader, what: str) -> int:
    code = reader.uint8()
    if code > MAX_CODE:
        raise PeerError(f"{what} {code} is out of range")
    return code


def _read_list(reader: Reader, depth: int) -> list[Value]:
    count = reader.uvarint(limits.MAX_LIST, "length of a list")
    if depth >= limits.MAX_DEPTH:
        raise PeerError("lists are nested too deep")
    items = [read_value(reader, depth + 1) for _ in range(count)]
    if items and all(map(_is_int, items)):
        raise PeerError("a list of integers must be sent packed")
    return items


def _read_ints(reader: Reader, depth: int) -> list[Value]:
    count = reader.uvarint(limits.MAX_LIST, "length of a list")
    if depth >= limits.MAX_DEPTH:
        raise PeerError("lists are nested too deep")
    if count == 0:
        raise PeerError("an empty list must not be sent packed")
    return [reader.svarint("list item") for _ in range(count)]


_PLAIN: Final[dict[int, Value]] = {TAG_NONE: None, TAG_FALSE: False, TAG_TRUE: True}


def read_value(reader: Reader, depth: int = 0) -> Value:  # noqa: C901  one case per tag
    """Take one tagged value, or raise ``PeerError``."""
    tag = reader.uint8()
    if tag == TAG_TENSOR:
        return read_tensor(reader)
    if tag in _PLAIN:
        return _PLAIN[tag]
    match tag:
        case 3:  # TAG_INT
            return reader.svarint("integer")
        case 4:  # TAG_FLOAT
            return reader.float64()
        case 5:  # TAG_COMPLEX
            return complex(reader.float64(), reader.float64())
        case 6:  # TAG_TEXT
            return reader.text(limits.MAX_STRING_NBYTES, "text")
        case 7:  # TAG_LIST
            return _read_list(reader, depth)
        case 8:  # TAG_INTS
            return _read_ints(reader, depth)
        case 10:  # TAG_HOST_TENSOR
            return _read_host_tensor(reader)
        case 11:  # TAG_DTYPE
            return DType(_read_dtype(reader))
        case 12:  # TAG_DEVICE
            return Device(_read_code(reader, "device index"))
        case 13:  # TAG_LAYOUT
            return Layout(_read_code(reader, "layout"))
        case 14:  # TAG_MEMORY_FORMAT
            return MemoryFormat(_read_code(reader, "memory format"))
        case 15:  # TAG_GENERATOR
            return Generator(reader.uvarint(limits.MAX_STORAGE_ID, "generator id"))
        case 16:  # TAG_SPARSE
            return _read_sparse(reader)
        case _:
            raise PeerError(f"value tag {tag} is unknown")
