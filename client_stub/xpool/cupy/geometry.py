"""Shape and dtype of an array, and how they stand on the wire; one object for each."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

import numpy as np
from xpool_protocol import limits
from xpool_protocol.arrays.numpy_dtypes import dtype_of
from xpool_protocol.arrays.values import ArrayMeta, write_geometry
from xpool_protocol.wire import Writer

from xpool.cupy import described

CODE_OF_CHAR: Final[dict[str, int]] = {
    "B": 0,
    "b": 1,
    "h": 2,
    "i": 3,
    "l": 4,
    "q": 4,
    "e": 5,
    "f": 6,
    "d": 7,
    "F": 9,
    "D": 10,
    "?": 11,
    "H": 27,
    "I": 28,
    "L": 29,
    "Q": 29,
}
DTYPE_OF_CODE: Final[dict[int, np.dtype[Any]]] = {
    code: np.dtype(char) for char, code in reversed(CODE_OF_CHAR.items())
}
MAX_KEPT: Final = 1 << 16


class Geometry:
    """What the client knows of an array. Compared by identity: ``geometry`` interns."""

    __slots__ = (
        "charge_nbytes",
        "code",
        "dtype",
        "nbytes",
        "ndim",
        "recent",
        "shape",
        "size",
        "wire",
    )

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.code = code_of(dtype)
        self.ndim = len(shape)
        self.size = math.prod(shape)
        self.nbytes = self.size * dtype.itemsize
        self.charge_nbytes = -(-max(self.nbytes, 1) // 512) * 512
        if self.ndim > limits.MAX_DIMS:
            raise ValueError(
                f"maximum supported dimension for an ndarray is {limits.MAX_DIMS},"
                f" found {self.ndim}"
            )
        if max(shape, default=0) >= 1 << 63:
            raise OverflowError("Python int too large to convert to C ssize_t")
        self.wire = b"" if self._is_too_large() else self._encoded()
        self.recent: deque[int] | None = None
        """Of a small one: numbers of arrays that have been made lately."""
        if self.nbytes <= limits.MAX_READ_AHEAD_NBYTES:
            self.recent = deque(maxlen=limits.MAX_READ_AHEAD)

    def _is_too_large(self) -> bool:
        items = math.prod([one or 1 for one in self.shape])
        return (
            max(self.shape, default=0) > limits.MAX_EXTENT or items > limits.MAX_ITEMS
        )

    def _encoded(self) -> bytes:
        writer = Writer()
        write_geometry(writer, self.code, self.shape)
        return bytes(writer.buffer)


def code_of(dtype: np.dtype[Any]) -> int:
    """The code of a dtype on the wire; one with fields is described first."""
    found = CODE_OF_CHAR.get(dtype.char)
    return described.code_of(dtype) if found is None else found


def dtype_of_meta(meta: ArrayMeta) -> np.dtype[Any]:
    """The dtype of an array that the server tells of."""
    if isinstance(meta.dtype, int):
        return DTYPE_OF_CODE[meta.dtype]
    return dtype_of(meta.dtype, np.dtype)


_KEPT: dict[tuple[tuple[int, ...], str | int], Geometry] = {}


def geometry(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Geometry:
    """The one object for a shape and a dtype."""
    char = dtype.char
    key = (shape, char if char != "V" else described.code_of(dtype))
    found = _KEPT.get(key)
    if found is None:
        if len(_KEPT) >= MAX_KEPT:
            _KEPT.clear()
        found = _KEPT[key] = Geometry(shape, dtype)
    return found


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """A dtype that arrays can have.

    Raises:
        ValueError: arrays of it can't be, as in CuPy.
        TypeError: it is no dtype.
    """
    found = np.dtype(dtype)
    if found.char == "V":
        described.check_stored(found)
    elif found.char not in CODE_OF_CHAR:
        raise described.UnsupportedDtype(f"Unsupported dtype {found}")
    if not found.isnative:
        raise described.UnsupportedDtype(
            f"Unsupported dtype {found} with non-native byte-order"
        )
    return found
