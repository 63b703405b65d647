"""What a heartbeat says about a node's devices and sessions."""

from __future__ import annotations

from xpool_protocol.control import registry_pb2 as pb

from xpool_server.node_state import NodeState


class LoadMeter:
    """Turns counters into load: how busy a device was since the last call."""

    def __init__(self, now_ns: int) -> None:
        self._at_ns = now_ns
        self._busy_ns: dict[int, int] = {}

    def loads(self, state: NodeState, now_ns: int) -> list[pb.DeviceLoad]:
        """One entry per device; ``busy_percent`` counts since the last call."""
        elapsed_ns = max(1, now_ns - self._at_ns)
        self._at_ns = now_ns
        used = dict.fromkeys(state.memory_nbytes, 0)
        counts = dict.fromkeys(state.memory_nbytes, 0)
        busy = dict(state.finished_busy_ns)
        for _, worker, session in state.sessions():
            index = worker.device_index
            counts[index] += 1
            used[index] += _counter(session.counters, "allocated_nbytes")
            busy[index] += _counter(session.counters, "busy_ns")
        loads = []
        for index, busy_ns in busy.items():
            since_ns = busy_ns - self._busy_ns.get(index, 0)
            percent = min(100.0, max(0.0, 100 * since_ns / elapsed_ns))
            loads.append(
                pb.DeviceLoad(
                    index=index,
                    used_nbytes=used[index],
                    busy_percent=percent,
                    session_count=counts[index],
                )
            )
        self._busy_ns = busy
        return loads


def session_reports(state: NodeState) -> list[pb.SessionReport]:
    """One entry per session whose worker process lives."""
    return [
        pb.SessionReport(
            lease_id=session.claims.lease_id,
            epoch=session.claims.epoch,
            state=session.state.value,
            executed_ops=_counter(session.counters, "executed_ops"),
            allocated_nbytes=_counter(session.counters, "allocated_nbytes"),
            received_nbytes=_counter(session.counters, "received_nbytes"),
        )
        for _, _, session in state.sessions()
    ]


def _counter(counters: dict[str, int], name: str) -> int:
    """A counter as protobuf can carry it, whatever the worker claims."""
    return min(max(0, counters.get(name, 0)), (1 << 63) - 1)
