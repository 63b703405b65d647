"""What admins say on the wire, and what the registry means by it."""

from __future__ import annotations

import msgspec
from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control import registry_pb2 as pb

from xpool_registry.accounting import Sum
from xpool_registry.commands import CordonNode, SetTenant
from xpool_registry.events import RegistryEvent, TokenCreated
from xpool_registry.explaining import Explanation
from xpool_registry.registry import QueuePlace, Registry
from xpool_registry.service import group_from_wire
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

    def cordon(self, request: admin.CordonRequest) -> admin.CordonReply:
        """No new leases for a node."""
        count = self._registry.cordon(
            CordonNode(
                node_name=request.node_name,
                reason=request.reason,
                is_draining=request.drain,
                deadline_ms=request.deadline_ms,
            )
        )
        return admin.CordonReply(changed=True, lease_count=count)

    def uncordon(self, request: admin.UncordonRequest) -> admin.CordonReply:
        """New leases again."""
        return admin.CordonReply(changed=self._registry.uncordon(request.node_name))

    def forget(self, request: admin.ForgetRequest) -> admin.ForgetReply:
        """A node is listed no more."""
        self._registry.forget(request.node_name, request.reason)
        return admin.ForgetReply()

    def evict(self, request: admin.EvictRequest) -> admin.EvictReply:
        """Take a lease from its holder."""
        self._registry.evict(request.lease_id, request.reason, request.grace_ms)
        return admin.EvictReply()

    def explain(self, request: admin.ExplainRequest) -> admin.Explanation:
        """Why a lease is where it is, or why a request waits."""
        return _wire_from_explanation(self._registry.explain(request.name))

    def what_if(self, request: pb.AcquireGroupRequest) -> admin.Explanation:
        """What a request would get."""
        return _wire_from_explanation(self._registry.what_if(group_from_wire(request)))

    def list_events(self, request: admin.ListEventsRequest) -> admin.ListEventsReply:
        """What has happened."""
        events = self._registry.events_after(request.after, request.limit)
        return admin.ListEventsReply(
            events=[
                admin.EventInfo(sequence=sequence, json=_json_of(event))
                for sequence, event in events
            ]
        )

    def list_usage(self, request: admin.ListUsageRequest) -> admin.ListUsageReply:
        """Who has used how much."""
        sums = self._registry.usage(request.since_s, request.until_s, request.by)
        return admin.ListUsageReply(usage=[_wire_from_sum(one) for one in sums])

    def create_token(self, request: admin.CreateTokenRequest) -> admin.CreateTokenReply:
        """Make a token."""
        created, token = self._registry.create_token(
            request.role, request.name, request.expires_in_ms, request.comment
        )
        return admin.CreateTokenReply(
            token=token, token_id=created.token_id, expires_at_s=created.expires_at_s
        )

    def list_tokens(self, request: admin.ListTokensRequest) -> admin.ListTokensReply:
        """Those that are not revoked."""
        del request
        return admin.ListTokensReply(
            tokens=[
                admin.TokenInfo(
                    token_id=one.token_id,
                    role=one.role,
                    name=one.name,
                    comment=one.comment,
                    created_at_s=one.at_s,
                    expires_at_s=one.expires_at_s,
                )
                for one in self._registry.tokens()
            ]
        )

    def revoke_token(self, request: admin.RevokeTokenRequest) -> admin.RevokeTokenReply:
        """Good for nothing from now on."""
        self._registry.revoke_token(request.token_id)
        return admin.RevokeTokenReply()


def _json_of(event: RegistryEvent) -> str:
    if isinstance(event, TokenCreated):
        event = msgspec.structs.replace(event, hash_hex="")
    return msgspec.json.encode(event).decode()


def _wire_from_explanation(found: Explanation) -> admin.Explanation:
    return admin.Explanation(
        headline=found.headline,
        facts=found.facts,
        verdicts=[
            admin.Verdict(device=device, ruled_out=short)
            for device, short in found.verdicts
        ],
        changes=found.changes,
        starts_at_s=found.starts_at_s,
    )


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


def _wire_from_sum(one: Sum) -> admin.Usage:
    totals = one.totals
    return admin.Usage(
        name=one.name,
        tenant=one.tenant,
        device_s=totals.device_s,
        booked_s=totals.booked_s,
        waiting_s=totals.waiting_s,
        byte_s=totals.byte_s,
        executed_ops=totals.executed_ops,
        received_nbytes=totals.received_nbytes,
        sent_nbytes=totals.sent_nbytes,
        seconds=totals.seconds,
        lease_count=one.leases,
    )
