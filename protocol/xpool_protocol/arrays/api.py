"""The table of CuPy's names: what a client offers, and all that a server calls.

Read once, from ``api.json``, which ``generate.py`` makes from CuPy itself.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).with_name("api.json")

UFUNC_METHODS: Final = frozenset({"reduce", "accumulate", "reduceat", "outer", "at"})

ARRAY_DUNDERS: Final = frozenset({"__getitem__", "__setitem__"})
"""Methods of an array with underscores that may be called by name."""


@functools.cache
def api() -> dict[str, dict[str, list[Any]]]:
    """Module, name, entry: ``[kind, …]`` as ``generate.entry`` makes it."""
    found: dict[str, dict[str, list[Any]]] = json.loads(PATH.read_text())
    return found


def cupy_version() -> str:
    """The CuPy that the table was made from."""
    return str(api()[""]["version"][1]).strip("'")


def is_allowed(name: str) -> bool:
    """Whether an operation of this name may be called at all.

    >>> is_allowed("cupy.add"), is_allowed("cupy.add.reduce"), is_allowed("os.system")
    (True, True, False)
    >>> is_allowed("ndarray.sum"), is_allowed("ndarray.__getitem__")
    (True, True)
    >>> is_allowed("cupy.random.Generator.normal"), is_allowed("cupy.__dict__")
    (True, False)
    """
    module, _, last = name.rpartition(".")
    if module == "ndarray":
        return last in ARRAY_DUNDERS or last in api()["cupy"]["ndarray"][3]
    if last.startswith("_"):
        return False
    if module in api():
        return api()[module].get(last, ["module"])[0] in ("ufunc", "function", "class")
    outer, _, owner = module.rpartition(".")
    what = api().get(outer, {}).get(owner)
    if what is None:
        return False
    if what[0] == "ufunc":
        return last in UFUNC_METHODS
    return what[0] == "class" and last in what[3]
