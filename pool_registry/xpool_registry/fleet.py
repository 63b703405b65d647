"""What is free where, as arrays: the one table that every placement reads.

A row is a node, a column a device of it. Shares are counted in thousandths
(*milli*) of a device, so that a trace's steps and our percents fit alike. The table
is a cache of facts that others decide: it is told what is taken and what is given
back, and never asks.

Every change of a row is noted in ``changes``, so that whoever keeps something for
each row (``placer.py``) looks again at those rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

WHOLE_MILLI: Final = 1000
"""A whole device."""

UNLIMITED: Final = 1 << 62
"""CPU and main memory of a node that does not count them."""

_NEVER: Final = -(1 << 62)

# The log of changed rows is cut when it grows past so many entries for each row;
# whoever is further behind looks at all rows again.
_LOG_FACTOR: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """One device as far as placement cares."""

    index: int
    """As its node counts; columns are in this order."""

    memory_nbytes: int = 0
    kind: str = ""
    model: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node with its devices."""

    name: str
    devices: Sequence[DeviceFacts]
    cpu_milli: int = UNLIMITED
    host_memory_mib: int = UNLIMITED
    labels: Mapping[str, str] = field(default_factory=dict)


NOBODY: Final = NodeFacts(name="", devices=())
"""Of a row whose node was dropped, until another one takes it."""


