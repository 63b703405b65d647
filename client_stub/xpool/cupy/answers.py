"""Answers as the program sees them: arrays, plain values, other remote objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from xpool_protocol.arrays.values import (
    LAYOUT_OWN,
    ArrayMeta,
    NamedTuple,
    ObjectMeta,
)
from xpool_protocol.values import DType, HostTensor

from xpool.cupy import ndarray as arrays
from xpool.cupy import transfer
from xpool.cupy.device import ArrayDevice, device
from xpool.cupy.encoding import ENCODERS, uvarint
from xpool.cupy.geometry import DTYPE_OF_CODE, dtype_of_meta, geometry
from xpool.cupy.ndarray import ndarray, ref_of


class RemoteObject:
    """What an operation returned that is neither an array nor a plain value."""

    _number: int = -1

    def __init__(self, meta: ObjectMeta) -> None:
        self._number = meta.number
        self._ref = b"\x21" + uvarint(meta.number)
        self._type_name = meta.type_name
        device().has_other_objects = True

    def __del__(self) -> None:
        if self._number >= 0:
            where = device()
            where.has_other_objects = True
            # With the next record: it may hold much, which only the server counts.
            where.dead.append((self._number, 0))
            where._dead_limit = 1

    def __repr__(self) -> str:
        return f"<remote {self._type_name}>"


REMOTE_CLASSES: dict[str, Callable[[ObjectMeta], Any]] = {}
"""What a remote object becomes, by the name of its type on the server."""
ENCODERS[RemoteObject] = ref_of


def adopted(meta: ArrayMeta) -> ndarray:
    """An array that the server has numbered."""
    where = device()
    array = object.__new__(ndarray)
    array._number, array._ref = meta.number, b"\x21" + uvarint(meta.number)
    array._geo = geometry(meta.sizes, dtype_of_meta(meta))
    array._layout, array._base = (meta.strides, meta.layout), None
    array._charge = array._geo.charge_nbytes if meta.layout & LAYOUT_OWN else 0
    if array._charge:
        where.charge_made(array._charge)
    return array


def revived(  # noqa: C901  a case each
    value: Any, known: Mapping[int, Any]
) -> Any:
    """What an answer describes, as the program sees it.

    Args:
        value: from ``read_array_value``.
        known: the arguments of the call, by number: one may have been returned.
    """
    kind = type(value)
    if kind is ArrayMeta:
        found = known.get(value.number)
        if found is None:
            made = adopted(value)
            source = known.get(value.base)
            if source is not None:
                made._base = source if source._base is None else source._base
            return made
        if isinstance(found, ndarray):
            found._layout = (value.strides, value.layout)
        return found
    if kind is tuple:
        return tuple([revived(one, known) for one in value])
    if kind is list:
        return [revived(one, known) for one in value]
    if kind is dict:
        return {name: revived(one, known) for name, one in value.items()}
    if kind is DType:
        return DTYPE_OF_CODE[value.code]
    if kind is HostTensor:
        flat = np.frombuffer(bytearray(value.data), DTYPE_OF_CODE[value.dtype])
        return flat.reshape(value.sizes)
    if kind is NamedTuple:
        items = [revived(one, known) for one in value.items]
        return transfer.named_tuple(value.type_name, value.fields)(*items)
    if kind is ObjectMeta:
        found = known.get(value.number)
        if found is not None:
            return found
        return REMOTE_CLASSES.get(value.type_name, RemoteObject)(value)
    return value


def connect(where: ArrayDevice) -> None:
    """Let arrays use a device, and its answers become arrays."""
    arrays.connect(where)
    where.revive = revived
