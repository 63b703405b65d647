"""``registry_faults``: what a registry loses that is killed while it grants.

Clients take and give back slices as fast as they can. Again and again the registry gets
SIGKILL: the one with its file, started anew; or, of three that share an etcd, the one
that leads. At the end clients and registry must agree on every slice.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from xpool_perf import etcd
from xpool_perf.children import Child, Children, ChildTimeout
from xpool_perf.figures import Figure, Samples
from xpool_perf.path_scenarios import PROGRAMS
from xpool_perf.pool import RunFailed, last_words, repository, wait_ready
from xpool_perf.scenario import Say, Scenario, Settings

KILLS_PER_RUN: Final = 10
"""Fifty with the usual five runs, of either kind of store."""

REPLICAS: Final = 3
READY: Final = re.compile(r"registry ready on ")
LEADING: Final = re.compile(r"\]\s+leading\s+term=")
GRANT: Final = re.compile(r"grant (\d+) (\d+)")
PATIENCE_S: Final = 60.0
SAY_EVERY: Final = 10
"""Kills."""

COMPACT_AFTER: Final = 100
"""Writes: so few that logs are put into short again and again, and kills come in it."""

MAX_CALM_S: Final = 0.5
"""Between two grants after a start and the next kill: drawn below this."""


@dataclass(slots=True)
class Watch:
    """What the children's lines have told so far."""

    leader: str = ""
    grants: list[tuple[int, int]] = field(default_factory=list)
    verdict: dict[str, int] = field(default_factory=dict)

    def line(self, name: str, text: str) -> None:
        """Take one line."""
        if name == "storm":
            grant = GRANT.fullmatch(text)
            if grant:
                self.grants.append((int(grant[1]), int(grant[2])))
            elif text.startswith("{"):
                self.verdict = json.loads(text)
        elif LEADING.search(text):
            self.leader = name

    def first_grant_after_ns(self, moment_ns: int) -> int | None:
        """When the first grant came that was asked for later than a moment."""
        came = [granted for asked, granted in self.grants if asked > moment_ns]
        return min(came, default=None)


