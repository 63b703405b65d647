"""What a registry's state is made of beside its events: values, and how they are told.

Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xpool_registry.accounting import Holder
from xpool_registry.demand import Spot
from xpool_registry.events import LeaseGranted, LeaseNoticed
from xpool_registry.observations import DeviceLoad, SessionReport

NS_PER_MS = 1_000_000
NEVER_NS = -(1 << 62)

# A device is *busy* when it works so much more than its leases explain, and *very*
# busy a second step further; it counts as calm again some points lower, so that a
# load that wavers about a step does not change the order with each heartbeat.
BUSY_STEPS = (40.0, 75.0)
HYSTERESIS = 15.0

# Memory in use that no session accounts for counts as gone from this part of a device
# on: a framework holds something beside every session's storages.
FOREIGN_SHARE = 0.05


def load_level(busy_percent: float, leased_percent: int, before: int) -> int:
    """How busy a device is beyond what is leased: 0, 1 or 2.

    >>> load_level(95.0, 95, 0), load_level(50.0, 0, 0), load_level(30.0, 0, 1)
    (0, 1, 1)
    """
    excess = busy_percent - leased_percent
    if not before and excess < BUSY_STEPS[0]:
        return 0  # as nearly always
    up = sum(excess >= step for step in BUSY_STEPS)
    down = sum(excess >= step - HYSTERESIS for step in BUSY_STEPS)
    return up if up >= before else max(up, min(before, down))


def holder_of(lease: LeaseGranted) -> Holder:
    """For whom its use is counted."""
    return Holder(
        lease_id=lease.lease_id,
        tenant=lease.tenant,
        node_name=lease.node_name,
        device_index=lease.device_index,
        share_percent=lease.share_percent,
    )


@dataclass(frozen=True, slots=True)
class Beat:
    """The last proof of life of one node."""

    at_ns: int
    is_heard: bool
    """False: only assumed, because the registry itself has just started."""

    loads: tuple[DeviceLoad, ...] = ()
    sessions: Sequence[SessionReport] = ()


class Held(NamedTuple):
    """What the live leases of one device take together."""

    share_percent: int = 0
    memory_nbytes: int = 0
    lease_count: int = 0


class Notice(NamedTuple):
    """A lease that is asked back."""

    event: LeaseNoticed
    until_ns: int


class Promise(NamedTuple):
    """What is kept for a waiting request."""

    spots: tuple[Spot, ...]
    starts_ns: int | None
    """When it starts at the latest; None: nobody knows."""

    starts_at_s: float
