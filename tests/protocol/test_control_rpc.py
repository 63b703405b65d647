"""Errors over a real loopback connection, and what a missing registry looks like."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import (
    MAX_DETAIL_CHARS,
    RegistryClient,
    status_from_error,
)
from xpool_protocol.control.serving import AT_ONCE, Answering, Call, RegistryServer
from xpool_protocol.errors import (
    ClosedError,
    EpochStale,
    LeaseExpired,
    LeaseUnknown,
    NameTaken,
    NoCapacity,
    PeerError,
    PoolError,
    RegistryUnreachable,
    TokenInvalid,
    UsageError,
)

ERRORS: tuple[type[PoolError], ...] = (
    *(UsageError, NoCapacity, TokenInvalid, LeaseUnknown, LeaseExpired),
    *(EpochStale, NameTaken, PeerError),
)


class Refuser:
    """A handler that fails as the request's first text tells it."""

    def __init__(self) -> None:
        self.bugs: list[Exception] = []

    def begin(self) -> Answering:
        return AT_ONCE

    def admit(self, call: Call) -> object:
        return call.request

    def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        return pb.JoinReply(registry_id=f"{request.node_name} {len(request.devices)}")

    def heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatReply:
        if request.boot_id == "busy":
            time.sleep(1.0)  # as a machine does that has other things to do
        return pb.HeartbeatReply(must_rejoin=request.boot_id == "old")

    def acquire(self, request: pb.AcquireRequest) -> pb.Lease:
        known = {error.__name__: error for error in ERRORS}
        raise known[request.tenant](request.client)

    def acquire_group(self, request: pb.AcquireGroupRequest) -> pb.LeaseGroup:
        return pb.LeaseGroup(leases=[pb.Lease(epoch=1)] * request.device_count)

    def cancel(self, request: pb.CancelRequest) -> pb.CancelReply:
        return pb.CancelReply(was_live=request.ticket == "live")

    def renew(self, request: pb.RenewRequest) -> pb.Lease:
        return pb.Lease(lease_id=request.lease_id, epoch=request.epoch)

    def release(self, request: pb.ReleaseRequest) -> pb.ReleaseReply:
        return pb.ReleaseReply(was_live=request.reason == "done")

    def list_nodes(self, request: pb.ListNodesRequest) -> pb.ListNodesReply:
        raise KeyError("secret")

    def list_devices(self, request: pb.ListDevicesRequest) -> pb.ListDevicesReply:
        return pb.ListDevicesReply(devices=[pb.DeviceInfo(node_name="a")])

    def list_leases(self, request: pb.ListLeasesRequest) -> pb.ListLeasesReply:
        return pb.ListLeasesReply(leases=[pb.LeaseInfo(client="x" * (5 << 20))])

    def resize(self, request: pb.ResizeRequest) -> pb.ResizeReply:
        return pb.ResizeReply(number=request.share_percent)

    def unexpected(self, error: Exception) -> None:
        self.bugs.append(error)


@pytest.fixture(scope="module")
def refuser() -> Refuser:
    return Refuser()


@pytest.fixture(scope="module")
def client(refuser: Refuser) -> Iterator[RegistryClient]:
    server = RegistryServer("127.0.0.1", 0)
    server.start(refuser)
    with RegistryClient(f"127.0.0.1:{server.port}") as client:
        yield client
    server.stop()


@pytest.mark.parametrize("error", ERRORS)
def test_every_refusal_arrives_as_itself(
    client: RegistryClient, error: type[PoolError]
) -> None:
    sentence = "no device has 60% (naïve): ask for less"
    with pytest.raises(error) as caught:
        client.acquire(tenant=error.__name__, share_percent=1, client=sentence)
    assert type(caught.value) is error
    assert str(caught.value) == sentence


def test_a_sentence_without_end_is_cut() -> None:
    status = status_from_error(NoCapacity("é" * 100_000))
    assert len(status.details) == MAX_DETAIL_CHARS
    assert status.metadata == (("xpool-code", "402"),)


