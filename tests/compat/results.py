"""What a run of the suites came to: states, known failures taken in, and sums."""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entries import SUITES


@dataclass(frozen=True, slots=True)
class Line:
    """One entry's end. ``state``: as the program wrote it, ``crash``, or ``xfail``."""

    entry: str
    state: str
    samples: int
    reason: str
    seconds: float

    @property
    def suite(self) -> str:
        return self.entry.split()[0]

    @property
    def dtype(self) -> str:
        return self.entry.split()[2]

    @property
    def variant(self) -> str:
        return self.entry.split()[3]


@dataclass(frozen=True, slots=True)
class Sum:
    """A suite's counts. What ran passes, fails, or fails as expected."""

    passed: int
    failed: int
    expected_failures: int
    skipped: Mapping[str, int]
    """By reason."""

    @property
    def run(self) -> int:
        return self.passed + self.failed + self.expected_failures

    @property
    def percent(self) -> float:
        return 100 * self.passed / self.run if self.run else 0.0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a file that a suite's program writes."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def ended(raw: Iterable[dict[str, Any]], known: Mapping[str, str]) -> list[Line]:
    """The entries' ends; a known failure is expected, for the known reason."""
    lines: dict[str, Line] = {}
    for one in raw:
        if one["state"] in ("begun", "end"):
            continue
        state, reason = one["state"], one["reason"]
        if state in ("fail", "crash") and one["entry"] in known:
            state, reason = "xfail", known[one["entry"]]
        lines[one["entry"]] = Line(
            one["entry"], state, one["samples"], reason, one["seconds"]
        )
    return list(lines.values())


def stale(
    lines: Iterable[Line], known: Mapping[str, str], *, is_all: bool
) -> list[str]:
    """Known failures that fail no more: they pass, are skipped, or do not exist."""
    states = {one.entry: one.state for one in lines}
    return [
        f"{entry} ({states.get(entry, 'no such entry')})"
        for entry in known
        if states.get(entry, "xfail" if not is_all else "") != "xfail"
    ]


def summed(lines: Iterable[Line]) -> Sum:
    """Counts of some lines; what there is no such variant of is not counted."""
    states: collections.Counter[str] = collections.Counter()
    skipped: collections.Counter[str] = collections.Counter()
    for one in lines:
        states[one.state] += 1
        if one.state == "skip":
            skipped[general(one.reason)] += 1
    return Sum(
        passed=states["pass"],
        failed=states["fail"] + states["crash"],
        expected_failures=states["xfail"],
        skipped=dict(skipped.most_common()),
    )


def by_suite(lines: list[Line]) -> dict[str, Sum]:
    """Sums of the suites that ran."""
    return {
        suite: summed(one for one in lines if one.suite == suite)
        for suite in SUITES
        if any(one.suite == suite for one in lines)
    }


def general(reason: str) -> str:
    """A skip's reason without what is particular to the entry."""
    if reason.startswith("local CPU: "):
        if re.search("not implemented for|not support", reason):
            return "the local CPU has no such kernel"
        return "the local CPU refuses every sample"
    return reason.split(": ")[0]
