"""A day of a pool in virtual time: the registry as it is, jobs that only take time."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from xpool_protocol.errors import PoolError
from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    JoinNode,
    Moment,
    ReleaseLease,
    SetTenant,
)
from xpool_registry.events import (
    Device,
    LeaseEnded,
    LeaseGranted,
    LeaseNoticed,
    RegistryEvent,
    StartPromised,
)
from xpool_registry.keys import SigningKey
from xpool_registry.queueing import request_id_of
from xpool_registry.registry import Registry
from xpool_registry.settings import Settings
from xpool_registry.store import MemoryStore

DAY_S: Final = 86_400.0
TICK_S: Final = 60.0
"""The registry looks at its queue at every event, and so often while anybody waits."""

NODES: Final = 4
DEVICES: Final = 4
GIB: Final = 1 << 30
FOREVER_MS: Final = 20 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What somebody wants to run."""

    name: str
    at_s: float
    tenant: str
    length_s: float
    share_percent: int = 100
    device_count: int = 1
    priority: str = "normal"
    limit_s: float = 0.0
    """What it says that it takes at most; 0: it does not say."""

    @property
    def work(self) -> float:
        """Device seconds."""
        return self.length_s * self.share_percent / 100 * self.device_count


@dataclass(slots=True)
class Outcome:
    """What became of a day."""

    waits_s: dict[str, list[float]] = field(default_factory=dict)
    """Of each priority, from asking to the first start."""

    used: dict[str, float] = field(default_factory=dict)
    """Device seconds of each tenant within the day."""

    used_by_class: dict[str, float] = field(default_factory=dict)
    lost_by_class: dict[str, float] = field(default_factory=dict)
    """Device seconds of leases that had to leave; their jobs begin anew."""

    promised: int = 0
    kept: int = 0


class Day:
    """One run."""

    def __init__(self, jobs: Sequence[Job], tenants: Sequence[SetTenant]) -> None:
        self._now_s = 1000.0
        self._begin_s = self._now_s
        self._ids = itertools.count()
        self._store = _News()
        settings = Settings(
            dead_after_ms=FOREVER_MS,
            request_ttl_ms=FOREVER_MS,
            default_ttl_ms=86_400_000,
        )
        self._grace_s = settings.grace_ms / 1000
        self._registry = Registry(
            self._store, SigningKey.generate(), settings, self._id, self._clock
        )
        for tenant in tenants:
            self._registry.set_tenant(tenant)
        for i in range(NODES):
            self._registry.join(_node(i))
        self._jobs = {_request_id(job.name): job for job in jobs}
        self._heap: list[tuple[float, int, str, str]] = []
        self._leases: dict[str, LeaseGranted] = {}
        self._running: dict[str, list[LeaseGranted]] = {}
        self._restarts: dict[str, int] = {}
        self._promises: dict[str, float] = {}
        self.outcome = Outcome()
        for job in jobs:
            self._push(self._begin_s + job.at_s, "arrive", job.name)

    def run(self) -> Outcome:
        """Until nothing is left to do, or two days have passed."""
        end_s = self._begin_s + 2 * DAY_S
        next_tick_s = 0.0
        while self._heap and self._now_s < end_s:
            at_s, _, what, name = heapq.heappop(self._heap)
            self._now_s = max(self._now_s, at_s)
            if what == "arrive":
                self._ask(name)
            elif what == "end":
                self._end(name)
            self._registry.tick()
            self._take_in()
            if self._registry.queue_length and self._now_s >= next_tick_s:
                next_tick_s = self._now_s + TICK_S
                self._push(next_tick_s, "tick", "")
        for lease in self._leases.values():
            self._use(lease, self._now_s)
        return self.outcome

    # ---- what happens ----

    def _ask(self, name: str) -> None:
        job = self._jobs[_request_id(name)]
        command = AcquireGroup(
            slice=AcquireLease(
                tenant=job.tenant,
                share_percent=job.share_percent,
                priority=job.priority,
            ),
            device_count=job.device_count,
            ticket=_ticket(name),
            wait_ms=FOREVER_MS,
            limit_ms=int(job.limit_s * 1000),
        )
        self._registry.ask(command)

    def _end(self, lease_group: str) -> None:
        for lease in self._running.pop(lease_group, []):
            try:
                self._registry.release(
                    ReleaseLease(lease_id=lease.lease_id, epoch=lease.epoch)
                )
            except PoolError:
                continue  # it had to leave

    def _take_in(self) -> None:
        """Read what the registry has decided since."""
        for event in self._store.take():
            match event:
                case LeaseGranted():
                    self._granted(event)
                case LeaseEnded():
                    self._ended(event)
                case LeaseNoticed():
                    self._push(self._now_s + self._grace_s + 0.001, "tick", "")
                case StartPromised(is_firm=True):
                    self._promises.setdefault(event.request_id, event.starts_at_s)
                    self._push(event.starts_at_s, "tick", "")
                case _:
                    pass

    def _granted(self, lease: LeaseGranted) -> None:
        self._leases[lease.lease_id] = lease
        group = self._running.setdefault(lease.group_id or lease.lease_id, [])
        group.append(lease)
        if len(group) > 1:
            return
        job = self._jobs[lease.request_id]
        self._push(self._now_s + job.length_s, "end", lease.group_id or lease.lease_id)
        promised_s = self._promises.get(lease.request_id)
        if promised_s is not None:
            self.outcome.promised += 1
            self.outcome.kept += self._now_s <= promised_s + 0.01
        if job.name not in self._restarts:
            waits = self.outcome.waits_s.setdefault(job.priority, [])
            waits.append(self._now_s - self._begin_s - job.at_s)
            self._restarts[job.name] = 0

    def _ended(self, event: LeaseEnded) -> None:
        lease = self._leases.pop(event.lease_id)
        self._use(lease, self._now_s)
        if "priority took it" not in event.reason:
            return
        job = self._jobs[lease.request_id]
        seconds = (self._now_s - lease.at_s) * lease.share_percent / 100
        lost = self.outcome.lost_by_class
        lost[job.priority] = lost.get(job.priority, 0.0) + seconds
        group = self._running.pop(lease.group_id or lease.lease_id, None)
        if group is None:
            return  # another lease of the group had to leave before
        for other in group:
            if other.lease_id != lease.lease_id:
                self._registry.release(
                    ReleaseLease(lease_id=other.lease_id, epoch=other.epoch)
                )
        self._restarts[job.name] += 1
        again = replace(job, name=f"{job.name}+", at_s=self._now_s - self._begin_s)
        self._restarts[again.name] = self._restarts[job.name]
        self._jobs[_request_id(again.name)] = again
        self._push(self._now_s, "arrive", again.name)

    def _use(self, lease: LeaseGranted, until_s: float) -> None:
        end_s = min(until_s, self._begin_s + DAY_S)
        seconds = max(0.0, end_s - lease.at_s) * lease.share_percent / 100
        for table, key in (
            (self.outcome.used, lease.tenant),
            (self.outcome.used_by_class, lease.priority),
        ):
            table[key] = table.get(key, 0.0) + seconds

    # ---- plumbing ----

    def _push(self, at_s: float, what: str, name: str) -> None:
        heapq.heappush(self._heap, (at_s, next(self._ids), what, name))

    def _id(self) -> str:
        return f"{next(self._ids):016x}"

    def _clock(self) -> Moment:
        return Moment(now_ns=int(self._now_s * 1e9), wall_s=self._now_s)


