"""The keeper of a lease and a registry that stops to answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from xpool.config import JobSettings
from xpool.keeper import LeaseKeeper
from xpool_protocol.control import registry_pb2 as pb

LEASE = pb.Lease(lease_id="L", epoch=1, ttl_ms=900, address="tcp://127.0.0.1:1")


class Stuck(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """Grants and takes back; a renewal is never answered."""

    def __init__(self) -> None:
        self.is_asked, self.is_over = threading.Event(), threading.Event()
        self.released: list[str] = []

    def service(self, call_details: Any) -> Any:
        method = getattr(self, call_details.method.rpartition("/")[2])
        return grpc.unary_unary_rpc_method_handler(
            method, response_serializer=lambda reply: reply.SerializeToString()
        )

    def AcquireGroup(self, _request: bytes, _context: Any) -> pb.LeaseGroup:
        return pb.LeaseGroup(leases=[LEASE])

    def Renew(self, _request: bytes, _context: Any) -> pb.Lease:
        self.is_asked.set()
        self.is_over.wait()
        return LEASE

    def Release(self, request: bytes, _context: Any) -> pb.ReleaseReply:
        self.released.append(pb.ReleaseRequest.FromString(request).lease_id)
        return pb.ReleaseReply(was_live=True)


@pytest.fixture
def stuck() -> Iterator[tuple[Stuck, str]]:
    handler = Stuck()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    handler.is_over.set()
    server.stop(None).wait()


def test_no_renewal_is_under_way_after_the_release(stuck: tuple[Stuck, str]) -> None:
    """A thread within gRPC while the interpreter ends can crash it."""
    registry, address = stuck
    ours, theirs = socket.socketpair()
    with ours, theirs:
        settings = JobSettings(registry=address)
        keeper = LeaseKeeper(settings, ours, wants_statistics=False)
        keeper.acquire("somebody")
        keeper.keep()
        assert registry.is_asked.wait(30)
        keeper.release()
    assert "lease-renewal" not in [one.name for one in threading.enumerate()]
    assert registry.released == ["L"]
