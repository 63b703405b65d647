"""What a compiler on the server is not given: it must not read the server's files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from xpool_protocol.errors import ArgumentInvalid

_OPTION: Final = re.compile(
    r"-D\s*\w+(=[^\n]*)?|-U\s*\w+|--(define-macro|undefine-macro)=\w+(=.*)?"
    r"|--?std=c\+\+\d\d|-(?:-use_fast_math|use_fast_math)"
    r"|--?(ftz|fmad|prec-div|prec-sqrt)=(true|false)"
    r"|--?(maxrregcount)=\d+|-lineinfo|--generate-line-info"
    r"|-G|--device-debug|-default-device|--device-as-default-execution-space"
    r"|-extra-device-vectorization|--extra-device-vectorization|-w|--disable-warnings"
    r"|--?(restrict|extensible-whole-program|display-error-number|builtin-move-forward"
    r"|dopt)(=\w+)?|--Wno-deprecated-gpu-targets",
    re.DOTALL,
)
"""Options that change code, and no more."""

_SPLICE: Final = re.compile(r"(?:\\|\?\?/)[ \t\v\f]*\r?\n")
_DIRECTIVE: Final = re.compile(
    r"(?:#|%:|\?\?=)(?:\s|/\*.*?\*/|//[^\n]*\n)*(include_next|include|import|embed)\b"
    r"(?P<rest>[^\n]*)",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"""[ \t]*(?:<([^<>"\n]+)>|"([^<>"\n]+)")""")
_HAS_FILE: Final = re.compile(r"__has_(?:include_next|include|embed)")


def is_allowed_option(option: str) -> bool:
    """Whether an option changes code, and no more.

    >>> is_allowed_option("--fmad=false"), is_allowed_option("-I/etc")
    (True, False)
    """
    return _OPTION.fullmatch(option.strip()) is not None


def check_options(options: Sequence[str]) -> None:
    """Refuse options that name files or run anything.

    Raises:
        ArgumentInvalid: there is one.
    """
    for option in options:
        if not is_allowed_option(option):
            raise ArgumentInvalid(
                f"the compiler's option {option!r} is not allowed here: it runs on the"
                " server, where the program's files are not; put the headers' text"
                " into the source, and leave out options that name folders or files"
            )


def check_source(code: bytes) -> None:
    """Refuse source that could include files of the server.

    Raises:
        ArgumentInvalid: it is no text, or includes what is no plain relative path.
    """
    try:
        text = code.decode()
    except UnicodeDecodeError as error:
        raise ArgumentInvalid("the source of a CUDA module is not UTF-8") from error
    text = _SPLICE.sub("", text)
    for directive in _DIRECTIVE.finditer(text):
        plain = _PLAIN.match(directive["rest"])
        path = (plain[1] or plain[2]) if plain is not None else None
        if directive[1] != "include" or path is None or not _is_relative(path):
            raise ArgumentInvalid(
                f"`{directive[0].strip()[:200]}` is not allowed: the source is"
                " compiled on the server, which takes only headers by a relative path,"
                " such as <cupy/complex.cuh>"
            )
    if _HAS_FILE.search(text) is not None:
        raise ArgumentInvalid("__has_include is not allowed in source for the server")


def _is_relative(path: str) -> bool:
    return not path.startswith(("/", "\\", "~")) and ".." not in re.split(
        r"[/\\]", path.strip()
    )
