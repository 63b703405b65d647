"""The control plane's bytes: golden ones for ever, and hostile ones never harmful."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from golden.control_vectors import FOLDER, filled, kinds, name_of
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_registry.pool_model import PoolModel, ticket_of
from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.errors import PoolError
from xpool_registry.admin_service import AdminService
from xpool_registry.service import RegistryService

KINDS = {name_of(kind): kind for kind in kinds()}


@pytest.mark.parametrize("name", KINDS)
def test_golden_bytes_mean_what_they_meant(name: str) -> None:
    kind = KINDS[name]
    path = FOLDER / f"{name}.hex"
    assert path.exists(), f"run tests/golden/control_vectors.py: no vector of {name}"
    golden = bytes.fromhex(path.read_text())
    message = kind.FromString(golden)
    assert message.SerializeToString(deterministic=True) == golden
    # What was in it then is what a message made today has there.
    _same_where_set(message, filled(kind))


def _same_where_set(old: Message, new: Message) -> None:
    for field, value in old.ListFields():
        fresh = getattr(new, field.name)
        is_map = (
            field.message_type is not None and field.message_type.GetOptions().map_entry
        )
        if field.type != Field.TYPE_MESSAGE or is_map:
            assert fresh == value, field.full_name
        elif field.is_repeated:
            for before, after in zip(value, fresh, strict=True):
                _same_where_set(before, after)
        else:
            _same_where_set(value, fresh)


def test_every_vector_is_of_a_message() -> None:
    assert {path.stem for path in FOLDER.glob("*.hex")} == set(KINDS)


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=200))
def test_garbage_is_a_message_or_an_error(name: str, data: bytes) -> None:
    try:
        message = KINDS[name].FromString(data)
    except DecodeError:
        return
    assert KINDS[name].FromString(message.SerializeToString()) == message or (
        "nan" in str(message)
    )


# ---- against a registry that serves


def pool_at_work() -> tuple[PoolModel, RegistryService, AdminService]:
    pool = PoolModel()
    pool.join("a", devices=2, rack="1")
    pool.ask("runs", 60, least=20)
    pool.ask("waits", 100, devices=2)
    return pool, RegistryService(pool.registry), AdminService(pool.registry)


def requests(pool: PoolModel) -> list[tuple[str, Message]]:
    """A sensible request of each call, by the name of its method."""
    lease = pool.leases["runs"][0].lease
    lease_id, epoch = lease.lease_id, lease.epoch
    wish = pb.AcquireRequest(tenant="bob", share_percent=10, mode="elastic")
    group = pb.AcquireGroupRequest(
        slice=wish,
        device_count=2,
        ticket=ticket_of("new"),
        wait_ms=1000,
        limit_ms=5000,
        wanted=pb.Wanted(kind="cuda", labels={"rack": "1"}),
        distances=[pb.Distance(node_name="a", rtt_us=100)],
        max_rtt_us=1000,
        near=True,
        close_by="rack",
    )
    session = pb.SessionReport(
        lease_id=lease_id,
        epoch=epoch,
        state="open",
        share_percent=60,
        memory_nbytes=1,
        mode="elastic",
        priority="normal",
        usage=[pb.UsageSecond(at_s=1000, device_ns=5)],
    )
    return [
        (
            "join",
            pb.JoinRequest(
                node_name="b",
                boot_id="x",
                address="tcp://b:1",
                devices=[pb.Device(kind="cuda", memory_nbytes=1 << 30)],
                labels={"rack": "2"},
            ),
        ),
        (
            "heartbeat",
            pb.HeartbeatRequest(
                node_name="a",
                boot_id="boot-1",
                loads=[pb.DeviceLoad(index=1, used_nbytes=5, busy_percent=50.0)],
                sessions=[session],
                ended=[pb.EndedLease(lease_id="gone", epoch=1, reason="x")],
            ),
        ),
        ("acquire", wish),
        ("acquire_group", group),
        ("cancel", pb.CancelRequest(ticket=ticket_of("waits"))),
        ("renew", pb.RenewRequest(lease_id=lease_id, epoch=epoch)),
        ("release", pb.ReleaseRequest(lease_id=lease_id, epoch=epoch, reason="r")),
        ("resize", pb.ResizeRequest(lease_id=lease_id, share_percent=30)),
        ("list_nodes", pb.ListNodesRequest()),
        ("list_devices", pb.ListDevicesRequest()),
        ("list_leases", pb.ListLeasesRequest()),
        ("list_queue", admin.ListQueueRequest()),
        ("list_tenants", admin.ListTenantsRequest()),
        ("set_tenant", admin.Tenant(name="ada", weight=2.0, quota_percent=100)),
        ("remove_tenant", admin.RemoveTenantRequest(name="ada")),
        ("list_usage", admin.ListUsageRequest(since_s=1, until_s=9000, by="tenant")),
        ("cordon", admin.CordonRequest(node_name="a", drain=True, deadline_ms=99)),
        ("uncordon", admin.UncordonRequest(node_name="a")),
        ("forget", admin.ForgetRequest(node_name="a", reason="sold")),
        ("evict", admin.EvictRequest(lease_id=lease_id, grace_ms=50)),
        ("explain", admin.ExplainRequest(name=lease_id)),
        ("what_if", group),
        ("list_events", admin.ListEventsRequest(after=1, limit=5)),
        ("create_token", admin.CreateTokenRequest(role="admin", name="me")),
        ("list_tokens", admin.ListTokensRequest()),
        ("revoke_token", admin.RevokeTokenRequest(token_id="t")),
    ]


NAMES: Sequence[str] = [name for name, _ in requests(pool_at_work()[0])]


def method_of(
    name: str, registry: RegistryService, admins: AdminService
) -> Callable[[Any], Any]:
    found = getattr(admins, name, None) or getattr(registry, name)
    assert callable(found)
    return found  # type: ignore[no-any-return]


def test_every_call_has_a_request_here() -> None:
    for kind in (pb, admin):
        for service in kind.DESCRIPTOR.services_by_name.values():
            snake = {
                "".join(f"_{c.lower()}" if c.isupper() else c for c in one.name)[1:]
                for one in service.methods
                if not one.client_streaming  # what it carries are a call's messages
            }
            assert snake <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_sensible_request_is_answered(name: str) -> None:
    pool, registry, admins = pool_at_work()
    request = dict(requests(pool))[name]
    refused = {"revoke_token": "there is no token", "forget": "stop its server first"}
    if name in refused:
        with pytest.raises(PoolError, match=refused[name]):
            method_of(name, registry, admins)(request)
        return
    reply = method_of(name, registry, admins)(request)
    assert isinstance(reply, Message)
    reply.SerializeToString()


@given(st.sampled_from(NAMES), st.integers(0, 1 << 32), st.integers(1, 12))
@settings(max_examples=400, deadline=None)
def test_flipped_bits_are_answered_or_refused(name: str, seed: int, count: int) -> None:
    """Nothing but a refusal is raised, and the registry goes on."""
    pool, registry, admins = pool_at_work()
    request = dict(requests(pool))[name]
    data = bytearray(request.SerializeToString(deterministic=True))
    rng = random.Random(seed)
    for _ in range(count if data else 0):
        at = rng.randrange(8 * len(data))
        data[at // 8] ^= 1 << at % 8
    try:
        hostile = type(request).FromString(bytes(data))
        reply = method_of(name, registry, admins)(hostile)
    except (DecodeError, PoolError):
        pass
    else:
        reply.SerializeToString()
    pool.now_ms += 1000
    pool.registry.tick()
    for view in pool.registry.devices():
        assert 0 <= view.offer.free_share_percent <= 100
    pool.registry.queue()
    pool.registry.tenants()
    pool.opened()  # what it has stored can be read again
