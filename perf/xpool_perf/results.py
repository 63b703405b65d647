"""A scenario's result: one JSON object, and a file of it worth keeping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from xpool_perf.figures import Figure, Samples, value_of
from xpool_perf.machine import Machine


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of a scenario measured. Mappings go by the figure's name."""

    scenario: str
    figures: dict[str, float]
    units: dict[str, str]
    machine: Machine
    commit: str
    date: str
    """UTC, ISO 8601, to the second: ``2026-02-03T04:05:06Z``."""
    settings: dict[str, int]
    """What was chosen on the command line."""
    method: dict[str, str]
    sources: dict[str, list[str]]
    """The samples behind a figure: the median of one, or the ratio of two."""
    samples: dict[str, list[float]]

    @property
    def file_name(self) -> str:
        """Sorts by date."""
        moment = self.date.replace("-", "").replace(":", "")
        parts = (moment, self.commit, self.scenario, self.machine.slug)
        return "-".join(parts) + ".json"


class ResultUnreadable(Exception):  # noqa: N818  a state, as the project's errors are
    """One sentence: which file, and what is wrong with it."""


def result_from_samples(
    scenario: str,
    figures: Sequence[Figure],
    samples: Samples,
    settings: dict[str, int],
    machine: Machine,
    commit: str,
    now: datetime,
) -> Result:
    """Compute the figures.

    Args:
        scenario: its name.
        figures: what it reports.
        samples: what it measured.
        settings: what was chosen on the command line.
        machine: where.
        commit: of which code.
        now: when, with its time zone being UTC.

    Raises:
        ValueError: samples of a figure are missing or not finite.
    """
    return Result(
        scenario=scenario,
        figures={one.name: value_of(one.sources, samples) for one in figures},
        units={one.name: one.unit for one in figures},
        machine=machine,
        commit=commit,
        date=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        settings=settings,
        method={one.name: one.method for one in figures},
        sources={one.name: list(one.sources) for one in figures},
        samples={name: list(values) for name, values in samples.items()},
    )


def json_from_result(result: Result) -> str:
    """One JSON object, indented, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(result)).decode() + "\n"


def result_from_json(text: bytes, where: str) -> Result:
    """A result, checked.

    Raises:
        ResultUnreadable: it is none, or its parts do not fit one another.
    """
    try:
        result = msgspec.json.decode(text, type=Result)
        for name, value in result.figures.items():
            again = value_of(result.sources.get(name, ()), result.samples)
            if not math.isclose(again, value, rel_tol=1e-9):
                raise ValueError(f"{name} is {value}, its samples say {again}")
            if name not in result.units or name not in result.method:
                raise ValueError(f"{name} has no unit or no method")
    except (msgspec.DecodeError, ValueError) as error:
        raise ResultUnreadable(f"{where} holds no result: {error}") from error
    return result


def load(path: Path) -> Result:
    """Read a result.

    Raises:
        ResultUnreadable: the file cannot be read or holds none.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResultUnreadable(f"cannot read {path}: {error.strerror}") from error
    return result_from_json(text, str(path))


def load_all(folder: Path) -> list[Result]:
    """Every result that was kept, oldest first.

    Raises:
        ResultUnreadable: one of them is none.
    """
    results = [load(path) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=lambda result: result.date)


def save(result: Result, folder: Path) -> Path:
    """Keep a result in a file of its own; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / result.file_name
    path.write_text(json_from_result(result))
    return path
