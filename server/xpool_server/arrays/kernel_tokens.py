"""A kernel's source as words, with its own macros in place."""

from __future__ import annotations

import re
from typing import Final

from xpool_server.arrays.kernel_tree import TYPES, Number, Unsupported

MAX_TOKENS: Final = 4096
MAX_MACRO_DEPTH: Final = 16

_TOKEN: Final = re.compile(
    r"\s+|//[^\n]*|/\*.*?\*/"
    r"|(?P<number>0[xX][0-9a-fA-F]+[uUlL]*"
    r"|(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?[fFlL]?|\d+[uUlL]*)"
    r"|(?P<name>[A-Za-z_]\w*(?:::\w+)*)"
    r"|(?P<sign><<=|>>=|\+\+|--|&&|\|\||<<|>>|[-+*/%&|^<>=!]=|[-+*/%&|^~!<>=?:;,.(){}\[\]])",
    re.DOTALL,
)
_DIRECTIVE: Final = re.compile(r"^[ \t]*#[ \t]*(\w+)[ \t]*(.*)$", re.MULTILINE)
_DEFINE: Final = re.compile(r"(\w+)(\(([^()]*)\))?[ \t]*(.*)", re.DOTALL)
_KNOWN_HEADERS: Final = frozenset(
    (
        *("cupy/complex.cuh", "cupy/carray.cuh", "cupy/math_constants.h", "math.h"),
        *("cmath", "cuda_fp16.h", "cupy/atomics.cuh", "stdint.h", "cstdint"),
    )
)
"""What they declare is there anyway."""

Macro = tuple[tuple[str, ...] | None, tuple[str, ...]]
"""A macro's parameters, if it has any, and its words."""


def words(text: str, macros: dict[str, Macro] | None = None) -> list[str]:
    """The words of a text; macros that it defines are added to ``macros``.

    Raises:
        Unsupported: it is too long, or has what is no part of this C++.
    """
    macros = {} if macros is None else macros
    text = text.replace("\\\n", " ")
    for match in _DIRECTIVE.finditer(text):
        _directive(match[1], match[2].strip(), macros)
    plain = _split(_DIRECTIVE.sub("", text))
    return _expanded(plain, macros, frozenset(), []) if macros else plain


def _directive(kind: str, rest: str, macros: dict[str, Macro]) -> None:
    if kind in ("pragma", "undef"):
        if kind == "undef":
            macros.pop(rest, None)
        return
    if kind == "include" and rest.strip('<>"') in _KNOWN_HEADERS:
        return
    match = _DEFINE.fullmatch(rest) if kind == "define" else None
    if match is None:
        raise Unsupported(
            f"a kernel's source has `#{kind} {rest}`: run the program on a slice of a"
            " CUDA device"
        )
    parameters = None
    if match[2] is not None:
        parameters = tuple(one.strip() for one in match[3].split(",") if one.strip())
    macros[match[1]] = parameters, tuple(_split(match[4]))


def _expanded(
    given: list[str],
    macros: dict[str, Macro],
    within: frozenset[str],
    looked_at: list[int],
) -> list[str]:
    # All levels together: macros of many words may expand to nothing.
    looked_at.append(len(given))
    if sum(looked_at) > 4 * MAX_TOKENS:
        raise Unsupported("a kernel's source is too long for this device")
    if len(within) > MAX_MACRO_DEPTH:
        raise Unsupported("a kernel's macros are nested too deeply for this device")
    found: list[str] = []
    at = 0
    while at < len(given):
        word = given[at]
        at += 1
        macro = macros.get(word) if word not in within else None
        if macro is None:
            found.append(word)
        else:
            parameters, body = macro
            text = list(body)
            if parameters is not None:
                if given[at : at + 1] != ["("]:
                    found.append(word)
                    continue
                values, at = _arguments(given, at + 1, word)
                if len(values) != len(parameters):
                    raise Unsupported(f"the macro {word} takes {len(parameters)} words")
                by_name = dict(zip(parameters, values, strict=True))
                text = [one for name in text for one in by_name.get(name, [name])]
            found += _expanded(text, macros, within | {word}, looked_at)
        if len(found) > MAX_TOKENS:
            raise Unsupported("a kernel's source is too long for this device")
    return found


def _arguments(given: list[str], at: int, macro: str) -> tuple[list[list[str]], int]:
    values: list[list[str]] = [[]]
    depth = 0
    while at < len(given):
        word = given[at]
        at += 1
        if word == ")" and not depth:
            return ([] if values == [[]] else values), at
        if word == "," and not depth:
            values.append([])
            continue
        depth += (word in "([{") - (word in ")]}")
        values[-1].append(word)
    raise Unsupported(f"the macro {macro} is not closed")


def _split(text: str) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "a text" if text[at] in "\"'" else repr(text[at])
            raise Unsupported(
                f"a kernel's source has {what}, which this device does not understand"
            )
        at = match.end()
        if match.lastgroup:
            found.append(match[0])
            if len(found) > MAX_TOKENS:
                raise Unsupported("a kernel's source is too long for this device")
    return found


def number(token: str) -> Number:
    """A literal, with its C type."""
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
