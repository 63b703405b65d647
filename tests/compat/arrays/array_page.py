"""``docs/compat/cupy.md``, and the figures that stand in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from xpool_perf.machine import this_machine
from xpool_protocol.arrays.api import cupy_version

if TYPE_CHECKING:
    from run_array_suites import Sum

PAGE = Path(__file__).resolve().parents[3] / "docs" / "compat" / "cupy.md"
AIM_99 = (
    "math logic statistics linalg indexing manipulation sorting core padding binary"
)
AIM_97 = "creation fft random functional polynomial misc"
SCIPY = (
    *("fft", "fftpack", "interpolate", "linalg", "ndimage"),
    *("signal", "sparse", "spatial", "special", "stats"),
)
"""Folders of ``cupyx_tests/scipy_tests``; each is a suite ``scipy_…``."""
AIMS = {
    **dict.fromkeys(AIM_99.split(), 99.0),
    **dict.fromkeys(AIM_97.split(), 97.0),
    "array_api": 98.1,
    **{f"scipy_{one}": 90.0 for one in SCIPY},
    "examples": 100.0,
    "sklearn": 100.0,
}
HEAD = (
    *("suite", "passed", "failed", "needs CUDA", "out of scope", "skipped"),
    *("of those", "aim", "at"),
)


def figures(sums: Mapping[str, Sum]) -> dict[str, object]:
    """One object for a program to read."""
    return {
        name: {
            **one.counts,
            "pass_percent": round(one.percent, 2),
            "predictions": one.predictions,
            "mismatches": one.mismatches,
            "late_errors": one.late_errors,
        }
        for name, one in sums.items()
    }


def table(sums: Mapping[str, Sum]) -> list[str]:
    """One row a suite."""
    rows = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for name, one in sums.items():
        counts = one.counts
        aim = f"{AIMS[name]:g} %" if name in AIMS else "none"
        rows.append(
            f"| {name} | {counts['passed'] + counts['xfailed']:,} |"
            f" {counts['failed'] + counts['uncollected']:,} |"
            f" {counts['needs_cuda']:,} | {counts['out_of_scope']:,} |"
            f" {counts['skipped']:,} |"
            f" {one.percent:.2f} % | {aim} | {one.commit or 'earlier'} |"
        )
    return rows


def write(
    sums: Mapping[str, Sum],
    known: Mapping[str, str],
    began: datetime,
    versions: Mapping[str, str],
) -> Path:
    """Write the page anew."""
    machine = this_machine()
    checkouts = ", ".join(f"{name} at {commit}" for name, commit in versions.items())
    predictions = sum(one.predictions for one in sums.values())
    mismatches = sum(one.mismatches for one in sums.values())
    late = sum(one.late_errors for one in sums.values())
    reasons = Counter(known.values())
    lines = [
        "# How much of CuPy works",
        "",
        "Written by `make conformance SUITES=DIR CONFORMANCEARGS=--docs`; do not edit.",
        "",
        f"Suites of others over `import cupy` (the names of CuPy {cupy_version()}),"
        f" through a pool whose device is a CPU: {checkouts}; of scikit-learn, those"
        " of its own tests that it runs over CuPy. Each suite's last run is shown; page"
        f" of {began:%Y-%m-%d}, {machine.cpu_model}.",
        "",
        *table(sums),
        "",
        "*Needs CUDA* are tests of source in CUDA: on a CPU they end in the error that"
        " says so. *Out of scope* are tests that ask for CuPy's insides (`cupy._core`,"
        " plans of cuFFT, CUB) or for the address of device memory; skipped ones skip"
        " themselves. *Of those* that are none of these, so many percent passed. *At*"
        " is the project's commit that ran.",
        "",
        f"**Predictions.** {predictions:,} results were predicted on the client and"
        f" compared with the server's, one by one: {mismatches:,} differed. {late:,}"
        " calls failed on the server that were not refused at the call.",
        "",
        "## Known failures",
        "",
        "By reason; `tests/compat/arrays/xfails.txt` names each test, or with `*` the"
        " beginning of some.",
        "",
        "| lines | reason |",
        "|---|---|",
        *(f"| {count:,} | {reason} |" for reason, count in reasons.most_common()),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    return PAGE
