"""Real processes take turns on a page; some of them are stopped or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import busy_tenant
from xpool_protocol.native_build import compiler
from xpool_server.arbiter.costs import DEFAULT_NS, Costs
from xpool_server.arbiter.desk import GONE, Desk, Terms, cpu_ns, state_of
from xpool_server.arbiter.native_costs import NativeCosts
from xpool_server.arbiter.page import Page
from xpool_server.arbiter.policies import PolicyName
from xpool_server.arbiter.tenant import Place, Priority
from xpool_server.arbiter.turn import NativeTurn, PythonTurn, Turn
from xpool_server.arbiter.watch import Verdict
from xpool_server.native.build import LIBRARY
from xpool_server.native.library import NativeLibrary

PATIENCE_S = 60.0


class Bench:
    """A desk, and the processes of its workers."""

    def __init__(
        self, policy: PolicyName = PolicyName.PRIORITY, core: int | None = None
    ) -> None:
        self.desk = Desk(policy, interrupts=core is not None)
        self.core = core
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.passed: list[tuple[int, Verdict]] = []

    def start(self, worker: int, terms: Terms, *times: float) -> None:
        slot = self.desk.assign(worker)
        fileno = self.desk.page.fileno
        process = subprocess.Popen(
            [
                *(sys.executable, busy_tenant.__file__),
                *(str(fileno), str(slot), *map(str, times)),
            ],
            stdout=subprocess.PIPE,
            pass_fds=[fileno],
        )
        if self.core is not None:
            os.sched_setaffinity(process.pid, {self.core})
        self.processes[worker] = process
        self.desk.started(worker, process.pid)
        self.desk.admit(worker, terms, time.monotonic_ns())
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"

    def until(self, is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Do what the node does, until it is so."""
        deadline = time.monotonic() + patience_s
        while not is_so():
            assert time.monotonic() < deadline, "it did not happen"
            self.passed += self.desk.watch(time.monotonic_ns())
            time.sleep(0.02)

    def used_ns(self) -> dict[int, int]:
        return {one: self.desk.usage(one).device_ns for one in self.processes}

    def share_after(self, device_s: float) -> dict[int, float]:
        """In percent, of the next so many seconds of the device's time."""
        before = self.used_ns()

        def spent_ns() -> int:
            return sum(self.used_ns().values()) - sum(before.values())

        self.until(lambda: spent_ns() >= device_s * 1e9)
        whole, after = spent_ns(), self.used_ns()
        return {one: 100 * (after[one] - before[one]) / whole for one in after}

    def kill(self, worker: int) -> None:
        with self.processes.pop(worker) as process:
            process.kill()

    def close(self) -> None:
        for worker in list(self.processes):
            self.kill(worker)


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    yield one
    one.close()


def terms(share: int, priority: Priority = Priority.NORMAL, **more: bool) -> Terms:
    return Terms(share_percent=share, priority=priority, **more)


def test_shares_are_kept(bench: Bench) -> None:
    for worker, share in enumerate((15, 25, 60)):
        bench.start(worker, terms(share), (0.1, 1.0, 3.0)[worker])
    got = bench.share_after(2.0)
    for worker, share in enumerate((15, 25, 60)):
        assert abs(got[worker] - share) < 3


def test_terms_change_while_it_runs(bench: Bench) -> None:
    bench.start(0, terms(20), 1.0)
    bench.start(1, terms(80), 1.0)
    bench.share_after(0.3)
    bench.desk.admit(0, terms(70), time.monotonic_ns())
    bench.desk.admit(1, terms(30), time.monotonic_ns())
    assert abs(bench.share_after(1.5)[0] - 70) < 4


def test_a_killed_holder_leaves_the_device_free(bench: Bench) -> None:
    bench.start(0, terms(50), 0.5)
    bench.start(1, terms(50), 0.5)
    for _ in range(3):  # once it will have had the device
        bench.share_after(0.1)
        bench.kill(0)
        bench.desk.forget(0)
        assert bench.share_after(0.3)[1] > 99.0
        bench.start(0, terms(50), 0.5)


