"""A thousand servers and ten thousand clients, as far as a registry can tell.

``fleet_load.py ADDRESS JSON``: every server joins and sends a heartbeat about each
second, with what its leases do; clients ask, renew and give back over real gRPC. Prints
lines of progress, and at the end one JSON object. One process, one thread: an event
loop.

Each says what ``xpool server`` and ``xpool run`` say: heartbeats on a stream, with the
use of every session that the stream has not told yet; requests as a group of one device
with a ticket, with the TTL that the registry gives, and three renewals in it. Only the
connections are fewer: these come through some dozens.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
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

from xpool_perf.programs.fleet_words import BOOT_ID, DEVICES, GIB, Words

SERVERS_OF_CHANNEL = 50
"""Streams through one connection: gRPC lets about a hundred at once through each."""

CHANNELS = 16
"""Connections of clients."""

HEARTBEAT_S = 0.95
"""From an answer to the next heartbeat; so much of what the answer says. A server takes
all of it, 1 s, and then as many as the registry should answer would be the most that
could be counted."""

SHARE_PERCENT = 50
CALL_S = 30.0
AT_ONCE = 64
"""Asked for at once while the fleet is filled."""

WAIT_MS = 30 * 24 * 3600 * 1000
"""In the queue, as ``xpool run`` says if nobody says otherwise."""

KEPT_SECONDS = 60
"""Of use; a server keeps so many at the least."""

SETTLE_S = 8.0
"""From the last lease on: a reading of all metrics, which takes long, is over then."""

LOOK_S = 0.002
"""Between two looks whether a renewal is due."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is played."""

    nodes: int
    leases: int
    """Held all the time."""

    acquires_per_s: float
    seconds: float
    seed: int


class Methods:
    """The registry's methods over one connection; requests and replies are bytes."""

    def __init__(self, channel: Any) -> None:
        def method(name: str) -> Any:
            return channel.unary_unary(f"/xpool.registry.v1.PoolRegistry/{name}")

        self.join = method("Join")
        self.acquire, self.renew = method("AcquireGroup"), method("Renew")
        self.release = method("Release")
        self.heartbeats = channel.stream_stream(
            "/xpool.registry.v1.PoolRegistry/Heartbeats"
        )


@dataclass(slots=True)
class Server:
    """A server, as far as it has words."""

    name: str
    words: Words
    leases: dict[str, pb.Lease] = field(default_factory=dict)
    seconds: dict[str, list[int]] = field(default_factory=dict)
    """Of each session those whose use the registry has not stored."""

    passed_s: int = 0
    told_s: int = 0
    """Until when its stream has told of all sessions."""

    def untold(self, lease_id: str) -> list[int]:
        """As ``Told.news`` has it: what is new, and the last in any case."""
        seconds = self.seconds[lease_id]
        return [one for one in seconds if one > self.told_s] or seconds[-1:]

    def heartbeat(self) -> bytes:
        """What it says of its devices and sessions."""
        untold = {lease_id: self.untold(lease_id) for lease_id in self.leases}
        return self.words.heartbeat(self.leases, untold)

    def pass_time(self, now_s: int) -> None:
        """All sessions were at work until that second of the wall clock."""
        for lease_id in self.leases:
            seconds = self.seconds.setdefault(lease_id, [])
            first_s = max(self.passed_s + 1, now_s - 1) if self.passed_s else now_s
            seconds.extend(range(first_s, now_s + 1))
            del seconds[:-KEPT_SECONDS]
        self.passed_s = now_s

    def hear(self, reply: pb.HeartbeatReply) -> None:
        """What is stored need not be told again, nor what is said on one stream."""
        self.told_s = 0 if reply.must_rejoin else self.passed_s
        stored_s = reply.usage_stored_s
        for lease_id, seconds in self.seconds.items():
            until_s = stored_s.get(lease_id, self.passed_s)
            while seconds and seconds[0] <= until_s:
                del seconds[0]


