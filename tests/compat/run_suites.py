"""Runs torch's own suites through a pool of real processes and sums up.

    python tests/compat/run_suites.py [--suites op_db] [--dtypes int64] [--only add,mm]

Starts a registry and a server, and runs ``suite_program.py`` under ``xpool run``, in
several processes; goes on behind an entry in which one died or hung. Prints what does
not agree with the local CPU and is not in ``torch_xfails.txt``, lines of that file that
are stale, and a table; with ``--json`` one object in the place of all that.

With a CUDA build of torch nothing may reach this host's CUDA runtime, in no process.
``--docs`` writes docs/compat/torch.md, or torch_cuda_wheel.md for such a build.

Exit status 0 if nothing failed but what is known to, no line is stale (with fewer
samples than usual nobody can tell), and nothing escaped.
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
from escapes import Escapes, escapes_in
from results import Line, by_suite, ended, stale
from suite_run import Choice, run_suites
from support.ending import end_in_order
from xpool.native import build, cuda_build


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
    parser.add_argument("--docs", action="store_true", help="write the page")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument(
        "--server-python",
        default=sys.executable,
        metavar="PATH",
        help="the server's interpreter: its torch may be another build",
    )
    parser.add_argument(
        "--cuda-build",
        action="store_true",
        help="refuse to run if torch is no CUDA build, of which nothing could escape",
    )
    return parser.parse_args()


def asked(arguments: list[str]) -> str:
    """The options that decide what is run, as they were given.

    >>> asked(["--samples", "3", "--lines", "here", "--docs", "--json"])
    '--samples 3 --docs'
    """
    words = [word for word in arguments if word not in ("--json", "--cuda-build")]
    for option in ("--lines", "--server-python"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    return shlex.join(words)


def told(
    lines: list[Line], superfluous: list[str], escapes: Escapes | None
) -> list[str]:
    """What is wrong, a line each."""
    parts = []
    for one in lines:
        if one.state in ("fail", "crash"):
            first = (one.reason.splitlines() or [""])[0]
            parts.append(f"{one.state} {one.entry}: {first[:200]}")
    parts += [f"stale in {xfails.XFAILS.name}: {entry}" for entry in superfluous]
    if escapes is not None:
        for entry, what in escapes.by_entry.items():
            parts.append(f"escaped in {entry or 'the end of a process'}: {what}")
        parts += [f"escapes not counted in {entry}" for entry in escapes.uncounted]
    return parts


def main() -> int:
    end_in_order()
    options = parsed()
    cuda = cuda_build.cuda_version(build.torch_folder())
    if options.cuda_build and cuda is None:
        say("this torch is a CPU build, of which nothing could escape: no gate")
        return 2
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
        python = options.server_python
        raw = run_suites(folder, choice, options.parts, say, server_python=python)
    lines = ended(raw, known)
    escapes = None if cuda is None else escapes_in(raw)
    is_all = choice == Choice(samples=choice.samples)
    superfluous = stale(lines, known, is_all=is_all)
    if choice.samples < Choice().samples:
        superfluous = []  # the sample that fails may be one of those left out
    wrong = told(lines, superfluous, escapes)
    sums = by_suite(lines)
    if options.docs:
        target = "conformance" if cuda is None else "conformance-cuda-wheel"
        command = f"make {target} CONFORMANCEARGS='{asked(sys.argv[1:])}'"
        say(f"wrote {page.write(lines, began, command, escapes)}")
    if options.json:
        print(json.dumps(page.figures(sums, escapes)))
    for line in wrong:
        print(line, file=sys.stderr if options.json else sys.stdout)
    if not options.json:
        print("\n".join(page.table(sums, escapes)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