def test_a_stopped_tenant_is_passed_over_and_marked(bench: Bench) -> None:
    """Its neighbours go on with their shares; it goes on when it is continued."""
    bench.start(0, terms(40), 0.5)
    bench.start(1, terms(20), 0.5)
    bench.start(2, terms(40), 0.5)
    bench.share_after(0.2)
    os.kill(bench.processes[0].pid, signal.SIGSTOP)
    bench.until(lambda: (0, Verdict.STALLED) in bench.passed)
    assert bench.desk.stalled == {0}
    got = bench.share_after(1.5)
    assert got[0] < 1
    assert abs(got[1] - 100 / 3) < 5
    os.kill(bench.processes[0].pid, signal.SIGCONT)
    bench.until(lambda: not bench.desk.stalled)
    assert bench.share_after(1.0)[0] > 30


def test_who_is_stopped_without_work_is_marked(bench: Bench) -> None:
    """It stands in no queue, and no turn of it has to be passed on."""
    for worker in (0, 1):
        process = subprocess.Popen(["sleep", "60"])
        bench.processes[worker] = process
        bench.desk.assign(worker)
        bench.desk.started(worker, process.pid)
        bench.desk.admit(worker, terms(50), time.monotonic_ns())
    os.kill(bench.processes[1].pid, signal.SIGSTOP)
    bench.until(lambda: bench.desk.stalled == {1})
    os.kill(bench.processes[1].pid, signal.SIGCONT)
    bench.until(lambda: not bench.desk.stalled)
    assert not bench.passed


def test_an_operation_without_end_lets_others_run_beside_it(bench: Bench) -> None:
    """And it is charged: afterwards the others catch up."""
    bench.start(0, terms(50), 1.0)
    bench.start(1, terms(50), 1500.0)
    bench.until(lambda: (1, Verdict.OVERRUN) in bench.passed)
    assert bench.desk.passed_on[Verdict.OVERRUN] >= 1
    before = bench.used_ns()[0]
    bench.until(lambda: bench.used_ns()[0] - before > 50_000_000)


@pytest.mark.slow
def test_an_operation_of_half_a_minute(bench: Bench) -> None:
    """Others wait for half a second of it; how long it kept the device is told."""
    bench.start(0, terms(50), 1.0, 200.0)  # asks again and again, and leaves a core
    bench.start(1, terms(50), 30_000.0)
    bench.until(lambda: (1, Verdict.OVERRUN) in bench.passed)
    waited_ns = bench.desk.usage(0).waiting_ns
    bench.until(lambda: bench.desk.usage(1).device_ns > 29e9, 10 * PATIENCE_S)
    assert bench.desk.usage(0).waiting_ns - waited_ns < 5e9
    assert bench.desk.usage(1).longest_hold_ns > 29e9


def test_a_high_class_goes_first(bench: Bench) -> None:
    bench.start(0, terms(80, Priority.LOW), 1.0)
    bench.start(1, terms(20, Priority.HIGH), 1.0)
    assert bench.share_after(1.0)[1] > 90


def test_a_higher_class_interrupts_an_operation() -> None:
    """Where the device's processor is its workers' alone, and the system can.

    1. A tenant of the lowest class is in an operation that takes 3 s.
    2. One of a higher class has turn after turn before that ends.
    3. The operation ends all the same, and is charged.
    """
    bench = Bench(core=max(os.sched_getaffinity(0)))
    try:
        bench.start(0, terms(50, Priority.LOW), 3000.0)
        bench.until(lambda: bench.desk.page.holder == 1)
        bench.start(1, terms(50, Priority.NORMAL), 0.1, 5.0)
        bench.until(lambda: bench.desk.usage(1).turns >= 5)
        assert bench.desk.usage(0).device_ns == 0
        bench.until(lambda: bench.desk.usage(0).device_ns > 0)
    finally:
        bench.close()


def test_equals_do_not_interrupt() -> None:
    bench = Bench(core=max(os.sched_getaffinity(0)))
    try:
        bench.start(0, terms(50), 300.0)
        bench.until(lambda: bench.desk.page.holder == 1)
        bench.start(1, terms(50), 0.1, 5.0)
        bench.until(lambda: bench.desk.usage(1).turns >= 1)
        assert bench.desk.usage(0).device_ns > 0
    finally:
        bench.close()


