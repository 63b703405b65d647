"""Reads traces in openb's format, of which nobody here may have seen this one.

Each row is checked before it is believed; what makes no sense is named with its file
and line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from xpool_registry.demand import NO_CONSTRAINTS, Constraints, Demand
from xpool_registry.fleet import WHOLE_MILLI, DeviceFacts, NodeFacts

NODES_FILE: Final = "openb_node_list_gpu_node.csv"
TASKS_FILE: Final = "openb_pod_list_default.csv"

MAX_DEVICES: Final = 1024
"""Of one node or one task; the largest machines hold a few dozen."""

MAX_AMOUNT: Final = 1 << 40
"""Of CPU and main memory."""

T = TypeVar("T")


class Row:
    """One line, by column."""

    def __init__(self, place: str, values: dict[str, str | None]) -> None:
        self.place = place
        self._values = values

    def text(self, column: str) -> str:
        """What stands there.

        Raises:
            ValueError: there is no such column, or the line is too short.
        """
        value = self._values.get(column)
        if value is None:
            raise ValueError(f"{self.place} has no column {column}")
        return value.strip()

    def text_or_none(self, column: str) -> str:
        """What stands there; empty if there is no such column."""
        return (self._values.get(column) or "").strip()

    def number(self, column: str, highest: int) -> int:
        """A whole number from 0 on; nothing is 0.

        Raises:
            ValueError: it is none, or out of range.
        """
        text = self.text(column)
        try:
            value = float(text or 0)
        except ValueError:
            raise ValueError(
                f"{self.place}: {column} is {text[:40]!r}, which is no number"
            ) from None
        if not (0 <= value <= highest and value.is_integer()):
            raise ValueError(
                f"{self.place}: {column} is {text[:40]}; it must be a whole number"
                f" from 0 to {highest}"
            )
        return int(value)


def nodes_in(folder: Path) -> tuple[NodeFacts, ...]:
    """The cluster, in the order of the file; nodes without a GPU are left out.

    Raises:
        ValueError: there is no such file, or what it says makes no sense.
    """
    path = _file(folder, NODES_FILE, ("node",))
    nodes = [node for node in _read(path, _node) if node.devices]
    if not nodes:
        raise ValueError(f"{path} names no node with a GPU: nothing can be placed")
    names: set[str] = set()
    for node in nodes:
        if node.name in names:
            raise ValueError(f"{path} names the node {node.name[:40]!r} twice")
        names.add(node.name)
    return tuple(nodes)


def tasks_in(folder: Path) -> tuple[Demand, ...]:
    """What was asked for, in the order of the file.

    Raises:
        ValueError: as of ``nodes_in``, or no task asks for a GPU.
    """
    path = _file(folder, TASKS_FILE, ("pod", "task"))
    tasks = tuple(_read(path, _task))
    if not any(task.device_count * task.share_milli for task in tasks):
        raise ValueError(f"{path} names no task that asks for a GPU")
    return tasks


def _node(row: Row) -> NodeFacts:
    name = row.text("sn")
    if not name:
        raise ValueError(f"{row.place}: sn is empty; it must be the node's name")
    model = row.text_or_none("model")
    return NodeFacts(
        name=name,
        devices=[
            DeviceFacts(index=index, model=model)
            for index in range(row.number("gpu", MAX_DEVICES))
        ],
        cpu_milli=row.number("cpu_milli", MAX_AMOUNT),
        host_memory_mib=row.number("memory_mib", MAX_AMOUNT),
    )


def _task(row: Row) -> Demand:
    models = row.text_or_none("gpu_spec")
    return Demand(
        share_milli=row.number("gpu_milli", WHOLE_MILLI),
        # More than any node has fits nowhere, however many.
        device_count=min(row.number("num_gpu", MAX_AMOUNT), MAX_DEVICES + 1),
        cpu_milli=row.number("cpu_milli", MAX_AMOUNT),
        host_memory_mib=row.number("memory_mib", MAX_AMOUNT),
        same_node=True,
        constraints=Constraints(model=models) if models else NO_CONSTRAINTS,
    )


def _read(path: Path, make: Callable[[Row], T]) -> Iterator[T]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for values in rows:
                yield make(Row(f"{path}, line {rows.line_num}", values))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of comma-separated text") from error


def _file(folder: Path, name: str, words: tuple[str, ...]) -> Path:
    """The file of that name, or the only one that must be meant."""
    try:
        tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    except OSError:
        tables = []
    if folder / name in tables:
        return folder / name
    meant = [one for one in tables if any(word in one.name for word in words)]
    if len(meant) == 1:
        return meant[0]
    found = f"it holds {len(meant)} that may be meant" if meant else "it holds none"
    raise ValueError(
        f"no openb trace in {folder}: name a folder with {NODES_FILE} and {TASKS_FILE},"
        f" or one table each whose name has the word {' or '.join(words)}: {found}"
    )
