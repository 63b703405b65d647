"""Clients that take and give back slices at full speed: ``grant_storm.py ADDRESS``.

Prints a line for each grant: when it was asked for and when it came, in nanoseconds of
the monotonic clock. At SIGTERM the storm ends, and the last line is a JSON object with
what the registry and the clients disagree on.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from contextlib import suppress

from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient
from xpool_protocol.errors import PoolError

CLIENTS = 4
DEVICES = 96
SHARE_PERCENT = 10
HELD = 30
"""By each client at most. What was granted in an answer that was lost stays taken: up
to one slice for each client and kill."""

TTL_MS = 3_600_000
"""Longer than the storm: what ends was given back."""

HEARTBEAT_S = 1.0
CALL_S = 20.0
SETTLED_S = 60.0

GIB = 1 << 30


class Storm:
    """What the clients know, together."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.held: dict[str, pb.Lease] = {}
        self.granted = self.twice = 0

    def client(self) -> RegistryClient:
        """A connection, to be closed by its user."""
        return RegistryClient(self.address, timeout_s=CALL_S)

    def join(self, client: RegistryClient) -> None:
        """A node without any process: only its words."""
        client.join(
            node_name="storm",
            boot_id="storm",
            address="tcp://127.0.0.1:9",
            devices=[
                pb.Device(index=index, kind="cpu", name="storm", memory_nbytes=GIB)
                for index in range(DEVICES)
            ],
            version="",
        )

    def beat(self) -> None:
        """The node's heartbeats."""
        with self.client() as client:
            while not self.stopping.is_set():
                with suppress(PoolError):
                    if client.heartbeat(node_name="storm", boot_id="storm").must_rejoin:
                        self.join(client)
                self.stopping.wait(HEARTBEAT_S)

    def work(self, number: int) -> None:
        """One client: takes a slice, and gives one back when it has enough."""
        chance = random.Random(number)  # noqa: S311  a schedule
        mine: list[pb.Lease] = []
        with self.client() as client:
            while not self.stopping.is_set():
                self._take(client, number, mine)
                while len(mine) > HELD:
                    self._give(client, mine.pop(chance.randrange(len(mine))))

    def _take(self, client: RegistryClient, number: int, mine: list[pb.Lease]) -> None:
        asked_ns = time.monotonic_ns()
        try:
            lease = client.acquire(
                tenant=f"client-{number}",
                share_percent=SHARE_PERCENT,
                memory_nbytes=1,
                ttl_ms=TTL_MS,
            )
        except PoolError:  # whether it was granted nobody knows
            self.stopping.wait(0.01)
            return
        with self.lock:
            self.granted += 1
            self.twice += lease.lease_id in self.held
            self.held[lease.lease_id] = lease
        mine.append(lease)
        print(f"grant {asked_ns} {time.monotonic_ns()}", flush=True)

    def _give(self, client: RegistryClient, lease: pb.Lease) -> None:
        with self.lock:  # from here on nobody knows until the answer comes
            del self.held[lease.lease_id]
        with suppress(PoolError):
            client.release(lease.lease_id, lease.epoch)

    def verdict(self) -> dict[str, int]:
        """What clients hold and the registry has not, and what it gave twice."""
        with self.client() as client:
            deadline_s = time.monotonic() + SETTLED_S
            while True:
                try:
                    listed = client.list_leases()
                    break
                except PoolError:
                    if time.monotonic() > deadline_s:
                        raise
        leases = {info.lease.lease_id: info.lease for info in listed}
        lost = [one for one in self.held if one not in leases]
        shares = dict.fromkeys(range(DEVICES), 0)
        for lease in (leases | self.held).values():
            shares[lease.device_index] += lease.share_percent
        over = sum(max(0, share - 100) // SHARE_PERCENT for share in shares.values())
        return {
            "granted": self.granted,
            "held": len(self.held),
            "lost": len(lost),
            "twice": over + self.twice,
        }


def main(address: str) -> None:
    """Storm until SIGTERM."""
    storm = Storm(address)
    signal.signal(signal.SIGTERM, lambda *_: storm.stopping.set())
    with storm.client() as client:
        storm.join(client)
    threads = [threading.Thread(target=storm.beat)]
    threads += [
        threading.Thread(target=storm.work, args=(number,)) for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(0.1)  # signals come between
    print(json.dumps(storm.verdict()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