class Fleet:
    """Mutated by whoever keeps the state; everybody else reads.

    Attributes:
        free_milli: shape ``(rows, columns)``; 0 where there is no device.
        free_nbytes: device memory that neither a lease nor anybody else has.
        total_nbytes: all of it.
        exists: where there is a device.
        load_level: 0 idle to 2 busy beyond what is leased, see ``load.py``.
        cpu_milli, host_memory_mib: of each node, free; shape ``(rows,)``.
        is_open: whether new leases may go there at all.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeFacts] = []
        self.row_of: dict[str, int] = {}
        self.shape_epoch = 0
        """Counts every change of what the nodes are, as opposed to what is free."""

        self._column_of: list[dict[int, int]] = []
        self._vacant: list[int] = []
        self._rows = self._columns = 0
        self._changes: list[int] = []
        self._changes_cut = 0
        self._sums = (0, 0)
        self._allocate(64, 1)

    def _allocate(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns
        self._free = np.zeros((rows, columns), np.int64)
        self._free_nbytes = np.zeros((rows, columns), np.int64)
        self._total = np.zeros((rows, columns), np.int64)
        self._held_nbytes = np.zeros((rows, columns), np.int64)
        self._foreign_nbytes = np.zeros((rows, columns), np.int64)
        self._exists = np.zeros((rows, columns), np.bool_)
        self._load = np.zeros((rows, columns), np.int64)
        self._cpu = np.zeros(rows, np.int64)
        self._host = np.zeros(rows, np.int64)
        self._open = np.zeros(rows, np.bool_)
        self._heard_ns = np.full(rows, _NEVER, np.int64)

    # ---- reading ----

    @property
    def count(self) -> int:
        """How many rows, those of dropped nodes included."""
        return len(self.nodes)

    @property
    def node_count(self) -> int:
        """How many nodes there are."""
        return len(self.row_of)

    @property
    def columns(self) -> int:
        """The most devices that any node has."""
        return self._columns

    @property
    def free_milli(self) -> Ints:
        """Share of each device that nobody holds, in thousandths."""
        return self._free[: self.count]

    @property
    def free_nbytes(self) -> Ints:
        """Memory of each device that nobody holds and nobody uses."""
        return self._free_nbytes[: self.count]

    @property
    def total_nbytes(self) -> Ints:
        """Memory of each device."""
        return self._total[: self.count]

    @property
    def exists(self) -> Bools:
        """Where there is a device."""
        return self._exists[: self.count]

    @property
    def load_level(self) -> Ints:
        """How busy beyond what is leased, 0 to 2."""
        return self._load[: self.count]

    @property
    def cpu_milli(self) -> Ints:
        """CPU of each node that nobody holds."""
        return self._cpu[: self.count]

    @property
    def host_memory_mib(self) -> Ints:
        """Main memory of each node that nobody holds."""
        return self._host[: self.count]

    @property
    def is_open(self) -> Bools:
        """Whether a node takes new leases."""
        return self._open[: self.count]

    @property
    def device_count(self) -> int:
        """Of all nodes together."""
        return self._sums[0]

    @property
    def memory_nbytes(self) -> int:
        """Device memory of all nodes together."""
        return self._sums[1]

    def heard_since(self, since_ns: int) -> Bools:
        """Nodes that proved their life after that time, shape ``(nodes,)``."""
        heard: Bools = self._heard_ns[: self.count] > since_ns
        return heard

    def column(self, row: int, device_index: int) -> int:
        """The column of a node's device."""
        return self._column_of[row][device_index]

    def devices_of(self, row: int) -> list[tuple[int, int, int, int]]:
        """Of each column: free share, memory, load level, memory without a lease."""
        tables = (self._free, self._total, self._load, self._foreign_nbytes)
        return list(zip(*(one[row].tolist() for one in tables), strict=True))

    def device_index(self, row: int, column: int) -> int:
        """What the node calls the device of that column."""
        return self.nodes[row].devices[column].index

    @property
    def log_end(self) -> int:
        """Position to pass to ``changed_since`` later."""
        return self._changes_cut + len(self._changes)

    def changed_since(self, position: int) -> Ints | None:
        """Rows changed since ``log_end`` was ``position``; None: look at all."""
        if position < self._changes_cut:
            return None
        recent = self._changes[position - self._changes_cut :]
        if not recent:
            return np.empty(0, np.int64)
        if len(recent) == 1:
            return np.array(recent, np.int64)
        return np.array(sorted(set(recent)), np.int64)

    # ---- what nodes there are ----

    def put(self, node: NodeFacts) -> int:
        """Add a node, or describe it anew with nothing taken; its row."""
        row = self.row_of.get(node.name)
        if row is None:
            row = self._vacant.pop() if self._vacant else len(self.nodes)
        self._grow(row + 1, len(node.devices))
        if row == len(self.nodes):
            self.nodes.append(node)
            self._column_of.append({})
        self.row_of[node.name] = row
        self.nodes[row] = node
        self._column_of[row] = {one.index: i for i, one in enumerate(node.devices)}
        count = len(node.devices)
        for table in (self._free, self._held_nbytes, self._foreign_nbytes, self._load):
            table[row] = 0
        self._total[row] = 0
        self._exists[row] = False
        self._free[row, :count] = WHOLE_MILLI
        self._total[row, :count] = [one.memory_nbytes for one in node.devices]
        self._exists[row, :count] = True
        self._cpu[row], self._host[row] = node.cpu_milli, node.host_memory_mib
        self._open[row] = True
        self._free_nbytes[row] = self._total[row]
        self._sums = (int(self.exists.sum()), int(self.total_nbytes.sum()))
        self.shape_epoch += 1
        self._note(row)
        return row

    def drop(self, name: str) -> int:
        """Take a node away on which nobody has anything; the row that it had."""
        row = self.put(replace(NOBODY, name=name))
        del self.row_of[name]
        self.nodes[row] = NOBODY
        self._open[row], self._heard_ns[row] = False, _NEVER
        self._vacant.append(row)
        return row

    def _grow(self, rows: int, columns: int) -> None:
        if rows <= self._rows and columns <= self._columns:
            return
        before = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        old_rows, old_columns = self._rows, self._columns
        self._allocate(
            old_rows if rows <= old_rows else max(rows, 2 * old_rows),
            max(columns, old_columns),
        )
        for name, table in before.items():
            new = getattr(self, name)
            if table.ndim == 1:
                new[:old_rows] = table
            else:
                new[:old_rows, :old_columns] = table
        self.shape_epoch += 1

    # ---- what is taken ----

    def take(
        self,
        row: int,
        columns: Sequence[int],
        milli: int,
        nbytes: int = 0,
        *,
        cpu_milli: int = 0,
        host_memory_mib: int = 0,
    ) -> None:
        """Book so much of each of those devices; negative amounts give back.

        ``nbytes`` is the memory of each device.
        """
        for column in columns:
            self._free[row, column] -= milli
            self._held_nbytes[row, column] += nbytes
            self._count_memory(row, column)
        self._cpu[row] -= cpu_milli
        self._host[row] -= host_memory_mib
        self._note(row)

    def give_back(self, rows: Ints, columns: Ints, milli: Ints, nbytes: Ints) -> None:
        """Of many leases at once what each has of its device; negative: take it."""
        np.add.at(self._free, (rows, columns), milli)
        np.subtract.at(self._held_nbytes, (rows, columns), nbytes)
        taken = self._held_nbytes + self._foreign_nbytes
        np.subtract(self._total, taken, out=self._free_nbytes)
        for row in np.unique(rows).tolist():
            self._note(row)

    def observe(
        self, row: int, column: int, foreign_nbytes: int, load_level: int
    ) -> None:
        """What a node measured; a row changes only if that changes what is free.

        ``foreign_nbytes`` is memory of the device that is in use without a lease.
        """
        before = self._free_nbytes[row, column]
        self._foreign_nbytes[row, column] = min(foreign_nbytes, UNLIMITED)
        self._count_memory(row, column)
        is_same = before == self._free_nbytes[row, column]
        if is_same and self._load[row, column] == load_level:
            return
        self._load[row, column] = load_level
        self._note(row)

    def set_open(self, row: int, is_open: bool) -> None:
        """Whether new leases may go to that node."""
        self._open[row] = is_open

    def hear(self, row: int, at_ns: int) -> None:
        """A node proved its life."""
        self._heard_ns[row] = at_ns

    def _count_memory(self, row: int, column: int) -> None:
        taken = self._held_nbytes[row, column] + self._foreign_nbytes[row, column]
        self._free_nbytes[row, column] = self._total[row, column] - taken

    def _note(self, row: int) -> None:
        self._changes.append(row)
        if len(self._changes) > _LOG_FACTOR * max(256, self.count):
            half = len(self._changes) // 2
            self._changes_cut += half
            del self._changes[:half]

    def copy(self) -> Fleet:
        """The same table, to try things out on."""
        twin = Fleet()
        twin.nodes, twin.row_of = list(self.nodes), dict(self.row_of)
        twin._column_of = list(self._column_of)
        twin._vacant = list(self._vacant)
        twin._sums = self._sums
        twin._allocate(self._rows, self._columns)
        for name, table in vars(self).items():
            if isinstance(table, np.ndarray):
                getattr(twin, name)[...] = table
        return twin
