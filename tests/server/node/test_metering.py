"""What each second used, and which share was got lately."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from xpool_server.arbiter.desk import Usage
from xpool_server.metering import KEPT_SECONDS, Meter, Reading

S = 1_000_000_000


def test_a_second_holds_what_was_used_in_it() -> None:
    meter = Meter(0, 100)
    meter.read(Reading(device_ns=5, executed_ops=1), S // 2, 100)
    meter.read(Reading(device_ns=9, executed_ops=3, allocated_nbytes=7), S, 101)
    meter.read(Reading(device_ns=9, executed_ops=3, allocated_nbytes=7), 2 * S, 102)
    (second,) = meter.seconds  # the idle one is none
    assert (second.at_s, second.used.device_ns, second.used.executed_ops) == (100, 9, 3)
    assert second.used.allocated_nbytes == 7


def test_time_that_was_used_is_never_taken_back() -> None:
    meter = Meter(0, 0)
    for at_s, used in enumerate((7, 3, 8), start=1):
        meter.read(Reading(device_ns=used), at_s * S, at_s)
    assert meter.last.device_ns == 8
    assert sum(second.used.device_ns for second in meter.seconds) == 8


def test_what_the_registry_has_is_not_told_again() -> None:
    meter = Meter(0, 0)
    for at_s in range(1, 6):
        meter.read(Reading(device_ns=at_s), at_s * S, at_s)
    assert [second.at_s for second in meter.seconds] == [0, 1, 2, 3, 4]
    meter.acknowledged(2)
    assert [second.at_s for second in meter.seconds] == [3, 4]


def test_a_registry_that_is_away_does_not_fill_memory() -> None:
    meter = Meter(0, 0)
    for at_s in range(1, 3 * KEPT_SECONDS):
        meter.read(Reading(device_ns=at_s), at_s * S, at_s)
    assert len(meter.seconds) == KEPT_SECONDS


def test_the_share_is_of_the_last_ten_seconds() -> None:
    meter = Meter(0, 0)
    used = 0
    for half in range(1, 61):
        used += S // 4 if half > 40 else 0
        meter.read(Reading(device_ns=used), half * S // 2, half // 2)
    assert abs(meter.got_percent - 50) < 1


@given(st.lists(st.integers(0, 1 << 40), max_size=50))
def test_seconds_add_up_to_the_total(steps: list[int]) -> None:
    meter, total = Meter(0, 0), Reading()
    for at, step in enumerate(steps, start=1):
        total = replace(total, device_ns=total.device_ns + step)
        meter.read(total, at * S // 3, at // 3)
    meter.close_second(len(steps) + 1)
    assert sum(second.used.device_ns for second in meter.seconds) == total.device_ns


def test_counters_of_a_mad_worker_stay_in_range() -> None:
    reading = Reading.of(Usage(-1, -1), {"executed_ops": 1 << 80, "sent_nbytes": -5})
    assert reading == Reading(executed_ops=(1 << 63) - 1)
