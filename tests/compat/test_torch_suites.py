"""A sample of torch's own suites through a pool; ``make conformance`` runs all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import xfails
from results import Line, by_suite, ended, stale, summed
from suite_run import Choice, run_suites
from xpool.native import build

EVERY = 61
"""A prime: the sample walks through all dtypes and variants."""


@pytest.mark.slow
@pytest.mark.skipif(
    build.built_library() is None and build.compiler() is None,
    reason="no native device without a C++ compiler",
)
def test_a_sample_of_the_suites_agrees_with_the_local_cpu(tmp_path: Path) -> None:
    known = xfails.load()
    choice = Choice(every=EVERY, samples=3)
    lines = ended(run_suites(tmp_path, choice, 2, lambda text: None), known)
    failed = {one.entry: one.reason for one in lines if one.state in ("fail", "crash")}
    assert not failed
    assert not stale(lines, known, is_all=False)
    sums = by_suite(lines)
    assert sums["op_db"].passed > 80
    assert sums["module_db"].passed > 5
    assert sums["optim_db"].passed > 9


def test_a_known_failure_has_an_entry_and_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "known.txt"
    path.write_text("# why\n\nop_db add float32 out  # it has another layout\n")
    assert xfails.load(path) == {"op_db add float32 out": "it has another layout"}
    for wrong in ("op_db add out # long enough reason", "op_db a b c # no", "a b c d"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="line 1: write"):
            xfails.load(path)
    path.write_text("op_db a b c # long enough\n" * 2)
    with pytest.raises(ValueError, match="twice"):
        xfails.load(path)


def raw(entry: str, state: str, reason: str = "") -> dict[str, object]:
    return {
        "entry": entry,
        "state": state,
        "samples": 1,
        "reason": reason,
        "seconds": 0.1,
    }


LINES = [
    raw("op_db a f forward", "begun"),
    raw("op_db a f forward", "pass"),
    raw("op_db b f forward", "fail", "it differs"),
    raw("op_db c f forward", "crash", "status 139"),
    raw("op_db d f forward", "none"),
    raw("op_db e f forward", "skip", "local CPU: RuntimeError: not implemented for x"),
    raw("optim_db e f loop", "skip", "torch gives no samples"),
    raw("", "end"),
]


def test_known_failures_are_expected_and_counted_against_the_whole() -> None:
    known = {"op_db b f forward": "for a reason", "op_db a f forward": "no more"}
    lines = ended(LINES, known)
    assert Line("op_db b f forward", "xfail", 1, "for a reason", 0.1) in lines
    one = by_suite(lines)["op_db"]
    assert (one.passed, one.failed, one.expected_failures) == (1, 1, 1)
    assert one.percent == pytest.approx(100 / 3)
    assert one.skipped == {"the local CPU has no such kernel": 1}
    assert summed([]).percent == 0


def test_a_known_failure_that_fails_no_more_is_told() -> None:
    known = {"op_db a f forward": "x", "op_db c f forward": "y", "op_db z f out": "z"}
    lines = ended(LINES, known)
    assert stale(lines, known, is_all=False) == ["op_db a f forward (pass)"]
    assert stale(lines, known, is_all=True) == [
        "op_db a f forward (pass)",
        "op_db z f out (no such entry)",
    ]
