"""Notes of waits, their report, and what it says of other distances."""

from __future__ import annotations

import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool.waits import (
    ELSEWHERE,
    MAX_PLACES,
    ROOM,
    Place,
    PlaceWaits,
    Report,
    WaitBook,
    place_of,
)

MS = 1_000_000


def report_of(
    *waits: PlaceWaits, total_s: float = 10.0, rtt_s: float = 0.001
) -> Report:
    return Report(
        server="one",
        device="cpu",
        total_s=total_s,
        round_trip_s=rtt_s,
        sent_nbytes=0,
        waits=waits,
    )


def wait_of(count: int, seconds: float, what: str = "read") -> PlaceWaits:
    return PlaceWaits(
        place=Place("a.py", 1),
        what=what,
        count=count,
        seconds=seconds,
        nbytes=0,
        shortest_s=seconds / max(count, 1),
    )


def test_waits_of_one_line_are_summed_and_the_longest_come_first():
    book = WaitBook()
    book.note(Place("a.py", 3), "read", 2 * MS, 4)
    book.note(Place("a.py", 3), "read", 1 * MS, 4)
    book.note(Place("a.py", 9), "aten::nonzero", 30 * MS, 80)
    first, second = book.waits()
    assert (first.place, first.what, first.count, first.nbytes) == (
        Place("a.py", 9),
        "aten::nonzero",
        1,
        80,
    )
    assert (second.count, second.nbytes) == (2, 8)
    assert second.seconds == pytest.approx(0.003)
    assert second.shortest_s == pytest.approx(0.001)


def test_a_program_of_endless_lines_takes_bounded_memory():
    book = WaitBook()
    for line in range(MAX_PLACES + 50):
        book.note(Place("made_up.py", line + 1), "read", MS, 1)
    waits = book.waits()
    assert len(waits) == MAX_PLACES + 1
    [rest] = [wait for wait in waits if wait.place == ELSEWHERE]
    assert rest.count == 50
    assert sum(wait.count for wait in waits) == MAX_PLACES + 50


def test_threads_lose_no_note():
    book = WaitBook()

    def work() -> None:
        for _ in range(2000):
            book.note(Place("a.py", 1), "read", 1, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [wait] = book.waits()
    assert (wait.count, wait.nbytes) == (8000, 8000)


def test_the_place_is_the_innermost_line_that_is_not_the_frameworks():
    frames = [
        ("/env/torch/_tensor.py", 1),
        ("/env/transformers/trainer.py", 20),
        ("/job/train.py", 5),
    ]
    assert place_of(frames, ["/env/torch/"]) == Place(
        "/env/transformers/trainer.py", 20
    )
    assert place_of(frames[:1], ["/env/torch/"]) == ELSEWHERE
    assert place_of([], []) == ELSEWHERE


def test_a_longer_round_trip_costs_each_wait_its_difference():
    report = report_of(wait_of(100, 0.2))
    assert report.projected_s(0.001) == pytest.approx(10.0)
    assert report.projected_s(0.031) == pytest.approx(13.0)


def test_a_shorter_one_saves_no_more_than_was_waited():
    report = report_of(wait_of(100, 0.05), total_s=1.0, rtt_s=0.030)
    assert report.projected_s(0.0) == pytest.approx(0.95)


def test_waiting_for_room_is_bandwidth_and_no_round_trip():
    report = report_of(wait_of(7, 3.0, ROOM), wait_of(2, 0.1))
    assert report.count == 2
    assert report.waited_s == pytest.approx(3.1)
    assert report.projected_s(1.001) == pytest.approx(12.0)


seconds = st.floats(0, 100, allow_nan=False)


@given(
    waits=st.lists(st.tuples(st.integers(0, 1000), seconds), max_size=5),
    extra_s=seconds,
    rtt_s=st.floats(0, 1),
    one_s=st.floats(0, 1),
    other_s=st.floats(0, 1),
)
def test_projections_grow_with_the_distance_and_never_below_what_was_not_waited(
    waits: list[tuple[int, float]],
    extra_s: float,
    rtt_s: float,
    one_s: float,
    other_s: float,
):
    total_s = extra_s + sum(s for _, s in waits)
    report = report_of(
        *(wait_of(count, s) for count, s in waits), total_s=total_s, rtt_s=rtt_s
    )
    near, far = sorted((one_s, other_s))
    assert report.projected_s(near) <= report.projected_s(far) + 1e-9
    assert report.projected_s(near) >= extra_s - 1e-6


def test_a_report_survives_the_file_between_the_processes():
    report = report_of(wait_of(3, 0.3), wait_of(1, 0.1, ROOM))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
