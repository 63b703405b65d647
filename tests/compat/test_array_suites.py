"""What the runner of array suites concludes from the lines that its plugins write."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

ARRAYS = Path(__file__).parent / "arrays"
sys.path[:0] = [str(ARRAYS)]

import array_page
import outcomes
import run_array_suites as runner


def write(out: Path, name: str, lines: list[dict[str, str]], log: str = "") -> None:
    (out / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (out / f"{name}.log").write_text(log)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "xfails.txt"
    path.write_text("")
    monkeypatch.setattr(runner, "XFAILS", path)
    return path


PASSED = {"id": "a::b", "outcome": "passed"}
FAILED = {"id": "a::c", "outcome": "failed", "error": "ValueError: no"}


def test_only_what_counts_counts(tmp_path: Path) -> None:
    lines = [PASSED, FAILED, {"id": "d", "outcome": "skipped"}]
    lines += [{"id": "e", "outcome": "out_of_scope"}, {"id": "f", "outcome": "xfailed"}]
    log = "xpool: audit: 12 predictions, 1 mismatches, 3 late errors"
    write(tmp_path, "math", lines, log)
    found = runner.summed(tmp_path, "math")
    assert found.percent == pytest.approx(100 * 2 / 3)
    assert (found.predictions, found.mismatches, found.late_errors) == (12, 1, 3)


def test_a_suite_that_wrote_nothing_has_failed(tmp_path: Path) -> None:
    write(tmp_path, "math", [])
    assert runner.summed(tmp_path, "math").percent == 0


def test_the_last_word_on_a_test_counts(tmp_path: Path) -> None:
    write(tmp_path, "math", [PASSED, {**PASSED, "outcome": "failed"}])
    assert runner.summed(tmp_path, "math").counts == {"failed": 1}


def test_a_failure_is_known_or_wrong(tmp_path: Path, known: Path) -> None:
    write(tmp_path, "math", [PASSED, FAILED])
    assert runner.judged(tmp_path, ["math"]) == [
        "failed math::a::c  # ValueError: no",
    ]
    known.write_text("# of CuPy's\nmath::a::c  # it asks for what nobody has\n")
    assert runner.judged(tmp_path, ["math"]) == []
    known.write_text("math::a::c  # no\nmath::a::b  # it passes\n")
    assert runner.judged(tmp_path, ["math"]) == ["stale in xfails.txt: math::a::b"]


def test_a_known_failure_may_be_the_beginning_of_some(
    tmp_path: Path, known: Path
) -> None:
    write(tmp_path, "math", [PASSED, FAILED])
    known.write_text("math::a*  # no\n")
    assert runner.judged(tmp_path, ["math"]) == []
    known.write_text("math::a*  # no\nmath::b*  # nobody begins so\n")
    assert runner.judged(tmp_path, ["math"]) == ["stale in xfails.txt: math::b*"]


def test_a_beginning_may_ask_for_an_error(tmp_path: Path, known: Path) -> None:
    write(tmp_path, "math", [PASSED, FAILED])
    known.write_text("math::a* ~ ValueError: no  # no\n")
    assert runner.judged(tmp_path, ["math"]) == []
    known.write_text("math::a* ~ TypeError  # no\n")
    assert runner.judged(tmp_path, ["math"]) == [
        "failed math::a::c  # ValueError: no",
        "stale in xfails.txt: math::a* ~ TypeError",
    ]


def test_what_draws_may_fail_and_pass(tmp_path: Path, known: Path) -> None:
    write(tmp_path, "math", [PASSED, FAILED])
    known.write_text("math::a::b  # at times: no\nmath::a::c  # at times: no\n")
    assert runner.judged(tmp_path, ["math"]) == []


def test_the_page_keeps_what_ran_at_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FIGURES", tmp_path / "figures.json")
    for name, lines in (("math", [PASSED]), ("fft", [PASSED, FAILED])):
        write(
            tmp_path, name, lines, "audit: 5 predictions, 0 mismatches, 1 late errors"
        )
        found = runner.kept({name: runner.summed(tmp_path, name)}, datetime.now(UTC))
    assert list(found) == ["math", "fft"]
    assert (found["math"].percent, found["fft"].percent) == (100, 50)
    assert found["math"].predictions == 5


def test_source_in_cuda_is_counted_by_itself(tmp_path: Path) -> None:
    needs_cuda = {"id": "a::d", "outcome": "needs_cuda"}
    write(tmp_path, "math", [PASSED, FAILED, needs_cuda])
    found = runner.summed(tmp_path, "math")
    assert (found.percent, found.counts["needs_cuda"]) == (50, 1)
    assert array_page.table({"math": found})[2].startswith("| math | 1 | 1 | 1 | 0 |")


def test_the_page_says_at_which_commit_a_suite_ran(tmp_path: Path) -> None:
    write(tmp_path, "math", [PASSED])
    (tmp_path / "math.commit").write_text("0123abc")
    rows = array_page.table({"math": runner.summed(tmp_path, "math")})
    assert rows[2].endswith("| 99 % | 0123abc |")


@pytest.mark.parametrize(
    ("where", "message", "is_inside"),
    [
        ("tests/a.py", "AttributeError: 'x' object has no attribute '_from'", True),
        ("tests/a.py", "AttributeError: 'x' object has no attribute 'row'", False),
        ("tests/a.py", "ValueError: no\nhas no attribute '_from'", False),
        ("../ours.py", "AttributeError: 'x' object has no attribute '_from'", False),
    ],
)
def test_a_private_name_is_out_of_scope_where_a_test_asks_for_it(
    tmp_path: Path, where: str, message: str, is_inside: bool
) -> None:
    crash = SimpleNamespace(path=str(tmp_path / where), message=message)
    assert outcomes.asks_for_insides(crash, tmp_path) is is_inside
    assert not outcomes.asks_for_insides(crash, None)


@pytest.mark.parametrize(
    ("frames", "said", "is_inside"),
    [
        (
            ("tests/a.py",),
            "AttributeError: type object 'B' has no attribute '_x'",
            True,
        ),
        (("tests/a.py",), "AttributeError: 'B' object has no attribute 'x'", False),
        (("tests/a.py", "../o.py"), "AttributeError: 'B' has no attribute '_x'", False),
    ],
)
def test_so_it_is_where_only_cupy_raises(
    tmp_path: Path, frames: tuple[str, ...], said: str, is_inside: bool
) -> None:
    lines = [f'  File "{tmp_path / one}", line 1, in test' for one in frames]
    text = "\n".join(["AssertionError: Only cupy raises error", *lines, said])
    crash = SimpleNamespace(path=str(tmp_path / "testing.py"), message=f"{text}\n")
    assert outcomes.asks_for_insides(crash, tmp_path) is is_inside


def test_a_wrong_prediction_is_wrong(tmp_path: Path, known: Path) -> None:
    write(
        tmp_path, "math", [PASSED], "audit: 9 predictions, 2 mismatches, 0 late errors"
    )
    assert runner.judged(tmp_path, ["math"]) == ["math: 2 predictions were wrong"]


@pytest.mark.parametrize("line", ["math::a", "math::a  # ", "m  # x\nm  # y"])
def test_a_known_failure_has_one_line_and_a_reason(line: str, known: Path) -> None:
    known.write_text(line + "\n")
    with pytest.raises(SystemExit, match="is wrong"):
        runner.expected()


def test_the_list_in_the_project_can_be_read() -> None:
    assert all(reason for reason in runner.expected().values())


def test_nothing_to_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds none"):
        runner.suites_in(tmp_path, ())


def test_the_table_has_a_row_for_each_suite(tmp_path: Path) -> None:
    write(tmp_path, "math", [PASSED, FAILED])
    rows = array_page.table({"math": runner.summed(tmp_path, "math")})
    assert rows[2] == "| math | 1 | 1 | 0 | 0 | 0 | 50.00 % | 99 % | earlier |"


def test_a_checkout_without_its_submodule_is_refused(tmp_path: Path) -> None:
    api = tmp_path / "array-api-tests" / "array-api"
    api.mkdir(parents=True)  # as a clone leaves it
    with pytest.raises(SystemExit, match="git submodule update --init"):
        runner.suites_in(tmp_path, ())
    (api / "spec").mkdir()
    assert runner.suites_in(tmp_path, ("array_api",)) == ["array_api"]
