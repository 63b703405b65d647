"""What servers, clients and clocks may do to a registry, and what it does then."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import grpc
import pytest
from pool_registry.pool_model import GIB, HOUR_MS, PoolModel
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import NoCapacity, PoolError, UsageError
from xpool_registry import queueing, waiting_state
from xpool_registry.commands import JoinNode, Moment, TakeHeartbeat
from xpool_registry.events import Device
from xpool_registry.fairshare import Amount, Book
from xpool_registry.observations import DeviceLoad, SessionReport

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, StartRegistry


@pytest.fixture
def pool() -> PoolModel:
    model = PoolModel()
    model.join("a", devices=2)
    return model


def test_a_heartbeat_of_ten_megabytes_is_refused_and_harms_nobody(
    start_registry: StartRegistry, make_node: type[Node]
) -> None:
    registry = start_registry()
    with registry.client() as client:
        node = make_node(client)
        node.join()
        huge = pb.SessionReport(lease_id="x" * 10_000_000)
        with pytest.raises(PoolError):
            client.heartbeat(node_name=node.name, boot_id="boot-1", sessions=[huge])
        node.heartbeat()
        assert client.acquire(tenant="ada", share_percent=10).node_name == node.name


@pytest.mark.parametrize(
    "field",
    [
        b"\x10\x00",
        b"\x10\x65",  # 101
        b"\x10\xff\xff\xff\xff\x0f",
        b"\x11" + struct.pack("<d", 12.5),
        b"\x12\x03abc",
    ],
)
def test_a_share_that_is_none_on_the_wire(
    start_registry: StartRegistry, make_node: type[Node], field: bytes
) -> None:
    """Numbers out of bounds, and fields of another type than the number's."""
    request = pb.AcquireRequest(tenant="ada").SerializeToString() + field
    registry = start_registry()
    with registry.client() as client:
        make_node(client).join()
        with grpc.insecure_channel(registry.address) as channel:
            acquire = channel.unary_unary("/xpool.registry.v1.PoolRegistry/Acquire")
            with pytest.raises(grpc.RpcError) as refused:
                acquire(request, timeout=20)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "share_percent is" in refused.value.details()
        assert not client.list_leases()


def test_a_client_that_asks_in_a_loop_fills_its_own_part_of_the_queue(
    pool: PoolModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "MAX_WAITING_OF_TENANT", 20)
    monkeypatch.setattr(queueing, "MAX_WAITING", 30)
    pool.ask("all", devices=2)
    for i in range(20):
        pool.ask(f"r{i}")
    with pytest.raises(NoCapacity, match="ada has 20 requests in the queue"):
        pool.ask("one more")
    for i in range(10):
        pool.ask(f"b{i}", tenant="bob")
    with pytest.raises(NoCapacity, match="30 requests wait already"):
        pool.ask("another", tenant="eve")
    assert len(pool.queue()) == 30


@pytest.mark.parametrize("devices", [0, 1_000_000, -1])
def test_a_request_for_a_senseless_number_of_devices(
    pool: PoolModel, devices: int
) -> None:
    with pytest.raises(UsageError, match="device_count is"):
        pool.ask("x", devices=devices)


def test_a_server_that_claims_to_be_enormous_or_to_have_a_device_twice() -> None:
    pool = PoolModel()
    for devices in (
        (Device(index=0, kind="cuda", name="", memory_nbytes=1 << 62),),
        tuple(
            Device(index=0, kind="cuda", name="", memory_nbytes=GIB) for _ in range(2)
        ),
        (Device(index=0, kind="cuda", name="", memory_nbytes=-1),),
    ):
        with pytest.raises(UsageError):
            pool.registry.join(
                JoinNode(
                    node_name="liar",
                    boot_id="b",
                    address="tcp://liar:1",
                    version="",
                    devices=devices,
                )
            )
    assert pool.registry.nodes() == []


def test_a_server_that_reports_more_in_use_than_it_has_gets_nothing_more(
    pool: PoolModel,
) -> None:
    loads = tuple(
        DeviceLoad(index=i, used_nbytes=1 << 60, busy_percent=0.0, session_count=0)
        for i in range(2)
    )
    command = TakeHeartbeat(node_name="a", boot_id="boot-1", loads=loads)
    pool.registry.heartbeat(command)
    with pytest.raises(NoCapacity, match="too little memory"):
        pool.ask("x", 10, wait_ms=0)
    pool.beat()
    quiet = tuple(
        DeviceLoad(index=i, used_nbytes=0, busy_percent=0.0, session_count=0)
        for i in range(2)
    )
    pool.registry.heartbeat(TakeHeartbeat(node_name="a", boot_id="boot-1", loads=quiet))
    assert pool.ask("x", 10, wait_ms=0)


