"""A pool whose data plane lies behind an emulated round trip.

Registry and server run on 127.0.0.1; clients are told to call both 127.0.0.2, where
``xpool_perf.delay`` forwards the same ports after a delay. So the program, the registry
and the server are unchanged, and every byte that the client sends or receives takes the
long way. What registry and server say to each other does not.
"""

from __future__ import annotations

import re
import socket
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xpool_perf.children import Child, Children
from xpool_perf.pool import READY_TIMEOUT_S, Pool, RunFailed, start_ready

NEAR: Final = "127.0.0.1"
FAR: Final = "127.0.0.2"

WORKERS: Final = 6
"""More than live at the same time: a spare, the job's, and those that just end."""

PORT_TRIES: Final = 50
ECHOES: Final = 15

REGISTRY_READY: Final = re.compile(r"registry ready on ")
SERVER_READY: Final = re.compile(r"server \S+ ready on ")


@dataclass(frozen=True, slots=True, kw_only=True)
class FarPool:
    """A pool, and how far away it is."""

    pool: Pool
    round_trip_s: float
    """Of 64 bytes over a bare TCP connection on the same path, the median."""

    children: tuple[Child, ...]


def start_far_pool(
    children: Children,
    folder: Path,
    env: Mapping[str, str],
    *,
    one_way_ms: float,
    threads: int,
    devices: str = "cpu",
    spares: int = 0,
) -> FarPool:
    """Start registry, server and the long way between; measure it.

    Raises:
        RunFailed: a part ended or said nothing in time.
    """
    first = free_ports(WORKERS + 3)
    last = first + WORKERS + 2
    registry_port, server_port = last - 1, first
    delay = start_ready(
        children,
        "delay",
        [
            *(sys.executable, "-m", "xpool_perf.delay"),
            *("--listen", FAR, "--target", NEAR),
            *("--ports", f"{first}-{last}", "--one-way-ms", str(one_way_ms)),
        ],
        re.compile("ready"),
        env,
        folder,
    )
    store = str(folder / "far-registry.db")
    registry = start_ready(
        children,
        "registry",
        [
            *(sys.executable, "-m", "xpool_registry", "--listen"),
            *(f"{NEAR}:{registry_port}", "--store", store),
        ],
        REGISTRY_READY,
        env,
        folder,
    )
    server = start_ready(
        children,
        "server",
        [
            *(sys.executable, "-m", "xpool_server", "--registry"),
            *(f"{NEAR}:{registry_port}", "--name", "far"),
            *("--spares", str(spares), "--threads", str(threads)),
            *("--devices", devices, "--listen", f"tcp://{NEAR}:{server_port}"),
            *("--advertise", FAR, "--worker-ports", f"{first + 1}-{last - 2}"),
        ],
        SERVER_READY,
        env,
        folder,
    )
    return FarPool(
        pool=Pool(child=server, registry=f"{FAR}:{registry_port}", spares=spares),
        round_trip_s=round_trip_s(last),
        children=(server, registry, delay),
    )


def free_ports(count: int) -> int:
    """The first of so many consecutive ports that are free on both addresses.

    Raises:
        RunFailed: none were found.
    """
    for _ in range(PORT_TRIES):
        with socket.socket() as probe:
            probe.bind((NEAR, 0))
            first = int(probe.getsockname()[1])
        if first + count < 65_536 and all(
            _is_free(host, port)
            for host in (NEAR, FAR)
            for port in range(first, first + count)
        ):
            return first
    raise RunFailed(f"no {count} consecutive free ports were found on {NEAR} and {FAR}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def round_trip_s(port: int) -> float:
    """Median round trip of 64 bytes through the delay, at a port kept for this."""
    with socket.create_server((NEAR, port)) as listener:
        thread = threading.Thread(target=_echo, args=(listener,))
        thread.start()
        taken = []
        with socket.create_connection((FAR, port), READY_TIMEOUT_S) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(ECHOES):
                began = time.perf_counter()
                peer.sendall(bytes(64))
                _receive(peer, 64)
                taken.append(time.perf_counter() - began)
        thread.join()
    return statistics.median(taken)


def _echo(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := peer.recv(64):
            peer.sendall(data)


def _receive(peer: socket.socket, nbytes: int) -> None:
    while nbytes:
        count = len(peer.recv(nbytes))
        if not count:
            raise RunFailed("the echo behind the delay was closed early")
        nbytes -= count
