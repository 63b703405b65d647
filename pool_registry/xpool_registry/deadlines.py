"""When leases end: by their TTL, their limit, or a notice. A part of the state.

With many clients the default TTL is longer: each renews three times in it, so that all
of them together would be most of what a registry does. A TTL that a client names stays
as it is.
"""

from __future__ import annotations

import heapq
from typing import Final

from xpool_registry.events import LeaseGranted
from xpool_registry.known import NS_PER_MS, Notice
from xpool_registry.settings import Settings

RENEWALS_PER_S: Final = 250
"""So many at most come of default TTLs: a renewal costs a registry as much as a
heartbeat, and those of a thousand servers fill most of its core."""

NEVER_DUE_NS: Final = 1 << 62

MAX_DEFAULT_TTL_MS: Final = 300_000
"""Longer than that nobody's slice stays taken after its holder has vanished."""


def stretched_ttl_ms(default_ms: int, lease_count: int) -> int:
    """A default TTL in a pool with so many live leases.

    >>> [stretched_ttl_ms(15_000, count) for count in (1, 2_500, 10_000, 10**6)]
    [15000, 30000, 120000, 300000]
    """
    wished_ms = 3000 * lease_count // RENEWALS_PER_S
    return max(default_ms, min(wished_ms, MAX_DEFAULT_TTL_MS))


def grace_ms_of(settings: Settings, lease_count: int) -> int:
    """How long a lease that is asked back is left, in a pool with so many.

    Its holder hears of it when it renews, a third of its TTL later at the most; where
    TTLs are stretched it is left that much longer.

    >>> [grace_ms_of(Settings(), count) for count in (1, 2_500, 10_000)]
    [30000, 35000, 65000]
    """
    default_ms = settings.default_ttl_ms
    later_ms = (stretched_ttl_ms(default_ms, lease_count) - default_ms) // 3
    return settings.grace_ms + later_ms


class Deadlines:
    """See the head of this file; ``State`` applies its facts."""

    leases: dict[str, LeaseGranted]
    deadlines_ns: dict[str, int]
    limits_ns: dict[str, int]
    notices: dict[str, Notice]
    _settings: Settings
    _due: list[tuple[int, str]]
    _looked_at_ns: dict[str, int]
    """When the deadline of each live lease is looked at next, no later than it is."""

    def ttl_ms(self, lease: LeaseGranted) -> int:
        """How long it lives from now on, if it is renewed now."""
        if lease.has_own_ttl:
            return lease.ttl_ms
        return stretched_ttl_ms(lease.ttl_ms, len(self.leases))

    def _extend(self, lease: LeaseGranted, now_ns: int, ttl_ms: int = 0) -> None:
        lease_id = lease.lease_id
        deadline_ns = now_ns + (ttl_ms or self.ttl_ms(lease)) * NS_PER_MS
        self.deadlines_ns[lease_id] = deadline_ns
        # An entry that comes up too early is put back; most are renewed before that.
        if self._looked_at_ns.get(lease_id, NEVER_DUE_NS) > deadline_ns:
            self._look_at(lease_id, deadline_ns)

    def _look_at(self, lease_id: str, deadline_ns: int) -> None:
        self._looked_at_ns[lease_id] = deadline_ns
        heapq.heappush(self._due, (deadline_ns, lease_id))

    def due(self, now_ns: int) -> list[LeaseGranted]:
        """Live leases whose time has run out, in the order in which it did."""
        found: list[LeaseGranted] = []
        kept: list[tuple[int, str]] = []
        while self._due and self._due[0][0] <= now_ns:
            entry = heapq.heappop(self._due)
            at_ns, lease_id = entry
            # An entry of an ended lease, or from before a renewal, says nothing.
            deadline_ns = self.deadlines_ns.get(lease_id)
            notice = self.notices.get(lease_id)
            times = (
                deadline_ns,
                self.limits_ns.get(lease_id),
                notice.until_ns if notice else None,
            )
            if at_ns in times:
                if entry not in kept:
                    found.append(self.leases[lease_id])
                    kept.append(entry)
            elif deadline_ns is not None and at_ns == self._looked_at_ns[lease_id]:
                self._look_at(lease_id, deadline_ns)
        for entry in kept:  # looking changes nothing: they are due until they end
            heapq.heappush(self._due, entry)
        return found
