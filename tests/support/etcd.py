"""A real etcd on loopback, for tests."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.waiting import eventually
from xpool_perf import etcd
from xpool_registry.etcd import Etcd
from xpool_registry.etcd_store import Term

CHECKOUT = Path(__file__).parents[2]


class EtcdServer:
    """One member. May be stopped and started again on the same data."""

    def __init__(self, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        """``tls``: its certificate and key; then clients must show one too."""
        self.folder = folder
        self._tls = tls
        found = etcd.binary(CHECKOUT)
        if found is None:
            pytest.skip(etcd.MISSING)
        self._binary = found
        self.port, self._peer_port = etcd.free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> str:
        return f"etcd://127.0.0.1:{self.port}/pool"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = etcd.argv(
            self._binary, self.folder / "etcd", self.port, self._peer_port
        )
        if self._tls is not None:
            certificate, key = map(str, self._tls)
            command = [
                *(
                    one.replace(f"http://127.0.0.1:{self.port}", self.url)
                    for one in command
                ),
                *("--cert-file", certificate, "--key-file", key),
                *("--client-cert-auth", "--trusted-ca-file", certificate),
            ]
        with (self.folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(
            self._is_healthy if self._tls is None else self._listens, "etcd answers", 30
        )

    def stop(self) -> None:
        """As if its machine had lost power; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        log = (self.folder / "etcd.log").read_text()
        return "ready to serve client requests" in log or "serving client" in log

    def _is_healthy(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/health"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return b"true" in answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def term_of(cluster: Etcd, who: bytes = b"a") -> Term:
    """Leadership, taken from whoever has it."""
    key = f"{cluster.place.prefix}/leader"
    known = cluster.get(key)
    if known is not None:
        cluster.delete_if(key, known.create_revision)
    assert cluster.put_if([(key, who)], absent=[key])
    made = cluster.get(key)
    assert made is not None
    return Term(key, made.create_revision)
