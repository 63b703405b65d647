"""``xpool explain``: runs a program and says where it waited for the network.

The program runs as under ``xpool run``. Its process takes notes (``xpool.waits``) and
leaves them in a file when it ends; this one turns them into a table, JSON or a picture.
"""

from __future__ import annotations

import linecache
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from xpool_protocol.errors import PoolError, UsageError

from xpool.config import JobSettings
from xpool.run import exit_like, run_job
from xpool.waits import EXPLAIN_VARIABLE, PROJECTED_ROUND_TRIPS_MS, Place, Report

PLOTTED_LINES: Final = 12
PLACE_CHARS: Final = 36
"""Of a file and line in a table: half of what 80 columns hold."""


class NoReport(PoolError):  # noqa: N818  a state, as the error tree names them
    """The program's process was ended before it could leave its notes."""

    code = 111


def explain_job(
    settings: JobSettings,
    program: Sequence[str],
    *,
    as_json: bool,
    plot: Path | None,
    lines: int,
) -> None:
    """Run a program, explain it on stdout, end as it ended.

    With ``as_json`` the program's own stdout goes to stderr, so that stdout holds one
    JSON object and nothing else.

    Raises:
        PoolError: no lease, or no report.
        UsageError: the picture's library is missing.
    """
    if plot is not None:
        _check_plot(plot)
    with tempfile.TemporaryDirectory(prefix="xpool-explain-") as folder:
        path = Path(folder) / "report.json"
        os.environ[EXPLAIN_VARIABLE] = str(path)
        out = os.dup(sys.stdout.fileno())
        if as_json:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            status = run_job(settings, program)
        finally:
            sys.stdout.flush()
            os.dup2(out, sys.stdout.fileno())
            os.close(out)
            del os.environ[EXPLAIN_VARIABLE]
        report = _report_in(path, status)
    if as_json:
        print(msgspec.json.encode(as_plain(report, program)).decode())  # noqa: T201
    else:
        print_table(report, lines)
    if plot is not None:
        draw(report, plot)
    sys.stdout.flush()
    exit_like(status)


def _report_in(path: Path, status: int) -> Report:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError:
        raise NoReport(
            f"the program ended with status {status} before it could say where it"
            " waited: it must end by itself, or by Ctrl-C or SIGTERM"
        ) from None


def as_plain(report: Report, program: Sequence[str]) -> dict[str, Any]:
    """The object that ``--json`` prints; seconds and bytes."""
    return {
        "program": list(program),
        "server": report.server,
        "device": report.device,
        "total_s": report.total_s,
        "waited_s": report.waited_s,
        "round_trips": report.count,
        "round_trip_s": report.round_trip_s,
        "sent_nbytes": report.sent_nbytes,
        "lines": [
            {
                "file": wait.place.file,
                "line": wait.place.line,
                "text": source_text(wait.place.file, wait.place.line),
                "what": wait.what,
                "count": wait.count,
                "seconds": wait.seconds,
                "nbytes": wait.nbytes,
                "shortest_s": wait.shortest_s,
            }
            for wait in report.waits
        ],
        "projected_s": {
            f"{ms:g}": report.projected_s(ms / 1000) for ms in PROJECTED_ROUND_TRIPS_MS
        },
    }


def source_text(file: str, line: int) -> str:
    """A line of source without its indentation; empty where there is none."""
    return linecache.getline(file, line).strip() if line else ""


def shortened(file: str, folder: str) -> str:
    """A path as people would write it from a folder.

    >>> shortened("/job/src/train.py", "/job")
    'src/train.py'
    >>> shortened("/usr/lib/python/site-packages/transformers/trainer.py", "/job")
    'transformers/trainer.py'
    """
    if file.startswith(folder.rstrip("/") + "/"):
        return os.path.relpath(file, folder)
    _, found, rest = file.rpartition("/site-packages/")
    return rest if found else file


def ended(text: str) -> str:
    """The end of a text, if all of it is too long for a column.

    >>> ended("a/very/long/path/of/a/package/deep/down/file.py:12")
    '…h/of/a/package/deep/down/file.py:12'
    """
    return text if len(text) <= PLACE_CHARS else "…" + text[1 - PLACE_CHARS :]


def print_table(report: Report, shown: int) -> None:
    """The report for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    folder = str(Path.cwd())
    share = 100 * report.waited_s / report.total_s if report.total_s else 0.0
    console.print(
        f"{report.total_s:.2f} s on {report.device}; waited {report.count} times for"
        f" the server, {report.waited_s:.2f} s ({share:.0f} %);"
        f" round trip {report.round_trip_s * 1000:.2f} ms"
    )
    rows = [
        (
            ended(f"{Place(shortened(wait.place.file, folder), wait.place.line)}"),
            wait.what.removeprefix("aten::"),
            f"{wait.count:,}",
            f"{wait.seconds:.3f}",
            f"{wait.nbytes:,}",
            source_text(wait.place.file, wait.place.line),
        )
        for wait in report.waits[:shown]
    ]
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for position, name in enumerate(("line", "waits for", "times", "seconds", "bytes")):
        # Exactly as wide as it must be: the source, last, takes what is left.
        width = max([len(name), *(len(row[position]) for row in rows)])
        justify: Literal["left", "right"] = "left" if position < 2 else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=width)
    table.add_column("source", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        table.add_row(*row)
    if report.waits:
        console.print(table)
    if len(report.waits) > shown:
        console.print(f"and {len(report.waits) - shown} more lines (--lines, --json)")
    console.print("the same run would take, at a round trip of")
    for ms in PROJECTED_ROUND_TRIPS_MS:
        console.print(f"  {ms:>4g} ms  {report.projected_s(ms / 1000):.2f} s")


def _check_plot(path: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'xpool[plot]'") from None
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write {path}: its folder does not exist")


def draw(report: Report, path: Path) -> None:
    """The report as a picture: seconds by line, and the run at other distances."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder = str(Path.cwd())
    top = report.waits[:PLOTTED_LINES]
    figure, (lines, distances) = pyplot.subplots(
        1, 2, figsize=(12, 1.8 + 0.35 * max(len(top), 4)), width_ratios=(3, 2)
    )
    labels = [
        f"{shortened(wait.place.file, folder)}:{wait.place.line}  {wait.what}"
        for wait in top
    ]
    lines.barh(labels[::-1], [wait.seconds for wait in top][::-1], color="#4477aa")
    lines.set_xlabel("seconds waited")
    lines.set_title(
        f"{report.count} round trips, {report.waited_s:.2f} s of {report.total_s:.2f} s"
    )
    names = [f"{ms:g} ms" for ms in PROJECTED_ROUND_TRIPS_MS]
    seconds = [report.projected_s(ms / 1000) for ms in PROJECTED_ROUND_TRIPS_MS]
    bars = distances.bar(names, seconds, color="#cc8844")
    distances.bar_label(bars, [f"{value:.2f} s" for value in seconds])
    distances.axhline(report.total_s, color="#666666", linestyle="--", linewidth=1)
    distances.set_xlabel("round trip")
    distances.set_title(
        f"the same run (measured: {report.round_trip_s * 1000:.2f} ms, dashed)"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
