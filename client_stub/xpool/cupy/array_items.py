"""Items of arrays, read and assigned: ``a[key]``, ``a[key] = value``."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from xpool_protocol.arrays.values import LAYOUT_C, LAYOUT_F

from xpool.cupy import described, transfer
from xpool.cupy.device import device
from xpool.cupy.encoding import encode
from xpool.cupy.geometry import geometry
from xpool.cupy.indexing import (
    NoRule,
    assignment_fits,
    basic_index,
    is_mask,
    picked_shape,
)
from xpool.cupy.known_calls import NO_KEYWORDS, KnownCalls
from xpool.cupy.ndarray import method, ndarray, posted, queued_view

_picks: Final = KnownCalls("ndarray.__getitem__", is_view=False)
_NUMBERS: Final = frozenset({int, float, bool, complex})


@method("__contains__")
def contains(self: ndarray, value: Any) -> bool:
    """Whether an item equals a value."""
    return bool((self == value).any())


@method("__getitem__")
def get_items(self: ndarray, key: Any) -> Any:
    """A view, or the items that arrays pick."""
    geo = self._geo
    try:
        shape, index = basic_index(geo.shape, key)
    except NoRule:
        if geo.dtype.names is not None and described.is_field_key(key):
            return field_of(self, key)
        return _picked(self, index_of(key))
    arguments = b"\x02" + self._ref + index + b"\x00"
    return queued_view(self, "ndarray.__getitem__", shape, arguments)


def _picked(self: ndarray, key: Any) -> Any:
    """``a[key]`` of a key that holds arrays, or what no array takes."""
    given = (self, key)
    known = _picks.repeat(given)
    if known is not None:
        return known
    try:
        shape = picked_shape(self._geo.shape, _geometries(key))
    except NoRule:
        return _masked(self, key)
    geo = geometry(shape, self._geo.dtype)
    _picks.keep((given, NO_KEYWORDS), geo, given)
    return posted("ndarray.__getitem__", geo, given)


def _masked(self: ndarray, key: Any) -> Any:
    """``a[key]`` of a mask, which waits for how many items that are but once."""
    where = device()
    if not _is_countable(self, key):
        return where.call("ndarray.__getitem__", (self, key), {})
    shape, epoch = self._geo.shape, where.epoch
    count = where.mask_counts.of(key._number, epoch)
    if count is not None:
        geo = geometry((count, *shape[key._geo.ndim :]), self._geo.dtype)
        return posted("ndarray.__getitem__", geo, (self, key))
    found = where.call("ndarray.__getitem__", (self, key), {})
    if where.epoch == epoch:
        where.mask_counts.learn(key._number, found._geo.shape[0], epoch)
    return found


def _is_countable(array: ndarray, key: Any) -> bool:
    """Whether a key is a mask whose memory is written to under its own name alone.

    A mask that is a view changes with what it is a view of; an array that the server
    has described may lie in something else; tensors may share all of them.
    """
    return (
        type(key) is ndarray
        and is_mask(array._geo.shape, key._geo)
        and type(array) is ndarray
        and key._base is None
        and key._layout is None
        and not device().is_shared
    )


@method("__setitem__")
def set_items(self: ndarray, key: Any, value: Any) -> None:
    """Assign to a view, or to the items that arrays pick."""
    kind = type(value)
    if kind is not ndarray and kind not in _NUMBERS:
        if kind is np.ndarray and type(key) is slice and key == slice(None):
            check_same(self, value)
        value = as_operand(value)
    if self._geo.dtype.char == "V":
        set_described(self, key, value)
        return
    where = device()
    given = value._geo.shape if type(value) is ndarray else ()
    try:
        try:
            shape, index = basic_index(self._geo.shape, key)
        except NoRule:
            key = index_of(key)
            shape, index = assigned_shape(self, key), encode(key)
        if not assignment_fits(self._geo.dtype, shape, value, given):
            raise NoRule
    except NoRule:
        epoch = where.epoch
        where.call("ndarray.__setitem__", (self, index_of(key), value), {})
        _written(self, epoch)
        return
    record = where.head("ndarray.__setitem__", 0) + b"\x03" + self._ref
    record += index + encode(value) + b"\x00"
    epoch = where.epoch
    where.post(record)
    _written(self, epoch)


def _written(array: ndarray, epoch: int) -> None:
    root = array if array._base is None else array._base
    where = device()
    where.mask_counts.written(root._number, epoch, where.epoch)


def assigned_shape(self: ndarray, key: Any) -> tuple[int, ...]:
    """What is assigned to items that arrays pick is broadcast to this.

    How many a mask picks may not be known: one value is as good as any number.
    """
    parts = _geometries(key)
    if len(parts) == 1 and is_mask(self._geo.shape, parts[0]):
        count = None
        if _is_countable(self, key):
            where = device()
            count = where.mask_counts.of(key._number, where.epoch)
        return () if count is None else (count, *self._geo.shape[parts[0].ndim :])
    return picked_shape(self._geo.shape, parts)


def field_of(array: ndarray, key: Any) -> ndarray:
    """A view of a field, or of the named fields, of each item.

    Raises:
        ValueError: there is no such field, or a GPU could not read its items.
    """
    geo = array._geo
    dtype, offset = described.field_dtype(geo.dtype, key)
    if dtype.char != "V":
        is_whole = array._base is None
        strides = (geo.dtype.itemsize,) * geo.ndim if is_whole else array.strides
        described.check_field_aligned(dtype, offset, geo.shape, strides)
    view = geometry(geo.shape, dtype)
    made = posted("ndarray.__getitem__", view, (array, key), charge=0)
    made._base = array if array._base is None else array._base
    return made


def set_described(array: ndarray, key: Any, value: Any) -> None:
    """Assign to an array whose dtype has fields, or is plain bytes.

    Raises:
        ValueError: no kernel can be launched with its dtype.
    """
    if array._geo.dtype.names is not None and described.is_field_key(key):
        array, key = field_of(array, key), ...
        if array._geo.dtype.char != "V":
            array[...] = value
            return
    described.check_computed(array._geo.dtype)
    device().call("ndarray.__setitem__", (array, index_of(key), value), {})


def as_operand(value: Any) -> Any:
    """A value of an assignment: host arrays and lists are uploaded.

    Raises:
        ValueError: arrays can't have its dtype.
    """
    if isinstance(value, ndarray | np.generic | int | float | complex):
        return value
    return transfer.as_array(value)


def check_same(array: ndarray, host: np.ndarray[Any, Any]) -> None:
    """``array[:] = host`` copies bytes, in CuPy: nothing is cast or broadcast.

    Raises:
        ValueError: dtypes or shapes differ, or the array has gaps.
    """
    if (
        host.dtype != array.dtype
        or host.shape != array.shape
        or not array._known_layout()[1] & (LAYOUT_C | LAYOUT_F)
    ):
        raise ValueError(
            "a host array assigned to a[:] must have the same shape and dtype, and `a`"
            " no gaps; upload it with cupy.asarray"
        )


def _geometries(key: Any) -> tuple[Any, ...]:
    """An index as ``picked_shape`` takes it."""
    parts = key if type(key) is tuple else (key,)
    return tuple([one._geo if type(one) is ndarray else one for one in parts])


def index_of(key: Any) -> Any:
    """An index as the server takes it: lists become arrays, as in CuPy.

    Raises:
        IndexError: an index that arrays don't have.
    """
    if isinstance(key, tuple):
        return tuple([index_of(one) for one in key])
    if isinstance(key, list):
        key = transfer.unwrapped(key)
        if transfer.has_remote(key):
            return transfer.as_array(key)
        array = transfer.host_array(key)
        if array.size == 0:
            array = array.astype(np.intp)
        return transfer.upload(array)
    if isinstance(key, np.ndarray):
        if key.dtype.kind not in "biu":
            raise IndexError(
                "arrays used as indices must be of integer (or boolean) type"
            )
        return transfer.upload(key) if key.ndim else key[()]
    if not isinstance(key, ndarray | str):
        key = transfer.unwrapped(key)
    if isinstance(key, str | float | complex):
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and"
            " integer or boolean arrays are valid indices"
        )
    return key
