"""What a kernel can assign to: variables, small arrays of its own, raw arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from xpool_server.arrays.kernel_functions import Array, check_integer, converted
from xpool_server.arrays.kernel_tree import Unsupported

MAX_LOCAL_NBYTES: Final = 256 << 20


@dataclass(slots=True)
class Place:
    """Where a value lies, for the indices of a mask."""

    load: Callable[[], Array]
    put: Callable[[Array], Array]
    """Stores for those indices alone; returns the value as it was stored."""
    change: Callable[[Any, Array], None] | None = None

    def store(self, value: Array) -> Array:
        """Assign."""
        return self.put(value)

    def add(self, function: Any, value: Array) -> None:
        """Change in place, index after index, as an atomic function does.

        Raises:
            Unsupported: it is no item of a raw array.
        """
        if self.change is None:
            raise Unsupported("a kernel's atomic functions are for raw arrays")
        self.change(function, value)

    @classmethod
    def of_raw(
        cls, name: str, array: Array, index: Array, mask: Array, shape: tuple[int, ...]
    ) -> Place:
        """An item of a raw array, by its index in row-major order.

        Raises:
            IndexError: it leads outside.
        """
        return _in_array(array, (checked(name, index, array.size, mask),), mask, shape)

    @classmethod
    def of_axes(
        cls, name: str, array: Array, at: Local, mask: Array, shape: tuple[int, ...]
    ) -> Place:
        """An item of a raw array, by an index for each axis.

        Raises:
            IndexError: it leads outside, or has another number of axes.
        """
        if at.size != array.ndim:
            raise IndexError(f"a kernel gives {name} {at.size} indices")
        indices = []
        for axis, size in enumerate(array.shape):
            index = at.values[axis]
            check_integer(index)
            indices.append(checked(name, index, size, mask))
        return _in_array(array, tuple(indices), mask, shape)


def checked(name: str, index: Array, size: int, mask: Array) -> Array:
    """The index where the mask holds, and 0 elsewhere.

    Raises:
        IndexError: it leads outside.
    """
    if mask is not np.True_:
        index = np.where(mask, index, index.dtype.type(0))
    is_outside = np.size(index) and (index.min() < 0 or index.max() >= size)
    if is_outside and (size or np.any(mask)):
        raise IndexError(
            f"a kernel's index leads outside of {name}, which has {size} items"
        )
    return index


def _in_array(
    array: Array, indices: tuple[Array, ...], mask: Array, shape: tuple[int, ...]
) -> Place:
    is_flat = len(indices) == 1 and array.ndim != 1

    def load() -> Array:
        if not array.size:
            return np.zeros(np.shape(indices[0]), array.dtype)[()]
        if is_flat:
            index = np.asarray(indices[0])
            return array.flat[index.ravel()].reshape(index.shape)[()]
        return array[indices]

    def chosen(value: Array) -> tuple[tuple[Array, ...], Array]:
        holds = np.broadcast_to(mask, shape)
        at = tuple(np.broadcast_to(one, shape)[holds] for one in indices)
        value = np.broadcast_to(converted(value, array.dtype), shape)
        return (np.unravel_index(at[0], array.shape) if is_flat else at), value[holds]

    def put(value: Array) -> Array:
        at, values = chosen(value)
        if len(values):
            array[at] = values
        return converted(value, array.dtype)

    def change(function: Any, value: Array) -> None:
        at, values = chosen(value)
        if len(values):
            function.at(array, at, values)

    return Place(load, put, change)


def place_in(scope: dict[str, Any], name: str, mask: Array) -> Place:
    """A variable."""

    def put(value: Array) -> Array:
        before = scope[name]
        value = converted(value, before.dtype)
        if mask is not np.True_:
            value = np.where(mask, value, before)[()]
        scope[name] = value
        return value

    return Place(lambda: scope[name], put)


@dataclass(slots=True)
class Local:
    """A small array that a kernel declares: one for each index of the run."""

    size: int
    values: Array

    @classmethod
    def of(cls, size: int, shape: tuple[int, ...], dtype: Any) -> Local:
        """Zeros.

        Raises:
            Unsupported: they take too much memory.
        """
        if size * math.prod(shape) * dtype.itemsize > MAX_LOCAL_NBYTES:
            raise Unsupported("a kernel's own arrays are too large for this device")
        return cls(size, np.zeros((size, *shape), dtype))

    def store(self, index: Array, value: Array, mask: Array) -> None:
        """Assign an item."""
        self.place("an array", index, mask).store(value)

    def place(self, name: str, index: Array, mask: Array) -> Place:
        """An item.

        Raises:
            IndexError: it leads outside.
        """
        index = checked(name, index, self.size, mask)
        shape = self.values.shape[1:]
        rest = np.indices(shape, sparse=True)

        def load() -> Array:
            if not np.ndim(index):
                return self.values[int(index)].copy()[()]
            return self.values[(np.broadcast_to(index, shape), *rest)]

        def put(value: Array) -> Array:
            value = converted(value, self.values.dtype)
            holds = np.broadcast_to(mask, shape)
            where = np.broadcast_to(index, shape)
            axes = tuple(np.broadcast_to(one, shape)[holds] for one in rest)
            self.values[(where[holds], *axes)] = np.broadcast_to(value, shape)[holds]
            return value

        return Place(load, put)
