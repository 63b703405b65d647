"""A server's figures for Prometheus, at ``/metrics``.

The loop of the node publishes a snapshot; a thread of its own answers whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import UsageError

_LABELS: Final = ("lease", "tenant", "device")
NS_PER_S: Final = 1e9


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """One session, and whose it is."""

    tenant: str
    device_index: int
    report: pb.SessionReport


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a node knows of its devices and sessions at one moment."""

    loads: Sequence[pb.DeviceLoad] = ()
    sessions: Sequence[SessionFigures] = ()
    passed_on: Sequence[tuple[int, str, int]] = ()
    """Device, why, and how often a turn was passed on for that."""


class NodeCollector(Collector):
    """Turns the last snapshot into metrics."""

    def __init__(self) -> None:
        self._snapshot = Snapshot()

    def publish(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every metric; called by the thread that answers."""
        snapshot = self._snapshot
        yield from _devices(snapshot)
        yield from _session_counters(snapshot.sessions)
        yield from _session_gauges(snapshot.sessions)


def _devices(snapshot: Snapshot) -> Iterator[Metric]:
    busy = GaugeMetricFamily(
        *("xpool_device_busy_ratio", "Part of the time that the device worked."),
        labels=("device",),
    )
    used = GaugeMetricFamily(
        *("xpool_device_allocated_bytes", "Device memory that sessions hold."),
        labels=("device",),
    )
    count = GaugeMetricFamily(
        *("xpool_device_sessions", "Sessions on the device."), labels=("device",)
    )
    for load in snapshot.loads:
        device = [str(load.index)]
        busy.add_metric(device, load.busy_percent / 100)
        used.add_metric(device, load.used_nbytes)
        count.add_metric(device, load.session_count)
    passed = CounterMetricFamily(
        "xpool_device_turns_passed_on",
        "Turns taken from a worker that stood still or came to no end.",
        labels=("device", "why"),
    )
    for index, why, times in snapshot.passed_on:
        passed.add_metric([str(index), why], times)
    yield from (busy, used, count, passed)


def _session_counters(sessions: Sequence[SessionFigures]) -> Iterator[Metric]:
    for name, text, field, unit in (
        ("device_seconds", "Device time used.", "device_ns", NS_PER_S),
        ("waiting_seconds", "It waited for its turn.", "waiting_ns", NS_PER_S),
        ("operations", "Operations executed.", "executed_ops", 1),
        ("received_bytes", "Bytes from the client.", "received_nbytes", 1),
        ("sent_bytes", "Bytes to the client.", "sent_nbytes", 1),
    ):
        family = CounterMetricFamily(f"xpool_session_{name}", text, labels=_LABELS)
        for one in sessions:
            family.add_metric(_labels(one), getattr(one.report, field) / unit)
        yield family


def _session_gauges(sessions: Sequence[SessionFigures]) -> Iterator[Metric]:
    for name, text, field, unit in (
        ("promised_share_ratio", "Share promised.", "share_percent", 100),
        ("got_share_ratio", "Share got in the last 10 s.", "got_percent", 100),
        ("allocated_bytes", "Device memory allocated.", "allocated_nbytes", 1),
        ("quota_bytes", "Device memory that it may hold.", "memory_nbytes", 1),
        (
            *("longest_hold_seconds", "Longest time that others had to wait for it."),
            *("longest_hold_ns", NS_PER_S),
        ),
    ):
        family = GaugeMetricFamily(f"xpool_session_{name}", text, labels=_LABELS)
        for one in sessions:
            family.add_metric(_labels(one), getattr(one.report, field) / unit)
        yield family
    state = GaugeMetricFamily(
        *("xpool_session_state", "1 for the state that the session is in."),
        labels=(*_LABELS, "state"),
    )
    for one in sessions:
        state.add_metric([*_labels(one), one.report.state], 1)
    yield state


def _labels(one: SessionFigures) -> list[str]:
    return [one.report.lease_id, one.tenant, str(one.device_index)]


def serve(collector: Collector, host: str, port: int) -> tuple[int, object]:
    """Answer at ``http://HOST:PORT/metrics`` until the process ends.

    Returns:
        The real port, and what keeps the answering alive.

    Raises:
        UsageError: nothing can listen there.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another"
            " address with --metrics"
        ) from error
    return int(server.server_port), (server, thread)
