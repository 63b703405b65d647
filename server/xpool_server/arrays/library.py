"""What executes array operations; one class for each kind of device."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

import numpy as np
import torch
from xpool_protocol.arrays.api import SETTABLE, is_allowed
from xpool_protocol.errors import OperationUnknown

MAX_PARTS: Final = 10_000
MAX_PART_DEPTH: Final = 4
HELD_IN_SLOTS: Final = ("data", "indices", "maxes", "mins", "points", "simplices")
"""Attributes of compiled classes, which have no ``__dict__``."""


class ArrayLibrary(ABC):
    """NumPy with SciPy, or CuPy."""

    array_type: ClassVar[type[Any]]
    """Of its arrays."""

    reuses_memory: ClassVar[bool] = False
    """A result may take the memory of an argument that is about to be freed."""

    def __init__(self) -> None:
        self._found: dict[str, Callable[..., Any]] = {}

    def operation(self, name: str) -> Callable[..., Any]:
        """What an operation of this name calls.

        Raises:
            OperationUnknown: the name is not in the table, or this library lacks it.
        """
        found = self._found.get(name)
        if found is None:
            if not is_allowed(name) and not name.startswith("xpool."):
                raise OperationUnknown(f"{name} is not among CuPy's public names")
            found = self._found[name] = self._look_up(name)
        return found

    @abstractmethod
    def _look_up(self, name: str) -> Callable[..., Any]:
        """The callable of a name that is allowed.

        Raises:
            OperationUnknown: this library lacks it.
        """

    @abstractmethod
    def as_result(self, found: Any) -> Any:
        """A result as CuPy would return it: scalars of the library become arrays."""

    def is_elementwise(self, function: Callable[..., Any]) -> bool:
        """Whether it takes ``out=``, and works item by item towards one result."""
        return False

    def as_arrays(self, name: str, found: Any) -> Any:
        """What an operation of this name returned, as CuPy's returns it."""
        return found

    def type_name(self, found: Any) -> str:
        """Name of an object's class, as CuPy calls it."""
        return type(found).__name__

    def parts_of(self, found: Any) -> list[Any]:
        """The arrays that an object is made of, each once."""
        return list(held_arrays(found, self.array_type))

    def set_attribute(self, found: Any, name: str, value: Any) -> None:
        """Set an attribute of an object that is no array.

        Raises:
            AttributeError: it can't be set.
            ValueError: it is an array, of another shape or dtype than the one before:
                compiled code counts on it.
        """
        kind = self.type_name(found)
        if name not in SETTABLE.get(kind, ()):
            raise AttributeError(f"{kind}.{name} can't be set")
        before = getattr(found, name)
        # What stands for points outside is checked there, and not by compiled code.
        if isinstance(before, self.array_type) and name != "fill_value":
            if (
                not isinstance(value, self.array_type)
                or value.shape != before.shape
                or value.dtype != before.dtype
            ):
                raise ValueError(
                    f"{kind}.{name} takes an array of shape {before.shape} and dtype"
                    f" {before.dtype}"
                )
            # What a program does to its array's shape must not reach the object.
            value = value.view()
        setattr(found, name, value)

    def attribute(self, found: Any, name: str) -> Any:
        """An attribute of an object that is no array; it may be read."""
        return getattr(found, name)

    @abstractmethod
    def from_bytes(
        self, dtype: np.dtype[Any], sizes: tuple[int, ...], order: str, data: bytes
    ) -> Any:
        """A new array of these bytes."""

    @abstractmethod
    def to_bytes(self, array: Any) -> bytes:
        """The items of an array in row-major order."""

    @abstractmethod
    def over(self, tensor: torch.Tensor) -> Any:
        """An array over a tensor's memory."""

    @abstractmethod
    def storage_over(self, array: Any) -> torch.UntypedStorage:
        """A storage over the memory of a contiguous array.

        Raises:
            ArgumentInvalid: it is not contiguous.
        """

    @abstractmethod
    def extent(self, array: Any) -> tuple[int, int]:
        """Where the memory begins and ends in which an array lies.

        In bytes from its first item.
        """

    @abstractmethod
    def address(self, array: Any) -> int:
        """Where an array's first item lies."""

    @abstractmethod
    def argument(
        self, dtype: np.dtype[Any], sizes: tuple[int, ...], data: bytes
    ) -> Any:
        """A small array that came by value, as calls want it."""


def held_arrays(found: Any, array_type: type) -> Iterator[Any]:
    """Arrays within an object: its attributes, and theirs, a few levels deep."""
    seen: set[int] = set()
    waiting = [(found, 0)]
    while waiting and len(seen) < MAX_PARTS:
        one, depth = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, array_type):
            yield one
            continue
        if depth >= MAX_PART_DEPTH or isinstance(one, type):
            continue
        if isinstance(one, tuple | list):
            inner = list(one)
        elif isinstance(one, dict):
            inner = list(one.values())
        elif depth == 0 or type(one).__module__.startswith(("scipy.", "cupyx.")):
            inner = [*getattr(one, "__dict__", {}).values()]
            inner += [getattr(one, name, None) for name in HELD_IN_SLOTS]
        else:
            continue
        waiting += [(part, depth + 1) for part in inner]


def fields_of(found: Any) -> dict[str, Any] | None:
    """What a bundle of results holds, by name; None of everything else."""
    kind = type(found)
    is_bundle = kind.__name__ == "Bunch" and kind.__module__.startswith(
        ("scipy.", "cupyx.")
    )
    return dict(vars(found)) if is_bundle else None


def overridden(owner: Any, name: str, function: Callable[..., Any]) -> Any:
    """A method of a class, or what the class of its object has in the place of it."""
    if not isinstance(owner, type):
        return function

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], owner):
            return getattr(args[0], name)(*args[1:], **kwargs)
        return function(*args, **kwargs)

    return called


def check_linalg(name: Any) -> None:
    """Refuse a name that is no function of ``cupy.linalg``.

    Raises:
        OperationUnknown: it is none.
    """
    if not isinstance(name, str) or not name.startswith("cupy.linalg."):
        raise OperationUnknown("only functions of cupy.linalg can be told to raise")


def lacks(name: str, library: str) -> OperationUnknown:
    """The error for a name of CuPy's that a library has no counterpart for."""
    return OperationUnknown(
        f"{name} has no implementation on this server's device ({library}); run the"
        " program on a slice of a CUDA device"
    )
