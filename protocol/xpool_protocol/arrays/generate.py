"""Make ``api.json`` from an installed CuPy wheel; needs no GPU.

``python -m xpool_protocol.arrays.generate`` with a Python that has the wheel;
``--check`` only compares. The file holds public names, signatures, first lines of
docstrings and the type tables of ufuncs: what CuPy says about itself.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any, Final

from xpool_protocol.arrays.api import OBJECT_DUNDERS

PATH: Final = Path(__file__).with_name("api.json")

MODULES: Final = [
    "cupy",
    "cupy.linalg",
    "cupy.fft",
    "cupy.random",
    "cupy.polynomial",
    "cupy.polynomial.polynomial",
    "cupy.polynomial.polyutils",
    "cupy.lib",
    "cupy.lib.stride_tricks",
    "cupy.cuda",
    "cupy.cuda.runtime",
    "cupy.testing",
    "cupyx",
    "cupyx.linalg",
    "cupyx.profiler",
    "cupyx.scipy",
    "cupyx.scipy.special",
    "cupyx.scipy.linalg",
    "cupyx.scipy.fft",
    "cupyx.scipy.fftpack",
    "cupyx.scipy.ndimage",
    "cupyx.scipy.signal",
    "cupyx.scipy.signal.windows",
    "cupyx.scipy.sparse",
    "cupyx.scipy.sparse.linalg",
    "cupyx.scipy.sparse.csgraph",
    "cupyx.scipy.stats",
    "cupyx.scipy.interpolate",
    "cupyx.scipy.spatial",
    "cupyx.scipy.spatial.distance",
    "cupyx.signal",
]

NOT_LISTED: Final = {"cupy.random": ["Generator"]}
"""Public names that ``dir`` of the module does not tell."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
_CLASS: Final = re.compile(r"<class '(?:\w+\.)*(\w+)'>")


def _signature(found: Any) -> str | None:
    try:
        text = str(inspect.signature(found))
    except (TypeError, ValueError):
        return None
    text = _CLASS.sub(r"\1", _ADDRESS.sub("", text))
    try:
        compile(f"def f{text}: pass", "signature", "exec")
    except SyntaxError:
        return None
    return text


def _first_line(found: Any) -> str:
    lines = (inspect.getdoc(found) or "").strip().splitlines()
    # Cython puts the signature first.
    lines = [line for line in lines if line.strip() and "(" not in line[:60]] or lines
    return lines[0].strip()[:120] if lines else ""


def _is_operator(found: type, name: str) -> bool:
    """Whether objects of a class on the server have an operator of their own."""
    import cupy

    if name not in OBJECT_DUNDERS or issubclass(found, cupy.ndarray | cupy.generic):
        return False
    member = getattr(found, name, None)
    return member is not None and member is not getattr(object, name, None)


def _members(found: type) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name in dir(found):
        if name.startswith("_") and not _is_operator(found, name):
            continue
        member = inspect.getattr_static(found, name)
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if callable(member):
            table[name] = [_signature(member), _first_line(member)]
        else:
            table[name] = None
    return table


def entry(found: Any) -> list[Any]:
    """Kind, then what it has: a ufunc's types, a signature, members, first line."""
    import cupy

    if isinstance(found, types.ModuleType):
        return ["module"]
    if isinstance(found, cupy.ufunc):
        return ["ufunc", list(found.types), _first_line(found)]
    if inspect.isclass(found):
        if issubclass(found, BaseException):
            return ["exception", [base.__name__ for base in found.__mro__[1:-1]]]
        return ["class", _signature(found), _first_line(found), _members(found)]
    if callable(found):
        return ["function", _signature(found), _first_line(found)]
    if isinstance(found, bool | int | float | str):
        return ["constant", repr(found)]
    return ["other", type(found).__name__]


def table() -> dict[str, dict[str, list[Any]]]:
    """The whole table: module, name, entry."""
    import cupy

    found: dict[str, dict[str, list[Any]]] = {
        "": {"version": ["constant", repr(cupy.__version__)]}
    }
    for name in MODULES:
        module = importlib.import_module(name)
        found[name] = {
            one: entry(getattr(module, one))
            for one in sorted({*dir(module), *NOT_LISTED.get(name, ())})
            if not one.startswith("_") and one != "annotations"
        }
    return found


def text_of(api: dict[str, dict[str, list[Any]]]) -> str:
    """JSON with one name a line, so that a new CuPy makes a readable difference."""

    def row(name: str, what: list[Any]) -> str:
        return f"{json.dumps(name)}:{json.dumps(what, separators=(',', ':'))}"

    modules = [
        json.dumps(module)
        + ":{\n"
        + ",\n".join(row(name, what) for name, what in names.items())
        + "\n}"
        for module, names in api.items()
    ]
    return "{\n" + ",\n".join(modules) + "\n}\n"


def main() -> int:
    """Write the file, or with ``--check`` compare it; 1 if it differs."""
    warnings.simplefilter("ignore")
    text = text_of(table())
    if "--check" in sys.argv[1:]:
        if PATH.read_text() == text:
            return 0
        print("api.json differs from the installed CuPy", file=sys.stderr)  # noqa: T201
        return 1
    PATH.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
