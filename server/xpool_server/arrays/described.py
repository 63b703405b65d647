"""The dtypes that a session has described, beside the built-in ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from xpool_protocol import limits
from xpool_protocol.arrays.described import count_fields
from xpool_protocol.arrays.numpy_dtypes import dtype_of
from xpool_protocol.arrays.records import DefineArrayDtype
from xpool_protocol.errors import ArgumentInvalid, PeerError

from xpool_server.arrays.dtypes import DTYPE_OF


class DtypeTable:
    """Dtypes by their code on the wire."""

    def __init__(self) -> None:
        """The built-in ones."""
        self._described: list[np.dtype[Any] | str] = []
        """A text says why there is none."""
        self._fields = 0

    def define(self, record: DefineArrayDtype) -> None:
        """Take in a description.

        Raises:
            PeerError: out of turn, or more than a session may describe.
        """
        count = len(self._described)
        if record.array_dtype != limits.FIRST_ARRAY_DTYPE + count:
            raise PeerError(f"array dtype {record.array_dtype} is defined out of turn")
        self._fields += count_fields(record.description)
        is_full = count >= limits.MAX_ARRAY_DTYPES
        if is_full or self._fields > limits.MAX_SESSION_FIELDS:
            raise PeerError("the session describes too many dtypes")
        try:
            self._described.append(dtype_of(record.description, np.dtype))
        except ValueError as error:
            self._described.append(f"dtype {record.array_dtype}: {error}")

    def dtype(self, code: int) -> np.dtype[Any]:
        """The dtype of a code.

        Raises:
            ArgumentInvalid: it stands for none.
        """
        found = DTYPE_OF.get(code)
        if found is not None:
            return found
        at = code - limits.FIRST_ARRAY_DTYPE
        if not 0 <= at < len(self._described):
            raise ArgumentInvalid(f"dtype {code} was not described")
        described = self._described[at]
        if isinstance(described, str):
            raise ArgumentInvalid(described)
        return described

    def checked(self, code: int, sizes: tuple[int, ...], data: bytes) -> np.dtype[Any]:
        """The dtype of items that came by value.

        Raises:
            ArgumentInvalid: it stands for none, or they are fewer or more bytes.
        """
        dtype = self.dtype(code)
        nbytes = dtype.itemsize * math.prod(sizes)
        if nbytes != len(data):
            raise ArgumentInvalid(
                f"an array of {nbytes} bytes came with {len(data)} bytes"
            )
        return dtype
