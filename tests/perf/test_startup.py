"""The arithmetic of ``startup``."""

from __future__ import annotations

import pytest
from xpool_perf.__main__ import SCENARIOS
from xpool_perf.startup import STARTUP, round_trips


def test_the_scenario_is_known() -> None:
    assert SCENARIOS["startup"] is STARTUP


def test_what_is_longer_far_away_is_counted_in_round_trips() -> None:
    assert round_trips([2.0, 2.5], [2.4, 2.5], 0.1) == [pytest.approx(4), 0]


def test_starts_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        round_trips([2.0], [2.4, 2.5], 0.1)
