"""The node's side of its devices' pages: gives out slots, sets terms, watches, reads.

Used from the node's one thread. A worker has a slot from its start to its end; what a
stopped or dead worker leaves behind is put in order here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xpool_protocol.control.token import LeaseClaims
from xpool_protocol.errors import UsageError

from xpool_server.arbiter.page import SLOTS, Page
from xpool_server.arbiter.policies import POLICIES, PolicyName
from xpool_server.arbiter.tenant import Place, Priority, Settings
from xpool_server.arbiter.turn import pass_on
from xpool_server.arbiter.watch import Seen, Verdict, Watch

WATCH_NS: Final = 50_000_000
"""How often a device with several tenants is looked at."""

STOPPED: Final = ("T", "t")
"""What ``state_of`` says of a process that a signal, or a debugger, has stopped."""
GONE: Final = "X"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A tenant's slice, as far as its turns go."""

    share_percent: int
    is_capped: bool = False
    priority: Priority = Priority.NORMAL

    @classmethod
    def of(cls, claims: LeaseClaims) -> Terms:
        """As a lease's token says; an unknown class is the normal one."""
        name = claims.priority.upper()
        known = name in Priority.__members__
        return cls(
            share_percent=claims.share_percent,
            is_capped=claims.mode == "capped",
            priority=Priority[name] if known else Priority.NORMAL,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a worker has had of its device; since its session began."""

    device_ns: int = 0
    """As measured: what is under way counts when it is over."""
    waiting_ns: int = 0
    longest_hold_ns: int = 0
    turns: int = 0
    held_ns: int = 0
    """Time that passed meanwhile: more than ``device_ns`` on a busy machine."""


class Desk:
    """One device."""

    def __init__(
        self,
        policy: PolicyName,
        settings: Settings | None = None,
        *,
        interrupts: bool = False,
    ) -> None:
        """Make a device's page.

        Args:
            policy: how its tenants take turns.
            settings: how long turns are.
            interrupts: its processors are its workers' alone, so that the system can
                interrupt an operation of the lowest class for a higher one.
        """
        self._policy = POLICIES[policy](settings)
        self.page = Page.create(self._policy)
        self.page.interrupts = int(interrupts)
        self._slots: dict[int, int] = {}
        self._watch = Watch()
        self.stalled: set[int] = set()
        """Workers that stood still while others waited, and do still."""
        self.passed_on = dict.fromkeys((Verdict.STALLED, Verdict.OVERRUN), 0)
        """How often a turn was, and why."""

    def assign(self, worker: int) -> int:
        """A slot for a new worker.

        Raises:
            UsageError: there are as many workers as there are slots.
        """
        taken = set(self._slots.values())
        free = next((slot for slot in range(SLOTS) if slot not in taken), None)
        if free is None:
            raise UsageError(f"a device has at most {SLOTS} workers")
        self._slots[worker] = free
        self.page.clear(free)
        self.page.slot(free).place = Place.IDLE
        self.page.slot_limit = max(taken | {free}) + 1
        return free

    def started(self, worker: int, pid: int) -> None:
        """The worker's process runs."""
        self.page.slot(self._slots[worker]).pid = pid

    def admit(self, worker: int, terms: Terms, now_ns: int) -> None:
        """A worker's session begins, or its terms change."""
        slot = self.page.slot(self._slots[worker])
        if not slot.share_percent:
            slot.virtual_ns = self.page.virtual_ns
        if bool(slot.is_capped) != terms.is_capped:
            slot.tokens_ns, slot.tokens_at_ns = 0, now_ns
        slot.share_percent = terms.share_percent
        slot.priority = terms.priority
        slot.is_capped = int(terms.is_capped)
        self.page.attention = 1

    def dismiss(self, worker: int) -> None:
        """A worker's session ends: it waits for nothing any more."""
        number = self._slots.get(worker)
        if number is not None:
            self.page.slot(number).is_leaving = 1
            self.page.wake(number)

    def call(self, worker: int) -> None:
        """The worker was sent something: it is to look between two operations."""
        number = self._slots.get(worker)
        if number is not None:
            self.page.slot(number).is_called = 1
            self.page.wake(number)

    def forget(self, worker: int) -> None:
        """A worker's process is gone."""
        number = self._slots.pop(worker, None)
        if number is None:
            return
        self.stalled.discard(worker)
        self.page.clear(number)
        if self.page.holder == number + 1:
            pass_on(self.page, time.monotonic_ns())

    def usage(self, worker: int) -> Usage:
        """What a worker has had so far; also of one that stands still."""
        number = self._slots.get(worker)
        if number is None:
            return Usage()
        slot = self.page.slot(number)
        measured_ns = slot.used_ns - slot.pending_ns
        return Usage(
            *(measured_ns, slot.waited_ns, slot.longest_ns, slot.turns, slot.held_ns)
        )

    def needs_watching(self) -> bool:
        """Whether ``watch`` is to be called every ``WATCH_NS``."""
        shares = (self.page.slot(one).share_percent for one in self._slots.values())
        return self._policy.arbitrates and sum(map(bool, shares)) > 1

    def watch(self, now_ns: int) -> list[tuple[int, Verdict]]:
        """Pass on the turn of a worker that stands still, or comes to no end.

        Returns:
            Whose turn it was, and why.
        """
        self._mark()
        page = self.page
        holder = page.holder - 1
        by_slot = {slot: worker for worker, slot in self._slots.items()}
        if holder < 0 or not self._waiting(except_for=holder):
            self._watch.look(None)
            return []
        if holder not in by_slot:  # it ended between two looks
            pass_on(page, now_ns)
            return []
        pid = page.slot(holder).pid
        seen = Seen(holder, page.grants, cpu_ns(pid), state_of(pid) == "R", now_ns)
        verdict = self._watch.look(seen)
        if verdict is Verdict.LEAVE:
            return []
        page.slot(holder).place = Place.PASSED
        pass_on(page, now_ns)
        self.passed_on[verdict] += 1
        if verdict is Verdict.STALLED:
            self.stalled.add(by_slot[holder])
        return [(by_slot[holder], verdict)]

    def _waiting(self, *, except_for: int) -> bool:
        places = {
            number: self.page.slot(number).place for number in self._slots.values()
        }
        places.pop(except_for, None)
        return any(one in (Place.ARRIVED, Place.WAITING) for one in places.values())

    def _mark(self) -> None:
        """Who is stopped stands still, also where it has nothing to do just now.

        Whoever has moved since its turn was passed on stands still no more.
        """
        for worker, number in self._slots.items():
            slot = self.page.slot(number)
            state = state_of(slot.pid) if slot.pid else GONE
            if state in STOPPED:
                self.stalled.add(worker)
            elif slot.place != Place.PASSED and state not in "ZX":
                self.stalled.discard(worker)


def cpu_ns(pid: int) -> int | None:
    """Processor time of a process; None if it is gone.

    Source: clock_getcpuclockid(3) makes the clock's number of the process's.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


def state_of(pid: int) -> str:
    """The letter of ``/proc/PID/stat``: R runs or would; X if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return GONE
    return stat.rpartition(")")[2].split()[0]


def descriptors(desks: Iterable[Desk]) -> list[int]:
    """What workers inherit."""
    return [desk.page.fileno for desk in desks]


def close(desks: Iterable[Desk]) -> None:
    """Let the pages' files go; mapped they stay until the process ends."""
    for desk in desks:
        os.close(desk.page.fileno)
