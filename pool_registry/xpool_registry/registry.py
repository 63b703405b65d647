"""The driver: decides, stores, applies, answers, one command at a time.

Nothing is answered before the store has it, and nothing is applied that the store
refused. Everything here runs under one lock; a grant costs one sync to disk.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from xpool_protocol.control.token import LeaseClaims, sign
from xpool_protocol.errors import PoolError, UsageError

from xpool_registry import decide
from xpool_registry.bounds import check_acquire_group
from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    JoinNode,
    Moment,
    ReleaseLease,
    RenewLease,
    TakeHeartbeat,
)
from xpool_registry.events import (
    Device,
    DeviceLoad,
    LeaseGranted,
    NodeJoined,
    Observation,
    RegistryCreated,
    RegistryEvent,
    SessionReport,
)
from xpool_registry.keys import SigningKey
from xpool_registry.placement import DeviceOffer
from xpool_registry.settings import Settings
from xpool_registry.state import Held, State
from xpool_registry.store import Store

Clock = Callable[[], Moment]

# Sessions of leases that we do not know are logged once, not once a second; this
# many, then the memory of them starts anew.
_MAX_STRANGERS = 10_000

_log = structlog.get_logger(__name__)


def system_clock() -> Moment:
    """This machine's clocks."""
    return Moment(now_ns=time.monotonic_ns(), wall_s=time.time_ns() / 1e9)


class HeldLease(NamedTuple):
    """A live lease with all that its holder or an admin is told of it."""

    lease: LeaseGranted
    node: NodeJoined
    device: Device
    expires_in_ms: int
    token: str = ""
    """Only its holder gets one."""

    session: SessionReport | None = None


class HeartbeatAnswer(NamedTuple):
    """What a node is told."""

    must_rejoin: bool
    to_end: dict[str, str]
    """Lease id to reason."""


class NodeView(NamedTuple):
    """A node as an admin sees it."""

    node: NodeJoined
    is_alive: bool
    silence_ms: int
    lease_count: int


class DeviceView(NamedTuple):
    """A device as an admin sees it."""

    device: Device
    offer: DeviceOffer
    lease_count: int
    load: DeviceLoad | None


