"""Requests for slices: asked, granted, told where they stand, taken back.

The fifth part of ``registry.Registry``, which has the lock, the clock and the state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from xpool_protocol.errors import LeaseExpired, NoCapacity

from xpool_registry import decide
from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    CancelRequest,
    Moment,
    ReleaseLease,
)
from xpool_registry.events import (
    LeaseGranted,
    RegistryEvent,
    RequestLeft,
    RequestQueued,
    StartPromised,
)
from xpool_registry.looking import refusal_of
from xpool_registry.observations import Observation, RequestAsked
from xpool_registry.queueing import (
    check_may_wait,
    check_ticket,
    request_from,
    request_id_of,
)
from xpool_registry.schedule import schedule
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.tenancy import check_same_tenant
from xpool_registry.turns import in_order
from xpool_registry.views import Answer, HeldLease, QueuePlace

# A look at the queue ends when it has promised something; each class has one head.
MAX_PASSES = 4

PASS_EVERY_NS = 1_000_000_000
"""Time alone may help somebody: a promise comes due, a quota's past fades."""

REST_FACTOR = 100
"""Looking at all leases for a start or for who could leave takes tens of milliseconds
in a large pool: it is done for a hundredth of the time, and at most once a second."""

ASK_AGAIN_FIRST_MS = 200
ASK_AGAIN_MS = 1000
"""So often clients that wait ask again."""