def test_what_is_done_between_turns_is_charged(bench: Bench) -> None:
    bench.start(0, terms(100), 0.1, 20.0, 20.0)
    bench.until(lambda: bench.used_ns()[0] > 200_000_000)
    # Of every 25 ms of processor time only 5 are within a turn.
    turns = bench.desk.usage(0).turns
    assert turns < 20


def test_a_cap_holds_on_an_idle_device(bench: Bench) -> None:
    bench.start(0, terms(30, is_capped=True), 1.0)
    began_ns, before = time.monotonic_ns(), bench.used_ns()[0]
    bench.until(lambda: time.monotonic_ns() - began_ns > 1_500_000_000)
    whole_ns = time.monotonic_ns() - began_ns
    used_ns = bench.used_ns()[0] - before
    # At most the rate, the burst and one operation: a busy machine may give less.
    assert used_ns <= 0.30 * whole_ns + 25_000_000


def test_who_leaves_waits_for_nothing(bench: Bench) -> None:
    bench.start(0, terms(1, is_capped=True), 50.0)
    slot = bench.desk.page.slot(0)
    bench.until(lambda: bench.desk.usage(0).device_ns > 0)
    bench.until(lambda: slot.place == Place.IDLE)
    before = bench.used_ns()[0]
    bench.desk.dismiss(0)
    bench.until(lambda: bench.used_ns()[0] - before > 100_000_000)


def test_null_lets_everybody_run() -> None:
    bench = Bench(PolicyName.NULL)
    try:
        bench.start(0, terms(1), 1.0)
        bench.start(1, terms(99), 1.0)
        assert 20 < bench.share_after(1.0)[0] < 80
        assert not bench.desk.needs_watching()
    finally:
        bench.close()


def test_a_slot_is_given_again(bench: Bench) -> None:
    assert [bench.desk.assign(one) for one in (7, 8, 9)] == [0, 1, 2]
    bench.desk.forget(8)
    assert bench.desk.assign(10) == 1


def test_processes_that_are_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert cpu_ns(process.pid) is not None
    process.wait()
    assert cpu_ns(process.pid) is None
    assert state_of(process.pid) == GONE
    assert not Path(f"/proc/{process.pid}").exists()


# ---- how long one kept the others waiting ----


@pytest.fixture(params=["python", "native"])
def lone_turn(request: pytest.FixtureRequest) -> tuple[Turn, Desk]:
    """In slot 0; slot 1 is a worker's that has nothing to do yet."""
    desk = Desk(PolicyName.PRIORITY)
    for worker in (0, 1):
        desk.assign(worker)
        desk.admit(worker, terms(50), time.monotonic_ns())
    if request.param == "python":
        return PythonTurn(Page(desk.page.fileno), 0), desk
    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    return NativeTurn(NativeLibrary(LIBRARY.build()), desk.page.fileno, 0), desk


def test_who_came_during_ones_last_operation_has_waited(
    lone_turn: tuple[Turn, Desk],
) -> None:
    """Nobody was there when it began, and nobody looks between it and the end."""
    turn, desk = lone_turn
    turn.begin()
    other = desk.page.slot(1)
    other.since_ns, other.place = time.monotonic_ns(), Place.ARRIVED
    desk.page.attention = 1
    busy_tenant.burn(40_000_000)
    turn.end()
    assert 40_000_000 <= desk.usage(0).longest_hold_ns < 10**10
    assert desk.page.holder == 2


def test_who_comes_during_one_long_operation_loses_nothing_of_it(
    lone_turn: tuple[Turn, Desk],
) -> None:
    """It begins where the device's time was when it came, not at the operation's end.

    Otherwise operations that nobody can interrupt would be paid for by nobody.
    """
    turn, desk = lone_turn
    page, slot = desk.page, desk.page.slot(0)
    turn.begin()
    busy_tenant.burn(100_000_000)
    slot.came_ns = time.monotonic_ns()
    busy_tenant.burn(300_000_000)
    turn.end()
    assert slot.virtual_ns >= 2 * 400_000_000
    assert 0.05 < page.virtual_ns / slot.virtual_ns < 0.6  # a quarter, if alone here


