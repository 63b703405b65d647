"""Runs torch's own suites through a pool of real processes and sums up.

    python tests/compat/run_suites.py [--suites op_db] [--dtypes int64] [--only add,mm]

Starts a registry and a server, and runs ``suite_program.py`` under ``xpool run``, in
several processes; goes on behind an entry in which one died or hung. Prints what does
not agree with the local CPU and is not in ``torch_xfails.txt``, lines of that file that
are stale, and one JSON object with the counts. ``--docs`` writes docs/compat/torch.md.
Exit status 0 if nothing failed but what is known to, and no line is stale.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import page
import xfails
from entries import SUITES
from results import by_suite, ended, stale
from suite_run import Choice, run_suites


def say(text: str) -> None:
    """Show progress; stdout is for the result alone."""
    print(f"conformance: {text}", file=sys.stderr, flush=True)


def words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--suites", type=words, default=SUITES, help="comma-separated")
    parser.add_argument("--dtypes", type=words, default=(), help="comma-separated")
    parser.add_argument("--only", type=words, default=(), help="names or whole entries")
    parser.add_argument("--samples", type=int, default=8, help="at most, per entry")
    parser.add_argument("--every", type=int, default=1, help="each k-th entry only")
    parser.add_argument("--parts", type=int, default=2, help="processes side by side")
    parser.add_argument("--lines", type=Path, help="keep every line in this folder")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/compat/torch.md"
    )
    return parser.parse_args()


def asked(arguments: list[str]) -> str:
    """The options that decide what is run, as they were given.

    >>> asked(["--samples", "3", "--lines", "here", "--docs"])
    '--samples 3 --docs'
    """
    words = list(arguments)
    if "--lines" in words:
        at = words.index("--lines")
        del words[at : at + 2]
    return shlex.join(words)


def main() -> int:
    options = parsed()
    choice = Choice(
        suites=tuple(options.suites),
        dtypes=tuple(options.dtypes),
        only=tuple(options.only),
        every=options.every,
        samples=options.samples,
    )
    known, began = xfails.load(), datetime.now(UTC)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.lines or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        raw = run_suites(folder, choice, options.parts, say)
    lines = ended(raw, known)
    failed = [one for one in lines if one.state in ("fail", "crash")]
    for one in failed:
        first = (one.reason.splitlines() or [""])[0]
        print(f"{one.state} {one.entry}: {first[:200]}")
    superfluous = stale(lines, known, is_all=choice == Choice(samples=choice.samples))
    for entry in superfluous:
        print(f"stale in {xfails.XFAILS.name}: {entry}")
    if options.docs:
        command = f"make conformance CONFORMANCEARGS='{asked(sys.argv[1:])}'"
        say(f"wrote {page.write(lines, began, command)}")
    print(json.dumps(page.figures(by_suite(lines))))
    return 1 if failed or superfluous else 0


if __name__ == "__main__":
    sys.exit(main())
