"""What is asked of the state, and changes nothing; a part of ``state.State``."""

from __future__ import annotations

from collections.abc import Iterator

from xpool_registry.accounting import Holder
from xpool_registry.events import Device, LeaseGranted, NodeJoined
from xpool_registry.fleet import Bools, Fleet
from xpool_registry.known import NS_PER_MS, Beat, Held


class Reading:
    """See the head of this file."""

    leases: dict[str, LeaseGranted]
    nodes: dict[str, NodeJoined]
    beats: dict[str, Beat]
    deadlines_ns: dict[str, int]
    fleet: Fleet
    _holders: dict[str, Holder]
    _over: dict[str, Holder]
    _by_node: dict[str, dict[str, LeaseGranted]]

    def holder(self, lease_id: str) -> Holder | None:
        """Whose a lease is, or was until lately; None: nobody knows."""
        return self._holders.get(lease_id) or self._over.get(lease_id)

    def leases_on(self, node_name: str) -> Iterator[LeaseGranted]:
        """Live leases of one node, oldest first."""
        return iter(self._by_node.get(node_name, {}).values())

    def living(self, now_ns: int, dead_after_ms: int) -> Bools:
        """Nodes that were heard lately, by row of the fleet."""
        return self.fleet.heard_since(now_ns - dead_after_ms * NS_PER_MS)

    def held(self) -> dict[tuple[str, int], Held]:
        """What is taken of each (node, device index) that has leases."""
        sums: dict[tuple[str, int], Held] = {}
        for lease in self.leases.values():
            key = (lease.node_name, lease.device_index)
            share, memory, count = sums.get(key, Held())
            sums[key] = Held(
                share + lease.share_percent, memory + lease.memory_nbytes, count + 1
            )
        return sums

    def device(self, node_name: str, index: int) -> Device:
        """One device of a node that has joined."""
        devices = self.nodes[node_name].devices
        return next(device for device in devices if device.index == index)

    def silence_ms(self, node_name: str, now_ns: int) -> int:
        """How long ago a node was heard, or when we started if it never was."""
        return (now_ns - self.beats[node_name].at_ns) // NS_PER_MS

    def is_alive(self, node_name: str, now_ns: int, dead_after_ms: int) -> bool:
        """Whether new leases may go there."""
        beat = self.beats[node_name]
        return beat.is_heard and self.silence_ms(node_name, now_ns) < dead_after_ms

    def may_be_alive(self, node_name: str, now_ns: int, dead_after_ms: int) -> bool:
        """Whether its name must still be kept for it."""
        return self.silence_ms(node_name, now_ns) < dead_after_ms

    def expires_in_ms(self, lease_id: str, now_ns: int) -> int:
        """Time left of a live lease; 0 if it has run out."""
        return max(0, self.deadlines_ns[lease_id] - now_ns) // NS_PER_MS
