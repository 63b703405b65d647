"""Reports of sessions are made when somebody asks, and say all that the node said."""

from __future__ import annotations

import pytest
from xpool_protocol.control import registry_pb2 as pb
from xpool_registry.keys import SigningKey
from xpool_registry.observations import SessionReport
from xpool_registry.registry import Registry
from xpool_registry.reports import LateReports, SessionHead, heads_of
from xpool_registry.service import MAX_KEPT_NBYTES, RegistryService
from xpool_registry.settings import Settings
from xpool_registry.store import MemoryStore

SAID = [
    SessionReport(
        lease_id=f"lease-{number}",
        epoch=number,
        state="open",
        executed_ops=10 * number,
        allocated_nbytes=number << 20,
        received_nbytes=0,
        refusal="no" if number == 2 else "",
        slice_number=number,
    )
    for number in range(4)
]


def head_of(report: SessionReport) -> SessionHead:
    return SessionHead(
        report.lease_id,
        report.epoch,
        report.state,
        report.allocated_nbytes,
        report.refusal,
        report.slice_number,
    )


@pytest.fixture
def registry() -> Registry:
    return Registry(MemoryStore(), SigningKey.generate(), Settings(), lambda: "1" * 16)


def test_reports_are_read_when_they_are_asked_for() -> None:
    read: list[str] = []

    def read_one(said: SessionReport) -> SessionReport:
        read.append(said.lease_id)
        return said

    reports = LateReports(SAID, tuple(map(head_of, SAID)), read_one)

    assert len(reports) == 4
    assert [one.lease_id for one in heads_of(reports)] == [
        f"lease-{n}" for n in range(4)
    ]
    assert not read

    assert reports[2] is SAID[2]
    assert reports[1:3] == (SAID[1], SAID[2])
    assert read == ["lease-2", "lease-1", "lease-2"]
    assert [*reports] == SAID


def test_heads_of_reports_are_the_reports_where_all_is_known() -> None:
    assert heads_of(SAID) is SAID


@pytest.mark.parametrize("is_long", [False, True])
def test_what_a_heartbeat_says_is_listed(registry: Registry, is_long: bool) -> None:
    service = RegistryService(registry)
    device = pb.Device(index=0, kind="cpu", memory_nbytes=1 << 30)
    service.join(
        pb.JoinRequest(
            node_name="a", boot_id="boot", address="tcp://a:1", devices=[device]
        )
    )
    wish = pb.AcquireRequest(tenant="ada", share_percent=50, mode="elastic")
    lease = service.acquire(wish)
    said = pb.SessionReport(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        state="open",
        executed_ops=7,
        got_percent=12.5,
        mode="x" * (2 * MAX_KEPT_NBYTES if is_long else 1),
    )
    reply = service.heartbeat(
        pb.HeartbeatRequest(node_name="a", boot_id="boot", sessions=[said])
    )
    assert not reply.end_leases

    [info] = service.list_leases(pb.ListLeasesRequest()).leases
    assert info.session == said
    kept = registry._state.beats["a"].sessions
    assert isinstance(kept, LateReports) is not is_long
