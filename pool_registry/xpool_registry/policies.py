"""How good a place is: policies that rank the nodes for one demand.

A policy looks at some rows of the fleet and says, for each, which devices it would
take there and how good that would be: a whole number, higher is better, negative if
the node cannot hold it. Equal ranks go to the lowest row, so that the order is
steady: spreading equals at random costs the fragmentation policy five points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from xpool_registry.demand import Demand
from xpool_registry.fleet import WHOLE_MILLI, Bools, Fleet, Ints

CANNOT: Final = -1
"""The rank of a node that cannot hold the demand."""

# The rest of a node in units of 1/128 CPU core and 1/8 device: the published
# best-fit form c / 128000 + g / 8000, times 1,024,000,000, without its fractions.
_CPU_WEIGHT: Final = 8_000
_DEVICE_WEIGHT: Final = 128_000
_REST_BITS: Final = 48
_MAX_REST: Final = (1 << _REST_BITS) - 1

LOAD_PENALTY: Final = 10
"""Points that a device loses for each level of load that no lease explains."""

_FAR: Final = np.int64(1 << 40)


class Ranking(NamedTuple):
    """What a policy says of some rows."""

    rank: Ints
    """Shape ``(rows,)``."""

    columns: Ints
    """Shape ``(rows, device_count)``: what it would take; undefined if ``CANNOT``."""


class Policy(Protocol):
    """See the head of this file."""

    name: str

    def rank(
        self, fleet: Fleet, demand: Demand, rows: Ints, allowed: Bools | None
    ) -> Ranking:
        """Rank those rows; ``allowed`` holds the devices that constraints admit."""

    @property
    def epoch(self) -> int:
        """Grows when earlier ranks are void."""


def rest_of(fleet: Fleet, rows: Ints) -> Ints:
    """How much of a node is left: less is a better fit; shape ``(rows,)``."""
    cpu = fleet.cpu_milli[rows]
    counted = np.where(cpu < 1 << 40, cpu, 0)
    devices: Ints = fleet.free_milli[rows].sum(axis=1)
    rest: Ints = np.minimum(counted * _CPU_WEIGHT + devices * _DEVICE_WEIGHT, _MAX_REST)
    return rest


def tightest(free: Ints, fitting: Bools, count: int) -> Ints:
    """Of each row the fitting devices with the least left, the lowest of equals.

    Args:
        free: what is left of each device, shape ``(rows, columns)``.
        fitting: which may be taken.
        count: how many; rows with fewer get meaningless columns.

    Returns:
        Columns in ascending order, shape ``(rows, count)``.
    """
    keys = np.where(fitting, free, _FAR)
    if count == 1:
        first: Ints = keys.argmin(axis=1)[:, None]
        return first
    order = keys.argsort(axis=1, kind="stable")[:, :count]
    return np.sort(order, axis=1)


def _has_room(
    fleet: Fleet, demand: Demand, rows: Ints, allowed: Bools | None
) -> tuple[Bools, Bools]:
    """Which devices fit, and which nodes have enough of them and the CPU."""
    fitting = demand.fits(fleet, rows, allowed)
    can: Bools = fitting.sum(axis=1) >= demand.device_count
    can &= fleet.cpu_milli[rows] >= demand.cpu_milli
    can &= fleet.host_memory_mib[rows] >= demand.host_memory_mib
    return fitting, can


class BestFit:
    """The node with the least left, and in it the devices with the least left."""

    name = "best-fit"
    epoch = 0

    def rank(
        self, fleet: Fleet, demand: Demand, rows: Ints, allowed: Bools | None
    ) -> Ranking:
        """See ``Policy``."""
        fitting, can = _has_room(fleet, demand, rows, allowed)
        free, load = fleet.free_milli[rows], fleet.load_level[rows]
        # A busy device looks emptier than it is, so that it is taken last.
        columns = tightest(free + load * WHOLE_MILLI, fitting, demand.device_count)
        rank = _MAX_REST - rest_of(fleet, rows)
        if demand.device_count:
            # The fuller device decides; of equals the fuller node.
            left = np.take_along_axis(free, columns, axis=1).sum(axis=1)
            busy = np.take_along_axis(load, columns, axis=1).sum(axis=1)
            points = 64 * WHOLE_MILLI - left - busy * WHOLE_MILLI
            rank = np.maximum(points, 0) << 46 | rank >> 2
        return Ranking(np.where(can, rank, CANNOT), columns)


class NodeBestFit:
    """The published baseline: the node's rest alone, and in it the fullest device."""

    name = "node-best-fit"
    epoch = 0

    def rank(
        self, fleet: Fleet, demand: Demand, rows: Ints, allowed: Bools | None
    ) -> Ranking:
        """See ``Policy``."""
        fitting, can = _has_room(fleet, demand, rows, allowed)
        columns = tightest(fleet.free_milli[rows], fitting, demand.device_count)
        rank = np.where(can, _MAX_REST - rest_of(fleet, rows), CANNOT)
        return Ranking(rank, columns)


