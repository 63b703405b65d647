"""Tenants of one device under ``xpool run``, and what each has had of it.

Device time is read where the operating system counts it, and not where the server does:
processor time of the thread of each worker that runs its operations. On a GPU, which
has no such counter, it is what the server reports.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient

from xpool_perf.children import Child, Children
from xpool_perf.pool import JOB_TIMEOUT_S, WORKER_MODULE, Pool, RunFailed
from xpool_perf.shares_windows import Reading

PROGRAM = Path(__file__).parent / "programs" / "tenant.py"
ELSEWHERE = ("nice", "-n", "19")
"""Before a busy program: its host is another one in truth, and takes no processor from
who asks for an answer here."""
READING_S = 0.002
"""A reading of all tenants that took longer is taken again: they are of one moment."""
READING_TRIES = 20


@dataclass(eq=False)
class Tenant:
    """One job."""

    child: Child
    bench: Bench
    lines: list[tuple[float, float]] = field(default_factory=list)
    """What it has said: pairs of numbers, see ``programs/tenant.py``."""
    share: int = 0
    """Percent that it has now."""
    program: int = 0
    """Process of the program itself."""
    worker: int = 0
    """Process that serves it."""
    lease_id: str = ""

    def check(self) -> None:
        """Find out that it has ended although nobody told it to.

        Raises:
            RunFailed: it has; its last words.
        """
        if self.child.status is not None:
            raise RunFailed(
                f"a tenant ended: {' / '.join(list(self.child.lines)[-4:])}"
            )


class Bench:
    """A pool, and the tenants that are in it now."""

    def __init__(
        self,
        children: Children,
        pool: Pool,
        env: Mapping[str, str],
        said: dict[str, list[tuple[float, float]]],
        *,
        is_cpu: bool,
    ) -> None:
        self._children = children
        self.pool = pool
        self._env = env
        self._said = said
        self._is_cpu = is_cpu
        self._count = 0

    def start(self, *arguments: str, options: Sequence[str] = ()) -> Tenant:
        """Start a tenant, and return when it works.

        Raises:
            RunFailed: it ended, or did not begin in time.
        """
        (tenant,) = self.start_all([(arguments, options)])
        return tenant

    def start_all(
        self, what: Sequence[tuple[Sequence[str], Sequence[str]]]
    ) -> list[Tenant]:
        """Start tenants at the same time, and return when all of them work.

        Args:
            what: of each the program's arguments, and options of ``xpool run``.

        Raises:
            RunFailed: one ended, or did not begin in time.
        """
        tenants = [self._launch(*one) for one in what]
        self._children.pump(
            lambda: all(
                bool(one.lines) or one.child.status is not None for one in tenants
            ),
            JOB_TIMEOUT_S,
            "a tenant's first line",
        )
        for tenant in tenants:
            tenant.check()
            child = tenant.child
            (program,) = psutil.Process(child.process.pid).children()
            tenant.program = program.pid
            tenant.worker = self._worker_of(program)
            lease = self._info_of(program).lease
            tenant.lease_id, tenant.share = lease.lease_id, lease.share_percent
        return tenants

    def _launch(self, arguments: Sequence[str], options: Sequence[str]) -> Tenant:
        self._count += 1
        name = f"{id(self) % 997}-{self._count}"
        lines = self._said.setdefault(name, [])
        child = self._children.start(
            name,
            [
                *(() if arguments[0] == "ask" else ELSEWHERE),
                *(sys.executable, "-m", "xpool", "run"),
                *("--registry", self.pool.registry, *options),
                *(str(PROGRAM), *arguments),
            ],
            self._env,
        )
        return Tenant(child, self, lines)

    def end(self, *tenants: Tenant) -> None:
        """End tenants, and wait until their leases have ended, too."""
        for tenant in tenants:
            self._children.end(tenant.child)
        gone = {tenant.lease_id for tenant in tenants}

        def is_over() -> bool:
            with self.client() as client:
                return not any(
                    info.lease.lease_id in gone for info in client.list_leases()
                )

        self._children.pump(is_over, 60, "the end of the leases")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until_s = time.monotonic() + seconds
        what = "the passing of time"
        self._children.pump(lambda: time.monotonic() >= until_s, seconds + 60, what)

    def client(self) -> RegistryClient:
        """To the pool's registry."""
        return RegistryClient(self.pool.registry)

    def reading(self, tenants: Sequence[Tenant]) -> Reading:
        """What each has had so far."""
        if self._is_cpu:
            return _reading([tenant.worker for tenant in tenants])
        with self.client() as client:
            by_id = {one.lease.lease_id: one.session for one in client.list_leases()}
        used = tuple(by_id[one.lease_id].device_ns for one in tenants)
        return Reading(time.monotonic(), used)

    def watch(
        self,
        tenants: Sequence[Tenant],
        seconds: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Reading]:
        """A reading each second."""
        readings = [self.reading(tenants)]
        began_s = time.monotonic()
        for second in range(1, round(seconds) + 1):
            self.wait(max(0.0, began_s + second - time.monotonic()))
            meanwhile()
            readings.append(self.reading(tenants))
        return readings

    def _info_of(self, program: psutil.Process) -> pb.LeaseInfo:
        with self.client() as client:
            found = [
                info
                for info in client.list_leases()
                if f"pid {program.pid} " in info.client
            ]
        return found[0]

    def _worker_of(self, program: psutil.Process) -> int:
        peers = {one.raddr for one in program.net_connections() if one.raddr}
        for process in psutil.Process(self.pool.child.process.pid).children(True):
            if WORKER_MODULE not in process.cmdline():
                continue
            listening = (
                one.laddr
                for one in process.net_connections()
                if one.status == psutil.CONN_LISTEN
            )
            if any(address in peers for address in listening):
                return int(process.pid)
        raise RunFailed("no worker of the pool serves the tenant")


def rate(lines: Sequence[tuple[float, float]], from_s: float, to_s: float) -> float:
    """Work per second of a tenant that says how much it has done, in that time."""
    inside = [line for line in lines if from_s <= line[0] <= to_s]
    if len(inside) < 2 or inside[-1][0] <= inside[0][0]:
        return 0.0
    (first_s, first), (last_s, last) = inside[0], inside[-1]
    return (last - first) / (last_s - first_s)


def collector(said: dict[str, list[tuple[float, float]]]) -> Callable[[str, str], None]:
    """Sorts the lines of tenants by who has said them."""

    def take(name: str, line: str) -> None:
        if name in said and line.startswith("["):
            at_s, value = json.loads(line)
            said[name].append((at_s, value))

    return take


def _reading(workers: Sequence[int]) -> Reading:
    """Of one moment, as nearly as this process gets to run."""
    for _ in range(READING_TRIES):
        began_s = time.monotonic()
        used = tuple(map(thread_ns, workers))
        ended_s = time.monotonic()
        if ended_s - began_s < READING_S:
            break
    return Reading((began_s + ended_s) / 2, used)


def thread_ns(pid: int) -> int:
    """Processor time of a process's main thread."""
    path = Path(f"/proc/{pid}/task/{pid}/schedstat")
    return int(path.read_text().split()[0])


def step_aside(cores: int) -> None:
    """Leave the last processors to the device, for us and whom we start."""
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) > cores:
        os.sched_setaffinity(0, ours[: len(ours) - cores])
