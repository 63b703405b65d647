"""The node's line to its registry: joins, sends heartbeats, hears what it must end.

One thread of its own makes the calls, so that a registry that is slow or away never
keeps the front door waiting. What the node knows is handed over as a snapshot; what
the registry says is picked up as facts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient
from xpool_protocol.errors import NameTaken, PoolError, TokenInvalid, UsageError

from xpool_server.node_facts import LeaseRevoked, SliceChanged

_log = structlog.get_logger(__name__)

RETRY_S: Final = 1.0
LOG_EVERY: Final = 30
"""While the registry is away: the first failed attempt, then one line in 30."""

NAME_PATIENCE_S: Final = 15.0
"""After a crash our own former self holds the name until the registry calls it
dead, 5 s by default."""

MAX_REASON_CHARS: Final = 256
"""What the registry takes (its settings.py)."""

FAREWELL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node says about itself when it joins."""

    node_name: str
    boot_id: str
    address: str
    devices: tuple[pb.Device, ...]
    version: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joined:
    """The registry has taken the node in."""

    public_key: bytes
    door_key: bytes


@dataclass(frozen=True, slots=True)
class JoinRefused:
    """The registry will not have the node, and trying again will not help."""

    error: PoolError


@dataclass(frozen=True, slots=True)
class UsageHeard:
    """The registry has stored the use of these leases up to and with a second."""

    until_s: Mapping[str, int]


RegistryFact: TypeAlias = (
    Joined | JoinRefused | LeaseRevoked | SliceChanged | UsageHeard
)


