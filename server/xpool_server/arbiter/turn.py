"""A worker's turns at its device, in C++ or in Python.

``begin`` waits until the device is the worker's, ``check`` makes room between two
records, ``end`` gives the device up. Used by the thread that runs the operations.
"""

# ruff: noqa: D102  the class Turn documents the methods

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from xpool_protocol.errors import UsageError

from xpool_server.arbiter.costs import Costs
from xpool_server.arbiter.device import charge, next_tenant
from xpool_server.arbiter.native_costs import NativeCosts
from xpool_server.arbiter.page import Page
from xpool_server.arbiter.tenant import Place, Priority, arrive, ready_at_ns, refill

if TYPE_CHECKING:
    from xpool_server.native.library import NativeLibrary, NativeSession

PATIENCE_S: Final = 0.1
"""Who waits looks around so often, should a wake-up have been lost."""


NOTE_WORK: Final = ctypes.CFUNCTYPE(None, ctypes.c_int32)


def _note_nothing(_begins: bool) -> None:
    """Where nobody measures pieces of work."""


class Turn:
    """Nobody else uses the device."""

    is_ours = False
    _note_work: Callable[[bool], None] = staticmethod(_note_nothing)

    @property
    def is_called(self) -> bool:
        """The node has sent something that nobody has read yet."""
        return False

    def heard(self) -> None:
        """What the node has sent is about to be read."""

    def begin(self, *, heeds_calls: bool = False) -> bool:
        """Wait until the device is ours.

        Args:
            heeds_calls: or until the node has sent something.

        Returns:
            False if it has: no record may follow before somebody has read that.
        """
        return True

    def check(self, *, heeds_calls: bool = False) -> bool:
        """Between two records: make room for others if it is their turn.

        Args and result are those of ``begin``.
        """
        return True

    def end(self) -> None:
        """Nothing is to be done for now."""

    def measured(self, total_ns: int) -> None:
        """The device's own clock says how much of its time is used by now.

        From then on that counts, and not this thread's processor time.
        """

    def estimate_by(self, costs: Costs) -> None:
        """What is submitted counts by estimate until ``measured`` tells of it."""

    def note_work_by(self, note_work: Callable[[bool], None]) -> None:
        """Tell when a turn is interrupted between two records, and when it goes on.

        What the device is given in between is others', and no part of our piece of
        work.

        Args:
            note_work: is told whether work begins, or ends for now.
        """
        self._note_work = note_work

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Around a wait for something that is not the device."""
        was_ours = self.is_ours
        if was_ours:
            self._note_work(False)
            self.end()
        try:
            yield
        finally:
            if was_ours:
                self.begin()
                self._note_work(True)


class NativeTurn(Turn):
    """``Turn`` of ``native/arbiter.h``."""

    def __init__(self, library: NativeLibrary, fileno: int, slot: int) -> None:
        """Take turns in a slot of the page that a descriptor leads to.

        Raises:
            UsageError: the descriptor leads to no such page.
        """
        pointer = ctypes.c_void_p
        library.declare(
            ("xs_turn_new", (ctypes.c_int32, ctypes.c_int32), pointer),
            ("xs_turn_begin", (pointer, ctypes.c_int32), None),
            ("xs_turn_check", (pointer, ctypes.c_int32), ctypes.c_int32),
            ("xs_turn_end", (pointer,), None),
            ("xs_turn_measured", (pointer, ctypes.c_uint64), None),
            ("xs_set_turn", (pointer, pointer), None),
            ("xs_turn_estimate_by", (pointer, pointer), None),
            ("xs_turn_note_work_by", (pointer, NOTE_WORK), None),
        )
        self._call = library.functions
        # Of the process's lifetime, as its one session is.
        self._pointer = self._call["xs_turn_new"](fileno, slot)
        if not self._pointer:
            raise UsageError(f"descriptor {fileno} is no arbiter's page")
        self._slot = Page(fileno).slot(slot)

    @property
    def is_called(self) -> bool:
        return bool(self._slot.is_called)

    def heard(self) -> None:
        self._slot.is_called = 0

    def give_to(self, session: NativeSession) -> None:
        """Let a session's records be executed in our turns."""
        self._call["xs_set_turn"](session.pointer, self._pointer)

    def estimate_by(self, costs: Costs) -> None:
        assert isinstance(costs, NativeCosts)
        self._call["xs_turn_estimate_by"](self._pointer, costs.pointer)

    def note_work_by(self, note_work: Callable[[bool], None]) -> None:
        super().note_work_by(note_work)
        self._callback = NOTE_WORK(lambda begins: note_work(bool(begins)))
        self._call["xs_turn_note_work_by"](self._pointer, self._callback)

    def begin(self, *, heeds_calls: bool = False) -> bool:
        self._call["xs_turn_begin"](self._pointer, heeds_calls)
        self.is_ours = not (heeds_calls and self.is_called)
        return self.is_ours

    def check(self, *, heeds_calls: bool = False) -> bool:
        return bool(self._call["xs_turn_check"](self._pointer, heeds_calls))

    def measured(self, total_ns: int) -> None:
        self._call["xs_turn_measured"](self._pointer, total_ns)

    def end(self) -> None:
        self._call["xs_turn_end"](self._pointer)
        self.is_ours = False


