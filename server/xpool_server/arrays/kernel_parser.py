"""A small part of C++, as ``ElementwiseKernel`` and ``ReductionKernel`` bodies use it.

Expressions, declarations, small arrays, assignments, ``if``, ``switch``, loops, and
functions and macros of the preamble; no pointers, structures, or templates beyond a
function's types. What is outside is refused with its place. Nothing here executes
anything: the result is a tree, which ``kernel_evaluator`` walks with NumPy.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from xpool_server.arrays.kernel_tokens import Macro, number, words
from xpool_server.arrays.kernel_tree import (
    AUTO,
    TYPES,
    VALUE_TYPE,
    Assign,
    Atomic,
    Binary,
    Block,
    Call,
    Case,
    Cast,
    Choice,
    Declare,
    Evaluate,
    Extent,
    Function,
    If,
    Item,
    Leave,
    Loop,
    Name,
    Node,
    Number,
    Parameter,
    Part,
    Preamble,
    Rank,
    Size,
    Statement,
    Step,
    Switch,
    Unary,
    Unsupported,
)

__all__ = ["TYPES", "Parser", "Unsupported"]

MAX_DEPTH: Final = 48
MAX_ARRAY: Final = 1024
_ATOMICS: Final = frozenset(("atomicAdd", "atomicSub", "atomicMax", "atomicMin"))
_QUALIFIERS: Final = frozenset(
    (
        *("__device__", "__host__", "__forceinline__", "__inline__", "inline"),
        *("static", "constexpr", "__constant__"),
    )
)

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

    def __init__(
        self,
        text: str,
        types: frozenset[str],
        macros: dict[str, Macro] | None = None,
    ) -> None:
        """Read a text.

        Args:
            text: statements, an expression or a preamble.
            types: names of types beside those of C: the kernel's own letters.
            macros: of the preamble; those that the text defines are added.
        """
        self._tokens = words(text, macros)
        self._types = types | TYPES.keys()
        self._at = self._depth = 0

    # ---- a preamble

    def preamble(self) -> Preamble:
        """All of the text as functions and constants."""
        constants: list[Declare] = []
        functions: list[Function] = []
        aliases: list[tuple[str, str]] = []
        while self._peek():
            if self._take(";", is_wanted=False):
                continue
            if self._take("typedef", is_wanted=False):
                aliases.append(self._alias())
                continue
            letters = self._template()
            while self._peek() in _QUALIFIERS:
                self._at += 1
            own, self._types = self._types, self._types | letters
            kind = self._take_any("void") or self._type()
            name = self._identifier()
            if self._take("(", is_wanted=False):
                made = self._function(name, kind, letters)
                if any(
                    one.name == name and len(one.parameters) == len(made.parameters)
                    for one in functions
                ):
                    self._refuse()
                functions.append(made)
            else:
                self._at -= 1
                constants += self._declarations(kind)
            self._types = own
        return Preamble(tuple(constants), tuple(functions), tuple(aliases))

    def _alias(self) -> tuple[str, str]:
        old = self._type()
        if self._is_type():  # a name that was a type before
            new = self._peek()
            self._at += 1
        else:
            new = self._identifier()
        self._end()
        self._types |= {new}
        return new, old

    def _template(self) -> frozenset[str]:
        letters: set[str] = set()
        if not self._take("template", is_wanted=False):
            return frozenset()
        self._take("<")
        while not self._take(">", is_wanted=False):
            if not self._take_any("typename", "class"):
                self._refuse()
            letters.add(self._identifier())
            if self._peek() != ">":
                self._take(",")
        return frozenset(letters)

    def _function(self, name: str, kind: str, letters: frozenset[str]) -> Function:
        parameters: list[Parameter] = []
        while not self._take(")", is_wanted=False):
            of_type = self._type(may_refer=True)
            kind_of = self._take_any("&", "*")
            parameters.append(Parameter(of_type, self._identifier(), kind_of))
            if self._peek() != ")":
                self._take(",")
        self._take("{")
        return Function(name, kind, letters, tuple(parameters), self._block())

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
            word = self._peek()
            if self._take(";", is_wanted=False):
                return []
            if self._take("{", is_wanted=False):
                return [Block(self._block())]
            if word == "if":
                return [self._if()]
            if word == "for":
                return [self._for()]
            if word in ("while", "do"):
                return [self._while()]
            if word == "switch":
                return [self._switch()]
            if word in ("break", "continue", "return"):
                return [self._leave()]
            if self._is_type():
                if self._is_cast():
                    return self._evaluated()
                return [*self._declarations(self._type())]
            return self._evaluated()
        finally:
            self._depth -= 1

    def _is_cast(self) -> bool:
        """A type that begins an expression, as in ``int(x);``."""
        return self._tokens[self._at + 1 : self._at + 2] == ["("]

    def _block(self) -> tuple[Statement, ...]:
        found: list[Statement] = []
        while not self._take("}", is_wanted=False):
            if not self._peek():
                self._refuse()
            found += self._statement()
        return tuple(found)

    def _body(self) -> tuple[Statement, ...]:
        return (Block(tuple(self._statement())),)

    def _if(self) -> If:
        self._take("if")
        self._take("(")
        condition = self._expression()
        self._take(")")
        yes = self._body()
        no: tuple[Statement, ...] = ()
        if self._take("else", is_wanted=False):
            no = self._body()
        return If(condition, yes, no)

    def _for(self) -> Loop:
        self._take("for")
        self._take("(")
        start: list[Statement] = []
        if not self._take(";", is_wanted=False):
            if self._is_type():
                start = [*self._declarations(self._type())]
            else:
                start = [Evaluate(one) for one in self._several(";")]
                self._take(";")
        condition = None if self._peek() == ";" else self._expression()
        self._take(";")
        step = self._several(")")
        self._take(")")
        return Loop(tuple(start), condition, step, self._body())

    def _several(self, end: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while self._peek() != end:
            found.append(self._expression())
            if self._peek() != end:
                self._take(",")
        return tuple(found)

    def _while(self) -> Loop:
        if self._take("do", is_wanted=False):
            body = self._body()
            self._take("while")
            condition = self._condition()
            self._end()
            return Loop((), condition, (), body, is_tested_first=False)
        self._take("while")
        condition = self._condition()
        return Loop((), condition, (), self._body())

    def _switch(self) -> Switch:
        self._take("switch")
        value = self._condition()
        self._take("{")
        cases: list[Case] = []
        while not self._take("}", is_wanted=False):
            label = None
            if not self._take("default", is_wanted=False):
                self._take("case")
                label = self._binary(0)
            self._take(":")
            body: list[Statement] = []
            while self._peek() not in ("case", "default", "}"):
                if not self._peek():
                    self._refuse()
                body += self._statement()
            cases.append(Case(label, tuple(body)))
        if sum(one.label is None for one in cases) > 1:
            self._refuse()
        return Switch(value, tuple(cases))

    def _condition(self) -> Node:
        self._take("(")
        return self._closed()

    def _leave(self) -> Leave:
        kind = self._take_any("break", "continue", "return")
        value = None
        if kind == "return" and self._peek() not in (";", "}", ""):
            value = self._expression()
        self._end()
        return Leave(kind, value)

    def _declarations(self, kind: str) -> list[Declare]:
        found: list[Declare] = []
        while True:
            found.append(self._declared(kind))
            if not self._take(",", is_wanted=False):
                break
        self._end()
        return found

    def _declared(self, kind: str) -> Declare:
        name = self._identifier()
        if kind == AUTO:
            self._take("=")
            return Declare(kind, name, self._expression())
        if self._take("(", is_wanted=False):
            return Declare(kind, name, self._constructed(kind))
        if not self._take("[", is_wanted=False):
            value = self._expression() if self._take("=", is_wanted=False) else None
            return Declare(kind, name, value)
        size = 0
        if self._peek() != "]":
            length = self._expression()
            if not isinstance(length, Number) or length.dtype.kind not in "iu":
                self._refuse()
            size = int(length.value)
        self._take("]")
        items: tuple[Node, ...] = ()
        if self._take("=", is_wanted=False):
            self._take("{")
            items = self._several("}")
            self._take("}")
        size = size or len(items)
        if not 0 < size <= MAX_ARRAY or len(items) > size:
            self._refuse()
        return Declare(kind, name, None, size, items)

    def _evaluated(self) -> list[Statement]:
        found: list[Statement] = [Evaluate(self._expression())]
        while self._take(",", is_wanted=False):
            found.append(Evaluate(self._expression()))
        self._end()
        return found

    def _end(self) -> None:
        if self._peek() and self._peek() != "}":
            self._take(";")

    # ---- expressions

    def _expression(self) -> Node:
        self._enter()
        found = self._binary(0)
        sign = self._peek()
        if self._take("?", is_wanted=False):
            yes = self._expression()
            self._take(":")
            found = Choice(found, yes, self._expression())
        elif sign in _ASSIGNMENTS:
            if not isinstance(found, Name | Item):
                self._refuse()
            self._at += 1
            found = Assign(found, self._expression(), sign[:-1])
        self._depth -= 1
        return found

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        found = self._binary(level + 1)
        while sign := self._take_any(*_LEVELS[level]):
            found = Binary(sign, found, self._binary(level + 1))
        return found

    def _unary(self) -> Node:
        sign = self._take_any("-", "+", "!", "~", "++", "--")
        if not sign:
            return self._postfix(self._primary())
        self._enter()
        operand = self._unary()
        self._depth -= 1
        if sign not in ("++", "--"):
            return Unary(sign, operand)
        return self._step(operand, sign, is_prefix=True)

    def _postfix(self, found: Node) -> Node:
        while self._take(".", is_wanted=False):
            name = self._identifier()
            if name not in ("real", "imag"):
                self._refuse()
            self._take("(")
            self._take(")")
            found = Part(found, name)
        sign = self._take_any("++", "--")
        return self._step(found, sign, is_prefix=False) if sign else found

    def _step(self, target: Node, sign: str, *, is_prefix: bool) -> Step:
        if not isinstance(target, Name | Item):
            self._refuse()
        return Step(target, sign, is_prefix)

    def _primary(self) -> Node:
        word = self._peek()
        if self._take("(", is_wanted=False):
            return self._parenthesis()
        if word and (word[0].isdigit() or (word[0] == "." and len(word) > 1)):
            self._at += 1
            return number(word)
        if word in ("static_cast", "reinterpret_cast", "const_cast"):
            return self._static_cast()
        if word in ("true", "false"):
            self._at += 1
            return Number(word == "true", TYPES["bool"])
        if self._is_type():
            kind = self._type()
            self._take("(")
            return self._constructed(kind)
        return self._named(self._identifier())

    def _constructed(self, kind: str) -> Node:
        real = self._expression()
        imaginary = self._expression() if self._take(",", is_wanted=False) else None
        self._take(")")
        return Cast(kind, real, imaginary)

    def _parenthesis(self) -> Node:
        if self._is_type() and not self._is_cast():
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
        if self._peek() == "." and self._tokens[self._at + 1 : self._at + 2] in (
            ["size"],
            ["shape"],
            ["ndim"],
        ):
            return self._geometry(name)
        if not self._take("(", is_wanted=False):
            return Name(name)
        if name in _ATOMICS:
            return self._atomic(name)
        arguments = self._several(")")
        self._take(")")
        return Call(name, arguments)

    def _geometry(self, name: str) -> Node:
        self._take(".")
        what = self._identifier()
        if what == "ndim":
            return Rank(name)
        self._take("(")
        self._take(")")
        if what == "size":
            return Size(name)
        self._take("[")
        axis = self._expression()
        self._take("]")
        return Extent(name, axis)

    def _atomic(self, name: str) -> Node:
        if self._take("reinterpret_cast", is_wanted=False):
            return self._atomic_part(name)
        target = self._address()
        self._take(",")
        return Atomic(name, target, self._closed())

    def _atomic_part(self, name: str) -> Node:
        """``reinterpret_cast<float*>(&x[i]) + 1``: a complex item's imaginary part."""
        self._take("<")
        kind = self._type(may_refer=True)
        for one in ("*", ">", "("):
            self._take(one)
        target = self._address()
        self._take(")")
        part = "real"
        if self._take("+", is_wanted=False):
            offset = number(self._peek()) if self._peek() in ("0", "1") else None
            if offset is None:
                self._refuse()
            self._at += 1
            part = "imag" if offset.value else "real"
        self._take(",")
        return Atomic(name, target, self._closed(), part, kind)

    def _address(self) -> Item:
        """``&x[i]``, of which an atomic function takes the item."""
        self._take("&")
        target = self._primary()
        if not isinstance(target, Item):
            self._refuse()
        return target

    # ---- tokens

    def _is_type(self) -> bool:
        word = self._peek()
        return word.removesuffix(VALUE_TYPE) in self._types or word in (
            AUTO,
            "const",
            "signed",
            "typename",
            *_COMPLEX,
        )

    def _ends_type(self, words: list[str]) -> bool:
        """Whether a type is complete, so that the next word is a name."""
        plain = [word for word in words if word not in ("const", "typename")]
        if not plain or self._peek() == "const":
            return False
        return plain[-1] not in _WORDS or self._peek() not in _WORDS

    def _type(self, *, may_refer: bool = False) -> str:
        words: list[str] = []
        while self._is_type() and not (words and self._ends_type(words)):
            words.append(self._peek())
            self._at += 1
            if words[-1] in _COMPLEX:
                self._take("<")
                part = self._type()
                self._take(">")
                words[-1] = {"float": "complex64", "double": "complex128"}.get(part, "")
        if self._peek() in ("*", "&") and not may_refer:
            self._refuse()
        words = [word for word in words if word not in ("const", "signed", "typename")]
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
_WORDS: Final = frozenset(
    ("const", "signed", "unsigned", "long", "int", "short", "char", "double")
)
"""Words of which a type's name may have several."""
_COMPLEX: Final = ("complex", "thrust::complex")
_RESERVED: Final = frozenset(
    (
        *("for", "while", "do", "switch", "goto", "return", "auto", "struct"),
        *("template", "asm", "sizeof", "new", "delete", "case", "default"),
    )
)
