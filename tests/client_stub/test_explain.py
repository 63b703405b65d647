"""What ``xpool explain`` says of a report; the processes are in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest
from xpool.explain import as_plain, draw, print_table, shortened, source_text
from xpool.waits import ROOM, Place, PlaceWaits, Report


def report_of(count: int) -> Report:
    waits = tuple(
        PlaceWaits(
            place=Place(__file__, number + 1),
            what=ROOM if number == 0 else "read",
            count=number + 1,
            seconds=0.01 * (count - number),
            nbytes=4 * number,
            shortest_s=0.001,
        )
        for number in range(count)
    )
    return Report(
        server="one",
        device="xpool cpu on one",
        total_s=2.0,
        round_trip_s=0.0005,
        sent_nbytes=100,
        waits=waits,
    )


def test_the_table_shows_the_longest_and_counts_the_rest(capsys):
    print_table(report_of(5), shown=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2.00 s on xpool cpu on one; waited 14 times")
    assert sum("test_explain.py:" in line for line in lines) == 2
    assert "and 3 more lines (--lines, --json)" in lines


def test_a_program_that_never_waited_has_no_table(capsys):
    print_table(report_of(0), shown=20)
    out = capsys.readouterr().out
    assert "waited 0 times" in out
    assert "seconds" not in out


def test_the_plain_object_has_every_line_with_its_source():
    plain = as_plain(report_of(3), ["train.py"])
    assert [line["count"] for line in plain["lines"]] == [1, 2, 3]
    assert plain["lines"][0]["text"] == source_text(__file__, 1)
    assert plain["round_trips"] == 5


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_picture_can_be_drawn_of_any_report(tmp_path: Path, count: int):
    path = tmp_path / "out.png"
    draw(report_of(count), path)
    assert path.stat().st_size > 1000


def test_paths_are_short_where_they_can_be():
    assert shortened("/job/a/b.py", "/job/") == "a/b.py"
    assert shortened("/elsewhere/b.py", "/job") == "/elsewhere/b.py"
