"""A real pool of processes for tests: a registry and servers on free ports.

    with Pool(tmp_path) as pool:
        pool.start_registry()
        server = pool.start_server("one")
        with pool.client() as client:
            lease = client.acquire(tenant="t", share_percent=30)
        pool.kill("one", signal.SIGKILL)

Leaving the block ends everything and fails if a process or a socket file is left,
also one whose parent is gone: every process carries a mark in its environment.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from support.waiting import eventually
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient

MARK = "POOL_OF_TEST"
SUPPORT = Path(__file__).parent
LIGHT_SERVER = str(SUPPORT / "light_server.py")

REGISTRY_READY = re.compile(r"registry ready on (\S+)")
SERVER_READY = re.compile(r"server (\S+) ready on (\S+): ")

START_S = 150.0
"""Importing torch on a busy machine takes a while; what is quick does not wait."""

END_S = 30.0


@dataclass(slots=True)
class Member:
    """One process of the pool."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    log: Path
    address: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.out.read_text()

    def logged(self) -> str:
        return self.log.read_text()


class Pool:
    """Registry and servers; ``members`` by name, the registry is ``registry``."""

    def __init__(self, folder: Path, *, ttl: str = "2s") -> None:
        self.folder = folder
        self.ttl = ttl
        self.members: dict[str, Member] = {}
        self.registry = "127.0.0.1:0"
        """``HOST:PORT``, once it is started; kept over a restart."""

        self._mark = uuid.uuid4().hex

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # The registry last, so that the servers can say that they leave.
        for member in reversed(self.members.values()):
            if member.process.poll() is None:
                member.process.terminate()
        try:
            for member in reversed(self.members.values()):
                member.process.wait(END_S)
            if kind is None:
                self.check_nothing_left()
        finally:
            for process in self.processes():
                process.kill()

    # ---- starting and ending ----

    def start_registry(self) -> Member:
        """Start the registry, or start it again with its store and its port."""
        argv = [sys.executable, "-m", "xpool_registry", "--listen", self.registry]
        argv += ["--store", str(self.folder / "registry.db"), "--default-ttl", self.ttl]
        member = self.start("registry", argv)
        self.registry = self.await_line(member, REGISTRY_READY)[1]
        member.address = self.registry
        return member

    def start_server(
        self,
        name: str,
        *arguments: str,
        light: bool = True,
        wait: bool = True,
        python: str = sys.executable,
    ) -> Member:
        """Start a server; a light one executes nothing and imports no torch."""
        module = [LIGHT_SERVER] if light else ["-m", "xpool_server"]
        argv = [python, *module, "--registry", self.registry, "--name", name]
        member = self.start(name, [*argv, *arguments])
        if wait:
            self.await_server(name)
        return member

    def await_server(self, name: str) -> Member:
        """Wait until a server has joined and has a warm worker."""
        member = self.members[name]
        member.address = self.await_line(member, SERVER_READY)[2]
        return member

    def start(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Member:
        """Start any process as a member; its output goes to files."""
        out, log = self.folder / f"{name}.out", self.folder / f"{name}.log"
        with out.open("wb") as out_file, log.open("ab") as log_file:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=log_file,
                env=self.environment(env),
                cwd=cwd,
                process_group=0,
            )
        member = Member(name, process, out, log)
        self.members[name] = member
        return member

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """For whatever belongs to this pool; nothing of ours leaks in from outside."""
        own = {k: v for k, v in os.environ.items() if not k.startswith("XPOOL_")}
        return {**own, MARK: self._mark, "PYTHONUNBUFFERED": "1", **(extra or {})}

    def await_line(self, member: Member, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait for a line on a member's stdout."""

        def look() -> re.Match[str] | None:
            match = pattern.search(member.said())
            if match is None and member.process.poll() is not None:
                raise AssertionError(
                    f"{member.name} ended with status {member.process.returncode}:"
                    f" {member.logged()}"
                )
            return match

        return eventually(look, f"{member.name}: {pattern.pattern}", START_S)

    def kill(self, what: str | int, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a member or a pid; wait for the end if it is deadly."""
        if isinstance(what, int):
            os.kill(what, how)
            return
        process = self.members[what].process
        process.send_signal(how)
        if how is signal.SIGKILL:
            process.wait(10)

    # ---- looking ----

    def client(self) -> RegistryClient:
        return RegistryClient(self.registry)

    def leases(self) -> list[pb.LeaseInfo]:
        with self.client() as client:
            return client.list_leases()

    def processes(self) -> Iterator[psutil.Process]:
        """Every living process that belongs to this pool, whoever its parent is."""
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get(MARK) == self._mark
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def workers(self, server: str) -> list[int]:
        """Pids of a server's worker processes."""
        try:
            children = psutil.Process(self.members[server].pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in children]

    def check_nothing_left(self) -> None:
        """No process and no socket file of this pool is left."""
        eventually(
            lambda: not list(self.processes()),
            f"the end of {[one.cmdline() for one in self.processes()]}",
            END_S,
        )
        left = [path for path in self.folder.rglob("*") if path.is_socket()]
        assert not left, f"socket files are left: {left}"
