"""Estimates of what operations take, learned from timings, in C++ and in Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpool_server.arbiter.costs import DEFAULT_NS, MAX_KNOWN, Costs, keys
from xpool_server.arbiter.native_costs import NativeCosts
from xpool_server.native.build import LIBRARY
from xpool_server.native.library import NativeLibrary

GEMM = 1
ADD = 2
TIMES_NS = {
    # Made up; what matters is that they differ by orders of magnitude.
    (GEMM, ((4096, 4096), (4096, 4096))): 2_310_000,
    (GEMM, ((1024, 1024), (1024, 1024))): 61_000,
    (GEMM, ((256, 256), (256, 256))): 9_800,
    (ADD, ((4096, 4096), (4096, 4096))): 78_000,
    (ADD, ((64,), (64,))): 2_400,
}


def native_costs() -> Costs:
    """``Costs`` in C++."""
    path = LIBRARY.built()
    if path is None:
        pytest.skip("the native executor is not built")
    return NativeCosts(NativeLibrary(path))


Make = Callable[[], Any]


@pytest.fixture(params=[Costs, native_costs], ids=["python", "native"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


def run_span(costs: Any, calls: list[tuple[int, Any]], noise: float = 1.0) -> float:
    """Submit some calls, and tell what the device has taken; the estimate's error."""
    for call in calls:
        costs.submit(*keys(*call))
    costs.end_span()
    estimate, took = costs.pending_ns, sum(TIMES_NS[one] for one in calls) * noise
    costs.measured(round(took))
    assert costs.pending_ns == 0
    return abs(estimate - took) / took


def test_each_geometry_is_learned_at_once(make: Make) -> None:
    costs = make()
    for call in TIMES_NS:
        run_span(costs, [call])
    for call, took_ns in TIMES_NS.items():
        assert costs.submit(*keys(*call)) == pytest.approx(took_ns, rel=1e-6)


def test_what_is_paid_once_is_forgotten(make: Make) -> None:
    """The first call of a kind loads its kernel: a thousand times what it costs."""
    costs, calls = (
        make(),
        [(ADD, ((64,), (64,)))] * 2 + [(GEMM, ((256, 256),) * 2)] * 20,
    )
    run_span(costs, calls, noise=5000)
    run_span(costs, calls)
    assert run_span(costs, calls) < 0.05


def test_mixed_pieces_of_work_are_learned(make: Make) -> None:
    """An operation costs what it costs, whatever else was submitted beside it."""
    costs, draw = make(), random.Random(0)
    calls = list(TIMES_NS)
    errors = [
        run_span(costs, draw.choices(calls, k=8), draw.uniform(0.95, 1.05))
        for _ in range(400)
    ]
    assert sum(errors[-100:]) / 100 < 0.25


def test_a_new_geometry_is_taken_for_one_about_as_large(make: Make) -> None:
    costs = make()
    assert costs.submit(*keys(GEMM, ((8, 8), (8, 8)))) == DEFAULT_NS
    costs.end_span()
    costs.measured(5000)
    assert costs.submit(*keys(GEMM, ((8, 9), (9, 8)))) == pytest.approx(5000)
    assert costs.submit(*keys(ADD, ((8, 9), (9, 8)))) == DEFAULT_NS


def test_pieces_are_measured_in_their_order(make: Make) -> None:
    costs = make()
    first, second = keys(GEMM, [(1,)]), keys(ADD, [(1,)])
    costs.submit(*first)
    costs.end_span()
    costs.end_span()  # nothing was submitted
    costs.submit(*second)
    costs.end_span()
    assert costs.pending_ns == 2 * DEFAULT_NS
    costs.measured(1000)
    assert costs.pending_ns == DEFAULT_NS
    costs.measured(77)
    costs.measured(3000)
    costs.measured(12345)  # of nothing
    assert costs.submit(*first) == pytest.approx(1000)
    assert costs.submit(*second) == pytest.approx(3000)


def test_what_is_known_is_bounded(make: Make) -> None:
    costs = make()
    for size in range(MAX_KNOWN + 10):
        costs.submit(*keys(GEMM, [(size,)]))
        costs.end_span()
        costs.measured(7)
    assert costs.submit(*keys(GEMM, [(MAX_KNOWN + 9,)])) == pytest.approx(7)
    assert costs.submit(*keys(GEMM, [(1,)])) == pytest.approx(7)  # as one of its size


word = st.integers(0, 5)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), word, word),
        st.just(("end",)),
        st.tuples(st.just("measured"), st.integers(0, 10**10)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(acts)
def test_both_say_the_same(script: list[tuple[Any, ...]]) -> None:
    one, other = Costs(), native_costs()
    for act, *values in script:
        if act == "submit":
            assert one.submit(*values) == other.submit(*values)
        elif act == "end":
            one.end_span()
            other.end_span()
        else:
            one.measured(*values)
            other.measured(*values)
        assert one.pending_ns == other.pending_ns
