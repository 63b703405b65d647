"""Results on their way to a file and back, and as text."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from xpool_perf import report
from xpool_perf.figures import Figure
from xpool_perf.machine import Machine, commit_of, this_machine
from xpool_perf.pool import repository
from xpool_perf.results import (
    Result,
    ResultUnreadable,
    json_from_result,
    load,
    load_all,
    result_from_json,
    result_from_samples,
    save,
)

MACHINE = Machine(
    cpu_model="ACME 9 (Big)",
    cores=4,
    memory_nbytes=8 << 30,
    kernel="6.1.0",
    python="3.11.2",
    torch="2.13.0+cpu",
)
FIGURES = (
    Figure(name="far_s", unit="s", method="It is | timed.", sources=("far_s",)),
    Figure(name="ratio", unit="ratio", method="Over.", sources=("far_s", "near_s")),
)
SAMPLES = {"far_s": [3.0, 3.1, 2.9, 3.0, 3.2], "near_s": [2.0, 2.0, 2.1, 1.9, 2.0]}


def result(scale: float = 1, *, day: int = 1, threads: int = 1) -> Result:
    samples = {**SAMPLES, "far_s": [one * scale for one in SAMPLES["far_s"]]}
    now = datetime(2026, 2, day, 4, 5, 0, tzinfo=UTC)
    settings = {"threads": threads}
    return result_from_samples("far", FIGURES, samples, settings, MACHINE, "abc", now)


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    path = save(result(), tmp_path / "results")
    assert path.name == "20260201T040500Z-abc-far-acme-9-big-4-cores.json"
    assert load(path) == result()
    assert load(path).figures == {"far_s": 3.0, "ratio": 1.5}
    save(result(day=2), tmp_path / "results")
    days = [one.date[:10] for one in load_all(tmp_path / "results")]
    assert days == ["2026-02-01", "2026-02-02"]


def test_a_figure_without_samples_is_no_result() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="near_s"):
        result_from_samples("far", FIGURES, {"far_s": [1.0]}, {}, MACHINE, "abc", now)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("figures", {"far_s": 4.0}),
        ("figures", {"other": 1.0}),
        ("units", {}),
        ("method", {}),
        ("samples", {"far_s": [None]}),
        ("machine", {}),
        ("scenario", 3),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(name: str, value: Any) -> None:
    fields = json.loads(json_from_result(result()))
    fields[name] = value
    with pytest.raises(ResultUnreadable, match=r"x\.json holds no result"):
        result_from_json(json.dumps(fields).encode(), "x.json")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResultUnreadable, match=r"cannot read .*nowhere\.json"):
        load(tmp_path / "nowhere.json")


def test_a_comparison_tells_changes_from_noise() -> None:
    text = report.comparison(result(), result(1.5, day=2))
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "+50.0%" in rows["far_s"]
    assert rows["far_s"].endswith("changed")
    assert "warning:" not in rows
    same = report.comparison(result(), result(1.001))
    assert same.count("noise") == 2
    assert "changed" not in same


def test_a_comparison_warns_of_other_settings_and_machines() -> None:
    assert "warning: settings" in report.comparison(result(), result(threads=2))


def test_other_scenarios_and_other_sources_are_not_compared() -> None:
    fields = json.loads(json_from_result(result()))
    fields["scenario"] = "near"
    other = result_from_json(json.dumps(fields).encode(), "")
    with pytest.raises(ValueError, match="different scenarios"):
        report.comparison(result(), other)
    fields["scenario"] = "far"
    fields["sources"]["ratio"], fields["figures"]["ratio"] = ["far_s"], 3.0
    changed = result_from_json(json.dumps(fields).encode(), "")
    assert "measured otherwise" in report.comparison(result(), changed)


def test_rendering_shows_the_newest_and_the_history() -> None:
    text = report.markdown([result(2, day=2), result()])
    newest, _, history = text.partition("### History")
    assert "| far_s | 6 | s | 5.8 to 6.4 | 5 | It is / timed. |" in newest
    rows = [line for line in history.splitlines() if line.startswith("| 2026")]
    assert rows == [
        "| 2026-02-02 | abc | ACME 9 (Big), 4 cores | 6 | 3 |",
        "| 2026-02-01 | abc | ACME 9 (Big), 4 cores | 3 | 1.5 |",
    ]
    assert "Nothing has been kept yet" in report.markdown([])


def test_results_md_is_what_the_kept_results_render_to() -> None:
    perf = repository() / "perf"
    kept = load_all(perf / "results")
    assert (perf / "RESULTS.md").read_text() == report.markdown(kept), (
        "run python -m xpool_perf render"
    )


def test_a_table_has_every_figure() -> None:
    text = report.table(result())
    for part in ("far_s", "2.9 to 3.2", "ratio", "1.5", "ACME 9 (Big)", "8 GiB"):
        assert part in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.23456, "1.235"), (123456.0, "123456"), (0.00001, "0.000010"), (0.0, "0")],
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert report.number(value) == text


def test_this_machine_is_known() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_nbytes > 1 << 28
    assert machine.torch[0].isdigit()
    assert machine.slug.endswith("-cores")


def test_a_commit_is_dirty_unless_only_results_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    assert commit_of(tmp_path) == "unknown"
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    clean = commit_of(tmp_path)
    assert len(clean) == 12
    (tmp_path / "perf" / "results").mkdir(parents=True)
    (tmp_path / "perf" / "results" / "one.json").touch()
    (tmp_path / "perf" / "RESULTS.md").touch()
    assert commit_of(tmp_path) == clean
    (tmp_path / "perf" / "code.py").touch()
    assert commit_of(tmp_path) == f"{clean}-dirty"
