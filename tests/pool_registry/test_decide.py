"""Each command against each state that matters; a virtual clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from xpool_protocol.errors import (
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NameTaken,
    NoCapacity,
    PoolError,
    UsageError,
)
from xpool_registry import decide
from xpool_registry.commands import (
    AcquireGroup,
    AcquireLease,
    EndedByNode,
    JoinNode,
    Moment,
    ReleaseLease,
    RenewLease,
    TakeHeartbeat,
)
from xpool_registry.events import Device, LeaseEnded, LeaseGranted, NodeJoined
from xpool_registry.observations import DeviceLoad, NodeHeard, SessionReport
from xpool_registry.settings import (
    MAX_DEVICES,
    MAX_ENDED_LEASES,
    MAX_GROUP_DEVICES,
    MAX_TTL_MS,
    Settings,
)
from xpool_registry.state import State

GIB = 1 << 30
SETTINGS = Settings()


class World:
    """A state with a clock: commands are decided, then applied."""

    def __init__(self) -> None:
        self.state = State()
        self.now_s = 1000.0
        self.grants = 0

    @property
    def at(self) -> Moment:
        return Moment(now_ns=int(self.now_s * 1e9), wall_s=5e8 + self.now_s)

    def apply(self, facts: decide.Facts) -> decide.Facts:
        for fact in facts:
            self.state.apply(fact, self.at.now_ns)
        return facts

    def join(
        self,
        name: str = "a",
        boot_id: str = "boot-1",
        address: str = "tcp://a:1",
        devices: int = 1,
    ) -> decide.Facts:
        command = join_command(name, boot_id, address, devices)
        return self.apply(decide.join(self.state, command, self.at, SETTINGS))

    def acquire(
        self, share: int = 30, memory_nbytes: int = 0, ttl_ms: int = 0
    ) -> LeaseGranted:
        self.grants += 1
        command = AcquireLease(
            tenant="ada",
            share_percent=share,
            memory_nbytes=memory_nbytes,
            ttl_ms=ttl_ms,
        )
        lease = decide.acquire(
            self.state, command, f"lease-{self.grants}", self.at, SETTINGS
        )
        self.apply([lease])
        return lease

    def heartbeat(
        self,
        *sessions: SessionReport,
        name: str = "a",
        boot_id: str = "boot-1",
        ended: tuple[EndedByNode, ...] = (),
        loads: tuple[DeviceLoad, ...] = (),
    ) -> decide.Facts:
        command = TakeHeartbeat(
            node_name=name, boot_id=boot_id, sessions=sessions, ended=ended, loads=loads
        )
        assert not decide.must_rejoin(self.state, command)
        return self.apply(decide.heartbeat(self.state, command, self.at))

    def renew(self, lease_id: str, epoch: int) -> None:
        command = RenewLease(lease_id=lease_id, epoch=epoch)
        self.apply([decide.renew(self.state, command, self.at)])

    def release(self, lease_id: str, epoch: int, reason: str = "") -> LeaseEnded | None:
        command = ReleaseLease(lease_id=lease_id, epoch=epoch, reason=reason)
        ended = decide.release(self.state, command, self.at)
        self.apply([ended] if ended else [])
        return ended

    def expire(self) -> list[str]:
        ends = decide.expire(self.state, self.at)
        self.apply([*ends])
        return [end.lease_id for end in ends]


def join_command(
    name: str = "a",
    boot_id: str = "boot-1",
    address: str = "tcp://a:1",
    devices: int = 1,
) -> JoinNode:
    return JoinNode(
        node_name=name,
        boot_id=boot_id,
        address=address,
        version="0.1",
        devices=tuple(
            Device(index=index, kind="cpu", name="x", memory_nbytes=10 * GIB)
            for index in range(devices)
        ),
    )


def session(lease_id: str, epoch: int = 1) -> SessionReport:
    return SessionReport(
        lease_id=lease_id,
        epoch=epoch,
        state="open",
        executed_ops=1,
        allocated_nbytes=2,
        received_nbytes=3,
    )


@pytest.fixture
def world() -> World:
    world = World()
    world.join()
    return world


# ---- joining ----


def test_joining_twice_with_one_boot_id_is_joining_once(world: World) -> None:
    lease = world.acquire()
    assert [type(fact) for fact in world.join()] == [NodeHeard]
    assert lease.lease_id in world.state.leases


def test_a_new_boot_id_ends_the_leases_of_the_old_life(world: World) -> None:
    first, second = world.acquire(), world.acquire()
    facts = world.join(boot_id="boot-2")
    assert [type(fact) for fact in facts] == [LeaseEnded, LeaseEnded, NodeJoined]
    assert {
        lease_id: end.reason for lease_id, end in world.state.ended.items()
    } == dict.fromkeys((first.lease_id, second.lease_id), "server restarted")
    assert not world.state.leases
    assert world.acquire(100).share_percent == 100


def test_a_live_name_is_refused_to_another_address(world: World) -> None:
    world.now_s += 4.9
    with pytest.raises(NameTaken, match=r"tcp://a:1, heard 4\.9 s ago"):
        world.join(boot_id="boot-2", address="tcp://elsewhere:1")
    world.now_s += 0.2
    world.join(boot_id="boot-2", address="tcp://elsewhere:1")
    assert world.state.nodes["a"].address == "tcp://elsewhere:1"


def test_after_a_restart_a_name_is_kept_but_gets_no_new_leases(world: World) -> None:
    world.state = State.from_events([world.state.nodes["a"]], world.at.now_ns)
    with pytest.raises(NameTaken):
        world.join(boot_id="boot-2", address="tcp://elsewhere:1")
    with pytest.raises(NoCapacity, match="not heard from"):
        world.acquire()
    world.heartbeat()
    world.acquire()


def test_other_devices_under_one_boot_id_are_refused(world: World) -> None:
    with pytest.raises(UsageError, match="other devices"):
        world.join(devices=2)


# ---- heartbeats ----


@pytest.mark.parametrize(("name", "boot_id"), [("b", "boot-1"), ("a", "boot-0")])
def test_a_stranger_must_rejoin(world: World, name: str, boot_id: str) -> None:
    command = TakeHeartbeat(node_name=name, boot_id=boot_id)
    assert decide.must_rejoin(world.state, command)


def test_a_silent_node_gets_no_leases_but_keeps_those_it_has(world: World) -> None:
    lease = world.acquire(ttl_ms=60_000)
    world.now_s += 5
    with pytest.raises(NoCapacity, match=r"a/0 has 70% .*not heard from for 5 s"):
        world.acquire()
    world.renew(lease.lease_id, lease.epoch)
    world.heartbeat()
    world.acquire()


def test_a_node_ends_its_own_leases_only(world: World) -> None:
    world.join("b", address="tcp://b:1")
    lease = world.acquire()
    assert lease.node_name == "a"
    by_node = EndedByNode(lease_id=lease.lease_id, epoch=lease.epoch, reason="crashed")
    world.heartbeat(name="b", ended=(by_node,))
    old = EndedByNode(lease_id=lease.lease_id, epoch=lease.epoch - 1, reason="old")
    unknown = EndedByNode(lease_id="who", epoch=1, reason="?")
    world.heartbeat(ended=(old, unknown))
    assert lease.lease_id in world.state.leases
    facts = world.heartbeat(ended=(by_node, by_node))
    assert [type(fact) for fact in facts] == [LeaseEnded, NodeHeard]
    assert world.state.ended[lease.lease_id].reason == "crashed"
    world.heartbeat(ended=(by_node,))  # the reply was lost: told again


def test_sessions_are_judged(world: World) -> None:
    world.join("b", address="tcp://b:1")
    live, over = world.acquire(), world.acquire()
    assert (live.node_name, live.epoch) == ("a", 1)
    world.release(over.lease_id, over.epoch, "done")
    sessions = (session(live.lease_id), session(over.lease_id, 2), session("who"))
    verdict = decide.judge_sessions(world.state, "a", sessions)
    assert verdict.to_end == {over.lease_id: "done"}
    assert verdict.unknown == ["who"]
    stale = (session(live.lease_id, live.epoch - 1),)
    assert decide.judge_sessions(world.state, "a", stale).to_end == {
        live.lease_id: "epoch 1 took its place"
    }
    assert decide.judge_sessions(world.state, "b", sessions[:1]).to_end == {
        live.lease_id: "the lease is on a"
    }


def test_loads_and_sessions_are_kept(world: World) -> None:
    load = DeviceLoad(index=0, used_nbytes=1, busy_percent=50.0, session_count=1)
    world.heartbeat(session("l"), loads=(load,))
    beat = world.state.beats["a"]
    assert (beat.loads, beat.sessions) == ((load,), (session("l"),))


# ---- leases ----


def test_memory_defaults_to_the_same_share(world: World) -> None:
    assert world.acquire(30).memory_nbytes == 3 * GIB
    assert world.acquire(30, memory_nbytes=5).memory_nbytes == 5


def test_guarantees_never_exceed_the_device(world: World) -> None:
    world.acquire(60, memory_nbytes=GIB)
    with pytest.raises(NoCapacity, match=r"a/0 has 40% and 9 GiB \(too little share\)"):
        world.acquire(41, memory_nbytes=GIB)
    with pytest.raises(NoCapacity, match="too little memory"):
        world.acquire(1, memory_nbytes=9 * GIB + 1)
    world.acquire(40, memory_nbytes=9 * GIB)


def test_epochs_count_over_all_leases(world: World) -> None:
    assert [world.acquire(10).epoch for _ in range(3)] == [1, 2, 3]


def test_renewal_extends_by_one_ttl(world: World) -> None:
    lease = world.acquire(ttl_ms=2000)
    for _ in range(5):
        world.now_s += 1.9
        world.renew(lease.lease_id, lease.epoch)
    assert world.expire() == []
    world.now_s += 1.999
    assert world.expire() == []
    world.now_s += 0.001
    with pytest.raises(LeaseExpired, match="not renewed within its 2 s"):
        world.renew(lease.lease_id, lease.epoch)
    assert world.expire() == [lease.lease_id]
    world.now_s += 3
    with pytest.raises(LeaseExpired, match=r"ended 3 s ago \(expired\)"):
        world.renew(lease.lease_id, lease.epoch)
    world.heartbeat()
    assert world.acquire(100).share_percent == 100


def test_renewals_cost_no_memory_and_the_last_one_counts(world: World) -> None:
    kept = world.acquire(ttl_ms=3000)
    lost = world.acquire(ttl_ms=3000)
    for _ in range(50):
        world.now_s += 1
        world.renew(kept.lease_id, kept.epoch)
        if world.now_s <= 1010:
            world.renew(lost.lease_id, lost.epoch)
        expired = world.expire()
        assert expired == ([lost.lease_id] if world.now_s == 1013 else [])
        assert len(world.state._due) <= 2
    world.now_s += 3
    assert world.expire() == [kept.lease_id]


def test_a_deadline_that_comes_nearer_is_kept(world: World) -> None:
    lease = world.acquire(ttl_ms=3000)
    world.state._extend(lease, world.at.now_ns, 60_000)
    world.now_s += 1
    world.renew(lease.lease_id, lease.epoch)  # for 3 s from now on
    world.now_s += 3
    assert world.expire() == [lease.lease_id]


@pytest.mark.parametrize("act", [World.renew, World.release])
def test_who_may_not_touch_a_lease(
    world: World, act: Callable[[World, str, int], object]
) -> None:
    lease = world.acquire()
    with pytest.raises(LeaseUnknown, match="'who'"):
        act(world, "who", 1)
    with pytest.raises(EpochStale, match=r"has epoch 1 by now: .* epoch 0 has lost it"):
        act(world, lease.lease_id, lease.epoch - 1)
    with pytest.raises(LeaseUnknown, match="never given out"):
        act(world, lease.lease_id, lease.epoch + 1)
    assert lease.lease_id in world.state.leases


def test_release_is_idempotent(world: World) -> None:
    lease = world.acquire()
    ended = world.release(lease.lease_id, lease.epoch)
    assert ended is not None
    assert ended.reason == "released"
    assert world.release(lease.lease_id, lease.epoch) is None
    assert world.acquire(100)


def test_a_restart_gives_every_lease_one_fresh_ttl(world: World) -> None:
    lease = world.acquire(ttl_ms=2000)
    world.now_s += 500
    world.state = State.from_events(
        [world.state.nodes["a"], world.state.leases[lease.lease_id]], world.at.now_ns
    )
    world.now_s += 1.9
    assert world.expire() == []
    world.now_s += 0.1
    assert world.expire() == [lease.lease_id]


def test_the_memory_of_ended_leases_is_bounded() -> None:
    state = State()
    for number in range(MAX_ENDED_LEASES + 5):
        state.apply(
            LeaseEnded(lease_id=f"{number}", epoch=number, reason="r", at_s=0.0), 0
        )
    assert len(state.ended) == MAX_ENDED_LEASES
    assert "4" not in state.ended
    assert "5" in state.ended


# ---- bounds ----


def changed(**fields: object) -> JoinNode:
    plain = join_command()
    given = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    return JoinNode(**{**given, **fields})


DEVICE = join_command().devices[0]
MANY = tuple(
    Device(index=index, kind="cpu", name="", memory_nbytes=0)
    for index in range(MAX_DEVICES + 1)
)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(changed(node_name=""), id="no name"),
        pytest.param(changed(node_name="-x"), id="name like an option"),
        pytest.param(changed(node_name="a/b"), id="name with a slash"),
        pytest.param(changed(node_name="a\n"), id="name with a newline"),
        pytest.param(changed(node_name="a" * 129), id="long name"),
        pytest.param(changed(boot_id=""), id="no boot id"),
        pytest.param(changed(boot_id="x" * 129), id="long boot id"),
        pytest.param(changed(address="host:1"), id="no scheme"),
        pytest.param(changed(address="tcp://" + "h" * 256), id="long address"),
        pytest.param(changed(address="tcp://h\x1b[31m"), id="escape sequence"),
        pytest.param(changed(version="v" * 129), id="long version"),
        pytest.param(changed(devices=()), id="no devices"),
        pytest.param(changed(devices=MANY), id="too many devices"),
        pytest.param(changed(devices=(DEVICE, DEVICE)), id="one index twice"),
        pytest.param(
            changed(devices=(Device(index=-1, kind="cpu", name="", memory_nbytes=0),)),
            id="negative index",
        ),
        pytest.param(
            changed(devices=(Device(index=0, kind="", name="", memory_nbytes=0),)),
            id="no kind",
        ),
        pytest.param(
            changed(
                devices=(Device(index=0, kind="cpu", name="", memory_nbytes=1 << 51),)
            ),
            id="too much memory",
        ),
    ],
)
def test_bad_joins(command: JoinNode) -> None:
    with pytest.raises(UsageError):
        decide.join(State(), command, Moment(0, 0.0), SETTINGS)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tenant": ""}, "tenant is empty"),
        ({"tenant": "t" * 129}, "tenant has 129"),
        ({"tenant": "a\tb"}, "cannot be printed"),
        ({"client": "c" * 257}, "client has 257"),
        ({"share_percent": 0}, "share_percent is 0"),
        ({"share_percent": 101}, "from 1 to 100"),
        ({"memory_nbytes": -1}, "memory_nbytes is -1"),
        ({"memory_nbytes": 1 << 60}, "memory_nbytes"),
        ({"ttl_ms": 999}, "1 s to 24 h"),
        ({"ttl_ms": -1}, "1 s to 24 h"),
        ({"ttl_ms": MAX_TTL_MS + 1}, "1 s to 24 h"),
        ({"mode": "greedy"}, "elastic or capped"),
    ],
)
def test_bad_acquires(world: World, fields: dict[str, object], text: str) -> None:
    plain: dict[str, object] = {"tenant": "ada", "share_percent": 30}
    command = AcquireLease(**{**plain, **fields})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=text):
        decide.acquire(world.state, command, "l", world.at, SETTINGS)


@pytest.mark.parametrize("busy", [-0.1, 100.1, float("nan"), float("inf")])
def test_bad_loads(world: World, busy: float) -> None:
    load = DeviceLoad(index=0, used_nbytes=0, busy_percent=busy, session_count=0)
    with pytest.raises(UsageError, match="busy_percent"):
        world.heartbeat(loads=(load,))


def test_a_load_of_a_device_that_never_joined(world: World) -> None:
    load = DeviceLoad(index=7, used_nbytes=0, busy_percent=0.0, session_count=0)
    with pytest.raises(UsageError, match="device 7"):
        world.heartbeat(loads=(load,))


def test_bad_reasons_and_sessions(world: World) -> None:
    lease = world.acquire()
    refused: list[Callable[[], object]] = [
        lambda: world.release(lease.lease_id, lease.epoch, "r" * 257),
        lambda: world.release(lease.lease_id, lease.epoch, "two\nlines"),
        lambda: world.heartbeat(session("")),
        lambda: world.heartbeat(session("l" * 129)),
        lambda: world.heartbeat(
            ended=(EndedByNode(lease_id="l", epoch=1, reason="\x00"),)
        ),
    ]
    for act in refused:
        with pytest.raises(PoolError) as caught:
            act()
        assert type(caught.value) is UsageError
    assert lease.lease_id in world.state.leases


# ---- several devices at once


def group_of(count: int, share: int = 30) -> AcquireGroup:
    wish = AcquireLease(tenant="ada", share_percent=share)
    return AcquireGroup(slice=wish, device_count=count)


def acquired(world: World, command: AcquireGroup) -> list[LeaseGranted]:
    ids = [f"group-{world.grants}-{i}" for i in range(command.device_count)]
    world.grants += 1
    leases = decide.acquire_group(world.state, command, ids, world.at, SETTINGS)
    world.apply([*leases])
    return leases


def test_a_group_is_granted_together_and_ends_one_by_one(world: World) -> None:
    world.join("b", address="tcp://b:1", devices=2)
    first, second = acquired(world, group_of(2))
    assert (first.node_name, second.node_name) == ("b", "b")
    assert {first.device_index, second.device_index} == {0, 1}
    assert first.group_id == second.group_id == first.lease_id
    assert second.epoch == first.epoch + 1
    release = ReleaseLease(lease_id=first.lease_id, epoch=first.epoch)
    ended = decide.release(world.state, release, world.at)
    assert ended is not None
    world.apply([ended])
    assert list(world.state.leases) == [second.lease_id]


def test_one_device_is_no_group(world: World) -> None:
    (lease,) = acquired(world, group_of(1))
    assert lease.group_id == ""


def test_a_group_is_granted_whole_or_not_at_all(world: World) -> None:
    with pytest.raises(NoCapacity, match="2 devices are wanted and 1 has"):
        decide.acquire_group(world.state, group_of(2), ["x", "y"], world.at, SETTINGS)
    assert not world.state.leases


@pytest.mark.parametrize("count", [0, MAX_GROUP_DEVICES + 1, 1 << 31])
def test_bad_group_sizes(world: World, count: int) -> None:
    command = group_of(count)
    with pytest.raises(UsageError, match="device_count"):
        decide.acquire_group(world.state, command, [], world.at, SETTINGS)
