"""What every policy must do, in Python and in C++: one suite, and what some do more."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.simulated_device import (
    MS,
    Engine,
    NativeEngine,
    S,
    Simulation,
    Work,
    always,
    bursts,
)
from xpool_server.arbiter.fair_share import FairShare
from xpool_server.arbiter.fifo import Fifo
from xpool_server.arbiter.null import Null
from xpool_server.arbiter.policies import BY_NUMBER, POLICIES, PolicyName
from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.priority import ByPriority
from xpool_server.arbiter.tenant import Settings
from xpool_server.native.build import LIBRARY

LONGEST = 20 * MS


def mixed(seed: int) -> Callable[[], int]:
    """Lengths of operations from 0.05 to 20 ms, most of them short."""
    draw = random.Random(seed)
    return lambda: min(LONGEST, max(MS // 20, int(draw.lognormvariate(13.6, 1.4))))


def grouped(lengths: Callable[[], int]) -> Work:
    """Groups of some 16 ms, and a third of a millisecond after each."""
    while True:
        left, pause_ns = 16 * MS, MS // 3
        while left > 0:
            length_ns = lengths()
            yield pause_ns, length_ns
            left, pause_ns = left - length_ns, 0


def lazy_then_busy(operations: int, pause_ns: int) -> Work:
    """So many short operations with a pause before each, and then never one."""
    for _ in range(operations):
        yield pause_ns, MS
    yield from always(lambda: MS)


class PolicyConformance:
    """Inherit, set ``policy_class``, and nothing else."""

    policy_class: ClassVar[type[Policy]]

    @pytest.fixture(params=["python", "native"])
    def make(self, request: pytest.FixtureRequest) -> Callable[[], Engine]:
        def engine() -> Engine:
            policy = self.policy_class()
            if request.param == "python":
                return Engine(policy)
            path = LIBRARY.built()
            if path is None:
                pytest.skip("the native executor is not built")
            return NativeEngine(policy, path)

        return engine

    def test_it_is_work_conserving(self, make: Callable[[], Engine]) -> None:
        """Whoever waits has the device, however small its share."""
        simulation = Simulation(make())
        one = simulation.add(0, 10, always(mixed(1)))
        start = simulation.now_ns
        simulation.run(start + 5 * S)
        assert one.got_ns(start, start + 5 * S) >= 0.999 * 5 * S

    def test_nobody_starves(self, make: Callable[[], Engine]) -> None:
        """Each that asks is served, with pauses between, whatever the classes."""
        if not self.policy_class.arbitrates:
            pytest.skip(f"{self.policy_class.name} lets everybody run")
        simulation = Simulation(make())
        ends = [
            simulation.add(n, 20, bursts(5 * MS, 20, MS), priority=n % 3)
            for n in range(5)
        ]
        start = simulation.now_ns
        simulation.run(start + 20 * S)
        for one in ends:
            assert one.got_ns(start + 10 * S, start + 20 * S) > 0
            assert max(one.waits) < 3 * S

    def test_short_pauses_cost_no_share(self, make: Callable[[], Engine]) -> None:
        """Who is away for a moment between two groups of operations has its share."""
        if not self.policy_class.keeps_shares:
            pytest.skip(f"{self.policy_class.name} keeps no shares")
        simulation = Simulation(make())
        shares = (10, 20, 30, 40)
        tenants = [
            simulation.add(n, share, grouped(mixed(n)))
            for n, share in enumerate(shares)
        ]
        start = simulation.now_ns
        simulation.run(start + 20 * S)
        got = [one.got_ns(start + 5 * S, start + 15 * S) / (10 * S) for one in tenants]
        for part, share in zip(got, shares, strict=True):
            assert abs(100 * part / sum(got) - share) < 0.5

    def test_short_pauses_save_little(self, make: Callable[[], Engine]) -> None:
        """However many there were: a tenth of a second of the device at most."""
        if not self.policy_class.keeps_shares:
            pytest.skip(f"{self.policy_class.name} keeps no shares")
        simulation = Simulation(make())
        simulation.add(0, 50, always(lambda: MS))
        lazy = simulation.add(1, 50, lazy_then_busy(400, 15 * MS))
        start = simulation.now_ns
        simulation.run(start + 10 * S)
        first_busy = lazy.grants[400][0]
        assert first_busy < start + 9 * S
        got = lazy.got_ns(first_busy, first_busy + S)
        assert got < S // 2 + 150 * MS

    def test_shares_of_busy_tenants(self, make: Callable[[], Engine]) -> None:
        """10, 20, 30 and 40 %, over 10 s: a tenth of a point and one operation."""
        if not self.policy_class.keeps_shares:
            pytest.skip(f"{self.policy_class.name} does not keep shares")
        simulation = Simulation(make())
        shares = (10, 20, 30, 40)
        tenants = [
            simulation.add(n, share, always(mixed(n))) for n, share in enumerate(shares)
        ]
        start = simulation.now_ns
        simulation.run(start + 40 * S)
        for share, one in zip(shares, tenants, strict=True):
            for at in range(0, 40, 10):
                got = one.got_ns(start + at * S, start + (at + 10) * S) / (10 * S)
                assert abs(100 * got - share) < 0.1 + 100 * 2 * LONGEST / (10 * S)

    def test_a_sleeper_and_a_newcomer_have_saved_nothing(
        self, make: Callable[[], Engine]
    ) -> None:
        if not self.policy_class.keeps_shares:
            pytest.skip(f"{self.policy_class.name} does not keep shares")
        simulation = Simulation(make())
        always_there = simulation.add(0, 50, always(lambda: MS))
        sleeper = simulation.add(1, 50, bursts(5 * S, 2000, MS))
        start = simulation.now_ns
        simulation.run(start + 6 * S)
        # It wakes after 5 s; half of the next second is not its own.
        assert sleeper.got_ns(start, start + 6 * S) < 0.52 * S
        newcomer = simulation.add(2, 50, always(lambda: MS))
        now = simulation.now_ns
        simulation.run(now + S)
        assert newcomer.got_ns(now, now + S) < 0.36 * S
        assert always_there.got_ns(now, now + S) > 0.30 * S

    def test_a_cap_is_never_exceeded(self, make: Callable[[], Engine]) -> None:
        """Alone on the device, in every window of a second: the rate and one burst."""
        if not self.policy_class.arbitrates:
            pytest.skip(f"{self.policy_class.name} lets everybody run")
        simulation = Simulation(make())
        one = simulation.add(0, 30, always(mixed(3)), capped=True)
        start = simulation.now_ns
        simulation.run(start + 20 * S)
        for at in range(20):
            got = one.got_ns(start + at * S, start + (at + 1) * S)
            assert got <= 0.30 * S + 20 * MS + LONGEST
        whole = one.got_ns(start + 10 * S, start + 20 * S) / (10 * S)
        assert abs(100 * whole - 30) < 0.5


class TestFairShare(PolicyConformance):
    policy_class = FairShare


class TestPriority(PolicyConformance):
    policy_class = ByPriority

    def test_a_higher_class_waits_for_one_operation(self) -> None:
        """Beside three tenants that are always busy."""
        simulation = Simulation(Engine(ByPriority()))
        for n in range(3):
            simulation.add(n, 30, always(lambda: 5 * MS), priority=0)
        high = simulation.add(3, 10, bursts(20 * MS, 2, MS), priority=2)
        simulation.run(simulation.now_ns + 10 * S)
        waits = sorted(high.waits[10:])
        # But for the quanta that the starving are owed, once a second.
        assert waits[int(0.98 * len(waits))] <= 5 * MS
        assert waits[-1] <= 3 * 5 * MS

    @pytest.mark.parametrize("bound_ns", [200 * MS, S, 3 * S])
    def test_a_lower_class_is_starved_for_no_longer_than_the_bound(
        self, bound_ns: int
    ) -> None:
        policy = ByPriority(Settings(starvation_ns=bound_ns))
        simulation = Simulation(Engine(policy))
        simulation.add(0, 50, always(lambda: MS), priority=2)
        low = simulation.add(1, 50, always(lambda: MS), priority=0)
        start = simulation.now_ns
        simulation.run(start + 30 * S)
        assert max(low.waits) <= bound_ns + 5 * MS
        turns = 30 * S // bound_ns
        assert 0.9 * turns - 1 <= len(low.waits) <= turns + 1
        assert low.got_ns(start, start + 30 * S) < 4 * MS * (turns + 1)


class TestFifo(PolicyConformance):
    policy_class = Fifo

    def test_first_come_first_served(self) -> None:
        simulation = Simulation(Engine(Fifo()))
        first = simulation.add(0, 1, bursts(MS, 50, MS))
        second = simulation.add(1, 99, bursts(2 * MS, 50, MS))
        simulation.run(simulation.now_ns + 60 * MS)
        assert len(first.grants) == 50
        assert first.grants[-1][0] < second.grants[0][0]


class TestNull(PolicyConformance):
    policy_class = Null


def test_every_policy_has_a_name_and_a_number() -> None:
    assert set(POLICIES) == set(PolicyName)
    assert sorted(BY_NUMBER) == [0, 1, 2, 3]


@pytest.mark.parametrize("policy_class", BY_NUMBER.values())
@settings(max_examples=10, deadline=None)
@example(offset=0, seed=587)  # a newcomer just after the clock's origin
@given(offset=st.integers(0, 1 << 55), seed=st.integers(0, 1000))
def test_no_clock_steps(policy_class: type[Policy], offset: int, seed: int) -> None:
    """Only differences of times count: another epoch of the clock, same turns."""

    def turns(start: int) -> list[list[int]]:
        simulation = Simulation(Engine(policy_class()), start)
        tenants = [
            simulation.add(n, 1 + (seed * (n + 3)) % 40, always(mixed(seed + n)))
            for n in range(3)
        ]
        tenants.append(
            simulation.add(3, 20, always(mixed(seed)), capped=True, priority=2)
        )
        simulation.run(start + S)
        return [[end - start for end, _ in one.grants] for one in tenants]

    assert turns(offset) == turns(offset + 10 * S)


@pytest.mark.parametrize("policy_class", BY_NUMBER.values())
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_python_and_cpp_take_the_same_turns(
    policy_class: type[Policy], data: st.DataObject
) -> None:
    path = LIBRARY.built()
    if path is None:
        pytest.skip("the native executor is not built")
    count = data.draw(st.integers(1, 6))
    drawn = [
        (
            data.draw(st.integers(1, 100)),
            data.draw(st.integers(0, 2)),
            data.draw(st.booleans()),
            data.draw(st.sampled_from([0, 3 * MS, 200 * MS])),
            data.draw(st.integers(MS // 5, LONGEST)),
        )
        for _ in range(count)
    ]

    def turns(engine: Engine) -> list[list[tuple[int, int]]]:
        simulation = Simulation(engine)
        tenants = [
            simulation.add(
                *(n, share, bursts(pause, 7, length)),
                priority=priority,
                capped=capped and policy_class.arbitrates,
            )
            for n, (share, priority, capped, pause, length) in enumerate(drawn)
        ]
        simulation.run(simulation.now_ns + S)
        return [one.grants for one in tenants]

    policy = policy_class()
    assert turns(Engine(policy)) == turns(NativeEngine(policy, path))