class RegistryLink:
    """Runs from ``start`` to ``stop``."""

    def __init__(
        self, registry_address: str, identity: Identity, wake: Callable[[], None]
    ) -> None:
        """Describe the link.

        Args:
            registry_address: ``HOST:PORT``.
            identity: the node.
            wake: called from the link's thread whenever ``take`` has a fact.

        Raises:
            UsageError: what the environment says of the registry is wrong.
        """
        self.registry_address = registry_address
        self._client = RegistryClient(registry_address)
        self._identity = identity
        self._wake = wake
        self._facts: deque[RegistryFact] = deque()
        self._lock = threading.Lock()
        self._loads: Sequence[pb.DeviceLoad] = ()
        self._sessions: Sequence[pb.SessionReport] = ()
        self._ended: list[pb.EndedLease] = []
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._is_joined = False
        self._interval_s: float | None = None
        """Between heartbeats, if the registry wants another one than it said first."""
        self._thread = threading.Thread(
            target=self._run, name="registry-link", daemon=True
        )

    def start(self) -> None:
        """Begin to join."""
        self._thread.start()

    def take(self) -> list[RegistryFact]:
        """What the registry said since the last call."""
        facts: list[RegistryFact] = []
        while self._facts:
            facts.append(self._facts.popleft())
        return facts

    def publish(
        self, loads: Sequence[pb.DeviceLoad], sessions: Sequence[pb.SessionReport]
    ) -> None:
        """What the next heartbeat says."""
        with self._lock:
            self._loads, self._sessions = loads, sessions

    def report_ended(
        self,
        lease_id: str,
        epoch: int,
        reason: str,
        last: pb.SessionReport | None = None,
    ) -> None:
        """Say with the next heartbeat, and again until it is heard, that one ended.

        Args:
            lease_id: which.
            epoch: of it.
            reason: for people.
            last: how its session stood at its end, if there was one.
        """
        ended = pb.EndedLease(
            lease_id=lease_id,
            epoch=epoch,
            reason=printable(reason, MAX_REASON_CHARS),
            last=last,
        )
        with self._lock:
            self._ended.append(ended)
        self.hurry()

    def hurry(self) -> None:
        """Send the next heartbeat now."""
        self._hurry.set()

    def stop(self) -> None:
        """Send what has ended, for some ``FAREWELL_S``, and be silent."""
        self._stopping.set()
        self.hurry()
        self._thread.join(FAREWELL_S)
        # A registry that does not answer is told nothing; the leases end by themselves.
        if not self._thread.is_alive() and self._is_joined:
            self._say_farewell()
        # No thread may be within gRPC when the interpreter ends: that can crash.
        self._client.close()
        self._thread.join(FAREWELL_S)

    def _say_farewell(self) -> None:
        with RegistryClient(self.registry_address, FAREWELL_S) as client:
            try:
                self._beat(client)
            except PoolError as error:
                _log.warning("registry did not hear our farewell", error=str(error))

    # ---- the link's thread ----

    def _run(self) -> None:
        while not self._stopping.is_set():
            interval_s = self._join(self._client)
            if interval_s is None:
                return
            self._beat_until_forgotten(self._client, interval_s)

    def _join(self, client: RegistryClient) -> float | None:
        """Seconds between heartbeats; None if the link is over."""
        one, attempts, began_s = self._identity, 0, time.monotonic()
        while not self._stopping.is_set():
            try:
                reply = client.join(
                    node_name=one.node_name,
                    boot_id=one.boot_id,
                    address=one.address,
                    devices=one.devices,
                    version=one.version,
                    labels=one.labels,
                )
            except (UsageError, TokenInvalid, NameTaken) as error:
                is_ours = isinstance(error, NameTaken)
                if not is_ours or time.monotonic() - began_s > NAME_PATIENCE_S:
                    self._say(JoinRefused(error))
                    return None
                self._complain(error, attempts)
            except PoolError as error:
                self._complain(error, attempts)
            else:
                self._is_joined = True
                self._say(Joined(bytes(reply.public_key), bytes(reply.door_key)))
                return max(0.05, reply.heartbeat_interval_ms / 1000)
            attempts += 1
            self._stopping.wait(RETRY_S)
        return None

    def _complain(self, error: PoolError, attempts: int) -> None:
        if attempts % LOG_EVERY == 0:
            _log.warning(
                "waiting for the registry",
                registry=self.registry_address,
                error=str(error),
            )

    def _beat_until_forgotten(self, client: RegistryClient, interval_s: float) -> None:
        """Send heartbeats; returns when the registry wants another join."""
        failures = 0
        while not self._stopping.is_set():
            self._hurry.wait(self._interval_s or interval_s)
            self._hurry.clear()
            if self._stopping.is_set():
                return
            try:
                must_rejoin = self._beat(client)
            except PoolError as error:
                self._complain(error, failures)
                failures += 1
                # What ended is told again; hurrying would only spin.
                self._stopping.wait(interval_s)
                continue
            if failures:
                _log.info("registry is back", registry=self.registry_address)
            failures = 0
            if must_rejoin:
                _log.warning("registry asks to join again")
                return

    def _beat(self, client: RegistryClient) -> bool:
        """Send one heartbeat; whether the registry has forgotten us."""
        with self._lock:
            loads, sessions, ended = self._loads, self._sessions, list(self._ended)
        reply = client.heartbeat(
            node_name=self._identity.node_name,
            boot_id=self._identity.boot_id,
            loads=loads,
            sessions=sessions,
            ended=ended,
        )
        if reply.must_rejoin:
            return True
        stored_s = reply.usage_stored_s
        with self._lock:
            # The last seconds of a session that has ended come again until stored.
            owed = [one for one in ended if one.lease_id in stored_s]
            self._ended[: len(ended)] = owed
        for lease in reply.end_leases:
            self._say(LeaseRevoked(lease.lease_id, lease.reason))
        for one in reply.slices:
            self._say(
                SliceChanged(
                    lease_id=one.lease_id,
                    epoch=one.epoch,
                    number=one.number,
                    share_percent=one.share_percent,
                    memory_nbytes=one.memory_nbytes,
                    mode=one.mode,
                    priority=one.priority,
                )
            )
        until_s = {
            one.lease_id: stored_s.get(one.lease_id, one.usage[-1].at_s)
            for one in sessions
            if one.usage
        }
        if until_s:
            self._say(UsageHeard(until_s))
        self._interval_s = reply.next_heartbeat_ms / 1000 or None
        return False

    def _say(self, fact: RegistryFact) -> None:
        self._facts.append(fact)
        self._wake()


def printable(text: str, max_chars: int) -> str:
    r"""One line that any terminal shows as it is.

    >>> printable("a\nb\x07", 10)
    'a b?'
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:max_chars]
