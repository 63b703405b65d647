"""A registry with a clock that the test moves, in memory, for tests of the queue."""

from __future__ import annotations

import hashlib

from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    CancelRequest,
    JoinNode,
    Moment,
    ReleaseLease,
    RenewLease,
    SetTenant,
    TakeHeartbeat,
)
from xpool_registry.events import Device
from xpool_registry.keys import SigningKey
from xpool_registry.registry import Answer, HeldLease, Registry
from xpool_registry.settings import Settings
from xpool_registry.store import MemoryStore

KEY = SigningKey.generate()
GIB = 1 << 30
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class PoolModel:
    """Its clients renew and ask again by themselves whenever the clock moves."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.now_ms = 1_000_000
        self.ids = 0
        self.store = MemoryStore()
        self.settings = settings or Settings()
        self.registry = self.opened()
        self.nodes: dict[str, JoinNode] = {}
        self.asked: dict[str, AcquireGroup] = {}
        self.leases: dict[str, list[HeldLease]] = {}
        self.gone: dict[str, AcquireGroup] = {}

    def opened(self) -> Registry:
        return Registry(self.store, KEY, self.settings, self.new_id, self.clock)

    def restart(self) -> None:
        self.registry = self.opened()
        self.beat()

    def new_id(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"

    def clock(self) -> Moment:
        return Moment(now_ns=self.now_ms * 1_000_000, wall_s=self.now_ms / 1000)

    # ---- nodes ----

    def join(self, name: str = "a", devices: int = 1, **labels: str) -> None:
        self.nodes[name] = JoinNode(
            node_name=name,
            boot_id="boot-1",
            address=f"tcp://{name}:1",
            version="",
            labels=tuple(labels.items()),
            devices=tuple(
                Device(index=i, kind="cuda", name="A100", memory_nbytes=10 * GIB)
                for i in range(devices)
            ),
        )
        self.registry.join(self.nodes[name])

    def beat(self) -> None:
        for name in self.nodes:
            command = TakeHeartbeat(node_name=name, boot_id="boot-1")
            assert not self.registry.heartbeat(command).must_rejoin

    # ---- clients ----

    def ask(
        self,
        name: str,
        share: int = 100,
        devices: int = 1,
        *,
        tenant: str = "ada",
        priority: str = "normal",
        wait_ms: int = 24 * HOUR_MS,
        limit_ms: int = 0,
        least: int = 0,
        memory: int = 0,
        **fields: object,
    ) -> bool:
        """Ask under a name of the test's; whether it has its leases."""
        self.asked[name] = AcquireGroup(
            slice=AcquireLease(
                tenant=tenant,
                share_percent=share,
                priority=priority,
                ttl_ms=15_000,
                min_share_percent=least,
                memory_nbytes=memory,
            ),
            device_count=devices,
            ticket=ticket_of(name),
            wait_ms=wait_ms,
            limit_ms=limit_ms,
            **fields,  # type: ignore[arg-type]
        )
        return self._take(name, self.registry.ask(self.asked[name]))

    def again(self, name: str) -> Answer:
        return self.registry.ask(self.asked.get(name) or self.gone[name])

    def _take(self, name: str, answer: Answer) -> bool:
        if answer.leases:
            self.leases[name] = answer.leases
        return bool(answer.leases)

    def end(self, name: str) -> None:
        self.gone[name] = self.asked.pop(name)
        for held in self.leases.pop(name):
            command = ReleaseLease(lease_id=held.lease.lease_id, epoch=held.lease.epoch)
            self.registry.release(command)

    def cancel(self, name: str) -> bool:
        was_live = self.registry.cancel(CancelRequest(ticket=ticket_of(name)))
        self.gone[name] = self.asked.pop(name, None) or self.gone[name]
        self.leases.pop(name, None)
        return was_live

    def running(self) -> set[str]:
        """Names whose leases are live."""
        live = {held.lease.lease_id for held in self.registry.leases()}
        for name in self.waiting_names():
            self._take(name, self.again(name))
        return {
            name
            for name, leases in self.leases.items()
            if {held.lease.lease_id for held in leases} & live
        }

    def waiting_names(self) -> list[str]:
        return [name for name in self.asked if name not in self.leases]

    def queue(self) -> list[str]:
        """Names in the order in which they are served."""
        by_id = {hashed(name): name for name in self.asked}
        return [by_id[place.request.request_id] for place in self.registry.queue()]

    def tenant(self, name: str, **fields: object) -> None:
        self.registry.set_tenant(SetTenant(name=name, **fields))  # type: ignore[arg-type]

    # ---- time ----

    def wait(self, ms: int, step_ms: int = 3000) -> None:
        """Let time pass; whoever lives says so meanwhile."""
        until_ms = self.now_ms + ms
        while self.now_ms < until_ms:
            self.now_ms = min(until_ms, self.now_ms + step_ms)
            self.beat()
            self.registry.tick()
            for held in self.registry.leases():
                command = RenewLease(
                    lease_id=held.lease.lease_id, epoch=held.lease.epoch
                )
                self.registry.renew(command)
            for place in self.registry.queue():
                name = self._name_of(place.request.request_id)
                self._take(name, self.again(name))
            for name in self.waiting_names():
                if self.registry._state.of_request.get(hashed(name)):
                    self._take(name, self.again(name))

    def _name_of(self, request_id: str) -> str:
        return next(name for name in self.asked if hashed(name) == request_id)


def ticket_of(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def hashed(name: str) -> str:
    return hashlib.sha256(ticket_of(name).encode()).hexdigest()[:16]
