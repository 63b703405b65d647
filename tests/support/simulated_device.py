"""A device and its tenants in simulated time, driven as ``Turn`` drives them.

``Engine`` is what decides: the Python policies on plain tenants, or C++ on a page.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xpool_server.arbiter.device import PlainClock, charge, next_tenant
from xpool_server.arbiter.page import Page
from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.tenant import Place, PlainTenant, Tenant, ready_at_ns, refill

MS = 1_000_000
S = 1000 * MS


class Engine:
    """The policies in Python."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.clock = PlainClock()
        self.tenants: dict[int, Tenant] = {}

    def add(self, number: int, share: int, priority: int = 1, *, capped: bool) -> None:
        self.tenants[number] = PlainTenant(share, priority, int(capped))

    def next(self, now_ns: int) -> int | None:
        return next_tenant(self.policy, self.clock, self.tenants, now_ns)

    def charge(self, number: int, used_ns: int, now_ns: int, *, alone_ns: int) -> None:
        charge(
            *(self.policy, self.clock, self.tenants[number], used_ns, now_ns),
            alone_ns=alone_ns,
        )

    def must_yield(self, number: int, held_ns: int, other: int, now_ns: int) -> bool:
        mine, theirs = self.tenants[number], self.tenants[other]
        return self.policy.must_yield(mine, held_ns, theirs, now_ns)

    def refill(self, number: int, now_ns: int) -> int:
        return refill(self.tenants[number], self.policy.settings, now_ns)

    def ready_at_ns(self, number: int) -> int:
        return ready_at_ns(self.tenants[number], self.policy.settings)


class NativeEngine(Engine):
    """The same in C++, on a page."""

    def __init__(self, policy: Policy, library: Path) -> None:
        from xpool_server.native.library import NativeLibrary

        super().__init__(policy)
        self.page = Page.create(policy)
        functions = NativeLibrary(library)
        import ctypes

        pointer, number, word = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint64
        functions.declare(
            ("xs_page_next", (pointer, word), number),
            ("xs_page_must_yield", (pointer, number, word, number, word), number),
            (
                "xs_page_charge",
                (pointer, number, ctypes.c_int64, word, ctypes.c_int64),
                None,
            ),
            ("xs_page_refill", (pointer, number, word), ctypes.c_int64),
            ("xs_page_ready_at", (pointer, number), word),
        )
        self._call = functions.functions

    def add(self, number: int, share: int, priority: int = 1, *, capped: bool) -> None:
        slot = self.page.slot(number)
        slot.share_percent, slot.priority = share, priority
        slot.is_capped, slot.place = int(capped), Place.IDLE
        self.page.slot_limit = max(self.page.slot_limit, number + 1)
        self.tenants[number] = slot

    def next(self, now_ns: int) -> int | None:
        found: int = self._call["xs_page_next"](self.page.address, now_ns)
        return None if found < 0 else found

    def charge(self, number: int, used_ns: int, now_ns: int, *, alone_ns: int) -> None:
        self._call["xs_page_charge"](
            *(self.page.address, number, used_ns, now_ns, alone_ns)
        )

    def must_yield(self, number: int, held_ns: int, other: int, now_ns: int) -> bool:
        return bool(
            self._call["xs_page_must_yield"](
                *(self.page.address, number, held_ns, other, now_ns)
            )
        )

    def refill(self, number: int, now_ns: int) -> int:
        return int(self._call["xs_page_refill"](self.page.address, number, now_ns))

    def ready_at_ns(self, number: int) -> int:
        return int(self._call["xs_page_ready_at"](self.page.address, number))


Work = Iterator[tuple[int, int]]
"""Pauses before, and lengths of, a tenant's operations, in nanoseconds."""


def always(lengths: Callable[[], int]) -> Work:
    """A tenant that is never without an operation."""
    while True:
        yield 0, lengths()


