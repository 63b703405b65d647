"""The driver: decides, stores, applies, answers, one command at a time.

Nothing is answered before the store has it. Everything here runs under one lock; a
grant costs one sync to disk, or a part of one if commits are grouped.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import structlog
from xpool_protocol.control.token import LeaseClaims, sign
from xpool_protocol.errors import LeaseExpired, NoCapacity, UsageError

from xpool_registry import decide
from xpool_registry.accounting import Holder, Second, Sum
from xpool_registry.accounts import Accounts, Used
from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    CancelRequest,
    JoinNode,
    Moment,
    ReleaseLease,
    RenewLease,
    TakeHeartbeat,
)
from xpool_registry.durability import RECENT_EVENTS as RECENT_EVENTS
from xpool_registry.durability import Durability
from xpool_registry.durations import Durations
from xpool_registry.duties import AdminDuties
from xpool_registry.elastic import growth
from xpool_registry.events import (
    LeaseEnded,
    LeaseGranted,
    LeaseResized,
    NodeJoined,
    Observation,
    RegistryCreated,
    RegistryEvent,
    RequestAsked,
    RequestLeft,
    RequestQueued,
    StartPromised,
    TenantRemoved,
    TenantSet,
)
from xpool_registry.keys import SigningKey
from xpool_registry.listings import Listings
from xpool_registry.looking import refusal_of
from xpool_registry.queueing import (
    check_may_wait,
    check_ticket,
    leave,
    request_from,
    request_id_of,
)
from xpool_registry.reports import heads_of
from xpool_registry.resizing import (
    FEW_NODES,
    QUICK_HEARTBEAT_MS,
    ResizeLease,
    reconcile,
    resize,
)
from xpool_registry.schedule import schedule
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.store import Store
from xpool_registry.tenancy import check_same_tenant
from xpool_registry.turns import in_order
from xpool_registry.usage_store import MemoryUsage, UsageStore
from xpool_registry.views import (
    Answer as Answer,
)
from xpool_registry.views import (
    DeviceView as DeviceView,
)
from xpool_registry.views import (
    HeartbeatAnswer as HeartbeatAnswer,
)
from xpool_registry.views import (
    HeldLease as HeldLease,
)
from xpool_registry.views import (
    NodeView as NodeView,
)
from xpool_registry.views import (
    QueuePlace as QueuePlace,
)

Clock = Callable[[], Moment]

# Sessions of leases that we do not know are logged once, not once a second; this
# many, then the memory of them starts anew.
_MAX_STRANGERS = 10_000

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

_log = structlog.get_logger(__name__)


def new_secret() -> str:
    """192 random bits, as 48 hexadecimal digits."""
    return secrets.token_hex(24)


def system_clock() -> Moment:
    """This machine's clocks."""
    return Moment(now_ns=time.monotonic_ns(), wall_s=time.time_ns() / 1e9)


