"""What is to be placed: how much of how many devices, and of which ones."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from xpool_registry.fleet import Bools, DeviceFacts, Fleet, Ints, NodeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Which devices will do; what is empty does not matter."""

    kind: str = ""
    """The backend: ``cuda``, ``npu``, ``cpu``."""

    model: str = ""
    """Part of the device's name, in any case: ``a100`` finds ``NVIDIA A100-SXM4``; with
    bars between several, of which one will do: ``a100|h100``."""

    architecture: str = ""
    """As the node states it, for instance ``sm_90``."""

    min_memory_nbytes: int = 0
    """Of the whole device, not of the slice."""

    labels: tuple[tuple[str, str], ...] = ()
    """Of the node, sorted; all of them."""

    node_name: str = ""
    max_rtt_us: int = 0
    """Only nodes that the client has measured to be this near; 0: any."""

    distances: tuple[tuple[str, int], ...] = ()
    """Round trips from the client to nodes in microseconds, sorted by name."""

    def rules_out(self, node: NodeFacts, device: DeviceFacts) -> str:
        """Why that device will not do, for people; empty if it will."""
        if self.node_name and node.name != self.node_name:
            return f"not on node {self.node_name}"
        if self.max_rtt_us:
            far = self._too_far(node.name)
            if far:
                return far
        if self.kind and device.kind != self.kind:
            return f"kind is {device.kind or 'unknown'}, not {self.kind}"
        if self.model and not self._is_model(device.model):
            return f"model is {device.model or 'unknown'}, not {self.model}"
        if self.architecture and device.architecture != self.architecture:
            return (
                f"architecture is {device.architecture or 'unknown'},"
                f" not {self.architecture}"
            )
        if device.memory_nbytes < self.min_memory_nbytes:
            return "too little memory in all"
        for key, value in self.labels:
            if node.labels.get(key) != value:
                return f"label {key} is {node.labels.get(key, 'missing')}, not {value}"
        return ""

    def _is_model(self, name: str) -> bool:
        parts = (part.strip() for part in self.model.casefold().split("|"))
        return any(part in name.casefold() for part in parts if part)

    def _too_far(self, node_name: str) -> str:
        at = bisect_left(self.distances, (node_name, 0))
        if at == len(self.distances) or self.distances[at][0] != node_name:
            return "its distance to the client was not measured"
        rtt_us = self.distances[at][1]
        if rtt_us <= self.max_rtt_us:
            return ""
        return (
            f"round trip to the client is {rtt_us / 1000:.1f} ms, over"
            f" {self.max_rtt_us / 1000:g} ms"
        )

    def __bool__(self) -> bool:
        return self != NO_CONSTRAINTS


NO_CONSTRAINTS: Final = Constraints()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A slice of each of several devices; CPU and main memory once for all."""

    share_milli: int
    """Thousandths of each device."""

    device_count: int = 1
    memory_nbytes: int = 0
    """Of each device; 0: the same share of its memory as of its compute."""

    cpu_milli: int = 0
    host_memory_mib: int = 0
    same_node: bool = False
    """All devices on one node, or none."""

    constraints: Constraints = NO_CONSTRAINTS

    def needs_nbytes(self, total_nbytes: Ints) -> Ints | int:
        """Memory that this means on devices of that size."""
        return self.memory_nbytes or total_nbytes * self.share_milli // 1000

    def fits(self, fleet: Fleet, rows: Ints | slice, allowed: Bools | None) -> Bools:
        """Which devices of those rows can hold one part, shape ``(rows, columns)``."""
        fitting: Bools = fleet.free_milli[rows] >= self.share_milli
        needs = self.needs_nbytes(fleet.total_nbytes[rows])
        fitting &= fleet.free_nbytes[rows] >= needs
        fitting &= fleet.exists[rows]
        if allowed is not None:
            fitting &= allowed[rows]
        return fitting

    def shortage(self, fleet: Fleet, spot: Spot) -> tuple[int, int]:
        """Thousandths and bytes that a device lacks for one part; negative: spare."""
        needs = int(self.needs_nbytes(fleet.total_nbytes[spot]))
        return (
            self.share_milli - int(fleet.free_milli[spot]),
            needs - int(fleet.free_nbytes[spot]),
        )

    def mask(self, fleet: Fleet) -> Bools | None:
        """Devices that the constraints admit; None: all of them."""
        if not self.constraints:
            return None
        mask = np.zeros(fleet.exists.shape, np.bool_)
        for row, node in enumerate(fleet.nodes):
            for column, device in enumerate(node.devices):
                mask[row, column] = not self.constraints.rules_out(node, device)
        return mask


NO_DEVICE: Final = -1
"""The column of a spot that is a node's CPU alone."""


class Spot(NamedTuple):
    """One device of the fleet."""

    row: int
    column: int

    @classmethod
    def of(cls, fleet: Fleet, node_name: str, device_index: int) -> Spot:
        """The device that a node calls so."""
        row = fleet.row_of[node_name]
        return cls(row, fleet.column(row, device_index))