def test_leases_that_were_given_away_during_a_partition_end_on_their_old_server(
    pool: PoolModel,
) -> None:
    pool.join("b", devices=2)
    pool.ask("one", devices=2, same_node=True)
    old = [held.lease for held in pool.leases["one"]]
    pool.now_ms += 16_000  # nobody renews: the server and its job are cut off
    pool.registry.tick()
    other = next(name for name in "ab" if name != old[0].node_name)
    pool.registry.heartbeat(TakeHeartbeat(node_name=other, boot_id="boot-1"))
    pool.ask("two", devices=2, wait_ms=0)
    assert {held.lease.node_name for held in pool.leases["two"]} == {other}
    sessions = tuple(
        SessionReport(
            lease_id=lease.lease_id,
            epoch=lease.epoch,
            state="open",
            executed_ops=0,
            allocated_nbytes=0,
            received_nbytes=0,
        )
        for lease in old
    )
    answer = pool.registry.heartbeat(
        TakeHeartbeat(node_name=old[0].node_name, boot_id="boot-1", sessions=sessions)
    )
    assert answer.to_end == {lease.lease_id: "expired" for lease in old}


def test_a_wall_clock_that_jumps_ends_nothing_and_breaks_no_share() -> None:
    pool = PoolModel()
    pool.join("a", devices=2)
    clock = pool.clock
    shift_s = [0.0]

    def jumping() -> Moment:
        at = clock()
        return Moment(now_ns=at.now_ns, wall_s=at.wall_s + shift_s[0])

    pool.registry._clock = jumping
    pool.ask("one", limit_ms=HOUR_MS)
    pool.ask("rest")
    pool.ask("two", tenant="bob")
    for shift_s[0] in (86_400.0 * 365, -86_400.0 * 365, 0.0):
        pool.wait(3000)
        assert pool.running() == {"one", "rest"}
        assert pool.queue() == ["two"]
        for view in pool.registry.tenants():
            assert 0 <= view.use <= 1
    pool.end("one")
    pool.wait(3000)
    assert "two" in pool.running()


def test_a_book_lets_no_time_pass_backwards() -> None:
    book = Book()
    book.advance(1000.0, 3600.0)
    book.change(Amount(1000.0, 0.0), 1)
    book.advance(4600.0, 3600.0)
    assert book.recent.milli == pytest.approx(500)
    book.advance(10.0, 3600.0)
    assert book.recent.milli == pytest.approx(500)
    book.advance(4600.0, 3600.0)
    assert book.recent.milli == pytest.approx(500)


def test_names_of_tenants_without_end_push_out_only_who_holds_nothing(
    pool: PoolModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without tokens anybody may ask under any name, and then another."""
    monkeypatch.setattr(waiting_state, "MAX_BOOKS", 20)
    pool.tenant("lab", weight=1.0)
    pool.ask("known", 10, tenant="lab")
    pool.end("known")
    pool.ask("holds", 10, tenant="ada")
    for i in range(100):
        pool.ask(f"r{i}", 10, tenant=f"name-{i}", wait_ms=0)
        pool.end(f"r{i}")
    for _ in range(2):
        books = pool.registry._state.books
        assert len(books) == 20
        assert {"lab", "ada", "name-99"} <= books.keys()
        assert [name for name, one in books.items() if one.is_held] == ["ada"]
        pool.restart()


def test_a_tenant_that_nobody_has_heard_of_is_one_of_weight_one(
    pool: PoolModel,
) -> None:
    pool.tenant("ada", weight=1.0)
    assert pool.ask("one", 10, tenant="stranger")
    views = {view.name: view for view in pool.registry.tenants()}
    assert views["stranger"].known is None
    assert views["stranger"].right == views["ada"].right == 0.5
    assert not pool.registry.remove_tenant("nobody")
    with pytest.raises(UsageError, match="there is no group 'nobody'"):
        pool.tenant("bob", parent="nobody")
    for name in ("", "x" * 129, "a\nb"):
        with pytest.raises(UsageError, match="tenant"):
            pool.ask("odd", tenant=name)
