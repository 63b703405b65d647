"""A small part of C++, as ``ElementwiseKernel`` and ``ReductionKernel`` bodies use it.

Expressions, declarations, assignments and ``if``; no loops, pointers, templates or
functions of the program's own. What is outside is refused with its place. Nothing here
executes anything: the result is a tree, which ``kernel_evaluator`` walks with NumPy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

import numpy as np

MAX_TOKENS: Final = 4096
MAX_DEPTH: Final = 48

_TOKEN: Final = re.compile(
    r"\s+|//[^\n]*|/\*.*?\*/"
    r"|(?P<number>0[xX][0-9a-fA-F]+[uUlL]*"
    r"|(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?[fFlL]?|\d+[uUlL]*)"
    r"|(?P<name>[A-Za-z_]\w*(?:::\w+)*)"
    r"|(?P<sign><<=|>>=|\+\+|--|&&|\|\||<<|>>|[-+*/%&|^<>=!]=|[-+*/%&|^~!<>=?:;,.(){}\[\]])",
    re.DOTALL,
)

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
    """A conversion to a type."""

    type_name: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Item:
    """``x[i]`` of a raw array."""

    name: str
    index: Node


@dataclass(frozen=True, slots=True)
class Size:
    """``x.size()``, or of ``_ind``: the whole."""

    name: str


Node: TypeAlias = Number | Name | Unary | Binary | Choice | Call | Cast | Item | Size


@dataclass(frozen=True, slots=True)
class Declare:
    """``T x = …;`` with or without a value."""

    type_name: str
    name: str
    value: Node | None


@dataclass(frozen=True, slots=True)
class Assign:
    """``x = …;`` or ``x[i] = …;``, compound ones included."""

    target: Name | Item
    value: Node


@dataclass(frozen=True, slots=True)
class If:
    """``if (…) … else …``, as masks."""

    condition: Node
    yes: tuple[Statement, ...]
    no: tuple[Statement, ...]


Statement: TypeAlias = Declare | Assign | If

_LEVELS: Final = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)


class Parser:
    """Reads one body."""

    def __init__(self, text: str, types: frozenset[str]) -> None:
        """Read a text.

        Args:
            text: statements, or an expression.
            types: names of types beside those of C: the kernel's own letters.
        """
        self._tokens = _tokens(text)
        self._types = types | TYPES.keys()
        self._at = self._depth = 0

    # ---- statements

    def statements(self) -> tuple[Statement, ...]:
        """All of the text as statements."""
        found: list[Statement] = []
        while self._peek():
            found += self._statement()
        return tuple(found)

    def expression(self) -> Node:
        """All of the text as one expression."""
        found = self._expression()
        self._take(";", is_wanted=False)
        if self._peek():
            self._refuse()
        return found

    def _statement(self) -> list[Statement]:
        self._enter()
        try:
            if self._take(";", is_wanted=False):
                return []
            if self._take("{", is_wanted=False):
                return self._block()
            if self._peek() == "if":
                return [self._if()]
            if self._is_type():
                return self._declarations()
            return [self._assignment()]
        finally:
            self._depth -= 1

    def _block(self) -> list[Statement]:
        found: list[Statement] = []
        while not self._take("}", is_wanted=False):
            if not self._peek():
                self._refuse()
            found += self._statement()
        return found

    def _if(self) -> If:
        self._take("if")
        self._take("(")
        condition = self._expression()
        self._take(")")
        yes = tuple(self._statement())
        no: tuple[Statement, ...] = ()
        if self._take("else", is_wanted=False):
            no = tuple(self._statement())
        return If(condition, yes, no)

    def _declarations(self) -> list[Statement]:
        kind = self._type()
        found: list[Statement] = []
        while True:
            name = self._identifier()
            value = self._expression() if self._take("=", is_wanted=False) else None
            found.append(Declare(kind, name, value))
            if not self._take(",", is_wanted=False):
                break
        self._end()
        return found

    def _assignment(self) -> Assign:
        prefix = self._take_any("++", "--")
        target = self._primary()
        if not isinstance(target, Name | Item):
            self._refuse()
        step = prefix or self._take_any("++", "--")
        if step:
            one = Number(1, TYPES["int"])
            self._end()
            return Assign(target, Binary(step[0], target, one))
        sign = self._peek()
        if sign not in _ASSIGNMENTS:
            self._refuse()
        self._at += 1
        value = self._expression()
        if sign != "=":
            value = Binary(sign[:-1], target, value)
        self._end()
        return Assign(target, value)

    def _end(self) -> None:
        if self._peek() and self._peek() != "}":
            self._take(";")

    # ---- expressions

    def _expression(self) -> Node:
        self._enter()
        condition = self._binary(0)
        if self._take("?", is_wanted=False):
            yes = self._expression()
            self._take(":")
            condition = Choice(condition, yes, self._expression())
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        found = self._binary(level + 1)
        while sign := self._take_any(*_LEVELS[level]):
            found = Binary(sign, found, self._binary(level + 1))
        return found

    def _unary(self) -> Node:
        sign = self._take_any("-", "+", "!", "~")
        if sign:
            self._enter()
            found = Unary(sign, self._unary())
            self._depth -= 1
            return found
        return self._primary()

    def _primary(self) -> Node:
        word = self._peek()
        if self._take("(", is_wanted=False):
            return self._parenthesis()
        if word and (word[0].isdigit() or (word[0] == "." and len(word) > 1)):
            self._at += 1
            return _number(word)
        if word in ("static_cast", "reinterpret_cast", "const_cast"):
            return self._static_cast()
        if word in ("true", "false"):
            self._at += 1
            return Number(word == "true", TYPES["bool"])
        if self._is_type():
            kind = self._type()
            self._take("(")
            return Cast(kind, self._closed())
        return self._named(self._identifier())

    def _parenthesis(self) -> Node:
        if self._is_type():
            kind = self._type()
            self._take(")")
            return Cast(kind, self._unary())
        return self._closed()

    def _closed(self) -> Node:
        found = self._expression()
        self._take(")")
        return found

    def _static_cast(self) -> Node:
        if self._peek() != "static_cast":
            self._refuse()
        self._at += 1
        self._take("<")
        kind = self._type()
        self._take(">")
        self._take("(")
        return Cast(kind, self._closed())

    def _named(self, name: str) -> Node:
        if self._take("[", is_wanted=False):
            index = self._expression()
            self._take("]")
            return Item(name, index)
        if self._take(".", is_wanted=False):
            if self._identifier() != "size":
                self._refuse()
            self._take("(")
            self._take(")")
            return Size(name)
        if not self._take("(", is_wanted=False):
            return Name(name)
        arguments: list[Node] = []
        while not self._take(")", is_wanted=False):
            arguments.append(self._expression())
            if self._peek() != ")":
                self._take(",")
        return Call(name, tuple(arguments))

    # ---- tokens

    def _is_type(self) -> bool:
        return self._peek() in self._types or self._peek() in ("const", "signed")

    def _type(self) -> str:
        words: list[str] = []
        while self._is_type():
            words.append(self._peek())
            self._at += 1
        if self._peek() in ("*", "&"):
            self._refuse()
        words = [word for word in words if word not in ("const", "signed")]
        if len(words) == 1:
            return words[0]
        if words and words[0] == "unsigned":
            return {"char": "uint8", "short": "uint16", "int": "uint32"}.get(
                words[1], "uint64"
            )
        if not words or not set(words) <= {"long", "int", "short"}:
            self._refuse()
        return words[0]

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, token: str, *, is_wanted: bool = True) -> bool:
        if self._peek() == token:
            self._at += 1
            return True
        if is_wanted:
            self._refuse()
        return False

    def _take_any(self, *tokens: str) -> str:
        token = self._peek()
        if token in tokens:
            self._at += 1
            return token
        return ""

    def _identifier(self) -> str:
        token = self._peek()
        if not re.match(r"[A-Za-z_]", token) or token in _RESERVED:
            self._refuse()
        self._at += 1
        return token

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsupported("a kernel's source is nested too deeply for this device")

    def _refuse(self) -> NoReturn:
        near = " ".join(self._tokens[max(self._at - 6, 0) : self._at + 6])
        raise Unsupported(
            f"this kernel's source is more than this device understands, near"
            f" `{near}`: run the program on a slice of a CUDA device"
        )


_ASSIGNMENTS: Final = frozenset(
    ("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=")
)
_RESERVED: Final = frozenset(
    (
        *("for", "while", "do", "switch", "goto", "return", "auto", "struct"),
        *("template", "asm", "sizeof", "new", "delete"),
    )
)


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unsupported(f"a kernel's source has {text[at]!r}, which is no C++")
        at = match.end()
        if match.lastgroup:
            found.append(match[0])
            if len(found) > MAX_TOKENS:
                raise Unsupported("a kernel's source is too long for this device")
    return found


def _number(token: str) -> Number:
    text = token.lower()
    if text.startswith("0x"):
        return _integer(int(text.rstrip("ul"), 16), text)
    if text.endswith("f"):
        return Number(float(text[:-1]), TYPES["float"])
    if "." in text or "e" in text:
        return Number(float(text.rstrip("l")), TYPES["double"])
    digits = text.rstrip("ul")
    if len(digits) > 1 and digits.startswith("0"):
        try:
            return _integer(int(digits, 8), text)
        except ValueError:
            raise Unsupported(f"{token} is no number") from None
    return _integer(int(digits), text)


def _integer(value: int, text: str) -> Number:
    if value >= 1 << 64:
        raise Unsupported(f"{value} does not fit an integer")
    is_unsigned = "u" in text
    is_small = value < (1 << 32 if is_unsigned else 1 << 31)
    if "l" not in text and is_small:
        return Number(value, TYPES["uint32" if is_unsigned else "int"])
    is_unsigned = is_unsigned or value >= 1 << 63
    return Number(value, TYPES["uint64" if is_unsigned else "long"])
