"""A compiler's options where there is no compiler: macros, and what changes nothing."""

from __future__ import annotations

import re
from typing import Any, Final

from xpool_server.arrays.kernel_tree import Unsupported
from xpool_server.kernel_sources import is_allowed_option

_HARMLESS: Final = ("-std", "--std", "-O", "--use_fast_math")
_MACRO: Final = re.compile(
    r"(?P<what>-D|-U|--define-macro=|--undefine-macro=)\s*(?P<name>[A-Za-z_]\w*)"
    r"(?:=(?P<value>[^\n\r]*))?"
)


def preamble_of(extras: dict[str, Any]) -> str:
    r"""A kernel's preamble, with the macros of its options in front.

    >>> preamble_of({"options": ("-DN=3", "-D FAST", "-O3"), "preamble": "int k = N;"})
    '#define N 3\n#define FAST 1\nint k = N;'

    Raises:
        Unsupported: an option needs a CUDA compiler.
    """
    if extras.get("cpp_version"):
        raise Unsupported(
            "a kernel with `cpp_version` needs a CUDA compiler: run the program on a"
            " slice of a CUDA device"
        )
    lines: list[str] = []
    for one in extras.get("options") or ():
        option = str(one).strip()
        macro = _MACRO.fullmatch(option)
        if macro is not None:
            lines.append(_directive(macro))
        elif not option.startswith(_HARMLESS) and not is_allowed_option(option):
            raise Unsupported(
                f"a kernel's option `{one}` needs a CUDA compiler: run the program on"
                " a slice of a CUDA device"
            )
    return "\n".join([*lines, str(extras.get("preamble") or "")])


def _directive(macro: re.Match[str]) -> str:
    if "U" in macro["what"] or "undefine" in macro["what"]:
        return f"#undef {macro['name']}"
    # As a compiler has it: a macro without a value is 1.
    value = macro["value"]
    return f"#define {macro['name']} {'1' if value is None else value}"