class Asking:
    """See the head of this file. Every public method may be called from any thread."""

    settings: Settings
    freed: threading.Event
    _lock: threading.Lock
    _clock: Callable[[], Moment]
    _state: State
    _new_id: Callable[[], str]
    _is_dirty: bool
    _passed_ns: int
    _order: dict[str, int]
    _reasons: dict[str, str]
    _rests_ns: dict[str, int]

    def _commit(self, facts: Sequence[RegistryEvent | Observation], at: Moment) -> None:
        raise NotImplementedError("the registry stores and applies")

    def _held(
        self, lease: LeaseGranted, at: Moment, *, with_token: bool = False
    ) -> HeldLease:
        raise NotImplementedError("the registry signs tokens")

    def acquire(self, command: AcquireLease) -> HeldLease:
        """One slice, now or never; see ``ask``."""
        return self.acquire_group(AcquireGroup(slice=command, device_count=1))[0]

    def acquire_group(self, command: AcquireGroup) -> list[HeldLease]:
        """Slices of several devices, now or never; see ``ask``."""
        answer = self.ask(replace(command, wait_ms=0))
        assert answer.place is None
        return answer.leases

    def ask(self, command: AcquireGroup) -> Answer:
        """Grant a request, or tell where it stands in the queue.

        With a ticket the same may be asked again and is granted once.

        Raises:
            NoCapacity: it cannot be granted now and may not wait, or never can.
            LeaseExpired: it was granted, and its leases are over.
            UsageError: a value out of bounds.
        """
        with self._lock:
            at = self._clock()
            self._commit(decide.expire(self._state, at), at)
            request_id = ""
            if command.ticket:
                check_ticket(command.ticket)
                request_id = request_id_of(command.ticket)
                known = self._known(request_id, command, at)
                if known is not None:
                    return known
            request = request_from(command, request_id, at, self.settings)
            leases = self._grant_or_none(request, at)
            if leases is not None:
                return Answer([self._held(one, at, with_token=True) for one in leases])
            if not command.wait_ms:
                reason = self._reasons.pop(request_id, "")
                raise NoCapacity(
                    refusal_of(self._state, request, reason, at, self.settings)
                )
            check_may_wait(self._state, request)
            self._commit([request], at)
            self._is_dirty = True  # whoever heads the queue gets a promise
            self.freed.set()
            return Answer([], self._place_of(request, at))

    def _known(
        self, request_id: str, command: AcquireGroup, at: Moment
    ) -> Answer | None:
        """The answer to a request that was asked before; None: it was not."""
        state = self._state
        waiting = state.waiting.get(request_id)
        if waiting is not None:
            check_same_tenant(waiting.tenant, command.slice.tenant)
            self._commit([RequestAsked(request_id=request_id)], at)
            return Answer([], self._place_of(waiting, at))
        live = state.of_request.get(request_id)
        if live:
            leases = [*live.values()]
            check_same_tenant(leases[0].tenant, command.slice.tenant)
            return Answer([self._held(one, at, with_token=True) for one in leases])
        gone = state.gone.get(request_id)
        if gone is not None:
            raise LeaseExpired(f"this request is over ({gone}): ask anew")
        return None

    def _grant_or_none(
        self, request: RequestQueued, at: Moment
    ) -> list[LeaseGranted] | None:
        """Let it start now if nobody is before it, or it fits beside them."""
        if self._is_dirty and self._state.waiting:
            self._pass(at)
        plan = schedule(
            self._state,
            at,
            self.settings,
            self._new_id,
            extra=request,
            only_extra=True,
        )
        self._reasons.update(plan.reasons)
        self._commit(plan.facts, at)
        return plan.granted.get(request.request_id)

    def _pass(self, at: Moment) -> None:
        """Let those start who can; see ``schedule``."""
        self._is_dirty = False
        for _ in range(MAX_PASSES):
            plan = schedule(
                *(self._state, at, self.settings, self._new_id),
                resting=self._resting(at),
            )
            if plan.in_vain:
                took_ns = self._clock().now_ns - at.now_ns
                until_ns = at.now_ns + max(PASS_EVERY_NS, REST_FACTOR * took_ns)
                self._rests_ns |= dict.fromkeys(plan.in_vain, until_ns)
            self._reasons = plan.reasons
            self._commit(plan.facts, at)
            if not any(isinstance(one, StartPromised) for one in plan.facts):
                break
        self._passed_ns = at.now_ns
        self._order = {name: i for i, name in enumerate(plan.order, 1)}

    def _resting(self, at: Moment) -> dict[str, int]:
        """Requests for which a start was looked for in vain just now."""
        self._rests_ns = {
            name: until_ns
            for name, until_ns in self._rests_ns.items()
            if at.now_ns < until_ns
        }
        return self._rests_ns

    def _place_of(self, request: RequestQueued, at: Moment) -> QueuePlace:
        state, request_id = self._state, request.request_id
        promise = state.promises.get(request_id)
        place = self._order.get(request_id, len(self._order) + 1)
        return QueuePlace(
            request=request,
            place=place,
            waiting_count=len(state.waiting),
            reason=self._why(request, place, at),
            starts_at_s=promise.starts_at_s if promise else 0.0,
            waited_ms=max(0, int((at.wall_s - request.at_s) * 1000)),
            ask_again_ms=ASK_AGAIN_MS if place > 1 else ASK_AGAIN_FIRST_MS,
        )

    def _why(self, request: RequestQueued, place: int, at: Moment) -> str:
        """Why it waits, for people; of the next in detail."""
        reason = self._reasons.get(request.request_id, "it has just come")
        if place > 1 or request.request_id in self._state.promises:
            return reason
        return refusal_of(self._state, request, reason, at, self.settings)

    def cancel(self, command: CancelRequest) -> bool:
        """Leave the queue and give back what was granted; true if there was any."""
        check_ticket(command.ticket)
        request_id = request_id_of(command.ticket)
        with self._lock:
            at = self._clock()
            if request_id in self._state.waiting:
                left = RequestLeft(
                    request_id=request_id, reason="cancelled", at_s=at.wall_s
                )
                self._commit([left], at)
                return True
            live = [*self._state.of_request.get(request_id, {}).values()]
            ends = [
                ended
                for one in live
                if (ended := decide.release(self._state, _release_of(one), at))
            ]
            self._commit(ends, at)
            return bool(ends)

    def queue(self) -> list[QueuePlace]:
        """All that wait, in the order in which they are served."""
        with self._lock:
            at = self._clock()
            if self._state.waiting:
                self._pass(at)
            shares = self._state.shares(at.wall_s)
            order = [*in_order(self._state, shares)]
            self._order = {one.request_id: i for i, one in enumerate(order, 1)}
            return [self._place_of(request, at) for request in order]

    @property
    def queue_length(self) -> int:
        """How many wait."""
        return len(self._state.waiting)


def _release_of(lease: LeaseGranted) -> ReleaseLease:
    return ReleaseLease(
        lease_id=lease.lease_id, epoch=lease.epoch, reason="its request was cancelled"
    )