class Registry(AdminDuties, Durability, Listings):
    """One pool's registry. Every method may be called from any thread."""

    def __init__(
        self,
        store: Store,
        key: SigningKey,
        settings: Settings,
        new_id: Callable[[], str],
        clock: Clock = system_clock,
        usage_store: UsageStore | None = None,
        new_secret: Callable[[], str] = new_secret,
    ) -> None:
        """Replay the store, or begin a new log in an empty one.

        Args:
            store: the log.
            key: signs leases.
            settings: what the operator chose.
            new_id: 64 random bits as text.
            clock: this machine's.
            usage_store: keeps who used how much; None: nobody does.
            new_secret: of a token, random.

        Raises:
            UsageError: the key is not the one that the store began with.
        """
        self.settings = settings
        self._store = store
        self._grouped = None
        self._key = key
        self._new_id = new_id
        self._new_secret = new_secret
        self._clock = clock
        #: Of requests for slices, from when they are read to their answer.
        self.decisions = Durations()
        self._lock = threading.Lock()
        self._silent: set[str] = set()
        self._strangers: set[str] = set()
        #: Set when a look at the queue may help somebody.
        self.freed = threading.Event()
        self._is_dirty = True
        self._passed_ns = 0
        self._sequence = 0
        self._recent: deque[tuple[int, RegistryEvent]] = deque(maxlen=RECENT_EVENTS)
        #: Place of each request that the last look came to.
        self._order: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        #: A start was looked for in vain: until when that is not done again.
        self._rests_ns: dict[str, int] = {}
        at = clock()
        past = store.load()
        self._recall(past)
        self._state = State.from_events(past, at.now_ns, at.wall_s, self.settings)
        self.registry_id = self._created(at).registry_id
        self._accounts = Accounts(
            usage_store or MemoryUsage(), at.wall_s, self.settings.usage_days
        )

    def _created(self, at: Moment) -> RegistryCreated:
        created = self._state.created
        public_key_hex = self._key.public_key.hex()
        if created is None:
            created = RegistryCreated(
                registry_id=self._new_id(),
                public_key_hex=public_key_hex,
                at_s=at.wall_s,
            )
            self._commit([created], at)
        if created.public_key_hex != public_key_hex:
            raise UsageError(
                "the key beside the store is not the one that this pool began with:"
                " restore it, or move store and key away to begin a new pool"
            )
        return created

    @property
    def public_key(self) -> bytes:
        """What lease tokens are checked with: 32 raw bytes, Ed25519."""
        return self._key.public_key

    @property
    def door_key(self) -> bytes:
        """What workers vouch for their doors with: for nodes alone."""
        return self._key.door_key

    # ---- nodes ----

    def join(self, command: JoinNode) -> None:
        """See ``decide.join``."""
        with self._lock:
            at = self._clock()
            self._commit(decide.join(self._state, command, at, self.settings), at)

    def heartbeat(self, command: TakeHeartbeat) -> HeartbeatAnswer:
        """See ``decide.heartbeat``; a stranger is asked to join."""
        with self._lock:
            at = self._clock()
            if decide.must_rejoin(self._state, command):
                return HeartbeatAnswer(must_rejoin=True, to_end={})
            # Before anything ends: whose last seconds they are must be known.
            used = [*self._used(command)]
            self._accounts.charge(used, at.wall_s)
            stored_s = self._accounts.stored_s(
                (holder.lease_id, seconds) for holder, seconds in used
            )
            self._commit(decide.expire(self._state, at), at)
            owing = len(self._state.unsettled)
            self._commit(decide.heartbeat(self._state, command, at), at)
            if len(self._state.unsettled) < owing:
                self._is_dirty = True  # memory that somebody waits for
                self.freed.set()
            name, leases = command.node_name, self._state.leases
            others = tuple(
                command.sessions[index]
                for index, one in enumerate(heads_of(command.sessions))
                if not decide.is_as_granted(leases.get(one.lease_id), one, name)
            )
            verdict = decide.judge_sessions(self._state, name, others)
            self._log_strangers(name, verdict.unknown)
            to_tell, backs = reconcile(self._state, others, at)
            self._commit(backs, at)
            is_quick = len(self._state.nodes) <= FEW_NODES
            interval_ms = self.settings.heartbeat_interval_ms
            return HeartbeatAnswer(
                must_rejoin=False,
                to_end=verdict.to_end,
                resized=tuple(to_tell),
                stored_s=stored_s,
                next_ms=min(QUICK_HEARTBEAT_MS, interval_ms) if is_quick else 0,
            )

    def resize(self, command: ResizeLease) -> HeldLease:
        """See ``resizing.resize``; its node is told with its next heartbeat."""
        with self._lock:
            at = self._clock()
            self._commit([resize(self._state, command, at)], at)
            return self._held(self._state.leases[command.lease_id], at)

    # ---- leases ----

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

    @property
    def device_count(self) -> int:
        """Of all nodes that have joined."""
        return self._state.fleet.device_count

    def renew(self, command: RenewLease) -> HeldLease:
        """See ``decide.renew``."""
        with self._lock:
            at = self._clock()
            renewed = decide.renew(self._state, command, at)
            self._commit([renewed], at)
            return self._held(self._state.leases[renewed.lease_id], at, with_token=True)

    def release(self, command: ReleaseLease) -> bool:
        """See ``decide.release``; true if the lease was live until now."""
        with self._lock:
            at = self._clock()
            ended = decide.release(self._state, command, at)
            if ended is not None:
                self._commit([ended], at)
            return ended is not None

    # ---- time ----

    def charged_s(self, lease_id: str) -> int:
        """See ``Accounts.last_s``."""
        return self._accounts.last_s(lease_id)

    def usage(self, since_s: int, until_s: int, by: str) -> list[Sum]:
        """See ``Accounts.usage``."""
        return self._accounts.usage(since_s, until_s, by, self._clock().wall_s)

    def used(self) -> dict[str, Used]:
        """See ``Accounts.since_start``."""
        return self._accounts.since_start()

    def close(self) -> None:
        """Keep what is not kept yet; nothing is answered any more."""
        if self._grouped is not None:
            self._grouped.close()
        self._accounts.close(self._clock().wall_s)

    def tick(self) -> None:
        """End what has run out, and note which nodes fell silent."""
        self._accounts.flush(self._clock().wall_s)
        with self._lock:
            at = self._clock()
            self._commit(decide.expire(self._state, at), at)
            self._commit(leave(self._state, at), at)
            is_due = at.now_ns - self._passed_ns >= PASS_EVERY_NS
            if self._state.elastic and not self._state.waiting:
                self._commit(growth(self._state, at), at)
            is_open = self._state.waiting or self._state.notices
            if is_open and (self._is_dirty or is_due):
                self._pass(at)
            fleet, dead_ms = self._state.fleet, self.settings.dead_after_ms
            rows = (~self._state.living(at.now_ns, dead_ms)).nonzero()[0]
            silent = {fleet.nodes[row].name for row in rows}
            for name in sorted(silent - self._silent):
                _log.warning("node silent", node=name)
            for name in sorted(self._silent - silent):
                _log.info("node back", node=name)
            self._silent = silent

    # ---- under the lock ----

    def _used(
        self, command: TakeHeartbeat
    ) -> Iterator[tuple[Holder, tuple[Second, ...]]]:
        """Whose the seconds are; a node speaks for leases on itself alone."""
        for lease_id, seconds in command.usage:
            holder = self._state.holder(lease_id)
            if holder is not None and holder.node_name == command.node_name:
                yield holder, seconds

    def _commit(self, facts: Sequence[RegistryEvent | Observation], at: Moment) -> None:
        """Store what is to be stored, then let all of it be true."""
        if not facts:
            return
        events = [fact for fact in facts if isinstance(fact, RegistryEvent)]
        if events:
            self._store.append(events)
        for fact in facts:
            self._state.apply(fact, at.now_ns)
            self._remember(fact)
        for event in events:
            self._sequence += 1
            self._recent.append((self._sequence, event))
        if self._grouped is None:
            self._announce(events)

    def _remember(self, fact: RegistryEvent | Observation) -> None:
        """What asks for another look at the queue, and who got nothing of it."""
        match fact:
            case LeaseEnded() | LeaseResized() | NodeJoined():
                self._is_dirty = True
            case TenantSet() | TenantRemoved():
                self._is_dirty = True
            case RequestLeft():
                self._is_dirty = True
            case _:
                return
        if self._state.waiting:
            self.freed.set()

    def _held(
        self, lease: LeaseGranted, at: Moment, *, with_token: bool = False
    ) -> HeldLease:
        notice = self._state.notices.get(lease.lease_id)
        left_ns = notice.until_ns - at.now_ns if notice else 0
        return HeldLease(
            notice=notice.event.reason if notice else "",
            leaves_in_ms=max(0, left_ns) // 1_000_000,
            lease=lease,
            node=self._state.nodes[lease.node_name],
            device=self._state.device(lease.node_name, lease.device_index),
            expires_in_ms=self._state.expires_in_ms(lease.lease_id, at.now_ns),
            ttl_ms=self._state.ttl_ms(lease),
            token=self._token(lease, at) if with_token else "",
        )

    def _token(self, lease: LeaseGranted, at: Moment) -> str:
        left_ms = self._state.expires_in_ms(lease.lease_id, at.now_ns)
        claims = LeaseClaims(
            lease_id=lease.lease_id,
            epoch=lease.epoch,
            tenant=lease.tenant,
            node_name=lease.node_name,
            device_index=lease.device_index,
            share_percent=lease.share_percent,
            memory_nbytes=lease.memory_nbytes,
            mode=lease.mode,
            priority=lease.priority,
            issued_at_s=math.floor(at.wall_s),
            expires_at_s=math.ceil(at.wall_s + left_ms / 1000),
        )
        return sign(claims, self._key.sign)

    def _log_strangers(self, node_name: str, lease_ids: list[str]) -> None:
        if len(self._strangers) > _MAX_STRANGERS:
            self._strangers.clear()
        for lease_id in lease_ids:
            if lease_id not in self._strangers:
                self._strangers.add(lease_id)
                _log.warning("session without a lease", node=node_name, lease=lease_id)


def _release_of(lease: LeaseGranted) -> ReleaseLease:
    return ReleaseLease(
        lease_id=lease.lease_id, epoch=lease.epoch, reason="its request was cancelled"
    )
