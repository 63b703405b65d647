"""Medians, ratios, intervals, and when a change is called noise."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xpool_perf.figures import (
    MIN_SAMPLES,
    Change,
    Interval,
    change_of,
    interval_of,
    relative_change,
    value_of,
)

positive = st.floats(0.001, 1000)
some = st.lists(positive, min_size=1, max_size=9)


def noisy(center: float, spread: float, seed: int, count: int = 9) -> list[float]:
    rng = random.Random(seed)
    return [center * (1 + rng.uniform(-spread, spread)) for _ in range(count)]


def test_one_source_is_a_median_and_two_are_a_ratio_of_medians() -> None:
    samples = {"a": [3.0, 1.0, 100.0], "b": [2.0, 4.0]}
    assert value_of(["a"], samples) == 3
    assert value_of(["a", "b"], samples) == 1


@pytest.mark.parametrize(
    ("sources", "samples"),
    [
        (["a"], {}),
        (["a"], {"a": []}),
        (["a"], {"a": [1.0, math.nan]}),
        (["a"], {"a": [math.inf]}),
        ([], {"a": [1.0]}),
        (["a", "a", "a"], {"a": [1.0]}),
        (["a", "b"], {"a": [1.0], "b": [0.0]}),
    ],
)
def test_what_is_no_figure_is_refused(
    sources: list[str], samples: dict[str, list[float]]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        value_of(sources, samples)


@given(some, some)
def test_a_median_lies_within_its_samples(a: list[float], b: list[float]) -> None:
    assert min(a) <= value_of(["a"], {"a": a}) <= max(a)
    ratio = value_of(["a", "b"], {"a": a, "b": b})
    assert ratio * value_of(["b", "a"], {"a": a, "b": b}) == pytest.approx(1)


def test_an_interval_holds_its_figure_and_stays_within_the_samples() -> None:
    samples = {"a": noisy(10, 0.2, seed=1)}
    interval = interval_of(["a"], samples, random.Random(0))
    assert interval is not None
    assert min(samples["a"]) <= interval.low < value_of(["a"], samples) < interval.high
    assert interval.high <= max(samples["a"])


def test_the_same_seed_gives_the_same_interval() -> None:
    samples = {"a": noisy(10, 0.2, seed=1)}
    first, second = (interval_of(["a"], samples, random.Random(7)) for _ in range(2))
    assert first == second


def test_few_samples_have_no_interval() -> None:
    few = {"a": [1.0] * (MIN_SAMPLES - 1), "b": [1.0] * MIN_SAMPLES}
    assert interval_of(["a"], few, random.Random(0)) is None
    assert interval_of(["a", "b"], few, random.Random(0)) is None
    assert interval_of(["b"], few, random.Random(0)) == Interval(1, 1)
    change = change_of(["a"], few, {"a": [9.0] * 9}, random.Random(0))
    assert change.interval is None
    assert change.verdict == "too few samples"


def test_what_slowed_both_sides_of_a_pair_cancels_out() -> None:
    load = noisy(1, 0.5, seed=3)
    paired = {"remote": [3 * one for one in load], "local": [2 * one for one in load]}
    interval = interval_of(["remote", "local"], paired, random.Random(0))
    assert interval == Interval(pytest.approx(1.5), pytest.approx(1.5))


@pytest.mark.parametrize(
    ("center", "verdict"), [(10.0, "noise"), (15.0, "changed"), (6.0, "changed")]
)
def test_only_what_exceeds_the_spread_is_a_change(center: float, verdict: str) -> None:
    before, after = {"a": noisy(10, 0.1, 1)}, {"a": noisy(center, 0.1, 2)}
    change = change_of(["a"], before, after, random.Random(0))
    assert change.verdict == verdict
    assert change.relative == pytest.approx(center / 10 - 1, abs=0.1)


def test_an_interval_that_ends_at_nothing_is_noise() -> None:
    change = Change(before=1, after=1.1, interval=Interval(0, 0.2))
    assert change.verdict == "noise"


def test_changes_from_nothing() -> None:
    assert relative_change(0, 0) == 0
    assert relative_change(0, 1) == math.inf
    assert relative_change(4, 1) == -0.75
