"""``fleet``: one registry process, a thousand servers and ten thousand clients.

Everything is real but the servers' devices: one registry with its file, and one process
that plays all the others over gRPC. Both share this machine's cores.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

import msgspec

from xpool_perf.children import Children
from xpool_perf.figures import Figure, Samples
from xpool_perf.path_scenarios import PROGRAMS
from xpool_perf.pool import RunFailed, last_words, start_ready
from xpool_perf.programs.fleet_load import HEARTBEAT_S, Load
from xpool_perf.scenario import Say, Scenario, Settings

LEASES_PER_NODE: Final = 10
ACQUIRES_PER_S: Final = 200.0
SECONDS: Final = 15.0
METRICS: Final = re.compile(r"http://[0-9.:]+/metrics")
DECIDED: Final = re.compile(
    r'xpool_registry_decision_seconds_bucket\{le="([0-9.e+-]+|\+Inf)"\} ([0-9.e+]+)'
)
READY: Final = re.compile(r"registry ready on (\S+)")
PATIENCE_S: Final = 300.0


def percentile(values: list[float], part: float) -> float:
    """The value that ``1 - part`` of them exceed.

    >>> percentile([float(n) for n in range(1, 101)], 0.99)
    99.0
    """
    return sorted(values)[max(0, round(part * len(values)) - 1)]


def rss_mib(pid: int) -> float:
    """Resident memory of a process, in MiB; from Linux."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def cpu_s(pid: int) -> float:
    """Processor time that a process has used; from Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def decision_counts(url: str) -> list[tuple[float, float]]:
    """What the registry says of its decisions: upper ends in s, and how many below."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310  ours
        text = answer.read().decode()
    return [(float(limit), float(count)) for limit, count in DECIDED.findall(text)]


def decision_ms(
    before: list[tuple[float, float]], after: list[tuple[float, float]], part: float
) -> float:
    """The upper end, in ms, of the step that holds that part of what came between.

    >>> decision_ms([(0.001, 5.0), (0.002, 5.0)], [(0.001, 7.0), (0.002, 9.0)], 0.9)
    2.0
    """
    counts = [(b[0], b[1] - a[1]) for a, b in zip(before, after, strict=True)]
    total = counts[-1][1]
    return 1000 * next(limit for limit, count in counts if count >= part * total)


def one_run(folder: Path, load: Load, say: Say) -> dict[str, list[float]]:
    """Play once.

    Raises:
        RunFailed: a process ended, or a call failed.
    """
    decided: list[list[tuple[float, float]]] = []
    urls: list[str] = []

    used_s: dict[str, list[float]] = {"registry": [], "player": []}
    pids: dict[str, int] = {}

    def line(name: str, text: str) -> None:
        if name == "registry" and not urls:
            urls.extend(METRICS.findall(text))
        if name == "load" and text.startswith("filled"):
            say(text)
        if name == "load" and text == "filled: measuring soon":
            decided.append(decision_counts(urls[0]))
        if name == "load" and text in ("measuring", "measured"):
            for one, pid in pids.items():
                used_s[one].append(cpu_s(pid))

    with Children(line) as children:
        registry = start_ready(
            children,
            "registry",
            [
                *(sys.executable, "-m", "xpool_registry", "--listen", "127.0.0.1:0"),
                *("--store", str(folder / "registry.db"), "--log-format", "json"),
                *("--metrics", "127.0.0.1:0"),
            ],
            READY,
            os.environ,
            folder,
        )
        pids["registry"] = registry.process.pid
        address = next(filter(None, map(READY.search, registry.lines)))[1]
        argv = [sys.executable, str(PROGRAMS / "fleet_load.py"), address]
        child = children.start(
            "load", [*argv, msgspec.json.encode(load).decode()], os.environ, folder
        )
        pids["player"] = child.process.pid
        status = children.wait(child, PATIENCE_S)
        if status != 0:
            raise RunFailed(f"the fleet ended with {status}: {last_words(child)}")
        found = json.loads(child.lines[-1])
        decided.append(decision_counts(urls[0]))
        used_mib, all_s = rss_mib(registry.process.pid), cpu_s(registry.process.pid)
    if found["failures"]:
        raise RunFailed(f"calls failed: {json.dumps(found['failures'])[:400]}")
    before, after = decided
    calls = sum(len(found[name]) for name in ("acquire_ms", "heartbeat_ms"))
    calls += found["renewals"] + found["releases"]
    spent_s = {one: ends[1] - ends[0] for one, ends in used_s.items()}
    return {
        "acquire_p50_ms": [percentile(found["acquire_ms"], 0.5)],
        "acquire_p99_ms": [percentile(found["acquire_ms"], 0.99)],
        "decision_p50_ms": [decision_ms(before, after, 0.5)],
        "decision_p99_ms": [decision_ms(before, after, 0.99)],
        "heartbeat_p99_ms": [percentile(found["heartbeat_ms"], 0.99)],
        "heartbeats_per_s": [len(found["heartbeat_ms"]) / found["seconds"]],
        "renewals_per_s": [found["renewals"] / found["seconds"]],
        "late_heartbeats": [found["late"]],
        "registry_rss_mb": [used_mib],
        "registry_cpu_s": [all_s],
        "registry_core_percent": [100 * spent_s["registry"] / found["seconds"]],
        "registry_us_per_call": [1e6 * spent_s["registry"] / calls],
        "player_core_percent": [100 * spent_s["player"] / found["seconds"]],
        "player_us_per_call": [1e6 * spent_s["player"] / calls],
    }


