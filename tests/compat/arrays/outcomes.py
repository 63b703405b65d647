"""What a plugin writes about each test: a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


class Outcomes:
    """Writes one line a test, at once: a process that dies loses nothing."""

    def __init__(self, path: Path, not_ours: Sequence[str]) -> None:
        """Append to a file.

        Args:
            path: where to.
            not_ours: texts in a failure that say that a test asks for what is out of
                scope.
        """
        self._file = path.open("a", buffering=1)
        self._not_ours = not_ours

    def note(self, report: pytest.TestReport) -> None:
        """One phase of a test: the call counts, or what went wrong before."""
        if report.when != "call" and report.outcome == "passed":
            return
        line: dict[str, Any] = {"id": report.nodeid, "outcome": report.outcome}
        if hasattr(report, "wasxfail"):
            # Expected to fail on a GPU: that it does not here is no fault.
            line["outcome"] = "xfailed" if report.outcome == "skipped" else "passed"
        if line["outcome"] == "failed":
            text = f"{report.nodeid} {report.longrepr}"
            crash = getattr(report.longrepr, "reprcrash", None)
            line["error"] = str(getattr(crash, "message", text))[:300]
            if any(one in text for one in self._not_ours):
                line["outcome"] = "out_of_scope"
        elif report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            line["error"] = str(report.longrepr[2])[:100]
        self._file.write(json.dumps(line) + "\n")

    def note_collection(self, report: pytest.CollectReport) -> None:
        """A file that can't be collected."""
        if report.outcome != "failed":
            return
        text = str(report.longrepr)
        is_ours = not any(one in text for one in self._not_ours)
        outcome = "uncollected" if is_ours else "out_of_scope"
        line = {"id": report.nodeid, "outcome": outcome, "error": text[-400:]}
        self._file.write(json.dumps(line) + "\n")
