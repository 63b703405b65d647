"""What a heartbeat says about a node's devices and sessions."""

from __future__ import annotations

from typing import Final

from xpool_protocol.control import registry_pb2 as pb

from xpool_server.metering import Meter
from xpool_server.node_records import Session
from xpool_server.node_state import NodeState
from xpool_server.registry_link import MAX_REASON_CHARS, printable


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


STALLED: Final = "stalled"
"""In place of a session's state: its worker stands still and has given its place up."""


def session_report(
    session: Session, meter: Meter, *, is_stalled: bool
) -> pb.SessionReport:
    """What a heartbeat says of one session."""
    claims, last = session.claims, meter.last
    return pb.SessionReport(
        lease_id=claims.lease_id,
        epoch=claims.epoch,
        state=STALLED if is_stalled else session.state.value,
        executed_ops=last.executed_ops,
        allocated_nbytes=last.allocated_nbytes,
        received_nbytes=last.received_nbytes,
        share_percent=claims.share_percent,
        memory_nbytes=claims.memory_nbytes,
        mode=claims.mode,
        priority=claims.priority,
        refusal=printable(session.refusal, MAX_REASON_CHARS),
        slice_number=0 if session.wish is not None else session.slice_number,
        device_ns=last.device_ns,
        waiting_ns=last.waiting_ns,
        held_ns=last.held_ns,
        sent_nbytes=last.sent_nbytes,
        longest_hold_ns=last.longest_hold_ns,
        got_percent=meter.got_percent,
        overhead_nbytes=min(max(0, session.overhead_nbytes), (1 << 63) - 1),
        usage=[
            pb.UsageSecond(
                at_s=second.at_s,
                device_ns=second.used.device_ns,
                waiting_ns=second.used.waiting_ns,
                executed_ops=second.used.executed_ops,
                received_nbytes=second.used.received_nbytes,
                sent_nbytes=second.used.sent_nbytes,
                allocated_nbytes=second.used.allocated_nbytes,
            )
            for second in meter.seconds
        ],
    )


def _counter(counters: dict[str, int], name: str) -> int:
    """A counter as protobuf can carry it, whatever the worker claims."""
    return min(max(0, counters.get(name, 0)), (1 << 63) - 1)
