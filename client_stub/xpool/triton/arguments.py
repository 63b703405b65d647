"""A kernel's arguments as its compiled signature has them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from xpool_protocol.kernel_records import (
    BytesArgument,
    KernelArgument,
    NullArgument,
    StorageArgument,
)

Locate = Callable[[Any], tuple[int, int]]
"""Storage number and byte offset of a tensor; raises where it is not remote."""

_FORMATS: Final = {
    "i1": "<b",
    "i8": "<b",
    "i16": "<h",
    "i32": "<i",
    "i64": "<q",
    "u1": "<B",
    "u8": "<B",
    "u16": "<H",
    "u32": "<I",
    "u64": "<Q",
    "fp16": "<e",
    "fp32": "<f",
    "f32": "<f",
    "fp64": "<d",
}
_SCALARS: Final = {name: struct.Struct(text) for name, text in _FORMATS.items()}


def flattened(kinds: Sequence[Any], values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Pairs of type and value, tuples taken apart, constants left out."""
    for kind, value in zip(kinds, values, strict=True):
        if isinstance(kind, tuple):
            yield from flattened(kind, value)
        elif kind != "constexpr":
            yield kind, value


def argument(kind: str, value: Any, locate: Locate) -> KernelArgument:
    """One argument for a parameter of this type.

    Args:
        kind: Triton's name of the type: ``*fp32``, ``i32``.
        value: what the program passed.
        locate: finds tensors.

    Raises:
        NotImplementedError: a type that can't be sent.
        TypeError: no tensor where the kernel takes a pointer.
    """
    if kind.startswith("*"):
        return _pointer(value, locate)
    if kind == "bf16":
        return BytesArgument(_bfloat16(float(value)))
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise NotImplementedError(
            f"xpool: a Triton kernel's argument of type {kind} can't be sent to the"
            " pool; tensor descriptors made on the host are not supported: make them"
            " in the kernel with tl.make_tensor_descriptor"
        )
    return BytesArgument(scalar.pack(_plain(kind, value)))


def _plain(kind: str, value: Any) -> Any:
    return float(value) if kind.startswith("f") else int(value)


def _pointer(value: Any, locate: Locate) -> KernelArgument:
    if value is None:
        return NullArgument()
    if not hasattr(value, "data_ptr"):
        raise TypeError(
            "xpool: a Triton kernel takes remote tensors as pointers, no"
            f" {type(value).__name__}"
        )
    return StorageArgument(*locate(value))


def _bfloat16(value: float) -> bytes:
    """The nearest bfloat16, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    if value != value:
        return struct.pack("<H", (bits >> 16) | 0x40)
    return struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF)
