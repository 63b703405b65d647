"""What the programs of this folder are, and whether two runs of one agree.

A program is a script as people write them for a GPU, with no word of xpool in it. Its
last line of output is a JSON object of figures. Lines that begin with ``# programs:``
say what the runner must know::

    # programs: tolerance=1e-2    figures may differ by this much (default 1e-3)
    # programs: needs=transformers    a package without which it is skipped
    # programs: alone    changes its process so that no other should follow in it
    # programs: slow    not in ``make test``
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NOT_PROGRAMS = {"__init__", "conftest", "programs", "run", "together"}
TOLERANCE = 1e-3

Figures = dict[str, object]


@dataclass(frozen=True, slots=True)
class Program:
    """One script and what its head says."""

    path: Path
    summary: str
    tolerance: float
    needs: tuple[str, ...]
    alone: bool
    slow: bool

    @property
    def name(self) -> str:
        return self.path.stem

    def lacks(self) -> str | None:
        """A package it needs that is not installed."""
        missing = (one for one in self.needs if importlib.util.find_spec(one) is None)
        return next(missing, None)


def all_programs() -> list[Program]:
    paths = sorted(HERE.glob("*.py"))
    return [
        _read(path)
        for path in paths
        if path.stem not in NOT_PROGRAMS and not path.stem.startswith("test_")
    ]


def figures_in(output: str) -> Figures | None:
    """The JSON object on the last line that begins with a brace."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                found: Figures = json.loads(line)
            except ValueError:
                continue
            return found
    return None


def differences(pool: object, local: object, tolerance: float) -> list[str]:
    """Where two objects of figures differ, by path."""
    return list(_differences(pool, local, tolerance, ""))


def _differences(
    pool: object, local: object, tolerance: float, at: str
) -> Iterator[str]:
    if isinstance(pool, dict) and isinstance(local, dict):
        for key in sorted(pool.keys() | local.keys()):
            where = f"{at}.{key}"
            yield from _differences(pool.get(key), local.get(key), tolerance, where)
    elif isinstance(pool, list) and isinstance(local, list) and len(pool) == len(local):
        for i, (one, other) in enumerate(zip(pool, local, strict=True)):
            yield from _differences(one, other, tolerance, f"{at}[{i}]")
    elif isinstance(pool, float) and isinstance(local, (int, float)):
        if not abs(pool - local) <= tolerance * max(1e-2, abs(local)):
            yield f"{at.lstrip('.')}: {pool} in the pool, {local} here"
    elif pool != local:
        yield f"{at.lstrip('.')}: {pool!r} in the pool, {local!r} here"


def _read(path: Path) -> Program:
    text = path.read_text()
    options: dict[str, str] = {}
    for line in re.findall(r"^# programs: (.+)$", text, re.MULTILINE):
        for option in line.split():
            key, _, value = option.partition("=")
            options[key] = value
    return Program(
        path=path,
        summary=text.split('"""')[1].splitlines()[0],
        tolerance=float(options.get("tolerance", TOLERANCE)),
        needs=tuple(one for one in options.get("needs", "").split(",") if one),
        alone="alone" in options,
        slow="slow" in options,
    )