def measure(settings: Settings, say: Say) -> Samples:
    """So many runs, each with a registry of its own.

    Raises:
        RunFailed: a process ended, or a call failed.
    """
    samples: dict[str, list[float]] = {}
    for number in range(settings.runs):
        load = Load(
            nodes=settings.nodes,
            leases=LEASES_PER_NODE * settings.nodes,
            acquires_per_s=ACQUIRES_PER_S,
            seconds=SECONDS,
            seed=number,
        )
        with tempfile.TemporaryDirectory(prefix="xpool-fleet-") as folder:
            for name, values in one_run(Path(folder), load, say).items():
                samples.setdefault(name, []).extend(values)
        say(", ".join(f"{name} {values[-1]:.1f}" for name, values in samples.items()))
    return samples


_PLAYED: Final = (
    f"{ACQUIRES_PER_S:.0f} requests a second at random moments, as many releases,"
    f" {LEASES_PER_NODE} leases a server held, all of them at work, and renewed three"
    " times in the TTL that the registry gives, a heartbeat from each server with the"
    f" use of its sessions after {HEARTBEAT_S:g} of the time that the last answer names"
)

FLEET: Final = Scenario(
    name="fleet",
    summary="one registry under a thousand servers and ten thousand clients",
    figures=(
        Figure(
            name="acquire_p99_ms",
            unit="ms",
            method=f"At the client, over gRPC: {_PLAYED}; {SECONDS:.0f} s a run, the"
            " player on the same cores. Aim: 50.",
            sources=("acquire_p99_ms",),
        ),
        Figure(
            name="acquire_p50_ms",
            unit="ms",
            method="The same, the median.",
            sources=("acquire_p50_ms",),
        ),
        Figure(
            name="decision_p99_ms",
            unit="ms",
            method="In the registry, from its /metrics: from a request that is read to"
            " its answer, which then waits for the disk; the upper end of the step"
            " that holds the 99th percentile. Aim: 10.",
            sources=("decision_p99_ms",),
        ),
        Figure(
            name="decision_p50_ms",
            unit="ms",
            method="The same, the median.",
            sources=("decision_p50_ms",),
        ),
        Figure(
            name="heartbeats_per_s",
            unit="1/s",
            method="Answered meanwhile. Aim: 1,000 with 1,000 servers.",
            sources=("heartbeats_per_s",),
        ),
        Figure(
            name="heartbeat_p99_ms",
            unit="ms",
            method="Of a heartbeat, at the server.",
            sources=("heartbeat_p99_ms",),
        ),
        Figure(
            name="registry_rss_mb",
            unit="MiB",
            method="Resident memory of the registry's process at the end. Aim: 300.",
            sources=("registry_rss_mb",),
        ),
        Figure(
            name="registry_cpu_s",
            unit="s",
            method="Processor time of the registry's process in a run.",
            sources=("registry_cpu_s",),
        ),
        Figure(
            name="registry_us_per_call",
            unit="us",
            method="Processor time of the registry's process for each heartbeat,"
            " request, renewal and release, over the measured seconds.",
            sources=("registry_us_per_call",),
        ),
        Figure(
            name="registry_core_percent",
            unit="%",
            method="The same, of one core.",
            sources=("registry_core_percent",),
        ),
        Figure(
            name="player_us_per_call",
            unit="us",
            method="Processor time of the process that plays servers and clients.",
            sources=("player_us_per_call",),
        ),
        Figure(
            name="player_core_percent",
            unit="%",
            method="The same, of one core.",
            sources=("player_core_percent",),
        ),
    ),
    measure=measure,
    has_nodes=True,
)
