"""``shares``: its parts, what happens when one fails, and a run of the shortest one."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from xpool_perf import shares
from xpool_perf.__main__ import main, parser
from xpool_perf.pool import RunFailed
from xpool_perf.scenario import DEFAULT_RUNS, Settings
from xpool_perf.shares import PARTS, RUNS, SHARES, Shares, measure
from xpool_perf.shares_plot import plot
from xpool_perf.shares_windows import Reading, errors_points, of_wall_percent

FIGURES = [one.name for one in SHARES.figures]
Take = Callable[[Shares], None]


@pytest.fixture
def said() -> list[str]:
    return []


def part(name: str, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, name, (take, PARTS[name][1]))


def takes(name: str, *values: float) -> Take:
    def take(of: Shares) -> None:
        of.samples[name] += values

    return take


def fails(of: Shares) -> None:
    of.samples["capped_percent"] += [30.5]
    raise RunFailed("a tenant ended: no room")


# ---- which parts ----


def test_every_figure_belongs_to_one_part() -> None:
    assert sorted(name for _, of in PARTS.values() for name in of) == sorted(FIGURES)
    assert SHARES.parts == {name: of for name, (_, of) in PARTS.items()}


def test_the_parts_that_were_chosen_and_their_figures() -> None:
    chosen = SHARES.chosen(Settings(only=("capped", "resize")))
    assert [one.name for one in chosen] == ["capped_error_points_10s", "resize_ms"]
    assert [one.name for one in SHARES.chosen(Settings())] == FIGURES


def test_the_command_line_names_parts_and_runs() -> None:
    args = parser().parse_args(["shares", "--only", "capped", "--only", "packed"])
    assert (args.only, args.runs) == (["capped", "packed"], RUNS)
    assert parser().parse_args(["shares", "--runs", "7"]).runs == 7
    assert parser().parse_args(["torch_ops"]).runs == DEFAULT_RUNS


def test_a_part_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["shares", "--only", "everything"])
    assert ended.value.code == 2
    assert "invalid choice: 'everything'" in capsys.readouterr().err


def test_only_what_was_chosen_runs(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    for name in PARTS:
        part(name, takes(name, 1.0), monkeypatch)
    assert set(measure(Settings(only=("packed", "alone")), said.append)) == {
        *("packed", "alone"),
    }
    assert said[0] == "part 1 of 2: packed"
    assert set(measure(Settings(), said.append)) == set(PARTS)


# ---- a part that fails ----


def test_others_go_on_when_a_part_fails(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    part("capped", fails, monkeypatch)
    part("resize", takes("slowest_resize_ms", 12.0), monkeypatch)
    samples = measure(Settings(only=("capped", "resize")), said.append)
    assert samples["slowest_resize_ms"] == [12.0]
    assert "capped_error_points_10s" not in samples
    assert "capped failed: a tenant ended: no room" in said
    assert "  slowest_resize_ms: 12" in said


def test_a_failure_is_the_exit_status_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    part("capped", fails, monkeypatch)
    part("resize", takes("slowest_resize_ms", 12.0), monkeypatch)
    monkeypatch.setattr("xpool_perf.__main__.results_folder", lambda: tmp_path)
    command = ["shares", "--json", "--keep", "--only", "capped", "--only", "resize"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["figures"] == {"resize_ms": 12.0}
    assert "not measured, see above: capped_error_points_10s" in told.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_failure_of_a_part_ends_all(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def broken(_: Shares) -> None:
        raise AssertionError("a fault of ours")

    part("capped", broken, monkeypatch)
    with pytest.raises(AssertionError, match="a fault of ours"):
        measure(Settings(only=("capped",)), said.append)


# ---- what is computed ----


def test_differences_are_of_pairs() -> None:
    samples = shares._with_differences(
        {
            "work_per_s_priority": [98.0, 99.0],
            "work_per_s_null": [100.0, 100.0],
            "alone_percent_priority": [49.0],
            "alone_percent_null": [50.0],
        }
    )
    assert samples["overhead_percent"] == pytest.approx([2.0, 1.0])
    assert samples["work_conserving_percent"] == [98.0]
    assert "overhead_percent" not in shares._with_differences(
        {"work_per_s_priority": [98.0], "work_per_s_null": []}
    )


def test_errors_are_of_what_all_got() -> None:
    readings = [Reading(float(s), (s * 10**8, s * 3 * 10**8)) for s in range(21)]
    first, second = errors_points(readings, (20, 80), 10)
    assert first == pytest.approx([5.0, 5.0])
    assert second == pytest.approx([5.0, 5.0])
    assert of_wall_percent(readings, 10) == pytest.approx([40.0, 40.0])


def test_a_picture_of_shares_over_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    readings = [Reading(float(s), (s * 10**8, s * 3 * 10**8)) for s in range(21)]
    plot(readings, (20, 80), tmp_path / "shares.png")
    picture = (tmp_path / "shares.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 400
    assert height > 200


@pytest.mark.slow
def test_a_part_by_the_command_line(tmp_path: Path) -> None:
    """The shortest one: two pools' worth of processes come and go."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "xpool_perf", "shares", "--json"),
            *("--only", "resize", "--runs", "1"),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert list(told["figures"]) == ["resize_ms"]
    assert told["figures"]["resize_ms"] > 0
    assert len(told["samples"]["resize_ms"]) == 4
    assert told["settings"]["runs"] == 1
