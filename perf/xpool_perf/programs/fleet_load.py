"""A thousand servers and ten thousand clients, as far as a registry can tell.

``fleet_load.py ADDRESS JSON``: every server joins and sends a heartbeat about each
second, with what its leases do; clients ask, renew and give back over real gRPC. Prints
lines of progress, and at the end one JSON object. One process, one thread: an event
loop.

The registry has the other core of a small machine to itself only if this one does
little: what a server says is made into bytes once for each change of its leases, and
only answers that matter are read.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import grpc
import msgspec
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import CHANNEL_OPTIONS

GIB = 1 << 30
DEVICES = 8
CHANNELS = 16
"""Connections: gRPC lets about a hundred calls at once through each."""

HEARTBEAT_S = 0.95
"""From an answer to the next heartbeat. A server's own is 1 s, and then as many as the
registry should answer would be the most that could be counted."""

SHARE_PERCENT = 50
CALL_S = 30.0
AT_ONCE = 64
"""Asked for at once while the fleet is filled."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is played."""

    nodes: int
    leases: int
    """Held all the time."""

    acquires_per_s: float
    seconds: float
    ttl_s: float
    """Each holder renews three times in it."""

    seed: int


class Methods:
    """The registry's methods over one connection; requests and replies are bytes."""

    def __init__(self, channel: Any) -> None:
        def method(name: str) -> Any:
            return channel.unary_unary(f"/xpool.registry.v1.PoolRegistry/{name}")

        self.join, self.heartbeat = method("Join"), method("Heartbeat")
        self.acquire, self.renew = method("Acquire"), method("Renew")
        self.release = method("Release")


@dataclass(slots=True)
class Server:
    """A server, as far as it has words."""

    name: str
    leases: dict[str, pb.Lease] = field(default_factory=dict)
    heartbeat: bytes = b""
    """What it says; empty: its leases have changed since."""


@dataclass(slots=True)
class Fleet:
    """What is measured while it runs."""

    load: Load
    connections: list[Methods]
    held: deque[pb.Lease] = field(default_factory=deque)
    servers: dict[str, Server] = field(default_factory=dict)
    is_measuring: bool = False
    is_over: bool = False
    acquire_ms: list[float] = field(default_factory=list)
    heartbeat_ms: list[float] = field(default_factory=list)
    renewals: int = 0
    late: int = 0
    """Heartbeats that were answered after the next one was due."""

    strays: int = 0
    """Heartbeats of servers that the registry does not know."""
    failures: dict[str, int] = field(default_factory=dict)
    given_back: set[str] = field(default_factory=set)
    """Leases whose end was asked for: a renewal on its way may come after it."""

    def connection(self, number: int) -> Methods:
        """One of them."""
        return self.connections[number % len(self.connections)]

    async def call(
        self, method: Any, request: bytes, lease_id: str = ""
    ) -> bytes | None:
        """The answer, or None: what fails is counted, by its sentence.

        But not the renewal of a lease that was given back while it was on its way.
        """
        try:
            answer: bytes = await method(request, timeout=CALL_S)
            return answer
        except grpc.aio.AioRpcError as error:
            if lease_id in self.given_back and "(released)" in (error.details() or ""):
                return None
            # Without what differs from call to call.
            text = re.sub(r"[0-9a-f]{16}|[0-9]+", "N", error.details() or "")[:200]
            text = f"{error.code().name}: {text}"
            self.failures[text] = self.failures.get(text, 0) + 1
            return None

    async def acquire(self, number: int) -> None:
        """A client gets its slice."""
        request = pb.AcquireRequest(
            tenant=f"tenant-{number % 20}",
            share_percent=SHARE_PERCENT,
            memory_nbytes=GIB,
            ttl_ms=round(1000 * self.load.ttl_s),
            mode="capped",
            client=f"host-{number}",
        )
        began = time.perf_counter()
        answer = await self.call(
            self.connection(number).acquire, request.SerializeToString()
        )
        if answer is None:
            return
        lease = pb.Lease.FromString(answer)
        if self.is_measuring:
            self.acquire_ms.append(1000 * (time.perf_counter() - began))
        self.held.append(lease)
        server = self.servers[lease.node_name]
        server.leases[lease.lease_id], server.heartbeat = lease, b""

    async def release(self) -> None:
        """Who has held a slice longest gives it back."""
        if not self.held:  # the registry is behind: what it says will show it
            return
        lease = self.held.popleft()
        self.given_back.add(lease.lease_id)
        server = self.servers[lease.node_name]
        del server.leases[lease.lease_id]
        server.heartbeat = b""
        request = pb.ReleaseRequest(lease_id=lease.lease_id, epoch=lease.epoch)
        await self.call(
            self.connection(lease.epoch).release, request.SerializeToString()
        )

    async def serve(self, number: int, offset_s: float) -> None:
        """One server: joins, then a heartbeat each second."""
        name = f"node-{number:05d}"
        self.servers[name] = server = Server(name)
        connection = self.connection(number)
        join = pb.JoinRequest(
            node_name=name,
            boot_id="boot",
            address=f"tcp://{name}:7800",
            devices=[
                pb.Device(index=i, kind="cuda", name="A100", memory_nbytes=80 * GIB)
                for i in range(DEVICES)
            ],
            version="1",
        )
        await self.call(connection.join, join.SerializeToString())
        await asyncio.sleep(offset_s)
        while not self.is_over:
            began = time.perf_counter()
            if not server.heartbeat:
                server.heartbeat = heartbeat(server)
            answer = await self.call(connection.heartbeat, server.heartbeat)
            took_s = time.perf_counter() - began
            if answer is not None and self.is_measuring:
                self.heartbeat_ms.append(1000 * took_s)
                self.strays += is_stray(answer)
                self.late += took_s > HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)  # after the answer, as a server does

    async def renew(self) -> None:
        """Every holder, three times in a TTL, evenly."""
        interval_s = self.load.ttl_s / 3 / max(1, self.load.leases)
        due_s = time.monotonic()
        turn = 0
        calls: set[asyncio.Future[Any]] = set()
        while not self.is_over:
            due_s += interval_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if not self.held:
                continue
            turn = (turn + 1) % len(self.held)
            lease = self.held[turn]
            request = pb.RenewRequest(lease_id=lease.lease_id, epoch=lease.epoch)
            self.renewals += self.is_measuring
            renew = self.connection(turn).renew
            call = self.call(renew, request.SerializeToString(), lease.lease_id)
            task = asyncio.ensure_future(call)
            calls.add(task)
            task.add_done_callback(calls.discard)
        await asyncio.gather(*calls)

    async def arrive(self) -> None:
        """Clients come at random moments; as many go."""
        chance = random.Random(self.load.seed)  # noqa: S311  a schedule
        end_s = time.monotonic() + self.load.seconds
        due_s = time.monotonic()
        number = 0
        calls = set()
        while due_s < end_s:
            due_s += chance.expovariate(self.load.acquires_per_s)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            number += 1
            for call in (self.acquire(number), self.release()):
                task = asyncio.ensure_future(call)
                calls.add(task)
                task.add_done_callback(calls.discard)
        await asyncio.gather(*calls)

    async def fill(self) -> None:
        """As many leases as are to be held."""
        for begin in range(0, self.load.leases, AT_ONCE):
            count = min(AT_ONCE, self.load.leases - begin)
            await asyncio.gather(*(self.acquire(begin + i) for i in range(count)))
            if begin % (AT_ONCE * 16) == 0:
                print(f"filled {len(self.held)} of {self.load.leases}", flush=True)


