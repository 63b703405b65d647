"""A real etcd of one member on loopback: what several registries share."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Final

TOOLS: Final = Path(".tools") / "etcd" / "usr" / "bin"
"""Where ``make etcd`` unpacks it, in a checkout."""

MISSING: Final = "no etcd here: `make etcd` fetches it"


def binary(checkout: Path) -> str | None:
    """Where etcd is; None where there is none."""
    return shutil.which("etcd", path=f"{checkout / TOOLS}:{os.environ['PATH']}")


def argv(etcd: str, data: Path, port: int, peer_port: int) -> list[str]:
    """The command of one member.

    Args:
        etcd: the binary.
        data: folder of its own.
        port: for clients.
        peer_port: for members; nobody comes.
    """
    client, peer = (f"http://127.0.0.1:{one}" for one in (port, peer_port))
    return [
        etcd,
        *("--data-dir", str(data)),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"default={peer}"),
    ]


def free_ports(count: int) -> list[int]:
    """Ports that nobody had a moment ago: etcd cannot choose its own."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
