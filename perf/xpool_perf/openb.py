"""The openb trace, and the inflation experiment that is published with it.

Source:
    Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
    Fragmentation Gradient Descent", USENIX ATC 2023; the data are the folder
    ``cluster-trace-gpu-v2023`` of the public repository alibaba/clusterdata, under
    its own terms, and not part of this project.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xpool_registry.demand import NO_DEVICE, Demand, Spot
from xpool_registry.fleet import Fleet, NodeFacts
from xpool_registry.placer import Placer
from xpool_registry.policies import DemandClass, Fragmentation, NodeBestFit, Policy

from xpool_perf.openb_files import nodes_in, tasks_in

INFLATION: Final = 1.3
COVERED: Final = 0.95
"""Part of the tasks that the mix of requests covers."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A cluster, and what was asked of it."""

    nodes: tuple[NodeFacts, ...]
    tasks: tuple[Demand, ...]

    @property
    def capacity_milli(self) -> int:
        """Thousandths of devices in all."""
        return 1000 * sum(len(node.devices) for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One run of the experiment."""

    allocated_percent: float
    """Of the capacity, when arrived demand first reached it."""

    placements_per_s: float
    """Decisions in all, placed or not, by the time of deciding and booking."""


def load(folder: Path) -> Trace:
    """Read both files.

    Raises:
        ValueError: a file is missing, or what it says makes no sense.
    """
    return Trace(nodes_in(folder), tasks_in(folder))


def demand_milli(task: Demand) -> int:
    """Thousandths of devices that a task asks for."""
    return task.device_count * task.share_milli


def classes_of(tasks: Iterable[Demand]) -> list[DemandClass]:
    """The most frequent forms of tasks, until ``COVERED`` of them are covered."""
    forms = Counter(
        (t.device_count, t.share_milli, t.cpu_milli, t.host_memory_mib) for t in tasks
    )
    total, covered = forms.total(), 0
    classes = []
    for (count, share, cpu, host), weight in forms.most_common():
        if covered >= COVERED * total:
            break
        classes.append(DemandClass(count, share, weight, cpu, host))
        covered += weight
    return classes


def inflated(trace: Trace, rng: random.Random) -> list[Demand]:
    """All tasks and copies drawn with replacement, up to 130 % demand, shuffled.

    Some task must ask for a device, or it never ends.
    """
    limit = INFLATION * trace.capacity_milli
    tasks = list(trace.tasks)
    total = sum(demand_milli(task) for task in tasks)
    while True:
        task = rng.choice(trace.tasks)
        # In a small cluster one task may be most of it: all of it arrives in any case.
        is_enough = total >= trace.capacity_milli
        total += demand_milli(task)
        if total > limit and is_enough:
            break
        tasks.append(task)
    rng.shuffle(tasks)
    return tasks


def policy_named(name: str, trace: Trace) -> Policy:
    """``fgd`` or the published baseline, ``node-best-fit``."""
    if name == Fragmentation.name:
        return Fragmentation(classes_of(trace.tasks))
    return NodeBestFit()


def replay(trace: Trace, tasks: Sequence[Demand], policy: Policy) -> Replayed:
    """Let the tasks arrive one by one; what does not fit is dropped for good."""
    fleet = Fleet()
    for node in trace.nodes:
        fleet.put(node)
    placer = Placer(fleet, policy)
    capacity = trace.capacity_milli
    arrived = allocated = 0
    at_full: int | None = None
    began_s = time.perf_counter()
    for task in tasks:
        spots = placer.place(task)
        milli = demand_milli(task)
        if spots is not None:
            _book(fleet, task, spots)
            allocated += milli
        arrived += milli
        if at_full is None and arrived >= capacity:
            at_full = allocated
    took_s = time.perf_counter() - began_s
    assert at_full is not None, "130 % of the capacity arrives"
    return Replayed(100 * at_full / capacity, len(tasks) / took_s)


def _book(fleet: Fleet, task: Demand, spots: Sequence[Spot]) -> None:
    fleet.take(
        spots[0].row,
        [spot.column for spot in spots if spot.column != NO_DEVICE],
        task.share_milli,
        cpu_milli=task.cpu_milli,
        host_memory_mib=task.host_memory_mib,
    )