class Spread:
    """The devices with the most left: the least interference."""

    name = "spread"
    epoch = 0

    def rank(
        self, fleet: Fleet, demand: Demand, rows: Ints, allowed: Bools | None
    ) -> Ranking:
        """See ``Policy``."""
        fitting, can = _has_room(fleet, demand, rows, allowed)
        load = fleet.load_level[rows] * (WHOLE_MILLI // 4)
        room = np.maximum(fleet.free_milli[rows] - load, 0)
        columns = tightest(-room, fitting, demand.device_count)
        rank = rest_of(fleet, rows) >> 8
        if demand.device_count:
            chosen = np.take_along_axis(room, columns, axis=1)
            rank = chosen.min(axis=1) << 42 | rank
        return Ranking(np.where(can, rank, CANNOT), columns)


@dataclass(frozen=True, slots=True)
class DemandClass:
    """One frequent form of request, and how frequent."""

    device_count: int
    share_milli: int
    weight: int
    """How many were counted; exact sums need whole numbers."""

    cpu_milli: int = 0
    host_memory_mib: int = 0


class Fragmentation:
    """Fragmentation gradient descent: take what the usual requests miss least.

    What a node has left is *fragmented* for a class of requests as far as that
    class cannot use it. The score of a place is by how much the expected
    fragmentation falls, quantised to 0..100; of equals the best fit.

    Source:
        Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
        Fragmentation Gradient Descent", USENIX ATC 2023; ADR 0043 for the details
        that decide (quantising, ties, exact sums).
    """

    name = "fgd"

    def __init__(self, classes: Sequence[DemandClass]) -> None:
        """Take the mix of requests; without one, only the best fit counts."""
        self.epoch = 0
        self._seen = -1
        self._fleet: Fleet | None = None
        self._sum: Ints = np.zeros(0, np.int64)
        self.set_mix(classes)

    def set_mix(self, classes: Sequence[DemandClass]) -> None:
        """Another mix: every earlier rank is void."""
        self._cpu = np.array([one.cpu_milli for one in classes], np.int64)
        self._host = np.array([one.host_memory_mib for one in classes], np.int64)
        self._num = np.array([one.device_count for one in classes], np.int64)
        self._milli = np.array([one.share_milli for one in classes], np.int64)
        # Exact: whole numbers below 2**53, so their sums have no rounding noise,
        # which would act as a random tie-break and cost three points.
        self._weight = np.array([one.weight for one in classes], np.float64)
        self._total = float(self._weight.sum()) or 1.0
        self._seen = -1
        self.epoch += 1

    def rank(
        self, fleet: Fleet, demand: Demand, rows: Ints, allowed: Bools | None
    ) -> Ranking:
        """See ``Policy``."""
        self._refresh(fleet)
        fitting, can = _has_room(fleet, demand, rows, allowed)
        rank = np.full(len(rows), CANNOT, np.int64)
        columns = np.zeros((len(rows), demand.device_count), np.int64)
        able = np.flatnonzero(can)
        if not len(able):
            return Ranking(rank, columns)
        if demand.device_count == 1:
            which, column = _candidates(fleet.free_milli[rows[able]], fitting[able])
            score = self._scores(fleet, demand, rows[able[which]], column[:, None])
            best = _first_best(which, score, len(able))
            columns[able] = column[best][:, None]
            score = score[best]
        else:
            free = fleet.free_milli[rows[able]]
            chosen = tightest(free, fitting[able], demand.device_count)
            columns[able] = chosen
            score = self._scores(fleet, demand, rows[able], chosen)
        rest = _MAX_REST - rest_of(fleet, rows[able])
        rank[able] = score << _REST_BITS | rest
        return Ranking(rank, columns)

    def _scores(self, fleet: Fleet, demand: Demand, rows: Ints, columns: Ints) -> Ints:
        """The quantised score of one candidate for each entry of ``rows``."""
        after = self._after(fleet, demand, rows, columns)
        gain = (after - self._before[rows]) / self._total
        score = np.floor(100 / (1 + np.exp(gain / 1000))).astype(np.int64)
        if columns.shape[1]:
            level = fleet.load_level[rows[:, None], columns].max(axis=1)
            score = np.maximum(score - LOAD_PENALTY * level, 0)
        return score

    def _after(
        self, fleet: Fleet, demand: Demand, rows: Ints, columns: Ints
    ) -> npt.NDArray[np.float64]:
        """Weighted fragmentation of each candidate's node after it is taken."""
        count, small = self._count[rows], self._small[rows]
        for k in range(columns.shape[1]):
            free = fleet.free_milli[rows, columns[:, k]][:, None]
            left = free - demand.share_milli
            was, still = free >= self._milli, left >= self._milli
            count = count - was + still
            small = small - np.where(was, 0, free) + np.where(still, 0, left)
        return self._fragmented(
            fleet.cpu_milli[rows] - demand.cpu_milli,
            fleet.host_memory_mib[rows] - demand.host_memory_mib,
            count,
            small,
            self._sum[rows] - demand.share_milli * columns.shape[1],
        )

    def _fragmented(
        self, cpu: Ints, host: Ints, count: Ints, small: Ints, total: Ints
    ) -> npt.NDArray[np.float64]:
        can = (count >= self._num) & (self._num > 0)
        can &= (cpu[:, None] >= self._cpu) & (host[:, None] >= self._host)
        return np.where(can, small, total[:, None]) @ self._weight

    def _refresh(self, fleet: Fleet) -> None:
        """Bring the tables for each row up to date with the fleet."""
        changed = fleet.changed_since(self._seen) if self._fleet is fleet else None
        is_new = changed is None or self._seen < 0 or fleet.count != len(self._sum)
        if is_new:
            changed = np.arange(fleet.count)
            self._count = np.zeros((fleet.count, len(self._milli)), np.int64)
            self._small = np.zeros_like(self._count)
            self._sum = np.zeros(fleet.count, np.int64)
            self._before = np.zeros(fleet.count, np.float64)
            self._fleet = fleet
        self._seen = fleet.log_end
        assert changed is not None
        if not len(changed):
            return
        free = fleet.free_milli[changed]
        fits = free[:, :, None] >= self._milli
        self._count[changed] = fits.sum(axis=1)
        self._small[changed] = np.where(fits, 0, free[:, :, None]).sum(axis=1)
        self._sum[changed] = free.sum(axis=1)
        self._before[changed] = self._fragmented(
            fleet.cpu_milli[changed],
            fleet.host_memory_mib[changed],
            self._count[changed],
            self._small[changed],
            self._sum[changed],
        )


def _candidates(free: Ints, fitting: Bools) -> tuple[Ints, Ints]:
    """Of each row the fitting devices, one for each different amount left.

    Devices of a node with equally much left have equal scores; the first stands for
    all. Returns rows and columns, in order.
    """
    columns = free.shape[1]
    keys = np.where(fitting, free, -1)
    same = keys[:, :, None] == keys[:, None, :]
    earlier = np.tri(columns, k=-1, dtype=np.bool_)
    is_repeated = (same & earlier).any(axis=2)
    which, column = np.nonzero(fitting & ~is_repeated)
    return which, column


def _first_best(which: Ints, score: Ints, count: int) -> Ints:
    """Position of the first highest score of each group; ``which`` is sorted."""
    # A stable sort by (group, -score) leaves the first best in front of its group.
    order = np.lexsort((-score, which))
    starts = np.searchsorted(which[order], np.arange(count))
    best: Ints = order[starts]
    return best
