"""What a kernel's body is once it is read: a tree of these, which nothing executes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

TYPES: Final = {
    "bool": np.dtype(np.bool_),
    "char": np.dtype(np.int8),
    "short": np.dtype(np.int16),
    "int": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "size_t": np.dtype(np.uint64),
    "ptrdiff_t": np.dtype(np.int64),
    "unsigned": np.dtype(np.uint32),
    **{
        name: np.dtype(name.removesuffix("_t"))
        for name in (
            *("int8_t", "int16_t", "int32_t", "int64_t"),
            *("uint8_t", "uint16_t", "uint32_t", "uint64_t"),
            *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
            *("uint64", "float16", "float32", "float64", "complex64", "complex128"),
        )
    },
}
"""Types by the names that kernels write; ``long long`` is ``long`` too."""


class Unsupported(NotImplementedError):  # noqa: N818  a state
    """Something that only a CUDA compiler understands."""


@dataclass(frozen=True, slots=True)
class Number:
    """A literal, with its C type."""

    value: float
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class Name:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """``-x``, ``!x``, ``~x``."""

    sign: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """``x + y`` and its kin."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Choice:
    """``c ? x : y``."""

    condition: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the table."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """A conversion to a type; a complex one may be made of two parts."""

    type_name: str
    operand: Node
    imaginary: Node | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """``x[i]`` of a raw array, or of an array that the kernel declares."""

    name: str
    index: Node


@dataclass(frozen=True, slots=True)
class Size:
    """``x.size()``, or of ``_ind``: the whole."""

    name: str


@dataclass(frozen=True, slots=True)
class Extent:
    """``x.shape()[k]``."""

    name: str
    axis: Node


@dataclass(frozen=True, slots=True)
class Rank:
    """``x.ndim``."""

    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """``z.real()``, ``z.imag()``."""

    operand: Node
    name: str


@dataclass(frozen=True, slots=True)
class Assign:
    """``x = …`` or ``x[i] += …``."""

    target: Name | Item
    value: Node
    sign: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """``x++`` and its kin."""

    target: Name | Item
    sign: str
    is_prefix: bool


@dataclass(frozen=True, slots=True)
class Atomic:
    """``atomicAdd(&x[i], …)``; ``part`` of a complex ``x[i]`` if there is one."""

    name: str
    target: Item
    value: Node
    part: str = ""
    """``real`` or ``imag``."""
    part_type: str = ""
    """The type that a part is taken for."""


Node: TypeAlias = (
    Number
    | Name
    | Unary
    | Binary
    | Choice
    | Call
    | Cast
    | Item
    | Size
    | Extent
    | Rank
    | Part
    | Assign
    | Step
    | Atomic
)


VALUE_TYPE: Final = "::value_type"
"""Behind a complex type: that of its parts."""

AUTO: Final = "auto"
"""Instead of a type: that of the value."""


@dataclass(frozen=True, slots=True)
class Declare:
    """``T x = …;`` with or without a value, or ``T x[4] = {…};``."""

    type_name: str
    name: str
    value: Node | None
    size: int | None = None
    items: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluate:
    """An expression for what it does."""

    value: Node


@dataclass(frozen=True, slots=True)
class Block:
    """``{ … }``: names end with it."""

    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class If:
    """``if (…) … else …``, as masks."""

    condition: Node
    yes: tuple[Statement, ...]
    no: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """``for``, ``while`` and ``do``."""

    start: tuple[Statement, ...]
    condition: Node | None
    step: tuple[Node, ...]
    body: tuple[Statement, ...]
    is_tested_first: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """``case 3:`` or ``default:``, which has no label, and what stands behind it."""

    label: Node | None
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """``switch``; an index goes on into the next case unless it breaks."""

    value: Node
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """``break``, ``continue`` or ``return``."""

    kind: str
    value: Node | None = None


Statement: TypeAlias = Declare | Evaluate | Block | If | Loop | Switch | Leave


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function; ``kind`` is empty, ``&`` or ``*``."""

    type_name: str
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the preamble."""

    name: str
    type_name: str
    letters: frozenset[str]
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Preamble:
    """Everything that a preamble declares."""

    constants: tuple[Declare, ...] = ()
    functions: tuple[Function, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    """Of ``typedef``: the new name and the old one."""
