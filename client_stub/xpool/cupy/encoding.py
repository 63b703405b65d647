"""From Python values to the bytes of ``xpool_protocol.arrays.values``, quickly.

``write_array_value`` is the definition; what is here is its twin for what calls carry.
"""

from __future__ import annotations

import itertools
import numbers
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from xpool_protocol import limits
from xpool_protocol.arrays.values import (
    DescribedDType,
    DescribedItems,
    write_array_value,
)
from xpool_protocol.wire import Writer

from xpool.cupy.geometry import CODE_OF_CHAR, check_dtype, code_of

_FLOAT: Final = struct.Struct("<Bd")
_COMPLEX: Final = struct.Struct("<Bdd")
_NONE, _FALSE, _TRUE, _ELLIPSIS = b"\x00", b"\x01", b"\x02", b"\x23"


def uvarint(value: int) -> bytes:
    """As ``Writer.uvarint``."""
    if value < 0x80:
        return _BYTES[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_CONTAINERS: Final = (tuple, list)
_BYTES: Final = [bytes((n,)) for n in range(0x80)]
_LOW: Final = [bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14)]
_highs: dict[int, bytes] = {}

# From here on a number takes at least three bytes, two of which are in a table.
_numbers: Iterator[int] = itertools.count(1 << 14)
_SYNCHRONOUS_FROM: Final = 1 << 40
_blocks: Iterator[int] = itertools.count(_SYNCHRONOUS_FROM, limits.MAX_RESERVED_IDS)
_DEVICE_SHIFT: Final = 54
"""Of a job with several devices, 64 at most, these bits of a number tell which."""


def new_number() -> tuple[int, bytes]:
    """A number that no array has, and its bytes."""
    number = next(_numbers)
    high = _highs.get(number >> 14)
    if high is None:
        high = _highs[number >> 14] = uvarint(number >> 14)
    return number, _LOW[number & 0x3FFF] + high


def number_bytes(number: int) -> bytes:
    """The bytes of a number, which is likely to be one of ``new_number``."""
    high = _highs.get(number >> 14)
    return uvarint(number) if high is None else _LOW[number & 0x3FFF] + high


def new_block() -> int:
    """The first of ``MAX_RESERVED_IDS`` numbers that nobody else gets."""
    return next(_blocks)


class _ByDevice:
    """Counts apart for each device."""

    def __init__(self, index: Callable[[], int], start: int, step: int) -> None:
        self._index, self._start, self._step = index, start, step
        self._counts: dict[int, Iterator[int]] = {}

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        index = self._index()
        count = self._counts.get(index)
        if count is None:
            first = (index << _DEVICE_SHIFT) + self._start
            count = self._counts.setdefault(index, itertools.count(first, self._step))
        return next(count)


def number_by_device(index: Callable[[], int]) -> None:
    """Let numbers tell a device from now on.

    Args:
        index: that of the thread's current device.
    """
    global _numbers, _blocks
    _numbers = _ByDevice(index, 1 << 14, 1)
    _blocks = _ByDevice(index, _SYNCHRONOUS_FROM, limits.MAX_RESERVED_IDS)


def device_of(number: int) -> int:
    """The index of the device on which a number is given."""
    return number >> _DEVICE_SHIFT


def is_predicted(number: int) -> bool:
    """Whether the client has given a number, before a call."""
    return number & ((1 << _DEVICE_SHIFT) - 1) < _SYNCHRONOUS_FROM


def by_definition(value: Any) -> bytes:
    """What ``write_array_value`` writes."""
    writer = Writer()
    write_array_value(writer, value)
    return bytes(writer.buffer)


_SMALL: Final = {n: by_definition(n) for n in range(-256, 4096)}
_PARTS: Final[dict[Any, bytes]] = {**_SMALL, None: _NONE}


def encode_int(value: int) -> bytes:
    """An integer of any size that the wire takes."""
    found = _SMALL.get(value)
    if found is not None:
        return found
    if 0 < value < 1 << 62:
        return b"\x03" + uvarint(value << 1)
    return by_definition(int(value))


def encode_float(value: float) -> bytes:
    """A float."""
    return _FLOAT.pack(4, value)


def _complex(value: complex) -> bytes:
    return _COMPLEX.pack(5, value.real, value.imag)


