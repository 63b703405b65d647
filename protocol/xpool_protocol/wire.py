"""The smallest pieces of the encoding: varints, strings and fixed numbers.

``Writer`` appends; ``Reader`` takes away and raises ``PeerError`` for anything
that is cut short, too long, or not in its one canonical form. Both know bytes
and nothing else. SPEC.md section 3.
"""

from __future__ import annotations

import struct
from typing import Final

from xpool_protocol.errors import PeerError

UINT64_MAX: Final = (1 << 64) - 1
INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
_FLOAT64 = struct.Struct("<d")
_UINT64 = struct.Struct("<Q")


class Writer:
    """An append-only byte buffer with the wire's primitive types."""

    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer = bytearray()

    def uint8(self, value: int) -> None:
        """One byte, 0 to 255."""
        self.buffer.append(value)

    def uvarint(self, value: int) -> None:
        """LEB128 of 0 to 2**64 - 1, shortest form."""
        buffer = self.buffer
        if 0 <= value < 0x80:
            buffer.append(value)
            return
        if not 0 <= value <= UINT64_MAX:
            raise ValueError(f"{value} does not fit an unsigned 64-bit number")
        while value >= 0x80:
            buffer.append(value & 0x7F | 0x80)
            value >>= 7
        buffer.append(value)

    def svarint(self, value: int) -> None:
        """Zigzag LEB128 of a signed 64-bit number."""
        if not INT64_MIN <= value <= INT64_MAX:
            raise ValueError(f"{value} does not fit a signed 64-bit number")
        self.uvarint(value << 1 if value >= 0 else (-value << 1) - 1)

    def float64(self, value: float) -> None:
        """IEEE 754 binary64, little-endian; a NaN keeps its bits."""
        self.buffer += _FLOAT64.pack(value)

    def uint64(self, value: int) -> None:
        """Eight bytes, little-endian."""
        self.buffer += _UINT64.pack(value)

    def raw(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes as they are; the reader must know how many."""
        self.buffer += data

    def sized(self, data: bytes | bytearray | memoryview) -> None:
        """A length, then the bytes."""
        self.uvarint(len(data))
        self.buffer += data

    def text(self, value: str) -> None:
        """UTF-8 with its length in bytes."""
        self.sized(value.encode())


class Reader:
    """Reads what ``Writer`` wrote, from the front, checking every bound."""

    __slots__ = ("_data", "end", "position")

    def __init__(self, data: bytes | memoryview, position: int = 0) -> None:
        self._data = bytes(data)
        self.position = position
        self.end = len(self._data)

    @property
    def is_exhausted(self) -> bool:
        """Nothing is left to read."""
        return self.position >= self.end

    def uint8(self) -> int:
        """One byte."""
        at = self.position
        if at >= self.end:
            raise PeerError("message is cut short: a byte is missing")
        self.position = at + 1
        return self._data[at]

    def peek(self) -> int:
        """The next byte, left where it is."""
        if self.position >= self.end:
            raise PeerError("message is cut short: a byte is missing")
        return self._data[self.position]

    def uvarint(self, limit: int = UINT64_MAX, what: str = "number") -> int:
        """An unsigned number, at most ``limit``."""
        data, at, end = self._data, self.position, self.end
        if at >= end:
            raise PeerError(f"message is cut short: {what} is missing")
        byte = data[at]
        at += 1
        value = byte & 0x7F
        shift = 7
        while byte & 0x80:
            if at >= end or shift > 63:
                raise PeerError(f"{what} is not a 64-bit varint")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
        if shift > 7 and byte == 0:
            raise PeerError(f"{what} is not in its shortest form")
        if value > limit:
            raise PeerError(f"{what} is {value}, over the limit of {limit}")
        self.position = at
        return value

    def svarint(self, what: str = "number") -> int:
        """A signed 64-bit number."""
        value = self.uvarint(UINT64_MAX, what)
        return (value >> 1) ^ -(value & 1)

    def float64(self) -> float:
        """A binary64."""
        return float(_FLOAT64.unpack(self.raw(8, "float"))[0])

    def uint64(self) -> int:
        """Eight bytes."""
        return int(_UINT64.unpack(self.raw(8, "fixed number"))[0])

    def raw(self, nbytes: int, what: str = "bytes") -> bytes:
        """Exactly ``nbytes`` bytes."""
        at = self.position
        if nbytes > self.end - at:
            raise PeerError(
                f"message is cut short: {what} needs {nbytes} bytes,"
                f" {self.end - at} are left"
            )
        self.position = at + nbytes
        return self._data[at : at + nbytes]

    def sized(self, limit: int, what: str) -> bytes:
        """A length of at most ``limit``, then the bytes."""
        return self.raw(self.uvarint(limit, f"length of {what}"), what)

    def text(self, limit: int, what: str) -> str:
        """UTF-8 of at most ``limit`` bytes."""
        try:
            return self.sized(limit, what).decode()
        except UnicodeDecodeError as error:
            raise PeerError(f"{what} is not UTF-8") from error