class Registry:
    """One pool's registry. Every method may be called from any thread."""

    def __init__(
        self,
        store: Store,
        key: SigningKey,
        settings: Settings,
        new_id: Callable[[], str],
        clock: Clock = system_clock,
    ) -> None:
        """Replay the store, or begin a new log in an empty one.

        Raises:
            UsageError: the key is not the one that the store began with.
        """
        self.settings = settings
        self._store = store
        self._key = key
        self._new_id = new_id
        self._clock = clock
        self._lock = threading.Lock()
        self._silent: set[str] = set()
        self._strangers: set[str] = set()
        at = clock()
        self._state = State.from_events(store.load(), at.now_ns)
        self.registry_id = self._created(at).registry_id

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
            self._commit(decide.expire(self._state, at), at)
            self._commit(decide.heartbeat(self._state, command, at), at)
            verdict = decide.judge_sessions(
                self._state, command.node_name, command.sessions
            )
            self._log_strangers(command.node_name, verdict.unknown)
            return HeartbeatAnswer(must_rejoin=False, to_end=verdict.to_end)

    # ---- leases ----

    def acquire(self, command: AcquireLease) -> HeldLease:
        """See ``decide.acquire``."""
        with self._lock:
            at = self._clock()
            self._commit(decide.expire(self._state, at), at)
            lease = decide.acquire(
                self._state, command, self._new_id(), at, self.settings
            )
            self._commit([lease], at)
            return self._held(lease, at, with_token=True)

    def acquire_group(self, command: AcquireGroup) -> list[HeldLease]:
        """See ``decide.acquire_group``; stored as one, or not at all."""
        with self._lock:
            at = self._clock()
            self._commit(decide.expire(self._state, at), at)
            check_acquire_group(command)  # so many ids are made because of it
            ids = [self._new_id() for _ in range(command.device_count)]
            leases = decide.acquire_group(self._state, command, ids, at, self.settings)
            self._commit(leases, at)
            return [self._held(lease, at, with_token=True) for lease in leases]

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

    # ---- admin ----

    def nodes(self) -> list[NodeView]:
        """All nodes, by name."""
        with self._lock:
            now_ns = self._clock().now_ns
            return [
                NodeView(
                    node=node,
                    is_alive=self._is_alive(name, now_ns),
                    silence_ms=self._state.silence_ms(name, now_ns),
                    lease_count=sum(1 for _ in self._state.leases_on(name)),
                )
                for name, node in sorted(self._state.nodes.items())
            ]

    def devices(self) -> list[DeviceView]:
        """All devices, by node and index."""
        with self._lock:
            now_ns = self._clock().now_ns
            held = self._state.held()
            offers = decide.offers(self._state, now_ns, self.settings)
            loads = self._loads()
            return [
                DeviceView(
                    device=self._state.device(offer.node_name, offer.device_index),
                    offer=offer,
                    lease_count=held.get(offer.key, Held()).lease_count,
                    load=loads.get(offer.key),
                )
                for offer in sorted(offers, key=lambda offer: offer.key)
            ]

    def leases(self) -> list[HeldLease]:
        """All live leases, oldest first, without tokens."""
        with self._lock:
            at = self._clock()
            reports = {
                report.lease_id: report
                for beat in self._state.beats.values()
                for report in beat.sessions
            }
            return [
                self._held(lease, at)._replace(session=reports.get(lease.lease_id))
                for lease in self._state.leases.values()
            ]

    # ---- time ----

    def tick(self) -> None:
        """End what has run out, and note which nodes fell silent."""
        with self._lock:
            at = self._clock()
            self._commit(decide.expire(self._state, at), at)
            silent = {
                name
                for name in self._state.nodes
                if not self._is_alive(name, at.now_ns)
            }
            for name in sorted(silent - self._silent):
                _log.warning("node silent", node=name)
            for name in sorted(self._silent - silent):
                _log.info("node back", node=name)
            self._silent = silent

    # ---- under the lock ----

    def _commit(self, facts: Sequence[RegistryEvent | Observation], at: Moment) -> None:
        """Store what is to be stored, then let all of it be true."""
        events = [fact for fact in facts if isinstance(fact, RegistryEvent)]
        if events:
            self._store.append(events)
        for fact in facts:
            self._state.apply(fact, at.now_ns)
        for event in events:
            _log.info("registry event", **_fields(event))

    def _held(
        self, lease: LeaseGranted, at: Moment, *, with_token: bool = False
    ) -> HeldLease:
        return HeldLease(
            lease=lease,
            node=self._state.nodes[lease.node_name],
            device=self._state.device(lease.node_name, lease.device_index),
            expires_in_ms=self._state.expires_in_ms(lease.lease_id, at.now_ns),
            token=self._token(lease, at) if with_token else "",
        )

    def _token(self, lease: LeaseGranted, at: Moment) -> str:
        claims = LeaseClaims(
            lease_id=lease.lease_id,
            epoch=lease.epoch,
            tenant=lease.tenant,
            node_name=lease.node_name,
            device_index=lease.device_index,
            share_percent=lease.share_percent,
            memory_nbytes=lease.memory_nbytes,
            mode=lease.mode,
            issued_at_s=math.floor(at.wall_s),
            expires_at_s=math.ceil(at.wall_s + lease.ttl_ms / 1000),
        )
        return sign(claims, self._key.sign)

    def _is_alive(self, node_name: str, now_ns: int) -> bool:
        return self._state.is_alive(node_name, now_ns, self.settings.dead_after_ms)

    def _loads(self) -> dict[tuple[str, int], DeviceLoad]:
        return {
            (name, load.index): load
            for name, beat in self._state.beats.items()
            for load in beat.loads
        }

    def _log_strangers(self, node_name: str, lease_ids: list[str]) -> None:
        if len(self._strangers) > _MAX_STRANGERS:
            self._strangers.clear()
        for lease_id in lease_ids:
            if lease_id not in self._strangers:
                self._strangers.add(lease_id)
                _log.warning("session without a lease", node=node_name, lease=lease_id)


class Ticker:
    """Calls ``Registry.tick`` in a thread of its own until it is stopped."""

    # A lease ends at most this late, and a silent node is noted so.
    INTERVAL_S = 0.2

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="registry-ticker", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self.INTERVAL_S):
            try:
                self._registry.tick()
            except PoolError as error:  # the store: try again, nothing was applied
                _log.error("tick failed", error=str(error))


def _fields(event: RegistryEvent) -> dict[str, object]:
    """What a log line says of an event: its kind, and what is short."""
    names = ("lease_id", "group_id", "epoch", "tenant", "client", "node_name")
    slices = ("device_index", "share_percent", "memory_nbytes", "mode")
    more = (*slices, "reason", "address", "version")
    fields = {name: getattr(event, name, None) for name in (*names, *more)}
    shown = {name: value for name, value in fields.items() if value not in (None, "")}
    return {"kind": type(event).__name__, **shown}
