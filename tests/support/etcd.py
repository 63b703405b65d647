"""A real etcd on loopback, for tests and for ``xpool_perf``'s own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.waiting import eventually

TOOLS = Path(__file__).parents[2] / ".tools" / "etcd" / "usr" / "bin"


def etcd_binary() -> str:
    """Where etcd is; skips the test where it is not (``make etcd`` fetches it)."""
    found = shutil.which("etcd", path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("no etcd here: `make etcd` fetches it")
    return found


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


class EtcdServer:
    """One member. May be stopped and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._binary = etcd_binary()
        self.port, self._peer_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> str:
        return f"etcd://127.0.0.1:{self.port}/pool"

    def start(self) -> None:
        client, peer = (
            f"http://127.0.0.1:{port}" for port in (self.port, self._peer_port)
        )
        with (self.folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    *("--data-dir", str(self.folder / "etcd")),
                    *("--listen-client-urls", client),
                    *("--advertise-client-urls", client),
                    *("--listen-peer-urls", peer),
                    *("--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"default={peer}"),
                ],
                stdout=log,
                stderr=log,
            )
        eventually(self._is_healthy, "etcd answers", 30)

    def stop(self) -> None:
        """As if its machine had lost power; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/health"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return b"true" in answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