class Trial:
    """One storm over one kind of store."""

    def __init__(
        self, children: Children, watch: Watch, folder: Path, say: Say
    ) -> None:
        self.children = children
        self.say = say
        self.watch = watch
        self.folder = folder
        self.registries: dict[str, Child] = {}
        self.failovers_s: list[float] = []

    def start_registry(self, name: str, port: int, store: str) -> None:
        """Start one, also after it was killed."""
        argv = [
            *(sys.executable, "-m", "xpool_registry", "--store", store),
            *("--listen", f"127.0.0.1:{port}"),
        ]
        env = os.environ | {"XPOOL_COMPACT_AFTER": str(COMPACT_AFTER)}
        self.registries[name] = self.children.start(name, argv, env, self.folder)

    def wait_ready(self) -> None:
        """Until all that were started answer calls."""
        for child in self.registries.values():
            wait_ready(self.children, child, READY)

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Pass lines on until something is so.

        Raises:
            RunFailed: it was not in time.
        """
        try:
            self.children.pump(until, PATIENCE_S, what)
        except ChildTimeout as error:
            raise RunFailed(str(error)) from error

    def kill(self, name: str) -> int:
        """SIGKILL; when."""
        child = self.registries[name]
        moment_ns = time.monotonic_ns()
        child.process.kill()
        self.children.wait(child, PATIENCE_S)
        self.children.end(child)
        return moment_ns

    def next_grant_s(self, moment_ns: int) -> float:
        """Seconds from a moment to the next grant that was asked for after it."""
        self.wait(
            lambda: self.watch.first_grant_after_ns(moment_ns) is not None,
            "the next grant",
        )
        came_ns = self.watch.first_grant_after_ns(moment_ns)
        assert came_ns is not None
        self.watch.grants.clear()
        return (came_ns - moment_ns) / 1e9

    def storm(self, address: str, kills: int, once: Callable[[], float]) -> None:
        """Kill so many times in a storm, and hear what clients and registry say."""
        argv = [sys.executable, str(PROGRAMS / "grant_storm.py"), address]
        storm = self.children.start("storm", argv, os.environ, self.folder)
        chance = random.Random(kills)  # noqa: S311  a schedule
        for _ in range(kills):
            self.wait_ready()
            self.next_grant_s(time.monotonic_ns())
            calm_until_s = time.monotonic() + MAX_CALM_S * chance.random()
            self.wait(lambda: time.monotonic() > calm_until_s, "a moment")  # noqa: B023
            self.failovers_s.append(once())
            if len(self.failovers_s) % SAY_EVERY == 0:
                self.say(f"{len(self.failovers_s)} of {kills} kills")
        storm.process.terminate()
        status = self.children.wait(storm, 2 * PATIENCE_S)
        if status != 0 or not self.watch.verdict:
            raise RunFailed(f"the storm ended with {status}: {last_words(storm)}")


def over_file(trial: Trial, kills: int) -> None:
    """One registry with its SQLite file, started anew after each kill."""
    [port] = etcd.free_ports(1)
    store = str(trial.folder / "registry.db")
    trial.start_registry("registry", port, store)
    trial.wait_ready()

    def once() -> float:
        moment_ns = trial.kill("registry")
        trial.start_registry("registry", port, store)
        trial.wait_ready()
        return trial.next_grant_s(moment_ns)

    trial.storm(f"127.0.0.1:{port}", kills, once)


def over_etcd(trial: Trial, kills: int) -> None:
    """Three registries over one etcd; who leads is killed, and comes back later."""
    binary = etcd.binary(repository())
    if binary is None:
        raise RunFailed(etcd.MISSING)
    port, peer_port, *ports = etcd.free_ports(2 + REPLICAS)
    argv = etcd.argv(binary, trial.folder / "etcd", port, peer_port)
    trial.children.start("etcd", argv, os.environ, trial.folder)
    store = f"etcd://127.0.0.1:{port}/faults"
    names = {f"registry-{one}": one for one in ports}
    for name, one in names.items():
        trial.start_registry(name, one, store)
    trial.wait_ready()

    def once() -> float:
        leader, trial.watch.leader = trial.watch.leader, ""
        taken_s = trial.next_grant_s(trial.kill(leader))
        trial.start_registry(leader, names[leader], store)
        return taken_s

    address = ",".join(f"127.0.0.1:{one}" for one in ports)
    trial.storm(address, kills, once)


def say_of(say: Say, kind: str, text: str) -> None:
    """One line of progress, of one kind of store."""
    say(f"{kind}: {text}")


def measure(settings: Settings, say: Say) -> Samples:
    """Both kinds of store, one after the other.

    Raises:
        RunFailed: a process ended, or nothing was granted for a minute.
    """
    kills = KILLS_PER_RUN * settings.runs
    samples: dict[str, list[float]] = {}
    for kind, course in (("file", over_file), ("etcd", over_etcd)):
        watch = Watch()
        with (
            tempfile.TemporaryDirectory(prefix="xpool-faults-") as folder,
            Children(watch.line) as children,
        ):
            trial = Trial(children, watch, Path(folder), partial(say_of, say, kind))
            course(trial, kills)
        found = watch.verdict
        say(
            f"{kind}: {kills} kills, {found['granted']} grants, {found['held']} held at"
            f" the end, {found['lost']} lost, {found['twice']} given twice"
        )
        samples[f"{kind}_lost"] = [found["lost"]]
        samples[f"{kind}_twice"] = [found["twice"]]
        samples[f"{kind}_granted"] = [found["granted"]]
        samples[f"{kind}_failover_s"] = trial.failovers_s
    samples["lost"] = [samples["file_lost"][0] + samples["etcd_lost"][0]]
    samples["twice"] = [samples["file_twice"][0] + samples["etcd_twice"][0]]
    samples["slowest_failover_s"] = [max(samples["etcd_failover_s"])]
    return samples


REGISTRY_FAULTS: Final = Scenario(
    name="registry_faults",
    summary="what a registry loses that is killed while it grants",
    figures=(
        Figure(
            name="lost_leases",
            unit="leases",
            method=f"Of all that clients hold after {KILLS_PER_RUN} SIGKILLs for each"
            " run, in a storm of grants, with a file and again with etcd: what the"
            " registry does not list. Aim: 0.",
            sources=("lost",),
        ),
        Figure(
            name="double_grants",
            unit="leases",
            method="The same: leases beyond a device's whole, and ids that were given"
            " twice. Aim: 0.",
            sources=("twice",),
        ),
        Figure(
            name="failover_s",
            unit="s",
            method="Three registries over etcd: from the SIGKILL of the one that leads"
            " to the next grant that was asked for after it. Aim: 3.",
            sources=("etcd_failover_s",),
        ),
        Figure(
            name="slowest_failover_s",
            unit="s",
            method="The slowest of them.",
            sources=("slowest_failover_s",),
        ),
        Figure(
            name="restart_s",
            unit="s",
            method="One registry with a file: from its SIGKILL, over its start, to the"
            " next grant.",
            sources=("file_failover_s",),
        ),
    ),
    measure=measure,
)
