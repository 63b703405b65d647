"""The pool's figures for Prometheus, at the registry's ``/metrics``.

Everything is asked of the registry when somebody scrapes; nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from xpool_protocol.errors import UsageError

from xpool_registry.registry import HeldLease, Registry

_LEASE: Final = ("lease", "tenant", "node", "device")
_DEVICE: Final = ("node", "device", "kind")
_TENANT: Final = ("tenant",)
NS_PER_S: Final = 1e9


class RegistryCollector(Collector):
    """Turns what the registry knows into metrics."""

    def __init__(self, leading: Callable[[], Registry | None]) -> None:
        """Ask nothing yet.

        Args:
            leading: the registry if this process leads the pool; None if another
                one does, which then has the figures.
        """
        self._leading = leading

    def collect(self) -> Iterator[Metric]:
        """Every metric; called by the thread that answers."""
        registry = self._leading()
        leader = GaugeMetricFamily(
            *(
                "xpool_registry_leader",
                "1: this registry leads the pool; 0: it follows.",
            )
        )
        leader.add_metric([], 0 if registry is None else 1)
        yield leader
        if registry is not None:
            yield from _pool(registry)


def _pool(registry: Registry) -> Iterator[Metric]:
    """What the registry that leads knows."""
    yield HistogramMetricFamily(
        "xpool_registry_decision_seconds",
        "From a request for slices, parsed, to its answer; not yet kept on disk.",
        buckets=registry.decisions.cumulative(),
        sum_value=registry.decisions.sum_s,
    )
    nodes = GaugeMetricFamily(
        *("xpool_nodes", "Servers that joined, by whether they are heard."),
        labels=("state",),
    )
    views = registry.nodes()
    alive = sum(view.is_alive for view in views)
    nodes.add_metric(["alive"], alive)
    nodes.add_metric(["silent"], len(views) - alive)
    yield nodes
    waiting = GaugeMetricFamily("xpool_waiting_requests", "Requests in the queue.")
    waiting.add_metric([], registry.queue_length)
    yield waiting
    yield from _tenants(registry)
    yield from _devices(registry)
    leases = registry.leases()
    count = GaugeMetricFamily("xpool_leases", "Live leases.")
    count.add_metric([], len(leases))
    yield count
    yield from _leases(leases)


def _tenants(registry: Registry) -> Iterator[Metric]:
    """Shares of use beside shares of right, and what was used."""
    held = GaugeMetricFamily(
        *("xpool_tenant_held_ratio", "Part of all devices that it holds now."),
        labels=_TENANT,
    )
    use = GaugeMetricFamily(
        "xpool_tenant_use_ratio",
        "Part of the pool that it holds and held lately, as its turn is found.",
        labels=_TENANT,
    )
    right = GaugeMetricFamily(
        "xpool_tenant_right_ratio",
        "Part of the pool that it has a right to while all want all.",
        labels=_TENANT,
    )
    waiting = GaugeMetricFamily(
        *("xpool_tenant_waiting_requests", "Its requests in the queue."),
        labels=_TENANT,
    )
    whole_milli = 1000 * max(1, registry.device_count)
    for view in registry.tenants():
        held.add_metric([view.name], min(1.0, view.held.milli / whole_milli))
        use.add_metric([view.name], view.use)
        right.add_metric([view.name], view.right)
        waiting.add_metric([view.name], view.waiting_count)
    yield from (held, use, right, waiting)
    yield from _used(registry)


def _used(registry: Registry) -> Iterator[Metric]:
    since = "since this registry began to lead."
    families = [
        CounterMetricFamily(f"xpool_tenant_{name}", f"{text}, {since}", labels=_TENANT)
        for name, text in (
            ("device_seconds", "Device time, measured by the servers"),
            ("booked_seconds", "Device time that shares promised to sessions"),
            ("waiting_seconds", "There was work, and others had the device"),
            ("memory_byte_seconds", "Device memory, times how long it was held"),
        )
    ]
    for tenant, used in registry.used().items():
        for family, value in zip(families, used, strict=True):
            family.add_metric([tenant], max(0.0, value))
    yield from families


def _devices(registry: Registry) -> Iterator[Metric]:
    share = GaugeMetricFamily(
        *("xpool_device_free_share_ratio", "Share that no lease holds."),
        labels=_DEVICE,
    )
    memory = GaugeMetricFamily(
        *("xpool_device_free_bytes", "Memory that no lease holds."), labels=_DEVICE
    )
    whole = GaugeMetricFamily(
        *("xpool_device_memory_bytes", "Memory of the device."), labels=_DEVICE
    )
    busy = GaugeMetricFamily(
        *("xpool_device_busy_ratio", "Part of the time that the device worked."),
        labels=_DEVICE,
    )
    for view in registry.devices():
        offer, device = view.offer, view.device
        labels = [offer.node_name, str(device.index), device.kind]
        share.add_metric(labels, offer.free_share_percent / 100)
        memory.add_metric(labels, offer.free_nbytes)
        whole.add_metric(labels, device.memory_nbytes)
        if view.load is not None:
            busy.add_metric(labels, view.load.busy_percent / 100)
    yield from (share, memory, whole, busy)


def _leases(leases: Sequence[HeldLease]) -> Iterator[Metric]:
    promised = GaugeMetricFamily(
        *("xpool_lease_promised_share_ratio", "Share promised."), labels=_LEASE
    )
    for held in leases:
        promised.add_metric(_labels(held), held.lease.share_percent / 100)
    yield promised
    got = GaugeMetricFamily(
        *("xpool_lease_got_share_ratio", "Share got in the last 10 s."), labels=_LEASE
    )
    used = CounterMetricFamily(
        *("xpool_lease_device_seconds", "Device time used."), labels=_LEASE
    )
    waited = CounterMetricFamily(
        *("xpool_lease_waiting_seconds", "It waited for its turn."), labels=_LEASE
    )
    allocated = GaugeMetricFamily(
        *("xpool_lease_allocated_bytes", "Device memory allocated."), labels=_LEASE
    )
    for held in leases:
        session = held.session
        if session is not None:
            labels = _labels(held)
            got.add_metric(labels, session.got_percent / 100)
            used.add_metric(labels, session.device_ns / NS_PER_S)
            waited.add_metric(labels, session.waiting_ns / NS_PER_S)
            allocated.add_metric(labels, session.allocated_nbytes)
    yield from (got, used, waited, allocated)


def _labels(held: HeldLease) -> list[str]:
    lease = held.lease
    return [lease.lease_id, lease.tenant, lease.node_name, str(lease.device_index)]


def serve(collector: Collector, host: str, port: int) -> int:
    """Answer at ``http://HOST:PORT/metrics`` until the process ends; the real port.

    Raises:
        UsageError: nothing can listen there.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another"
            " address with --metrics"
        ) from error
    return int(server.server_port)
