"""What admins and Prometheus list: all of a pool, without holding it up.

The fourth part of ``registry.Registry``, which has the lock, the clock and the state.
What is in the state is frozen, so that a copy of its tables is a picture of a moment;
what is made of it for people is made without the lock. Devices are looked at some
nodes at a time: each node's are of one moment.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from xpool_registry.commands import Moment
from xpool_registry.demand import Spot
from xpool_registry.fleet import NOBODY
from xpool_registry.known import NS_PER_MS
from xpool_registry.looking import closed_text, offer_of
from xpool_registry.settings import Settings
from xpool_registry.state import State
from xpool_registry.views import DeviceView, HeldLease, NodeView

NODES_AT_ONCE = 32
"""Looked at under the lock: less than a millisecond."""


class Listings:
    """See the head of this file."""

    settings: Settings
    _lock: threading.Lock
    _clock: Callable[[], Moment]
    _state: State

    def nodes(self) -> list[NodeView]:
        """All nodes, by name."""
        with self._lock:
            now_ns, state = self._clock().now_ns, self._state
            nodes, beats = dict(state.nodes), dict(state.beats)
            on = [lease.node_name for lease in state.leases.values()]
            closed = {name: closed_text(state, name) for name in state.cordoned}
        counts = Counter(on)
        views = []
        for name, node in sorted(nodes.items()):
            beat = beats[name]
            silence_ms = (now_ns - beat.at_ns) // NS_PER_MS
            is_alive = beat.is_heard and silence_ms < self.settings.dead_after_ms
            views.append(
                NodeView(
                    node=node,
                    is_alive=is_alive,
                    silence_ms=silence_ms,
                    lease_count=counts[name],
                    closed=closed.get(name, ""),
                )
            )
        return views

    def devices(self) -> list[DeviceView]:
        """All devices, by node and index."""
        found: list[DeviceView] = []
        row = 0
        while True:
            with self._lock:
                end = min(row + NODES_AT_ONCE, len(self._state.fleet.nodes))
                if row >= end:
                    break
                found += self._devices_of(range(row, end))
                row = end
        return sorted(found, key=lambda view: view.offer.key)

    def leases(self) -> list[HeldLease]:
        """All live leases, oldest first, without tokens."""
        with self._lock:
            now_ns, state = self._clock().now_ns, self._state
            leases = [*state.leases.values()]
            nodes, beats = dict(state.nodes), [*state.beats.values()]
            deadlines_ns, notices = dict(state.deadlines_ns), dict(state.notices)
        reports = {
            report.lease_id: report for beat in beats for report in beat.sessions
        }
        devices = {
            (name, device.index): device
            for name, node in nodes.items()
            for device in node.devices
        }
        views = []
        for lease in leases:
            notice = notices.get(lease.lease_id)
            left_ns = notice.until_ns - now_ns if notice else 0
            expires_ns = deadlines_ns[lease.lease_id] - now_ns
            views.append(
                HeldLease(
                    lease=lease,
                    node=nodes[lease.node_name],
                    device=devices[lease.node_name, lease.device_index],
                    expires_in_ms=max(0, expires_ns) // NS_PER_MS,
                    ttl_ms=self._state.ttl_ms(lease),
                    notice=notice.event.reason if notice else "",
                    leaves_in_ms=max(0, left_ns) // NS_PER_MS,
                    session=reports.get(lease.lease_id),
                )
            )
        return views

    # ---- under the lock ----

    def _devices_of(self, rows: range) -> list[DeviceView]:
        state, now_ns = self._state, self._clock().now_ns
        living = state.living(now_ns, self.settings.dead_after_ms)
        views = []
        for row in rows:
            node = state.fleet.nodes[row]
            if node is NOBODY:
                continue
            loads = {load.index: load for load in state.beats[node.name].loads}
            counts = Counter(one.device_index for one in state.leases_on(node.name))
            for column in range(len(node.devices)):
                spot = Spot(row, column)
                offer = offer_of(state, spot, now_ns, is_alive=bool(living[row]))
                index = offer.device_index
                views.append(
                    DeviceView(
                        device=state.device(node.name, index),
                        offer=offer,
                        lease_count=counts[index],
                        load=loads.get(index),
                    )
                )
        return views
