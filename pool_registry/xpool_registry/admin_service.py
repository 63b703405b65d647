"""What admins say on the wire, and what the registry means by it."""

from __future__ import annotations

from xpool_protocol.control import admin_pb2 as admin

from xpool_registry.commands import SetTenant
from xpool_registry.registry import QueuePlace, Registry
from xpool_registry.tenancy import TenantView


class AdminService:
    """An ``AdminHandler`` in front of one ``Registry``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def list_queue(self, request: admin.ListQueueRequest) -> admin.ListQueueReply:
        """All that wait."""
        del request
        return admin.ListQueueReply(
            requests=[_wire_from_place(place) for place in self._registry.queue()]
        )

    def list_tenants(self, request: admin.ListTenantsRequest) -> admin.ListTenantsReply:
        """All that are known, hold something or wait."""
        del request
        return admin.ListTenantsReply(
            tenants=[_wire_from_tenant(view) for view in self._registry.tenants()]
        )

    def set_tenant(self, request: admin.Tenant) -> admin.SetTenantReply:
        """Decide on a tenant."""
        self._registry.set_tenant(
            SetTenant(
                name=request.name,
                parent=request.parent,
                weight=request.weight,
                quota_percent=request.quota_percent,
                limit_percent=request.limit_percent,
                limit_nbytes=request.limit_nbytes,
                preemptions_per_hour=request.preemptions_per_hour,
            )
        )
        return admin.SetTenantReply()

    def remove_tenant(
        self, request: admin.RemoveTenantRequest
    ) -> admin.RemoveTenantReply:
        """Forget what was decided."""
        was_known = self._registry.remove_tenant(request.name)
        return admin.RemoveTenantReply(was_known=was_known)


def _wire_from_place(place: QueuePlace) -> admin.Waiting:
    request = place.request
    return admin.Waiting(
        request_id=request.request_id,
        place=place.place,
        tenant=request.tenant,
        client=request.client,
        priority=request.priority,
        share_percent=request.share_percent,
        memory_nbytes=request.memory_nbytes,
        device_count=request.device_count,
        limit_ms=request.limit_ms,
        waited_ms=place.waited_ms,
        reason=place.reason,
        starts_at_s=place.starts_at_s,
    )


def _wire_from_tenant(view: TenantView) -> admin.TenantInfo:
    known = view.known
    return admin.TenantInfo(
        tenant=admin.Tenant(
            name=view.name,
            parent=known.parent if known else "",
            weight=known.weight if known else 1.0,
            quota_percent=known.quota_percent if known else 0,
            limit_percent=known.limit_percent if known else 0,
            limit_nbytes=known.limit_nbytes if known else 0,
            preemptions_per_hour=known.preemptions_per_hour if known else 0,
        ),
        is_known=known is not None,
        held_percent=view.held.milli / 10,
        held_nbytes=view.held.nbytes,
        use_percent=100 * view.use,
        right_percent=100 * view.right,
        lease_count=view.lease_count,
        waiting_count=view.waiting_count,
    )
