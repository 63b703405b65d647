"""Wire values to what an operation takes: one small checker per schema type.

``Converters`` compiles a type of torch's schema into a function from a wire value
to the argument, or raises ``Mismatch``. Nothing reaches torch that did not pass one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import torch
from xpool_protocol.values import (
    Device,
    DType,
    Generator,
    HostTensor,
    Layout,
    MemoryFormat,
    SparseTensor,
    Tensor,
    Value,
)

from xpool_server.dtypes import DTYPES, MEMORY_FORMATS
from xpool_server.generators import Generators
from xpool_server.sparse import LAYOUTS, assembled

Convert: TypeAlias = Callable[[Value], Any]
"""The argument as torch takes it; Any, because that is what operations take."""

NUMBERS: Final = (int, float, bool, complex)


class Mismatch(Exception):  # noqa: N818  says what is true
    """A value is not of the kind that the schema names."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


class NumberForTensor(Exception):  # noqa: N818  says what is true
    """A Python number stands where the schema wants a tensor."""


def host_tensor(value: HostTensor) -> torch.Tensor:
    """The CPU tensor that was sent by value."""
    if not value.data:
        return torch.empty(value.sizes, dtype=DTYPES[value.dtype])
    # A bytearray, as torch wants memory that may be written.
    flat = torch.frombuffer(bytearray(value.data), dtype=DTYPES[value.dtype])
    return flat.reshape(value.sizes)


class Tensors(Protocol):
    """Storages by number: those of a session, or those of a graph's run."""

    def tensor(self, wire: Tensor) -> torch.Tensor:
        """The tensor that is described; it may be shared, so do not reshape it."""

    def own_tensor(self, wire: Tensor) -> torch.Tensor:
        """As ``tensor``, but nobody else's: its geometry may change."""


class Converters:
    """Checkers for one session, which owns the storages and generators they name."""

    def __init__(
        self,
        storages: Tensors,
        generators: Generators,
        device: torch.device,
    ) -> None:
        self._storages = storages
        self._generators = generators
        self._device = device
        self._plain: dict[str, Convert] = {
            "int": _int,
            "bool": _bool,
            "float": _float,
            "number": _number,
            "str": _text,
            "ScalarType": _dtype,
            "Layout": _layout,
            "MemoryFormat": _memory_format,
            "Device": self._device_of,
            "Generator": self._generator_of,
        }

    def for_type(
        self,
        kind: torch._C.JitType,
        *,
        written: bool,
        reshaped: bool,
        numbers: bool,
        sparse: bool = False,
        undefined: bool = False,
    ) -> Convert:
        """The checker of one argument.

        Args:
            kind: the schema's type.
            written: the operation writes it, so it must be on the device.
            reshaped: the operation may change the tensor's sizes or strides, so it
                gets a tensor object of its own.
            numbers: torch takes a Python number in the place of a tensor here.
            sparse: torch has a kernel of the operation for sparse tensors.
            undefined: None stands for an undefined tensor.
        """
        name = kind.kind()
        if name in {"OptionalType", "ListType"}:
            element = self.for_type(
                kind.getElementType(),
                written=written,
                reshaped=reshaped,
                numbers=numbers and name == "OptionalType",
                sparse=sparse,
            )
            text = str(kind.getElementType())
            return (
                _optional(element) if name == "OptionalType" else _list(element, text)
            )
        if name == "TensorType":
            tensor = self._tensor(
                written=written, reshaped=reshaped, numbers=numbers, sparse=sparse
            )
            return _optional(tensor) if undefined and not written else tensor
        return self._plain.get(str(kind)) or _unsupported(str(kind))

    def _tensor(
        self, *, written: bool, reshaped: bool, numbers: bool, sparse: bool
    ) -> Convert:
        storages = self._storages
        convert = storages.own_tensor if reshaped else storages.tensor

        def tensor(value: Value) -> Any:
            if type(value) is Tensor:
                return convert(value)
            if type(value) is SparseTensor and sparse:
                convert_part = storages.own_tensor if written else convert
                return assembled(value, [convert_part(part) for part in value.parts])
            if type(value) is SparseTensor:
                raise Mismatch("a tensor that is not sparse")
            if type(value) is not HostTensor or written:
                raise Mismatch("a tensor on the device" if written else "a tensor")
            if not value.is_wrapped:
                return host_tensor(value)
            if not numbers:
                raise NumberForTensor
            return host_tensor(value).item()

        return tensor

    def _device_of(self, value: Value) -> torch.device:
        if type(value) is not Device or value.index != 0:
            raise Mismatch("Device 0, the session's only one")
        return self._device

    def _generator_of(self, value: Value) -> torch.Generator:
        if type(value) is not Generator:
            raise Mismatch("Generator")
        return self._generators[value.id]


def _int(value: Value) -> int:
    if type(value) is not int:
        raise Mismatch("int")
    return value


def _bool(value: Value) -> bool:
    if type(value) is not bool:
        raise Mismatch("bool")
    return value


def _float(value: Value) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise Mismatch("float")
    return float(value)


def _number(value: Value) -> Any:
    if type(value) in NUMBERS:
        return value
    if type(value) is HostTensor and value.is_wrapped:
        return host_tensor(value).item()
    raise Mismatch("number")


def _text(value: Value) -> str:
    if type(value) is not str:
        raise Mismatch("str")
    return value


def _dtype(value: Value) -> torch.dtype:
    if type(value) is not DType or value.code not in DTYPES:
        raise Mismatch("dtype")
    return DTYPES[value.code]


def _layout(value: Value) -> torch.layout:
    if type(value) is not Layout or value.code not in LAYOUTS:
        raise Mismatch("Layout")
    return LAYOUTS[value.code]


def _memory_format(value: Value) -> torch.memory_format:
    if type(value) is not MemoryFormat or value.code not in MEMORY_FORMATS:
        raise Mismatch("MemoryFormat")
    return MEMORY_FORMATS[value.code]


def _optional(element: Convert) -> Convert:
    def optional(value: Value) -> Any:
        return None if value is None else element(value)

    return optional


def _list(element: Convert, name: str) -> Convert:
    def items(value: Value) -> Any:
        if type(value) is not list:
            raise Mismatch(f"a list of {name}")
        return [element(item) for item in value]

    return items


def _unsupported(name: str) -> Convert:
    def unsupported(_: Value) -> Any:
        raise Mismatch(f"{name}, which can't cross the wire: leave it out")

    return unsupported


def described(value: Value) -> str:
    """A wire value in a few words, for an error's text."""
    match value:
        case Tensor():
            return f"a tensor of sizes {list(value.sizes)}"
        case SparseTensor():
            return f"a sparse tensor of sizes {list(value.sizes)}"
        case HostTensor():
            return "a Python number" if value.is_wrapped else "a host tensor"
        case list():
            return f"a list of {len(value)} items"
        case None:
            return "None"
        case DType() | Device() | Layout() | MemoryFormat() | Generator():
            return f"a {type(value).__name__}"
        case _:
            return f"{type(value).__name__} {str(value)[:40]!r}"