class _News(MemoryStore):
    """Hands over what is new, and keeps nothing: a day is not replayed."""

    def take(self) -> list[RegistryEvent]:
        events, self._events = self._events, []
        return events


def _node(i: int) -> JoinNode:
    return JoinNode(
        node_name=f"node-{i}",
        boot_id="boot",
        address=f"tcp://node-{i}:1",
        version="",
        devices=tuple(
            Device(index=k, kind="cuda", name="simulated", memory_nbytes=80 * GIB)
            for k in range(DEVICES)
        ),
    )


def _ticket(name: str) -> str:
    return random.Random(name).randbytes(16).hex()  # noqa: S311  no secret


def _request_id(name: str) -> str:
    return request_id_of(_ticket(name))


def quietly() -> None:
    """The registry logs each event; a day has tens of thousands."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING)
    )


# ---- what is asked for on such a day


RIGHTS: Final = {"ada": 1.0, "bob": 2.0, "eve": 3.0}


def bursty_day(rng: random.Random) -> Iterator[Job]:
    """Three tenants with weights 1, 2, 3, each wanting 1.25 times its right, in bursts.

    A burst every three hours on average, of some dozens of jobs of one device each,
    40 minutes long on average. Counted are whole devices, 1.5 times the right; a third
    of the jobs want the half of one.
    """
    capacity = NODES * DEVICES * DAY_S
    for tenant, weight in RIGHTS.items():
        wanted = 1.5 * capacity * weight / sum(RIGHTS.values())
        starts = sorted(rng.uniform(0, DAY_S) for _ in range(8))
        starts[0] = 0.0
        numbers = itertools.count()
        for start_s in starts:
            work = 0.0
            while work < wanted / len(starts):
                length_s = min(max(60.0, rng.expovariate(1 / 2400)), 4 * 3600.0)
                yield Job(
                    name=f"{tenant}-{next(numbers)}",
                    at_s=start_s + rng.uniform(0, 60),
                    tenant=tenant,
                    length_s=length_s,
                    share_percent=rng.choice([50, 100, 100]),
                )
                work += length_s


def mixed_day(rng: random.Random) -> Iterator[Job]:
    """Demand of 110 %, three classes, some gangs; most jobs know how long they take.

    5 % of the jobs are of high priority, short and small; half are low.
    """
    capacity = NODES * DEVICES * DAY_S
    work, numbers = 0.0, itertools.count()
    while work < 1.1 * capacity:
        priority = rng.choices(["high", "normal", "low"], [5, 45, 50])[0]
        mean_s = 600 if priority == "high" else 3600
        length_s = min(max(30.0, rng.expovariate(1 / mean_s)), 4 * 3600.0)
        job = Job(
            name=f"job-{next(numbers)}",
            at_s=rng.uniform(0, DAY_S),
            tenant=rng.choice([*RIGHTS]),
            length_s=length_s,
            share_percent=rng.choice([30, 50, 100, 100]),
            device_count=rng.choice(
                [1, 1, 1, 2] if priority == "high" else [1, 1, 1, 1, 2, 4, 8]
            ),
            priority=priority,
            limit_s=length_s * rng.choice([1.0, 1.5, 3.0]) + 1.0,
        )
        yield job
        work += job.work


def tenants(preemptions_per_hour: int = 1_000_000) -> list[SetTenant]:
    """The three of them."""
    return [
        SetTenant(name=name, weight=weight, preemptions_per_hour=preemptions_per_hour)
        for name, weight in RIGHTS.items()
    ]