@dataclass(slots=True)
class Fleet:
    """What is measured while it runs."""

    load: Load
    connections: list[Methods]
    lines: list[Methods]
    """Of servers, for their streams."""

    held: deque[pb.Lease] = field(default_factory=deque)
    due: list[tuple[float, int, pb.Lease]] = field(default_factory=list)
    """When leases are renewed next."""

    servers: dict[str, Server] = field(default_factory=dict)
    is_measuring: bool = False
    is_over: bool = False
    acquire_ms: list[float] = field(default_factory=list)
    heartbeat_ms: list[float] = field(default_factory=list)
    renewals: int = 0
    releases: int = 0
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
            self.fail(error.code(), error.details())
            return None

    def fail(self, code: Any, details: str | None) -> None:
        """Count it, without what differs from call to call."""
        text = re.sub(r"[0-9a-f]{16}|[0-9]+", "N", details or "")[:200]
        text = f"{code.name}: {text}"
        self.failures[text] = self.failures.get(text, 0) + 1

    async def acquire(self, number: int) -> None:
        """A client gets its slice."""
        request = pb.AcquireGroupRequest(
            slice=pb.AcquireRequest(
                tenant=f"tenant-{number % 20}",
                share_percent=SHARE_PERCENT,
                memory_nbytes=GIB,
                mode="capped",
                client=f"host-{number}",
                priority="normal",
            ),
            device_count=1,
            ticket=f"{self.load.seed:016x}{number:016x}",
            wait_ms=WAIT_MS,
            policy="auto",
        )
        began = time.perf_counter()
        answer = await self.call(
            self.connection(number).acquire, request.SerializeToString()
        )
        if answer is None:
            return
        [lease] = pb.LeaseGroup.FromString(answer).leases
        if self.is_measuring:
            self.acquire_ms.append(1000 * (time.perf_counter() - began))
        self.held.append(lease)
        server = self.servers[lease.node_name]
        server.leases[lease.lease_id] = lease
        self.renew_in_time(lease)

    async def release(self) -> None:
        """Who has held a slice longest gives it back."""
        if not self.held:  # the registry is behind: what it says will show it
            return
        lease = self.held.popleft()
        self.releases += self.is_measuring
        self.given_back.add(lease.lease_id)
        server = self.servers[lease.node_name]
        del server.leases[lease.lease_id]
        server.seconds.pop(lease.lease_id, None)
        server.words.forget(lease.lease_id)
        request = pb.ReleaseRequest(lease_id=lease.lease_id, epoch=lease.epoch)
        await self.call(
            self.connection(lease.epoch).release, request.SerializeToString()
        )

    async def serve(self, number: int, offset_s: float) -> None:
        """One server: joins, then a heartbeat each second."""
        name = f"node-{number:05d}"
        self.servers[name] = server = Server(name, Words(name))
        connection = self.lines[number % len(self.lines)]
        join = pb.JoinRequest(
            node_name=name,
            boot_id=BOOT_ID,
            address=f"tcp://{name}:7800",
            devices=[
                pb.Device(index=i, kind="cuda", name="A100", memory_nbytes=80 * GIB)
                for i in range(DEVICES)
            ],
            version="1",
        )
        await self.call(connection.join, join.SerializeToString())
        await asyncio.sleep(offset_s)
        stream = connection.heartbeats()
        while not self.is_over:
            began = time.perf_counter()
            server.pass_time(time.time_ns() // 1_000_000_000 - 1)
            await stream.write(server.heartbeat())
            answer = await stream.read()
            if answer is grpc.aio.EOF:
                self.fail(await stream.code(), await stream.details())
                stream = connection.heartbeats()
                server.told_s = 0
                continue
            took_s = time.perf_counter() - began
            reply = pb.HeartbeatReply.FromString(answer)
            server.hear(reply)
            if self.is_measuring:
                self.heartbeat_ms.append(1000 * took_s)
                self.strays += reply.must_rejoin
                self.late += took_s > HEARTBEAT_S
            # After the answer, and when it says, as a server does.
            await asyncio.sleep(HEARTBEAT_S * (reply.next_heartbeat_ms or 1000) / 1000)
        await stream.done_writing()

    def renew_in_time(self, lease: pb.Lease) -> None:
        """A third of its TTL from now on."""
        at_s = time.monotonic() + lease.ttl_ms / 3000
        heapq.heappush(self.due, (at_s, lease.epoch, lease))

    async def renew(self) -> None:
        """Every holder, three times in its TTL."""
        calls: set[asyncio.Future[Any]] = set()
        while not self.is_over:
            if not self.due or self.due[0][0] > time.monotonic():
                await asyncio.sleep(LOOK_S)
                continue
            _, _, lease = heapq.heappop(self.due)
            if lease.lease_id in self.given_back:
                continue
            self.renewals += self.is_measuring
            task = asyncio.ensure_future(self.renew_one(lease))
            calls.add(task)
            task.add_done_callback(calls.discard)
            await asyncio.sleep(0)
        await asyncio.gather(*calls)

    async def renew_one(self, lease: pb.Lease) -> None:
        """Once, and again later."""
        request = pb.RenewRequest(lease_id=lease.lease_id, epoch=lease.epoch)
        renew = self.connection(lease.epoch).renew
        answer = await self.call(renew, request.SerializeToString(), lease.lease_id)
        if answer is not None:
            self.renew_in_time(pb.Lease.FromString(answer))

    async def arrive(self) -> None:
        """Clients come at random moments; as many go."""
        chance = random.Random(self.load.seed)  # noqa: S311  a schedule
        end_s = time.monotonic() + self.load.seconds
        due_s = time.monotonic()
        number = self.load.leases  # of clients: none has been one of those before
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


async def play(address: str, load: Load) -> dict[str, object]:
    """All of it; what was measured."""

    def connect(count: int) -> list[Any]:
        return [
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            for _ in range(count)
        ]

    channels = connect(CHANNELS)
    lines = connect(-(-load.nodes // SERVERS_OF_CHANNEL))
    fleet = Fleet(load, [*map(Methods, channels)], [*map(Methods, lines)])
    servers = [
        asyncio.ensure_future(fleet.serve(n, HEARTBEAT_S * n / load.nodes))
        for n in range(load.nodes)
    ]
    await asyncio.sleep(2 * HEARTBEAT_S)
    renewing = asyncio.ensure_future(fleet.renew())
    await fleet.fill()
    print("filled: measuring soon", flush=True)
    await asyncio.sleep(SETTLE_S)
    fleet.is_measuring = True
    print("measuring", flush=True)
    began_s = time.monotonic()
    await fleet.arrive()
    taken_s = time.monotonic() - began_s
    print("measured", flush=True)
    fleet.is_measuring, fleet.is_over = False, True
    await asyncio.gather(*servers, renewing)
    for one in (*channels, *lines):
        await one.close()
    return {
        "acquire_ms": fleet.acquire_ms,
        "heartbeat_ms": fleet.heartbeat_ms,
        "seconds": taken_s,
        "renewals": fleet.renewals,
        "releases": fleet.releases,
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
