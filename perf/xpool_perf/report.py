"""Results as text for people: a table, a comparison, and perf/RESULTS.md."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from xpool_protocol.quantities import text_from_nbytes

from xpool_perf.figures import CONFIDENCE, MIN_SAMPLES, Interval, change_of, interval_of
from xpool_perf.machine import Machine
from xpool_perf.results import Result

SEED: Final = 0
"""Of every bootstrap: the same results give the same text."""

HISTORY: Final = 20
"""Rows of a scenario's history in RESULTS.md; the files keep the rest."""

NOTHING: Final = "-"
"""Where a table has no value."""

INTRODUCTION: Final = f"""\
# Results

Rendered from `perf/results/` by `python -m xpool_perf render`; do not edit. What is
measured, and how, stands in `METHODOLOGY.md`. Intervals are {CONFIDENCE:.0%} bootstrap
intervals; a figure with fewer than {MIN_SAMPLES} samples has none.
"""


def number(value: float) -> str:
    """Four significant digits, without an exponent.

    >>> number(1.23456), number(123456.0), number(0.00012)
    ('1.235', '123456', '0.00012')
    """
    if abs(value) >= 1000:
        return f"{value:.0f}"
    text = f"{value:.4g}"
    return text if "e" not in text else f"{value:f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{first:<{widths[0]}}"]
        pairs = zip(others, widths[1:], strict=True)
        cells += [f"{cell:>{width}}" for cell, width in pairs]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def table(result: Result) -> str:
    """A result for a terminal."""
    rows = [("figure", "value", "unit", f"{CONFIDENCE:.0%} interval", "samples")]
    rows += _figure_rows(result)
    return f"{_title(result)}\n\n{aligned(rows)}\n"


def comparison(before: Result, after: Result) -> str:
    """What changed between two results of one scenario, and what is noise.

    Raises:
        ValueError: they are of different scenarios.
    """
    if before.scenario != after.scenario:
        raise ValueError(
            f"{before.scenario} and {after.scenario} are different scenarios: compare"
            " two results of one"
        )
    rng = random.Random(SEED)  # noqa: S311  no secret depends on it
    rows = [("figure", "before", "after", "unit", "change", "interval", "verdict")]
    common = [name for name in after.figures if name in before.figures]
    for name in common:
        sources = after.sources[name]
        if sources != before.sources[name]:
            rows.append((name, "", "", "", "", "", "measured otherwise"))
            continue
        change = change_of(sources, before.samples, after.samples, rng)
        rows.append(
            (
                name,
                number(change.before),
                number(change.after),
                after.units[name],
                f"{change.relative:+.1%}",
                _percent_interval(change.interval),
                change.verdict,
            )
        )
    heads = [f"before  {_title(before)}", f"after   {_title(after)}"]
    return "\n".join([*heads, *_warnings(before, after), "", aligned(rows), ""])


def markdown(results: Sequence[Result]) -> str:
    """The text of RESULTS.md."""
    parts = [INTRODUCTION]
    ordered = sorted(results, key=lambda one: (one.scenario, one.date))
    for scenario, group in groupby(ordered, key=lambda one: one.scenario):
        of_scenario = list(group)
        parts += [f"## {scenario}\n", _newest(of_scenario[-1])]
        parts += ["### History\n", _history(of_scenario[-HISTORY:])]
    if not results:
        parts.append("Nothing has been kept yet.\n")
    return "\n".join(parts)


def _newest(result: Result) -> str:
    rows = [("figure", "value", "unit", "interval", "samples", "method")]
    rows += [(*row, result.method[row[0]]) for row in _figure_rows(result)]
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    return f"{_title(result)}\n\nSettings: {settings}\n\n{_markdown_table(rows)}"


def _history(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(name for one in results for name in one.figures))
    rows: list[Sequence[str]] = [("date", "commit", "machine", *names)]
    for one in reversed(results):
        cells = [
            number(one.figures[name]) if name in one.figures else NOTHING
            for name in names
        ]
        machine = one.machine
        where = f"{machine.cpu_model}, {machine.cores} cores{_device_text(machine)}"
        rows.append((one.date[:10], one.commit, where, *cells))
    return _markdown_table(rows)


def _markdown_table(rows: Iterable[Sequence[str]]) -> str:
    lines = [
        f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows
    ]
    lines.insert(1, "|---" * (lines[0].count(" | ") + 1) + "|")
    return "\n".join(lines) + "\n"


def _figure_rows(result: Result) -> list[tuple[str, str, str, str, str]]:
    rng = random.Random(SEED)  # noqa: S311  no secret depends on it
    rows = []
    for name, value in result.figures.items():
        sources = result.sources[name]
        interval = interval_of(sources, result.samples, rng)
        count = min(len(result.samples[source]) for source in sources)
        text = (
            f"{number(interval.low)} to {number(interval.high)}"
            if interval
            else NOTHING
        )
        rows.append((name, number(value), result.units[name], text, str(count)))
    return rows


def _percent_interval(interval: Interval | None) -> str:
    return (
        NOTHING if interval is None else f"{interval.low:+.1%} to {interval.high:+.1%}"
    )


def _warnings(before: Result, after: Result) -> list[str]:
    """What makes two results hard to compare."""
    found = []
    if before.machine != after.machine:
        found.append("warning: the machines or their software differ")
    if before.settings != after.settings:
        found.append(f"warning: settings {before.settings} and {after.settings}")
    return found


def _title(result: Result) -> str:
    return (
        f"{result.scenario}, commit {result.commit}, {result.date},"
        f" {_machine_text(result.machine)}"
    )


def _machine_text(machine: Machine) -> str:
    return (
        f"{machine.cpu_model}, {machine.cores} cores,"
        f" {text_from_nbytes(machine.memory_nbytes)}, Linux {machine.kernel},"
        f" Python {machine.python}, torch {machine.torch}{_device_text(machine)}"
    )


def _device_text(machine: Machine) -> str:
    return f", {machine.device}" if machine.device else ""
