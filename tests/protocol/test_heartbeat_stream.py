"""Heartbeats over one stream: answered in order, refused like calls, opened again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from support.waiting import eventually
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.adapting import MAX_STREAMS
from xpool_protocol.control.credentials import Credentials
from xpool_protocol.control.heartbeats import Told
from xpool_protocol.control.rpc import RegistryClient
from xpool_protocol.control.serving import Answering, Call, RegistryServer
from xpool_protocol.errors import (
    BrokenError,
    NotLeader,
    RegistryUnreachable,
    TokenInvalid,
    UsageError,
)

METHOD = "/xpool.registry.v1.PoolRegistry/Heartbeats"


class Registry:
    """Takes heartbeats; what the boot id tells it, it does."""

    def __init__(self, leader: str = "") -> None:
        self.leader = leader
        self.tokens: list[str] = []
        self.peers: Counter[str] = Counter()
        self.is_kept: futures.Future[None] | None = None
        self.voids = 0
        self.bugs: list[Exception] = []
        self.seconds: list[list[int]] = []
        self.holding = threading.Event()

    def begin(self) -> Answering:
        if self.leader:
            raise NotLeader(f"follows {self.leader}", self.leader)
        return self

    def settled(self) -> futures.Future[None] | None:
        if self.voids:
            raise BrokenError("what was decided is void")
        return self.is_kept

    def admit(self, call: Call) -> object:
        self.tokens.append(call.token)
        self.peers[call.peer] += 1
        if call.token == "revoked":
            raise TokenInvalid("it was revoked")
        return call.request

    def heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatReply:
        self.seconds += [[one.at_s for one in it.usage] for it in request.sessions]
        match request.boot_id:
            case "stranger":
                return pb.HeartbeatReply(must_rejoin=True)
            case "refuse":
                raise UsageError("busy_percent is 200.0, not 0 to 100")
            case "bug":
                raise KeyError("secret")
            case "end":
                return pb.HeartbeatReply(end_leases=[pb.LeaseToEnd(lease_id="l")])
            case "late":
                self.holding.wait(20)
        return pb.HeartbeatReply(next_heartbeat_ms=len(request.node_name))

    def unexpected(self, error: Exception) -> None:
        self.bugs.append(error)

    def __getattr__(self, name: str) -> Any:
        def nobody_asks(request: object) -> object:
            raise AssertionError(f"{name} was called")

        nobody_asks.__name__ = name
        return nobody_asks


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def server(registry: Registry) -> Iterator[RegistryServer]:
    one = RegistryServer("127.0.0.1", 0)
    one.start(registry)
    yield one
    registry.holding.set()
    one.stop()


@pytest.fixture
def client(server: RegistryServer) -> Iterator[RegistryClient]:
    with RegistryClient(f"127.0.0.1:{server.port}") as client:
        yield client


def beat(client: RegistryClient, name: str = "a", boot_id: str = "") -> int:
    reply = client.heartbeat(node_name=name, boot_id=boot_id)
    return int(reply.next_heartbeat_ms)


def test_many_on_one_stream_each_with_its_own_answer(
    client: RegistryClient, registry: Registry
) -> None:
    for count in range(1, 200):
        assert beat(client, "n" * count) == count
    assert len(registry.tokens) == 199
    assert not registry.bugs


def test_a_refusal_is_told_and_the_next_one_is_answered(
    client: RegistryClient, registry: Registry
) -> None:
    for _ in range(3):
        with pytest.raises(UsageError, match=r"busy_percent is 200\.0"):
            beat(client, boot_id="refuse")
        assert beat(client) == 1
    with pytest.raises(Exception, match="its log has the details") as caught:
        beat(client, boot_id="bug")
    assert "secret" not in str(caught.value)
    assert isinstance(registry.bugs[-1], KeyError)
    assert beat(client) == 1


def test_each_heartbeat_is_admitted_by_itself(server: RegistryServer) -> None:
    """A stream that was opened with a good token gets nothing out of that."""
    address = f"127.0.0.1:{server.port}"
    with (
        RegistryClient(address, 5.0, Credentials("revoked")) as client,
        pytest.raises(TokenInvalid, match="revoked"),
    ):
        beat(client)


def test_what_tells_of_decisions_waits_until_they_are_kept(
    client: RegistryClient, registry: Registry
) -> None:
    registry.is_kept = futures.Future()
    assert beat(client) == 1, "it says nothing that could be void"
    answered: list[pb.HeartbeatReply] = []
    thread = threading.Thread(
        target=lambda: answered.append(client.heartbeat(node_name="", boot_id="end"))
    )
    thread.start()
    eventually(lambda: len(registry.tokens) == 2, "it has come", 5)
    assert not answered
    registry.is_kept.set_result(None)
    thread.join(5)
    assert [one.end_leases[0].lease_id for one in answered] == ["l"]
    registry.voids = 1
    with pytest.raises(BrokenError, match="void"):
        beat(client, boot_id="end")


def test_an_answer_that_is_late_is_nobodys(
    server: RegistryServer, registry: Registry
) -> None:
    with RegistryClient(f"127.0.0.1:{server.port}", timeout_s=0.3) as client:
        assert beat(client, "aaaa") == 4
        with pytest.raises(RegistryUnreachable, match="did not answer in time"):
            beat(client, "bb", boot_id="late")
        registry.holding.set()
        eventually(lambda: _answers(client, "ccc"), "it answers again", 10)
        assert beat(client, "ddddd") == 5


def _answers(client: RegistryClient, name: str) -> bool:
    try:
        assert beat(client, name) == len(name)
    except RegistryUnreachable:
        return False
    return True


def test_a_registry_that_comes_back_is_found(registry: Registry) -> None:
    first = RegistryServer("127.0.0.1", 0)
    first.start(registry)
    with RegistryClient(f"127.0.0.1:{first.port}") as client:
        assert beat(client) == 1
        first.stop()  # at once, although a stream is open
        with pytest.raises(RegistryUnreachable):
            beat(client)
        second = RegistryServer("127.0.0.1", first.port)
        second.start(registry)
        try:
            eventually(lambda: _answers(client, "a"), "it answers again", 10)
        finally:
            second.stop()


def test_it_goes_to_the_one_that_leads(server: RegistryServer) -> None:
    leader = f"127.0.0.1:{server.port}"
    follower = RegistryServer("127.0.0.1", 0)
    follower.start(Registry(leader))
    try:
        both = f"127.0.0.1:{follower.port},{leader}"
        with RegistryClient(both) as client:
            for count in range(1, 5):
                assert beat(client, "n" * count) == count
    finally:
        follower.stop()


def test_a_registry_without_streams_is_called() -> None:
    class Older(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
        def service(self, call_details: Any) -> Any:
            if not call_details.method.endswith("/Heartbeat"):
                return None  # unimplemented
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: pb.HeartbeatReply(
                    next_heartbeat_ms=len(request.node_name)
                ),
                request_deserializer=pb.HeartbeatRequest.FromString,
                response_serializer=pb.HeartbeatReply.SerializeToString,
            )

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Older(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with RegistryClient(f"127.0.0.1:{port}") as client:
            assert [beat(client, name) for name in ("a", "bb", "ccc")] == [1, 2, 3]
    finally:
        server.stop(None).wait()


def test_beyond_the_last_stream_there_are_calls(
    client: RegistryClient, monkeypatch: pytest.MonkeyPatch, server: RegistryServer
) -> None:
    assert MAX_STREAMS > 4096, "every node of a pool has one"
    monkeypatch.setattr("xpool_protocol.control.adapting.MAX_STREAMS", 1)
    assert beat(client) == 1
    with RegistryClient(f"127.0.0.1:{server.port}") as other:
        assert [beat(other, name) for name in ("bb", "ccc")] == [2, 3]
    assert beat(client) == 1


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x08"]
)
def test_garbage_ends_its_own_stream_alone(
    client: RegistryClient, server: RegistryServer, garbage: bytes
) -> None:
    assert beat(client) == 1
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        replies = channel.stream_stream(METHOD)(iter([garbage]), timeout=10)
        with pytest.raises(grpc.RpcError):
            list(replies)
    assert beat(client, "bb") == 2


def test_threads_may_share_a_client(client: RegistryClient) -> None:
    wrong: list[int] = []

    def many(count: int) -> None:
        for _ in range(50):
            found = beat(client, "n" * count)
            if found != count:
                wrong.append(found)

    threads = [threading.Thread(target=many, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_a_client_that_vanishes_leaves_nothing(
    server: RegistryServer, registry: Registry
) -> None:
    for _ in range(20):
        with RegistryClient(f"127.0.0.1:{server.port}") as client:
            beat(client)
    eventually(lambda: server.stream_count() == 0, "all streams have ended", 10)
    assert not registry.bugs


def used(*seconds: int, lease_id: str = "l") -> pb.SessionReport:
    usage = [pb.UsageSecond(at_s=at_s, device_ns=7) for at_s in seconds]
    return pb.SessionReport(lease_id=lease_id, usage=usage)


def test_a_stream_tells_a_second_once(
    client: RegistryClient, registry: Registry
) -> None:
    def tell(*sessions: pb.SessionReport, boot_id: str = "") -> None:
        client.heartbeat(node_name="a", boot_id=boot_id, sessions=sessions)

    tell(used(1, 2))
    tell(used(1, 2, 3), used(2, 3, lease_id="m"))
    tell(used(1, 2, 3), used(3, 4, 5, lease_id="m"))  # the last second in any case
    assert registry.seconds == [[1, 2], [3], [2, 3], [3], [4, 5]]
    registry.seconds.clear()
    with pytest.raises(UsageError):
        tell(used(1, 2, 3, 4), boot_id="refuse")
    tell(used(1, 2, 3, 4))  # another stream: who is at its end may know nothing
    tell(used(1, 2, 3, 4))
    tell(used(1, 2, 3, 4, 5), boot_id="stranger")
    tell(used(1, 2, 3, 4, 5))
    assert registry.seconds == [[4], [1, 2, 3, 4], [4], [5], [1, 2, 3, 4, 5]]


def test_what_is_told_is_left_out_of_a_copy() -> None:
    told, request = Told(), pb.HeartbeatRequest(sessions=[used(1, 2), used()])
    before = request.SerializeToString()
    assert told.news(request) is request
    told.note(request, pb.HeartbeatReply())
    assert [len(one.usage) for one in told.news(request).sessions] == [1, 0]
    assert request.SerializeToString() == before
