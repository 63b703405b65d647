"""The part of a registry's state that follows from what nodes say of themselves."""

from __future__ import annotations

from xpool_registry.events import LeaseGranted
from xpool_registry.fleet import Fleet
from xpool_registry.known import FOREIGN_SHARE, Beat, load_level
from xpool_registry.observations import NodeHeard, SessionReport
from xpool_registry.reports import SessionHead, heads_of


class Hearing:
    """See the head of this file; ``State`` applies its facts."""

    fleet: Fleet
    leases: dict[str, LeaseGranted]
    beats: dict[str, Beat]
    unsettled: dict[str, int]

    def _book(self, lease: LeaseGranted, sign: int) -> None:
        raise NotImplementedError("the state keeps the fleet")

    def _hear(self, fact: NodeHeard, now_ns: int) -> None:
        self.beats[fact.node_name] = Beat(
            now_ns, is_heard=True, loads=fact.loads, sessions=fact.sessions
        )
        row = self.fleet.row_of[fact.node_name]
        self.fleet.hear(row, now_ns)
        if self.unsettled:
            for session in heads_of(fact.sessions):
                self._settle(session)
        own = self._own_nbytes(fact)
        nobodys = own.get(-1, 0)
        # Whole rows at once: one number of an array costs as much as all of its row.
        devices = self.fleet.devices_of(row)
        for load in fact.loads:
            column = self.fleet.column(row, load.index)
            free_milli, total_nbytes, before, foreign_before = devices[column]
            level = load_level(load.busy_percent, 100 - free_milli // 10, before)
            foreign = load.used_nbytes - own.get(load.index, 0) - nobodys
            if foreign < FOREIGN_SHARE * total_nbytes:
                foreign = 0
            if (foreign, level) != (foreign_before, before):
                self.fleet.observe(row, column, foreign, level)

    def _settle(self, session: SessionHead | SessionReport) -> None:
        """A node has given up what it was told to: others may have it."""
        lease = self.leases.get(session.lease_id)
        if lease is None or lease.lease_id not in self.unsettled or session.refusal:
            return
        if (session.slice_number, session.epoch) == (lease.slice_number, lease.epoch):
            self._book(lease, -1)
            del self.unsettled[lease.lease_id]
            self._book(lease, 1)

    def _own_nbytes(self, fact: NodeHeard) -> dict[int, int]:
        """What sessions use of each device; -1: of some device, the lease is over."""
        own: dict[int, int] = {}
        for session in heads_of(fact.sessions):
            lease = self.leases.get(session.lease_id)
            index = lease.device_index if lease is not None else -1
            own[index] = own.get(index, 0) + session.allocated_nbytes
        return own
