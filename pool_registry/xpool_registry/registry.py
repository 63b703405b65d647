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

import structlog
from xpool_protocol.control.token import LeaseClaims, sign
from xpool_protocol.errors import UsageError

from xpool_registry import decide, upkeep
from xpool_registry.accounting import Holder, Second, Sum
from xpool_registry.accounts import Accounts, Used
from xpool_registry.asking import PASS_EVERY_NS, Asking
from xpool_registry.commands import (
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
    RegistryCreated,
    RegistryEvent,
    RequestLeft,
    TenantRemoved,
    TenantSet,
)
from xpool_registry.keys import SigningKey
from xpool_registry.known import NS_PER_MS
from xpool_registry.listings import Listings
from xpool_registry.observations import Observation
from xpool_registry.queueing import (
    leave,
)
from xpool_registry.refusals import Refusals
from xpool_registry.reports import heads_of
from xpool_registry.resizing import (
    FEW_NODES,
    QUICK_HEARTBEAT_MS,
    ResizeLease,
    reconcile,
    resize,
)
from xpool_registry.rhythm import Rhythm
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.store import Store
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

_log = structlog.get_logger(__name__)


def new_secret() -> str:
    """192 random bits, as 48 hexadecimal digits."""
    return secrets.token_hex(24)


def system_clock() -> Moment:
    """This machine's clocks."""
    return Moment(now_ns=time.monotonic_ns(), wall_s=time.time_ns() / 1e9)


class Registry(AdminDuties, Asking, Durability, Listings):
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
        self._refusals = Refusals()
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
        self._rhythm = Rhythm(settings.heartbeat_interval_ms)
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
            return HeartbeatAnswer(
                must_rejoin=False,
                to_end=verdict.to_end,
                resized=tuple(to_tell),
                stored_s=stored_s,
                next_ms=self._next_ms(at),
            )

    def _next_ms(self, at: Moment) -> int:
        """Until a node's next heartbeat."""
        count = len(self._state.nodes)
        if count <= FEW_NODES:
            return min(QUICK_HEARTBEAT_MS, self.settings.heartbeat_interval_ms)
        return self._rhythm.next_ms(at.now_ns // NS_PER_MS, count)

    def resize(self, command: ResizeLease) -> HeldLease:
        """See ``resizing.resize``; its node is told with its next heartbeat."""
        with self._lock:
            at = self._clock()
            self._commit([resize(self._state, command, at)], at)
            return self._held(self._state.leases[command.lease_id], at)

    # ---- leases ----

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
            silent = {fleet.nodes[row].name for row in rows} & fleet.row_of.keys()
            for name in sorted(silent - self._silent):
                _log.warning("node silent", node=name)
            for name in sorted(self._silent - silent):
                _log.info("node back", node=name)
            lapsed = upkeep.lapsed(self._state, silent, at, self.settings)
            for event in lapsed:
                _log.info("node forgotten", node=event.node_name, reason=event.reason)
            self._commit(lapsed, at)
            self._silent = silent - {event.node_name for event in lapsed}

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