def heartbeat(server: Server) -> bytes:
    """What a server says of its devices and sessions."""
    return pb.HeartbeatRequest(
        node_name=server.name,
        boot_id="boot",
        loads=[
            pb.DeviceLoad(index=i, used_nbytes=GIB, busy_percent=50.0, session_count=1)
            for i in range(DEVICES)
        ],
        sessions=[
            pb.SessionReport(
                lease_id=lease.lease_id,
                epoch=lease.epoch,
                state="open",
                executed_ops=1000,
                allocated_nbytes=GIB,
                received_nbytes=GIB,
            )
            for lease in server.leases.values()
        ],
    ).SerializeToString()


def is_stray(answer: bytes) -> bool:
    """Whether the registry asks a server to join again."""
    return bool(answer) and pb.HeartbeatReply.FromString(answer).must_rejoin


async def play(address: str, load: Load) -> dict[str, object]:
    """All of it; what was measured."""
    channels = [
        grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        for _ in range(CHANNELS)
    ]
    fleet = Fleet(load, [Methods(one) for one in channels])
    servers = [
        asyncio.ensure_future(fleet.serve(n, HEARTBEAT_S * n / load.nodes))
        for n in range(load.nodes)
    ]
    await asyncio.sleep(2 * HEARTBEAT_S)
    await fleet.fill()
    renewing = asyncio.ensure_future(fleet.renew())
    print("filled: measuring soon", flush=True)
    await asyncio.sleep(3 * HEARTBEAT_S)
    fleet.is_measuring = True
    began_s = time.monotonic()
    await fleet.arrive()
    taken_s = time.monotonic() - began_s
    fleet.is_measuring, fleet.is_over = False, True
    await asyncio.gather(*servers, renewing)
    for one in channels:
        await one.close()
    return {
        "acquire_ms": fleet.acquire_ms,
        "heartbeat_ms": fleet.heartbeat_ms,
        "seconds": taken_s,
        "renewals": fleet.renewals,
        "late": fleet.late,
        "held": len(fleet.held),
        "strays": fleet.strays,
        "failures": fleet.failures,
    }


def main(address: str, text: str) -> None:
    """Play, and print what was measured."""
    load = msgspec.json.decode(text, type=Load)
    gc.disable()  # its pauses would be in the latencies; this process ends soon
    print(json.dumps(asyncio.run(play(address, load))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
