"""What executes array operations; one class for each kind of device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from xpool_protocol.arrays.api import is_allowed
from xpool_protocol.errors import OperationUnknown


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

    def attribute(self, found: Any, name: str) -> Any:
        """An attribute of an object that is no array; it may be read."""
        return getattr(found, name)

    @abstractmethod
    def from_bytes(
        self, code: int, sizes: tuple[int, ...], order: str, data: bytes
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
    def argument(self, value: Any) -> Any:
        """A small array that came by value, as calls want it."""


def lacks(name: str, library: str) -> OperationUnknown:
    """The error for a name of CuPy's that a library has no counterpart for."""
    return OperationUnknown(
        f"{name} has no implementation on this server's device ({library}); run the"
        " program on a slice of a CUDA device"
    )