def test_a_long_sentence_passes_the_wire(client: RegistryClient) -> None:
    with pytest.raises(NoCapacity, match=r"x\.\.\.$"):
        client.acquire(tenant="NoCapacity", share_percent=1, client="x" * 100_000)


def test_a_bug_is_reported_without_its_details(
    client: RegistryClient, refuser: Refuser
) -> None:
    with pytest.raises(PeerError, match="its log has the details") as caught:
        client.list_nodes()
    assert "secret" not in str(caught.value)
    assert isinstance(refuser.bugs[-1], KeyError)


def test_an_oversized_reply_is_an_error(client: RegistryClient) -> None:
    with pytest.raises(PeerError, match="RESOURCE_EXHAUSTED"):
        client.list_leases()


def test_typed_calls(client: RegistryClient) -> None:
    joined = client.join(
        node_name="a",
        boot_id="b",
        address="tcp://h:1",
        devices=[pb.Device(), pb.Device()],
        version="1",
    )
    assert joined.registry_id == "a 2"
    assert client.heartbeat(node_name="a", boot_id="old").must_rejoin
    assert client.renew("l", 3).epoch == 3
    assert client.release("l", 3, "done") is True
    assert client.release("l", 3) is False
    assert [device.node_name for device in client.list_devices()] == ["a"]
    assert client.resize("l", share_percent=7).number == 7


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_number_that_no_field_holds_is_our_misuse(
    client: RegistryClient, value: int
) -> None:
    with pytest.raises(UsageError, match="memory_nbytes"):
        client.acquire(tenant="t", share_percent=1, memory_nbytes=value)


def test_nobody_there() -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        address = f"127.0.0.1:{placeholder.getsockname()[1]}"
        with (
            RegistryClient(address) as client,
            pytest.raises(RegistryUnreachable) as caught,
        ):
            client.list_nodes()
    assert address in str(caught.value)
    assert 'start one with "xpool registry" or "xpool up"' in str(caught.value)


def test_somebody_who_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            RegistryClient(address, timeout_s=0.2) as client,
            pytest.raises(RegistryUnreachable, match="xpool registry"),
        ):
            client.list_nodes()


def test_a_busy_registry_answers_late_and_drops_nobody() -> None:
    """A thousand servers and their clients, after a second's pause."""
    calls, channels = 3000, 40
    server = RegistryServer("127.0.0.1", 0)
    server.start(Refuser())

    async def ask_at_once() -> Counter[str]:
        ends: Counter[str] = Counter()
        open_ = [
            grpc.aio.insecure_channel(
                f"127.0.0.1:{server.port}",
                options=[("grpc.use_local_subchannel_pool", 1)],
            )
            for _ in range(channels)
        ]
        methods: list[Any] = [
            one.unary_unary("/xpool.registry.v1.PoolRegistry/Heartbeat")
            for one in open_
        ]

        async def ask(number: int, boot_id: str) -> None:
            request = pb.HeartbeatRequest(boot_id=boot_id).SerializeToString()
            try:
                await methods[number % channels](request, timeout=30)
                ends["answered"] += 1
            except grpc.aio.AioRpcError as error:
                ends[error.code().name] += 1

        await asyncio.gather(*(ask(number, "") for number in range(channels)))
        busy = asyncio.ensure_future(ask(0, "busy"))
        await asyncio.gather(busy, *(ask(number, "") for number in range(calls)))
        for one in open_:
            await one.close()
        return ends

    ends = asyncio.run(ask_at_once())
    server.stop()
    assert ends == {"answered": calls + channels + 1}


def test_a_call_that_is_dropped_may_be_made_again() -> None:
    class Dropping(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
        def service(self, call_details: Any) -> Any:
            del call_details
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.cancel() or request
            )

    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Dropping(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with (
            RegistryClient(f"127.0.0.1:{port}") as client,
            pytest.raises(RegistryUnreachable, match="dropped the call"),
        ):
            client.list_nodes()
    finally:
        server.stop(None).wait()


def test_after_close() -> None:
    client = RegistryClient("127.0.0.1:1")
    client.close()
    with pytest.raises(ClosedError):
        client.list_nodes()


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
            RegistryServer("127.0.0.1", port)
