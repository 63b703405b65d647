"""What a plugin writes about each test: a line of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

NEEDS_CUDA = "runs CUDA source, which this slice's device, a cpu, can't"
"""In the error in which source of the program's own has to end on a CPU."""

PRIVATE = re.compile(r"has no attribute '_[a-z]")
FRAME = re.compile(r'^ *File "([^"]+)"', re.MULTILINE)


def asks_for_insides(crash: Any, root: Path | None) -> bool:
    """Whether a suite's own line asks an object for a private name.

    ``cupy.testing`` has a traceback of its own in the text of its error.
    """
    if crash is None or root is None:
        return False
    first, *lines = crash.message.strip().split("\n")
    frames = FRAME.findall(crash.message) if "raises error" in first else []
    where, said = (frames[-1], lines[-1]) if frames else (crash.path, first)
    is_theirs = Path(where).resolve().is_relative_to(root.resolve())
    return is_theirs and PRIVATE.search(said) is not None


def shortened(error: str) -> str:
    """An error's beginning, and its end if it is a traceback of ``cupy.testing``'s.

    >>> shortened("ValueError: no")
    'ValueError: no'
    """
    if "raises error" not in error[:60]:
        return error[:300]
    return f"{error[:40].strip()} … {error.strip()[-250:]}"


class Outcomes:
    """Writes one line a test, at once: a process that dies loses nothing."""

    def __init__(
        self, path: Path, not_ours: Sequence[str], root: Path | None = None
    ) -> None:
        """Append to a file.

        Args:
            path: where to.
            not_ours: texts in a failure that say that a test asks for what is out of
                scope.
            root: where the suite's own files are: what fails there because an object
                has no such private name is out of scope, too.
        """
        self._root = root
        self._file = path.open("a", buffering=1)
        self._not_ours = not_ours

    def note(self, report: pytest.TestReport) -> None:
        """One phase of a test: the call counts, or what went wrong before."""
        if report.when != "call" and report.outcome == "passed":
            return
        line: dict[str, Any] = {"id": report.nodeid, "outcome": report.outcome}
        # Expected to fail on a GPU: that it does not here is no fault.
        if hasattr(report, "wasxfail"):
            line["outcome"] = "xfailed" if report.outcome == "skipped" else "passed"
        elif str(report.longrepr).startswith("[XPASS(strict)]"):
            line["outcome"] = "passed"
        if line["outcome"] == "failed":
            text = f"{report.nodeid} {report.longrepr}"
            crash = getattr(report.longrepr, "reprcrash", None)
            line["error"] = shortened(str(getattr(crash, "message", text)))
            if NEEDS_CUDA in text:
                line["outcome"] = "needs_cuda"
            is_inside = asks_for_insides(crash, self._root)
            if is_inside or any(one in text for one in self._not_ours):
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