def test_alone_one_keeps_nobody_waiting(lone_turn: tuple[Turn, Desk]) -> None:
    turn, desk = lone_turn
    turn.begin()
    busy_tenant.burn(40_000_000)
    turn.check()
    turn.end()
    assert desk.usage(0).longest_hold_ns == 0


def test_waiting_for_ones_own_cap_is_no_starvation(
    lone_turn: tuple[Turn, Desk],
) -> None:
    """A lower class is not served first because it had used up what it may have."""
    turn, desk = lone_turn
    now_ns, slot = time.monotonic_ns(), desk.page.slot(0)
    desk.admit(0, terms(10, Priority.LOW, is_capped=True), now_ns)
    slot.left_ns, slot.tokens_ns, slot.tokens_at_ns = now_ns, -19_000_000, now_ns
    turn.begin()  # 20 ms of tokens at 10 %
    assert slot.since_ns >= now_ns + 150_000_000
    assert slot.left_ns >= now_ns + 150_000_000
    assert slot.waited_ns >= 150_000_000
    turn.end()


def test_what_is_under_way_is_charged_but_not_used_yet(
    lone_turn: tuple[Turn, Desk],
) -> None:
    """An estimate may be far off; what was used is what the device has measured."""
    turn, desk = lone_turn
    native = isinstance(turn, NativeTurn)
    costs = NativeCosts(NativeLibrary(LIBRARY.build())) if native else Costs()
    turn.estimate_by(costs)
    turn.measured(1000)  # of before
    turn.begin()
    costs.submit(1, 2)
    costs.end_span()
    turn.end()
    assert desk.usage(0).device_ns == 0
    assert desk.page.slot(0).virtual_ns == 2 * DEFAULT_NS
    costs.measured(7000)
    turn.measured(8000)
    turn.begin()
    turn.end()
    assert desk.usage(0).device_ns == 7000
    assert desk.page.slot(0).virtual_ns == 2 * 7000


# ---- the node's call while a worker waits ----


@pytest.fixture(params=["python", "native"])
def waiting_turn(request: pytest.FixtureRequest, bench: Bench) -> Turn:
    """Of a worker beside one that keeps the device for seconds."""
    bench.start(0, terms(50), 20_000.0)
    bench.until(lambda: bench.desk.page.holder == 1)
    slot = bench.desk.assign(1)
    bench.desk.started(1, os.getpid())
    bench.desk.admit(1, terms(50), time.monotonic_ns())
    if request.param == "python":
        return PythonTurn(Page(bench.desk.page.fileno), slot)
    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    return NativeTurn(NativeLibrary(LIBRARY.build()), bench.desk.page.fileno, slot)


def test_a_call_ends_the_wait_for_a_turn(waiting_turn: Turn, bench: Bench) -> None:
    threading.Timer(0.2, bench.desk.call, (1,)).start()
    began_s = time.monotonic()
    assert not waiting_turn.begin(heeds_calls=True)
    assert 0.1 < time.monotonic() - began_s < 5, "the other's operation takes 20 s"
    assert bench.desk.page.holder == 1
    assert bench.desk.page.slot(1).place == Place.IDLE
    waiting_turn.end()
    assert not waiting_turn.check(heeds_calls=True), "nobody has read it yet"

    waiting_turn.heard()
    bench.kill(0)
    bench.desk.forget(0)
    assert waiting_turn.begin(heeds_calls=True)
    assert waiting_turn.is_ours
    assert waiting_turn.check(heeds_calls=True)
    waiting_turn.end()


def test_a_call_ends_the_wait_for_tokens(waiting_turn: Turn, bench: Bench) -> None:
    bench.desk.admit(1, terms(1, is_capped=True), time.monotonic_ns())
    bench.desk.page.slot(1).tokens_ns = -(10**9)  # 100 s of them at 1 %
    threading.Timer(0.2, bench.desk.call, (1,)).start()
    began_s = time.monotonic()
    assert not waiting_turn.begin(heeds_calls=True)
    assert 0.1 < time.monotonic() - began_s < 5


def test_who_does_not_heed_calls_waits_on(waiting_turn: Turn, bench: Bench) -> None:
    bench.desk.call(1)
    threading.Timer(0.3, lambda: (bench.kill(0), bench.desk.forget(0))).start()
    assert waiting_turn.begin()
    waiting_turn.end()
