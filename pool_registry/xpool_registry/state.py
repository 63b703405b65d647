"""What the registry knows: a fold of events, and of what it saw since it started.

Rule 1: ``State.apply`` is the only place that changes anything; the values inside
are frozen. Rule 2: it never refuses: an event has happened, ``decide.py`` saw to it
that it may. Rule 3: time is an argument, in nanoseconds of a monotonic clock.

``nodes``, ``leases``, ``ended`` and ``last_epoch`` follow from the log alone and
survive a restart; ``deadlines_ns`` and ``beats`` belong to this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xpool_registry.events import (
    Device,
    DeviceLoad,
    LeaseEnded,
    LeaseGranted,
    LeaseRenewed,
    NodeHeard,
    NodeJoined,
    Observation,
    RegistryCreated,
    RegistryEvent,
    SessionReport,
)
from xpool_registry.settings import MAX_ENDED_LEASES

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Beat:
    """The last proof of life of one node."""

    at_ns: int
    is_heard: bool
    """False: only assumed, because the registry itself has just started."""

    loads: tuple[DeviceLoad, ...] = ()
    sessions: tuple[SessionReport, ...] = ()


class Held(NamedTuple):
    """What the live leases of one device take together."""

    share_percent: int = 0
    memory_nbytes: int = 0
    lease_count: int = 0


class State:
    """Mutated only through ``apply``; everybody else reads."""

    def __init__(self) -> None:
        self.created: RegistryCreated | None = None
        self.nodes: dict[str, NodeJoined] = {}
        #: Live leases, oldest first.
        self.leases: dict[str, LeaseGranted] = {}
        #: Leases that are over, oldest end first; the last ``MAX_ENDED_LEASES``.
        self.ended: dict[str, LeaseEnded] = {}
        #: Fencing numbers count over all leases, so no two ever share one.
        self.last_epoch = 0
        #: When each live lease runs out unless it is renewed.
        self.deadlines_ns: dict[str, int] = {}
        self.beats: dict[str, Beat] = {}

    @classmethod
    def from_events(cls, events: Iterable[RegistryEvent], now_ns: int) -> State:
        """The state after a restart.

        Every live lease gets one fresh TTL, and no node counts as heard yet: it
        may have died while the registry was away.
        """
        state = cls()
        for event in events:
            state.apply(event, now_ns)
        for name in state.nodes:
            state.beats[name] = Beat(now_ns, is_heard=False)
        return state

    def apply(self, fact: RegistryEvent | Observation, now_ns: int) -> None:
        """Take in one fact."""
        match fact:
            case RegistryCreated():
                self.created = fact
            case NodeJoined():
                self.nodes[fact.node_name] = fact
                self.beats[fact.node_name] = Beat(now_ns, is_heard=True)
            case LeaseGranted():
                self.leases[fact.lease_id] = fact
                self.last_epoch = max(self.last_epoch, fact.epoch)
                self._extend(fact, now_ns)
            case LeaseEnded():
                self._end(fact)
            case NodeHeard():
                self.beats[fact.node_name] = Beat(
                    now_ns, is_heard=True, loads=fact.loads, sessions=fact.sessions
                )
            case LeaseRenewed():
                self._extend(self.leases[fact.lease_id], now_ns)
            case _:
                raise TypeError(f"no rule to apply a {type(fact).__name__}")

    def _extend(self, lease: LeaseGranted, now_ns: int) -> None:
        self.deadlines_ns[lease.lease_id] = now_ns + lease.ttl_ms * NS_PER_MS

    def _end(self, event: LeaseEnded) -> None:
        self.leases.pop(event.lease_id, None)
        self.deadlines_ns.pop(event.lease_id, None)
        self.ended.pop(event.lease_id, None)
        self.ended[event.lease_id] = event
        if len(self.ended) > MAX_ENDED_LEASES:
            del self.ended[next(iter(self.ended))]

    # ---- reading ----

    def leases_on(self, node_name: str) -> Iterator[LeaseGranted]:
        """Live leases of one node, oldest first."""
        return (lease for lease in self.leases.values() if lease.node_name == node_name)

    def held(self) -> dict[tuple[str, int], Held]:
        """What is taken of each (node, device index) that has leases."""
        sums: dict[tuple[str, int], Held] = {}
        for lease in self.leases.values():
            key = (lease.node_name, lease.device_index)
            share, memory, count = sums.get(key, Held())
            sums[key] = Held(
                share + lease.share_percent, memory + lease.memory_nbytes, count + 1
            )
        return sums

    def device(self, node_name: str, index: int) -> Device:
        """One device of a node that has joined."""
        devices = self.nodes[node_name].devices
        return next(device for device in devices if device.index == index)

    def silence_ms(self, node_name: str, now_ns: int) -> int:
        """How long ago a node was heard, or when we started if it never was."""
        return (now_ns - self.beats[node_name].at_ns) // NS_PER_MS

    def is_alive(self, node_name: str, now_ns: int, dead_after_ms: int) -> bool:
        """Whether new leases may go there."""
        beat = self.beats[node_name]
        return beat.is_heard and self.silence_ms(node_name, now_ns) < dead_after_ms

    def may_be_alive(self, node_name: str, now_ns: int, dead_after_ms: int) -> bool:
        """Whether its name must still be kept for it."""
        return self.silence_ms(node_name, now_ns) < dead_after_ms

    def expires_in_ms(self, lease_id: str, now_ns: int) -> int:
        """Time left of a live lease; 0 if it has run out."""
        return max(0, self.deadlines_ns[lease_id] - now_ns) // NS_PER_MS