class PythonTurn(Turn):
    """The same without a compiler: what C++ does by compare-and-swap takes a lock.

    All workers of a page are of one kind.
    """

    def __init__(self, page: Page, slot: int) -> None:
        self._page = page
        self._number = slot
        self._slot = page.slot(slot)
        self._policy = page.policy()
        # Our own description of the file: locks of one are no locks to itself.
        self._lock = os.open(f"/proc/self/fd/{page.fileno}", os.O_RDWR)
        self._deadline_ns = 0
        self._used_at_ns = 0
        self._held_ns = 0
        self._is_alone = True
        self._has_begun = False
        self._heeds_calls = False
        self._priority = -1
        self._costs: Costs | None = None
        self._measured_ns: int | None = None
        self._settled_at_ns = 0

    @property
    def is_called(self) -> bool:
        return bool(self._slot.is_called)

    def heard(self) -> None:
        self._slot.is_called = 0

    def measured(self, total_ns: int) -> None:
        if self._measured_ns is None:
            self._used_at_ns = total_ns
        self._measured_ns = total_ns

    def estimate_by(self, costs: Costs) -> None:
        self._costs = costs

    def _used_now(self) -> int:
        if self._measured_ns is not None:
            return self._measured_ns + self._pending_ns
        return time.thread_time_ns()

    @property
    def _pending_ns(self) -> int:
        if self._costs is None or self._measured_ns is None:
            return 0
        return self._costs.pending_ns

    def begin(self, *, heeds_calls: bool = False) -> bool:
        self._heeds_calls = heeds_calls
        self._begin()
        return not self._is_interrupted

    @property
    def _is_interrupted(self) -> bool:
        return self._heeds_calls and self.is_called

    def _begin(self) -> None:
        if not self._has_begun and self._measured_ns is None:
            self._used_at_ns = self._used_now()
        self._has_begun = True
        if self._priority != self._slot.priority:
            self._adapt()
        if self._policy.arbitrates and self._slot.share_percent and not self.is_ours:
            self._acquire()

    def check(self, *, heeds_calls: bool = False) -> bool:
        self._heeds_calls = heeds_calls
        if not self._is_interrupted and self.is_ours:
            self._make_room()
        return not self._is_interrupted

    def _make_room(self) -> None:
        page = self._page
        is_holder = page.holder == self._number + 1
        if is_holder and not page.attention and not self._deadline_ns:
            return
        now_ns = time.monotonic_ns()
        if is_holder and not page.attention and now_ns < self._deadline_ns:
            return
        self._look(now_ns, is_holder=is_holder)

    def end(self) -> None:
        if not self.is_ours:
            used_ns = self._used_now()
            self._slot.used_ns += used_ns - self._used_at_ns
            self._slot.pending_ns = self._pending_ns
            self._used_at_ns = used_ns
            return
        with self._locked():
            now_ns = time.monotonic_ns()
            self._note_hold(now_ns, is_holder=self._is_holder())
            self._settle(now_ns)
            self._give_away()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone on the page; but never for ever: a holder may have been stopped."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            with suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.0002)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _acquire(self) -> None:
        slot, page = self._slot, self._page
        began_ns = time.monotonic_ns()
        asked_ns = self._wait_for_tokens(began_ns)
        slot.since_ns = asked_ns
        slot.place = Place.ARRIVED
        while True:
            seen = page.wake_count(self._number)
            with self._locked():
                if page.holder == 0 or self._interrupts(asked_ns):
                    page.holder = self._number + 1
                if page.holder == self._number + 1:
                    if slot.place == Place.ARRIVED:
                        arrive(slot, self._policy.settings, page.virtual_ns)
                    self._start(began_ns)
                    return
                if slot.is_leaving or self._is_interrupted:
                    slot.place = Place.IDLE
                    return
                if slot.place == Place.PASSED:
                    slot.place = Place.ARRIVED
                self._note_wait()
                page.attention = 1
            page.wait(self._number, seen, PATIENCE_S)

    def _adapt(self) -> None:
        """The lowest class runs when nobody else would; see ``native/arbiter.cpp``."""
        slot = self._slot
        self._priority, slot.yields_at_once = slot.priority, 0
        is_cpu = self._measured_ns is None
        if not (self._page.interrupts and is_cpu and self._policy.has_classes):
            return
        is_lowest = slot.priority == Priority.LOW
        kind = os.SCHED_IDLE if is_lowest else os.SCHED_OTHER
        with suppress(PermissionError):  # back again is not everybody's right
            os.sched_setscheduler(0, kind, os.sched_param(0))
            slot.yields_at_once = int(is_lowest)

    def _interrupts(self, now_ns: int) -> bool:
        """Take a lower class's turn in the middle of an operation."""
        holder = self._page.holder - 1
        if holder in (-1, self._number):
            return False
        other = self._page.slot(holder)
        is_lower = other.priority < self._slot.priority
        if not other.yields_at_once or other.is_overdue or not is_lower:
            return False
        other.since_ns, other.place = now_ns, Place.INTERRUPTED
        other.came_ns = other.came_ns or now_ns
        return True

    def _note_wait(self) -> None:
        """Whoever has the turn is not alone any more."""
        number = self._page.holder - 1
        if number >= 0:
            holder = self._page.slot(number)
            holder.came_ns = holder.came_ns or time.monotonic_ns()

    def _start(self, began_ns: int) -> None:
        slot, now_ns = self._slot, time.monotonic_ns()
        self.is_ours, self._held_ns = True, 0
        slot.is_overdue = int(self._policy.is_overdue(slot, now_ns))
        slot.place = Place.RUNNING
        slot.turns += 1
        slot.waited_ns += now_ns - began_ns
        self._page.grants += 1
        self._settled_at_ns = now_ns
        self._set_deadline(now_ns)

    def _wait_for_tokens(self, began_ns: int) -> int:
        """When it has; that is no absence, and nobody has kept it waiting."""
        slot, page = self._slot, self._page
        now_ns = began_ns
        while slot.is_capped and not slot.is_leaving and not self._is_interrupted:
            now_ns = time.monotonic_ns()
            refill(slot, self._policy.settings, now_ns)
            missing_s = (ready_at_ns(slot, self._policy.settings) - now_ns) / 1e9
            if missing_s <= 0:
                break
            seen = page.wake_count(self._number)
            page.wait(self._number, seen, min(missing_s, PATIENCE_S))
        if slot.left_ns:
            slot.left_ns += now_ns - began_ns
        return now_ns

    def _next(self, now_ns: int) -> int | None:
        page = self._page
        return next_tenant(self._policy, page, page.tenants(), now_ns)

    def _is_holder(self) -> bool:
        return bool(self._page.holder == self._number + 1)

    def _note_hold(self, now_ns: int, *, is_holder: bool) -> None:
        """How long it went on although it was to stop.

        Whoever had no end set and was passed over did so for an operation that began
        when it last settled; who was alone, since somebody has come.
        """
        since_ns = self._deadline_ns or (now_ns if is_holder else self._settled_at_ns)
        following = self._next(now_ns) if is_holder and self._is_alone else None
        if following is not None:
            since_ns = min(since_ns, self._page.slot(following).since_ns)
        self._slot.longest_ns = max(self._slot.longest_ns, now_ns - since_ns)

    def _settle(self, now_ns: int) -> None:
        used_ns = self._used_now()
        since_ns, self._used_at_ns = used_ns - self._used_at_ns, used_ns
        is_measured = self._measured_ns is not None
        self._held_ns += now_ns - self._settled_at_ns if is_measured else since_ns
        self._slot.held_ns += now_ns - self._settled_at_ns
        alone_ns = since_ns if self._is_alone else 0
        came_ns, took_ns = self._slot.came_ns, now_ns - self._settled_at_ns
        if self._is_alone and came_ns and took_ns > 0:
            before_ns = max(0, min(came_ns, now_ns) - self._settled_at_ns)
            alone_ns = since_ns * before_ns // took_ns
        self._settled_at_ns = now_ns
        charge(
            *(self._policy, self._page, self._slot, since_ns, now_ns),
            alone_ns=max(0, alone_ns),
        )
        self._slot.pending_ns = self._pending_ns

    def _set_deadline(self, now_ns: int) -> None:
        self._slot.came_ns = self._page.attention = 0
        quantum_ns = self._policy.settings.quantum_ns
        lefts = []
        self._is_alone = self._next(now_ns) is None
        if not self._is_alone:
            left_ns = quantum_ns - self._held_ns
            lefts.append(left_ns if left_ns > 0 else quantum_ns)
        if self._slot.is_capped:
            lefts.append(max(1, self._slot.tokens_ns))
        self._deadline_ns = now_ns + min(lefts) if lefts else 0

    def _look(self, now_ns: int, *, is_holder: bool) -> None:
        with self._locked():
            self._note_hold(now_ns, is_holder=is_holder)
            self._settle(now_ns)
            if is_holder and not self._must_leave(now_ns):
                if self._held_ns >= self._policy.settings.quantum_ns:
                    self._held_ns = 0
                self._set_deadline(now_ns)
                return
            self._note_work(False)
            if is_holder:
                self._give_away()
        self.is_ours = False
        self._begin()
        self._note_work(True)

    def _must_leave(self, now_ns: int) -> bool:
        slot = self._slot
        if (slot.is_capped and slot.tokens_ns <= 0) or not slot.share_percent:
            return True
        following = self._next(now_ns)
        return following is not None and self._policy.must_yield(
            slot, self._held_ns, self._page.slot(following), now_ns
        )

    def _give_away(self) -> None:
        self.is_ours, self._deadline_ns = False, 0
        self._slot.left_ns = time.monotonic_ns()
        self._slot.place = Place.IDLE
        if self._page.holder != self._number + 1:
            return  # the node has given it to others
        pass_on(self._page, time.monotonic_ns())


def pass_on(page: Page, now_ns: int) -> int | None:
    """Give the device to whoever is next; nobody uses it now.

    Returns:
        The slot that has it; None if nobody waits.
    """
    following = next_tenant(page.policy(), page, page.tenants(), now_ns)
    page.holder = 0 if following is None else following + 1
    if following is not None:
        slot = page.slot(following)
        if slot.place == Place.INTERRUPTED:  # it goes on by itself
            slot.is_overdue = int(page.policy().is_overdue(slot, now_ns))
            slot.place = Place.RUNNING
            page.attention = 1
        page.wake(following)
    return following