def _bool(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def _check_items(items: Sequence[Any], depth: int = 1) -> None:
    if len(items) > limits.MAX_LIST:
        raise ValueError(f"{len(items)} items are too many for an argument")
    for one in items:
        if type(one) in _CONTAINERS:
            if depth >= limits.MAX_ARRAY_DEPTH - 1:
                raise ValueError("an argument is nested too deep")
            _check_items(one, depth + 1)


def _tuple(value: tuple[Any, ...]) -> bytes:
    _check_items(value)
    return b"\x20" + uvarint(len(value)) + b"".join([encode(one) for one in value])


def _list(value: list[Any]) -> bytes:
    _check_items(value)
    return b"\x07" + uvarint(len(value)) + b"".join([encode(one) for one in value])


def encode_slice(start: Any, stop: Any, step: Any) -> bytes:
    """A slice of these: integers, or None."""
    return (
        b"\x22"
        + (_PARTS.get(start) or encode_int(start))
        + (_PARTS.get(stop) or encode_int(stop))
        + (_PARTS.get(step) or encode_int(step))
    )


def _slice(value: slice) -> bytes:
    return b"\x22" + encode(value.start) + encode(value.stop) + encode(value.step)


def _text(value: str) -> bytes:
    return by_definition(value)


def _dict(value: dict[str, Any]) -> bytes:
    out = b"\x26" + uvarint(len(value))
    for key, item in value.items():
        name = key.encode()
        out += uvarint(len(name)) + name + encode(item)
    return out


def _dtype(value: np.dtype[Any]) -> bytes:
    code = CODE_OF_CHAR.get(value.char)
    if code is None:
        return by_definition(DescribedDType(code_of(check_dtype(value))))
    return bytes((11, code))


def _host(value: np.ndarray[Any, Any] | np.generic) -> bytes:
    """A NumPy scalar or a small array, by value."""
    code = CODE_OF_CHAR.get(value.dtype.char)
    if code is None:
        code = code_of(check_dtype(value.dtype))
        return by_definition(DescribedItems(code, value.shape, value.tobytes()))
    if value.nbytes > limits.MAX_HOST_TENSOR_NBYTES:
        raise ValueError("a NumPy array is too large to be an argument: upload it")
    sizes = b"".join([uvarint(size) for size in value.shape])
    return bytes((10, code, 0, value.ndim)) + sizes + value.tobytes()


def _type(value: type) -> bytes:
    if value in (bool, int, float, complex):
        return by_definition(value)
    return _dtype(np.dtype(value))


ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda value: _NONE,
    bool: _bool,
    int: encode_int,
    float: encode_float,
    complex: _complex,
    str: _text,
    bytes: by_definition,
    tuple: _tuple,
    list: _list,
    slice: _slice,
    dict: _dict,
    type(...): lambda value: _ELLIPSIS,
    type: _type,
    np.ndarray: _host,
}
"""By exact type; ``ndarray`` and remote objects add themselves."""


def encode(value: Any) -> bytes:
    """One argument.

    Raises:
        TypeError: it has no place on the wire.
        ValueError: it exceeds a limit, or arrays can't have its dtype.
    """
    encoder = ENCODERS.get(type(value))
    if encoder is None:
        encoder = _encoder_of(value)
        ENCODERS[type(value)] = encoder
    return encoder(value)


def _encoder_of(value: Any) -> Callable[[Any], bytes]:
    """For a type that is met for the first time."""
    for kind, encoder in (
        (np.generic, _host),
        (np.dtype, _dtype),
        (type, _type),
        (bool, _bool),
        (int, lambda value: encode_int(int(value))),
        (float, lambda value: encode_float(float(value))),
        (complex, lambda value: _complex(complex(value))),
        (str, lambda value: _text(str(value))),
        (tuple, _tuple),
        (list, _list),
        (range, lambda value: _list(list(value))),
        (np.ndarray, _host),
        (numbers.Integral, lambda value: encode_int(int(value))),
    ):
        if isinstance(value, kind):
            return encoder
    remote = next(
        (ENCODERS[kind] for kind in type(value).__mro__ if kind in ENCODERS), None
    )
    if remote is not None:
        return remote
    if callable(value):
        raise TypeError(
            "xpool: a function can't run where the arrays are; this call takes one"
        )
    raise TypeError(f"Unsupported type {type(value)}")
