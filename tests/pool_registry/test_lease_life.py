"""Any sequence of commands, restarts included, against a model of live leases."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from xpool_protocol.control.token import verify
from xpool_protocol.errors import LeaseExpired, NoCapacity
from xpool_registry.commands import (
    AcquireLease,
    EndedByNode,
    JoinNode,
    Moment,
    ReleaseLease,
    RenewLease,
    TakeHeartbeat,
)
from xpool_registry.events import Device
from xpool_registry.keys import SigningKey, verifier_from_public_key
from xpool_registry.observations import SessionReport
from xpool_registry.registry import HeldLease, Registry
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.store import MemoryStore

NODES = st.sampled_from(["a", "b"])
# Exact fits and misses by one byte come too rarely by chance.
MEMORY = st.sampled_from([0, 1, 250, 500, 501, 999, 1000]) | st.integers(0, 600)
KEY = SigningKey.generate()
MEMORY_NBYTES = 1000


class LeaseLife(RuleBasedStateMachine):
    """The model: each acknowledged lease and the time until which it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.ids = 0
        self.boots = dict.fromkeys("ab", 0)
        self.store = MemoryStore()
        self.registry = self.opened()
        self.live: dict[str, tuple[HeldLease, int]] = {}
        self.over: dict[str, HeldLease] = {}
        self.epochs: set[int] = set()

    def opened(self) -> Registry:
        return Registry(self.store, KEY, Settings(), self.new_id, self.clock)

    def new_id(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"

    def clock(self) -> Moment:
        return Moment(now_ns=self.now_ms * 1_000_000, wall_s=self.now_ms / 1000)

    def lose(self, lease_id: str) -> None:
        self.over[lease_id] = self.live.pop(lease_id)[0]

    def pick(self, leases: list[str], data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(leases)), label="lease")

    @initialize()
    def both_join(self) -> None:
        self.join("a")
        self.join("b")

    @rule(name=NODES)
    def join(self, name: str) -> None:
        self.registry.join(
            JoinNode(
                node_name=name,
                boot_id=f"boot-{self.boots[name]}",
                address=f"tcp://{name}:1",
                version="",
                devices=tuple(
                    Device(index=i, kind="cpu", name="", memory_nbytes=MEMORY_NBYTES)
                    for i in range(2)
                ),
            )
        )

    @rule(name=NODES)
    def restart_node(self, name: str) -> None:
        self.boots[name] += 1
        self.join(name)
        for lease_id, (held, _) in list(self.live.items()):
            if held.node.node_name == name:
                self.lose(lease_id)

    @rule(share=st.integers(1, 100), memory=MEMORY, ttl=st.integers(1, 9))
    def acquire(self, share: int, memory: int, ttl: int) -> None:
        command = AcquireLease(
            tenant="t", share_percent=share, memory_nbytes=memory, ttl_ms=ttl * 1000
        )
        try:
            held = self.registry.acquire(command)
        except NoCapacity:
            return
        assert held.lease.epoch not in self.epochs, "one epoch, two holders"
        self.epochs.add(held.lease.epoch)
        claims = verify(
            held.token,
            verifier_from_public_key(self.registry.public_key),
            self.now_ms / 1000,
        )
        assert (claims.lease_id, claims.epoch) == (
            held.lease.lease_id,
            held.lease.epoch,
        )
        self.live[held.lease.lease_id] = (held, self.now_ms + ttl * 1000)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        lease_id = self.pick(list(self.live), data)
        held, _ = self.live[lease_id]
        again = self.registry.renew(
            RenewLease(lease_id=lease_id, epoch=held.lease.epoch)
        )
        assert again.lease == held.lease
        self.live[lease_id] = (held, self.now_ms + held.lease.ttl_ms)

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def renew_what_is_over(self, data: st.DataObject) -> None:
        lease_id = self.pick(list(self.over), data)
        epoch = self.over[lease_id].lease.epoch
        try:
            self.registry.renew(RenewLease(lease_id=lease_id, epoch=epoch))
        except LeaseExpired:
            return
        raise AssertionError("an ended lease was renewed")

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease_id = self.pick(list(self.live), data)
        epoch = self.live[lease_id][0].lease.epoch
        assert self.registry.release(ReleaseLease(lease_id=lease_id, epoch=epoch))
        assert not self.registry.release(ReleaseLease(lease_id=lease_id, epoch=epoch))
        self.lose(lease_id)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def end_by_node(self, data: st.DataObject) -> None:
        lease_id = self.pick(list(self.live), data)
        held = self.live[lease_id][0]
        ended = EndedByNode(
            lease_id=lease_id, epoch=held.lease.epoch, reason="worker lost"
        )
        self.heartbeat(held.node.node_name, ended=(ended,))
        self.lose(lease_id)

    @rule(name=NODES)
    def heartbeat_with_all_sessions(self, name: str) -> None:
        known = [held for held, _ in self.live.values()] + list(self.over.values())
        there = {
            held.lease.lease_id: held.lease.epoch
            for held in known
            if held.node.node_name == name
        }
        to_end = self.heartbeat(name, sessions=there)
        assert to_end == {lease_id for lease_id in there if lease_id in self.over}

    def heartbeat(
        self,
        name: str,
        *,
        ended: tuple[EndedByNode, ...] = (),
        sessions: dict[str, int] | None = None,
    ) -> set[str]:
        answer = self.registry.heartbeat(
            TakeHeartbeat(
                node_name=name,
                boot_id=f"boot-{self.boots[name]}",
                ended=ended,
                sessions=tuple(
                    SessionReport(
                        lease_id=lease_id,
                        epoch=epoch,
                        state="",
                        executed_ops=0,
                        allocated_nbytes=0,
                        received_nbytes=0,
                    )
                    for lease_id, epoch in (sessions or {}).items()
                ),
            )
        )
        assert not answer.must_rejoin
        return set(answer.to_end)

    @rule(ms=st.integers(1, 6000))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.registry.tick()
        for lease_id, (_, until_ms) in list(self.live.items()):
            if until_ms <= self.now_ms:
                self.lose(lease_id)

    @rule()
    def restart_registry(self) -> None:
        self.registry = self.opened()
        for lease_id, (held, _) in self.live.items():
            self.live[lease_id] = (held, self.now_ms + held.lease.ttl_ms)

    @invariant()
    def live_leases_are_exactly_the_acknowledged_ones(self) -> None:
        held = {one.lease.lease_id: one for one in self.registry.leases()}
        assert held.keys() == self.live.keys()
        for lease_id, (promised, until_ms) in self.live.items():
            assert held[lease_id].lease == promised.lease
            assert held[lease_id].expires_in_ms == until_ms - self.now_ms

    @invariant()
    def guarantees_fit_their_device(self) -> None:
        taken: dict[tuple[str, int], list[int]] = {}
        for held, _ in self.live.values():
            sums = taken.setdefault((held.node.node_name, held.device.index), [0, 0])
            sums[0] += held.lease.share_percent
            sums[1] += held.lease.memory_nbytes
        for view in self.registry.devices():
            share, memory = taken.get(view.offer.key, [0, 0])
            assert share <= 100
            assert memory <= MEMORY_NBYTES
            assert view.offer.free_share_percent == 100 - share
            assert view.offer.free_nbytes == MEMORY_NBYTES - memory

    @invariant()
    def replaying_the_log_gives_the_same_state(self) -> None:
        replayed = State.from_events(self.store.load(), 0)
        running = self.registry._state
        assert replayed.created == running.created
        assert replayed.nodes == running.nodes
        assert replayed.leases == running.leases
        assert replayed.ended == running.ended
        assert replayed.last_epoch == running.last_epoch


LeaseLife.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestLeaseLife = LeaseLife.TestCase
