"""torch's own suites on the remote device against the local CPU: the program.

    xpool run suite_program.py '{"out": FILE, "suites": [...], "shard": [0, 2], …}'

Writes two JSON lines for every entry: ``begun``, and what became of it, so that a crash
can be told from an end. Entries that stand in the file already are left out: a second
run goes on where the first one ended. The last line is ``end``. Every line tells what
reached this host's CUDA runtime since the line before it.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent))

import module_entries
import op_entries
import optim_entries
import torch
import xpool
from entries import SUITES, Entry, Outcome

LISTS = {
    "op_db": op_entries,
    "module_db": module_entries,
    "optim_db": optim_entries,
}
SESSION_OVER = 3
"""Exit status: the rest needs another session."""


def chosen(options: dict[str, Any]) -> list[Entry]:
    """The entries that the options name, in order."""
    entries = [
        entry
        for suite in SUITES
        if suite in options["suites"]
        for entry in LISTS[suite].all_entries()
    ]
    if options["dtypes"]:
        entries = [entry for entry in entries if entry.dtype in options["dtypes"]]
    if options["only"]:
        wanted = set(options["only"])
        entries = [e for e in entries if e.name in wanted or str(e) in wanted]
    entries = entries[options["first"] :: options["every"]]
    part, parts = options["shard"]
    return entries[part::parts]


def run(entry: Entry, max_samples: int) -> Outcome:
    """Run an entry; a failure that nobody has waited for is the entry's too."""
    outcome: Outcome = LISTS[entry.suite].run(entry, max_samples)
    try:
        torch.cuda.synchronize()
    except Exception as error:
        if outcome.state != "fail":
            text = f"nobody waited for: {type(error).__name__}: {error}"
            return Outcome("fail", outcome.samples, text[:600])
    return outcome


def is_over() -> str | None:
    """Why the session is over, if it is."""
    remote = xpool.current_remote()
    over = remote.session.link.over
    return None if over is None else str(over)


class Lines:
    """Writes lines, each with the escapes since the one before it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._library = xpool.current_remote().library
        self._told = 0

    def write(self, entry: str, state: str, **more: object) -> None:
        """Write a line."""
        counted = self._library.escaped_launches()
        new, self._told = counted - self._told, counted
        line: dict[str, object] = {"entry": entry, "state": state, **more}
        line["escapes"] = new
        if new:
            line["escaped"] = self._library.last_escape()
        self._out.write(json.dumps(line) + "\n")


def run_all(entries: list[Entry], lines: Lines, max_samples: int) -> None:
    for entry in entries:
        lines.write(str(entry), "begun")
        began = time.monotonic()
        outcome = run(entry, max_samples)
        why = is_over()
        lines.write(
            str(entry),
            "crash" if why else outcome.state,
            samples=outcome.samples,
            reason=f"the session is over: {why}" if why else outcome.reason,
            seconds=round(time.monotonic() - began, 3),
        )
        if why:
            sys.exit(SESSION_OVER)


def main() -> None:
    options = json.loads(sys.argv[1])
    path = Path(options["out"])
    done = {json.loads(line)["entry"] for line in path.read_text().splitlines()}
    entries = [entry for entry in chosen(options) if str(entry) not in done]
    warnings.simplefilter("ignore")
    with path.open("a", buffering=1) as out:
        lines = Lines(out)
        run_all(entries, lines, options["samples"])
        lines.write("", "end")


if __name__ == "__main__":
    main()
