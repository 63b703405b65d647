"""What ``xpool admin queue`` and ``xpool admin tenants`` print."""

from __future__ import annotations

from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control.admin_rpc import AdminClient
from xpool_protocol.quantities import text_from_nbytes

from xpool_registry.admin import Figures, Listing
from xpool_registry.ages import age


def queue_listing(client: AdminClient, now_s: float) -> Listing:
    """All that wait, in the order in which they are served."""
    requests = client.list_queue()
    return Listing(
        columns=(">", "=request", "tenant", "class", "wants", ">waited", "starts"),
        rows=[
            (
                str(one.place),
                one.request_id,
                one.tenant,
                one.priority,
                _wish(one),
                age(one.waited_ms / 1000),
                f"in {age(one.starts_at_s - now_s)}" if one.starts_at_s else "?",
            )
            for one in requests
        ],
        figures=[_waiting_figures(one) for one in requests],
        empty="nobody waits",
    )


def tenants_listing(client: AdminClient) -> Listing:
    """Who holds what part of the pool, and has a right to what part."""
    tenants = client.list_tenants()
    columns: dict[str, list[str]] = {
        "tenant": [info.tenant.name for info in tenants],
        "group": [info.tenant.parent or "-" for info in tenants],
        ">weight": [f"{info.tenant.weight:g}" for info in tenants],
        ">quota": [_percent(info.tenant.quota_percent) for info in tenants],
        ">limit": [_percent(info.tenant.limit_percent) for info in tenants],
        ">holds": [f"{info.held_percent:.0f}%" for info in tenants],
        ">use": [f"{info.use_percent:.1f}%" for info in tenants],
        ">right": [f"{info.right_percent:.1f}%" for info in tenants],
        ">leases": [str(info.lease_count) for info in tenants],
        ">wait": [str(info.waiting_count) for info in tenants],
    }
    # What nobody has, tells nothing and takes names their room.
    shown = [
        name
        for name, cells in columns.items()
        if name not in ("group", ">quota", ">limit") or {*cells} != {"-"}
    ]
    return Listing(
        columns=(*shown,),
        rows=[*zip(*(columns[name] for name in shown), strict=True)],
        figures=[_tenant_figures(info) for info in tenants],
        empty="no tenant is known, holds anything, has used anything lately or waits",
    )


def _wish(one: admin.Waiting) -> str:
    count = f"{one.device_count} x " if one.device_count > 1 else ""
    memory = f", {text_from_nbytes(one.memory_nbytes)}" if one.memory_nbytes else ""
    return f"{count}{one.share_percent}%{memory}"


def _percent(value: int) -> str:
    return f"{value}%" if value else "-"


def _waiting_figures(one: admin.Waiting) -> Figures:
    return {
        "request_id": one.request_id,
        "place": one.place,
        "tenant": one.tenant,
        "client": one.client,
        "priority": one.priority,
        "share_percent": one.share_percent,
        "memory_nbytes": one.memory_nbytes,
        "device_count": one.device_count,
        "limit_ms": one.limit_ms or None,
        "waited_ms": one.waited_ms,
        "reason": one.reason,
        "starts_at_s": one.starts_at_s or None,
    }


def _tenant_figures(info: admin.TenantInfo) -> Figures:
    tenant = info.tenant
    return {
        "tenant": tenant.name,
        "parent": tenant.parent or None,
        "is_known": info.is_known,
        "weight": tenant.weight,
        "quota_percent": tenant.quota_percent,
        "limit_percent": tenant.limit_percent or None,
        "limit_nbytes": tenant.limit_nbytes or None,
        "preemptions_per_hour": tenant.preemptions_per_hour,
        "held_percent": info.held_percent,
        "held_nbytes": info.held_nbytes,
        "use_percent": info.use_percent,
        "right_percent": info.right_percent,
        "lease_count": info.lease_count,
        "waiting_count": info.waiting_count,
    }
