"""When records leave: the rule, and that its two implementations agree."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.probes import built_probe
from xpool.native import build
from xpool.pace import AGE_SHARE, BURST, MOST_NS, PACE_NBYTES, PACE_NS, PAUSE_NS, Pace

START_NS: Final = 10**15
"""Any monotonic clock has run for a while."""

Fact = tuple[int, int, bool]
"""Nanoseconds since the last one, bytes queued, whether somebody waits."""

facts = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 4 * PACE_NS), st.integers(0, 2 * PAUSE_NS)),
        st.one_of(st.integers(0, 2 * PACE_NBYTES), st.integers(0, 2**40)),
        st.booleans(),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = Path(__file__).with_name("pace_probe.cpp")
    library = built_probe(build.LIBRARY, source, tmp_path_factory.mktemp("probe"))
    library.probe_new.restype = ctypes.c_void_p
    library.probe_delete.argtypes = [ctypes.c_void_p]
    library.probe_delay_ns.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int64),
        *(ctypes.c_uint64, ctypes.c_int32),
    ]
    library.probe_delay_ns.restype = ctypes.c_int64
    library.probe_note_sent.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int64),
        ctypes.c_int32,
    ]
    return library


@given(facts)
def test_both_paces_agree(probe: Any, facts: Sequence[Fact]) -> None:
    pace, native, now_ns = Pace(), probe.probe_new(), START_NS
    for elapsed_ns, nbytes, is_awaited in facts:
        now_ns += elapsed_ns
        delay_ns = pace.delay_ns(now_ns, nbytes, is_awaited=is_awaited)
        assert probe.probe_delay_ns(native, now_ns, nbytes, is_awaited) == delay_ns
        if not delay_ns:
            pace.note_sent(now_ns, is_awaited=is_awaited)
            probe.probe_note_sent(native, now_ns, is_awaited)
    probe.probe_delete(native)


def sent_at_ns(asks: Sequence[int], *, nbytes: int = 1) -> list[int]:
    """At which of these moments something left."""
    pace, found = Pace(), []
    for now_ns in asks:
        if not pace.delay_ns(now_ns, nbytes, is_awaited=False):
            pace.note_sent(now_ns, is_awaited=False)
            found.append(now_ns - START_NS)
    return found


def test_the_first_records_leave_at_once() -> None:
    assert sent_at_ns([START_NS] * 50) == [0] * BURST


def test_a_young_stream_leaves_at_its_pace() -> None:
    every_us = [START_NS + 1000 * one for one in range(AGE_SHARE * PACE_NS // 1000)]
    burst, later = sent_at_ns(every_us)[:BURST], sent_at_ns(every_us)[BURST:]
    assert burst[-1] < PACE_NS
    assert later == [PACE_NS * one for one in range(1, 1 + len(later))]
    assert later[-1] == every_us[-1] // PACE_NS * PACE_NS - START_NS


def test_an_old_stream_is_spaced_out_by_a_share_of_its_age() -> None:
    every_us = [START_NS + 1000 * one for one in range(20_000)]
    sent = sent_at_ns(every_us)[BURST:]
    spaces = [later - earlier for earlier, later in pairwise(sent)]
    assert spaces == sorted(spaces)
    assert spaces[0] == PACE_NS
    assert MOST_NS <= spaces[-1] <= MOST_NS + 1000
    for at_ns, space_ns in zip(sent, spaces, strict=False):
        assert space_ns <= max(PACE_NS, at_ns // AGE_SHARE) + 1000


@pytest.mark.parametrize("is_awaited", [True, False])
def test_a_stream_is_young_again_after_an_answer_or_a_pause(is_awaited: bool) -> None:
    pace, now_ns = Pace(), START_NS
    for _ in range(20_000):
        now_ns += 1000
        if not pace.delay_ns(now_ns, 1, is_awaited=False):
            pace.note_sent(now_ns, is_awaited=False)
    now_ns += 0 if is_awaited else MOST_NS + PAUSE_NS
    for _ in range(BURST):
        assert pace.delay_ns(now_ns, 1, is_awaited=is_awaited) == 0
        pace.note_sent(now_ns, is_awaited=is_awaited)
    assert pace.delay_ns(now_ns, 1, is_awaited=False) == PACE_NS


def test_a_link_may_space_them_out_further() -> None:
    pace, now_ns, sent = Pace(10 * MOST_NS), START_NS, [START_NS]
    while now_ns < START_NS + 10 * AGE_SHARE * 10 * MOST_NS:
        now_ns += PACE_NS
        if not pace.delay_ns(now_ns, 1, is_awaited=False):
            pace.note_sent(now_ns, is_awaited=False)
            sent.append(now_ns)
    assert sent[-1] - sent[-2] == 10 * MOST_NS


@given(facts)
def test_nothing_is_late_by_more_than_the_most(facts: Sequence[Fact]) -> None:
    pace, now_ns = Pace(), START_NS
    for elapsed_ns, nbytes, is_awaited in facts:
        now_ns += elapsed_ns
        delay_ns = pace.delay_ns(now_ns, nbytes, is_awaited=is_awaited)
        assert 0 <= delay_ns <= MOST_NS
        if not delay_ns:
            pace.note_sent(now_ns, is_awaited=is_awaited)


def test_what_is_awaited_or_large_leaves_at_once() -> None:
    pace = Pace()
    for _ in range(BURST):
        pace.note_sent(START_NS, is_awaited=False)
    assert pace.delay_ns(START_NS, PACE_NBYTES - 1, is_awaited=False) == PACE_NS
    assert pace.delay_ns(START_NS, PACE_NBYTES, is_awaited=False) == 0
    assert pace.delay_ns(START_NS, 1, is_awaited=True) == 0
