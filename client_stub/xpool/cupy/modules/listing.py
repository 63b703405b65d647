"""``cupy.who``, a table of a program's arrays, and ``disp``, which is gone."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from xpool.cupy.functions import own
from xpool.cupy.ndarray import ndarray

_HEADS: Final = ("Name", "Shape", "Bytes", "Type")
_LEAST_WIDTH: Final = 15


@own("cupy.who")
def who(vardict: Mapping[str, Any] | None = None) -> None:
    """Print name, shape, bytes and dtype of each array, and the bytes of all.

    Args:
        vardict: objects by name; those of the caller's module if None.
    """
    found = _globals_of_caller() if vardict is None else vardict
    rows: list[tuple[str, str, str, str]] = []
    names: dict[int, str] = {}
    total = 0
    for name, one in sorted(found.items()):
        if not isinstance(one, ndarray):
            continue
        first = names.setdefault(id(one), name)
        if first == name:
            total += one.nbytes
        label = name if first == name else f"{name} ({first})"
        shape = " x ".join(map(str, one.shape))
        rows.append((label, shape, str(one.nbytes), one.dtype.name))
    lines = [*_table(rows), "", f"Upper bound on total bytes  =       {total}"]
    print("\n".join(lines))  # noqa: T201  asked for


@own("cupy.disp")
def disp(*args: Any, **kwargs: Any) -> NoReturn:
    """Refused, as where NumPy no longer has it."""
    raise RuntimeError("NumPy 2 has no `disp` any more; use `print`")


def _table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    if not rows:
        return []
    columns = zip(_HEADS, *rows, strict=True)
    widths = [max(_LEAST_WIDTH, *(len(one) + 1 for one in each)) for each in columns]
    head, *others = [
        "".join([one.ljust(width) for one, width in zip(row, widths, strict=True)])
        for row in (_HEADS, *rows)
    ]
    return [head, "=" * len(head), "", *others]


def _globals_of_caller() -> Mapping[str, Any]:
    frame = sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals):
        frame = frame.f_back
    return frame.f_globals


def _is_ours(names: Mapping[str, Any]) -> bool:
    return str(names.get("__name__", "")).startswith("xpool.")