def bursts(pause_ns: int, operations: int, length_ns: int) -> Work:
    """A tenant that sleeps between bursts."""
    while True:
        for at in range(operations):
            yield (pause_ns if at == 0 else 0), length_ns


@dataclass
class Simulated:
    """One tenant of a simulation, and what it got."""

    work: Work
    pause_ns: int = 0
    length_ns: int = 0
    grants: list[tuple[int, int]] = field(default_factory=list)
    """Of each operation: when it ended, and how long it ran."""
    waits: list[int] = field(default_factory=list)
    asked_ns: int = 0

    def advance(self) -> None:
        self.pause_ns, self.length_ns = next(self.work)

    def got_ns(self, from_ns: int, to_ns: int) -> int:
        """Device time within a window, an operation split where the window ends."""
        return sum(
            max(0, min(end, to_ns) - max(end - length, from_ns))
            for end, length in self.grants
        )


class Simulation:
    """One serial device; ``run`` may be called again and again."""

    def __init__(self, engine: Engine, start_ns: int = 10 * S) -> None:
        self.engine = engine
        self.now_ns = start_ns
        self.tenants: dict[int, Simulated] = {}
        self._wakes: list[tuple[int, int]] = []

    def add(
        self, number: int, share: int, work: Work, *, priority: int = 1, **more: Any
    ) -> Simulated:
        self.engine.add(number, share, priority, capped=more.get("capped", False))
        self.engine.tenants[number].tokens_at_ns = self.now_ns
        one = self.tenants[number] = Simulated(work)
        one.advance()
        heapq.heappush(self._wakes, (self.now_ns + one.pause_ns, number))
        return one

    def run(self, until_ns: int) -> None:
        while self.now_ns < until_ns:
            self._wake()
            holder = self.engine.next(self.now_ns)
            if holder is None:
                if not self._wakes:
                    return
                self.now_ns = max(self.now_ns, self._wakes[0][0])
                continue
            self._turn(holder, until_ns)

    def _wake(self) -> None:
        while self._wakes and self._wakes[0][0] <= self.now_ns:
            _, number = heapq.heappop(self._wakes)
            state = self.engine.tenants[number]
            self.tenants[number].asked_ns = self.now_ns
            if state.is_capped:
                self.engine.refill(number, self.now_ns)
                ready_ns = self.engine.ready_at_ns(number)
                if ready_ns > self.now_ns:
                    if state.left_ns:
                        state.left_ns += ready_ns - self.now_ns
                    heapq.heappush(self._wakes, (ready_ns, number))
                    continue
            state.since_ns, state.place = self.now_ns, Place.ARRIVED

    def _turn(self, holder: int, until_ns: int) -> None:
        engine, one = self.engine, self.tenants[holder]
        state = engine.tenants[holder]
        state.is_overdue = int(engine.policy.is_overdue(state, self.now_ns))
        state.place = Place.RUNNING
        one.waits.append(self.now_ns - state.since_ns)
        held_ns = 0
        while True:
            is_alone = engine.next(self.now_ns) is None
            self.now_ns += one.length_ns
            held_ns += one.length_ns
            one.grants.append((self.now_ns, one.length_ns))
            self._wake()
            alone_ns = one.length_ns if is_alone else 0
            engine.charge(holder, one.length_ns, self.now_ns, alone_ns=alone_ns)
            one.advance()
            following = engine.next(self.now_ns)
            is_spent = bool(state.is_capped) and state.tokens_ns <= 0
            is_out = following is not None and engine.must_yield(
                holder, held_ns, following, self.now_ns
            )
            if one.pause_ns or is_spent or is_out or self.now_ns >= until_ns:
                state.place, state.left_ns = Place.IDLE, self.now_ns
                heapq.heappush(self._wakes, (self.now_ns + one.pause_ns, holder))
                return
            if held_ns >= engine.policy.settings.quantum_ns:
                held_ns = 0
