"""Many calls of one method at once, with what gRPC's own loop is made of."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control import serving
from xpool_protocol.control.accepting import may_accept
from xpool_protocol.control.handlers import AT_ONCE, Answering, Call
from xpool_protocol.control.serving import RegistryServer
from xpool_protocol.errors import LeaseUnknown

CALLS = 400


class Renewing:
    """A registry that knows leases with an even epoch."""

    def begin(self) -> Answering:
        return AT_ONCE

    def admit(self, call: Call) -> Any:
        return call.request

    def renew(self, request: pb.RenewRequest) -> pb.Lease:
        if request.epoch % 2:
            raise LeaseUnknown(f"no lease {request.epoch}")
        return pb.Lease(lease_id=request.lease_id, epoch=request.epoch)

    def unexpected(self, error: Exception) -> None:
        raise AssertionError from error

    def __getattr__(self, name: str) -> Any:
        def never(request: object) -> object:
            raise AssertionError(name)

        never.__name__ = name
        return never


def ask_at_once(port: int) -> list[str]:
    """The epochs that were answered, or how they were refused."""

    async def ask() -> list[str]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            renew: Any = channel.unary_unary("/xpool.registry.v1.PoolRegistry/Renew")

            async def one(epoch: int) -> str:
                request = pb.RenewRequest(lease_id="a", epoch=epoch)
                try:
                    raw = await renew(request.SerializeToString(), timeout=30)
                except grpc.aio.AioRpcError as error:
                    return str(error.details())
                return str(pb.Lease.FromString(raw).epoch)

            return list(await asyncio.gather(*map(one, range(CALLS))))

    return asyncio.run(ask())


EXPECTED = [f"no lease {n}" if n % 2 else str(n) for n in range(CALLS)]


def test_the_grpc_that_we_pin_can_do_it() -> None:
    assert may_accept()


def test_each_call_is_answered_once_and_most_came_beside_its_own_loop() -> None:
    server = RegistryServer("127.0.0.1", 0)
    server.start(Renewing())  # type: ignore[arg-type]  # it has what is called
    try:
        assert ask_at_once(server.port) == EXPECTED
        assert server.accepting is not None
        assert CALLS / 2 < server.accepting.count <= CALLS
    finally:
        server.stop()
    assert ask_at_once(server.port)[0] not in EXPECTED  # nobody is there


def test_a_grpc_that_lacks_it_serves_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "may_accept", lambda: False)
    server = RegistryServer("127.0.0.1", 0)
    server.start(Renewing())  # type: ignore[arg-type]  # it has what is called
    try:
        assert server.accepting is None
        assert ask_at_once(server.port) == EXPECTED
    finally:
        server.stop()
