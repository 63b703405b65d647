"""Heartbeats of many nodes come evenly, whatever has let them come together."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest
from xpool_registry.rhythm import FREEDOM, Rhythm

NODES = 1000
INTERVAL_MS = 1000
WINDOW_MS = 20


def busiest(
    due_ms: list[float], seconds: int, scale: float = 1.0, late_ms: float = 0.0
) -> tuple[int, int]:
    """How many heartbeats come in the busiest window of the last second, and in all.

    Args:
        due_ms: when each node's first comes.
        scale: how much of what is said a node waits.
        late_ms: so much later the next may come, at random.
    """
    rhythm, rng = Rhythm(INTERVAL_MS), random.Random(0)
    queue = sorted(due_ms)
    last: dict[int, int] = {}
    end_ms = 1000.0 * seconds
    while queue[0] < end_ms:
        now_ms = heapq.heappop(queue)
        if now_ms >= end_ms - 1000:
            window = int(now_ms) // WINDOW_MS
            last[window] = last.get(window, 0) + 1
        wait_ms = rhythm.next_ms(int(now_ms), len(due_ms))
        assert abs(wait_ms - INTERVAL_MS) <= FREEDOM * INTERVAL_MS
        heapq.heappush(queue, now_ms + scale * wait_ms + rng.uniform(0, late_ms))
    return max(last.values()), sum(last.values())


@pytest.mark.parametrize("scale", [1.0, 0.95])
@pytest.mark.parametrize("late_ms", [0.0, 30.0])
@pytest.mark.parametrize("spread_ms", [0.0, 100.0])
def test_those_that_come_at_once_are_spread(
    scale: float, late_ms: float, spread_ms: float
) -> None:
    rng = random.Random(1)
    together = [rng.uniform(0, spread_ms) for _ in range(NODES)]
    most, total = busiest(together, 15, scale, late_ms)
    even = NODES * WINDOW_MS / INTERVAL_MS
    assert most <= 2 * even
    assert total == pytest.approx(NODES / scale, rel=0.06)


def test_a_long_pause_forgets_what_was_expected() -> None:
    rhythm = Rhythm(INTERVAL_MS)
    first = Counter(rhythm.next_ms(0, 100) for _ in range(62))
    assert len(first) == 31
    assert set(first.values()) == {2}
    after = [rhythm.next_ms(10**9, 100) for _ in range(3)]
    assert after[0] == after[1] == INTERVAL_MS != after[2]


@pytest.mark.parametrize("interval_ms", [1, 10, 50, 300, 60_000])
def test_any_interval(interval_ms: int) -> None:
    rhythm = Rhythm(interval_ms)
    for now_ms in range(0, 5 * interval_ms, max(1, interval_ms // 7)):
        wait_ms = rhythm.next_ms(now_ms, 7)
        assert 0 < wait_ms <= max(10, 1.2 * interval_ms)
