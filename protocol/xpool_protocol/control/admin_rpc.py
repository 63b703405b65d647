"""Calls that admins make to the registry."""

from __future__ import annotations

from typing import Any

from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control import admin_pb2_grpc
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.credentials import Credentials
from xpool_protocol.control.rpc import RegistryClient


class AdminClient(RegistryClient):
    """A connection for admins; also does what ``RegistryClient`` does."""

    def __init__(
        self,
        address: str,
        timeout_s: float = 5.0,
        credentials: Credentials | None = None,
    ) -> None:
        super().__init__(address, timeout_s, credentials)
        self._admin: Any = admin_pb2_grpc.PoolAdminStub(self._channel)  # type: ignore[no-untyped-call]

    def list_queue(self) -> list[admin.Waiting]:
        """All that wait, in the order in which they are served."""
        request = admin.ListQueueRequest()
        reply = self._call(admin.ListQueueReply, self._admin.ListQueue, request)
        return list(reply.requests)

    def list_tenants(self) -> list[admin.TenantInfo]:
        """Everybody who is known, holds something or waits, by name."""
        request = admin.ListTenantsRequest()
        reply = self._call(admin.ListTenantsReply, self._admin.ListTenants, request)
        return list(reply.tenants)

    def set_tenant(self, tenant: admin.Tenant) -> None:
        """Decide on a tenant or a group of tenants; replaces what was decided."""
        self._call(admin.SetTenantReply, self._admin.SetTenant, tenant)

    def list_usage(self, since_s: int, until_s: int, by: str) -> list[admin.Usage]:
        """Who has used how much in the hours of a period.

        Args:
            since_s: wall clock, seconds since 1970.
            until_s: as above.
            by: "tenant", "lease", "node", "device", "hour" or "day".
        """
        request = admin.ListUsageRequest(since_s=since_s, until_s=until_s, by=by)
        reply = self._call(admin.ListUsageReply, self._admin.ListUsage, request)
        return list(reply.usage)

    def remove_tenant(self, name: str) -> bool:
        """Forget what was decided; true if anything was."""
        request = admin.RemoveTenantRequest(name=name)
        method = self._admin.RemoveTenant
        return self._call(admin.RemoveTenantReply, method, request).was_known

    def cordon(
        self,
        node_name: str,
        reason: str = "",
        *,
        drain: bool = False,
        deadline_ms: int = 0,
    ) -> int:
        """No new leases for a node; how many it still has.

        With ``drain`` those it has are waited for, or end by the deadline.
        """
        request = admin.CordonRequest(
            node_name=node_name, reason=reason, drain=drain, deadline_ms=deadline_ms
        )
        reply = self._call(admin.CordonReply, self._admin.Cordon, request)
        return reply.lease_count

    def uncordon(self, node_name: str) -> bool:
        """New leases again; whether it was cordoned."""
        request = admin.UncordonRequest(node_name=node_name)
        return self._call(admin.CordonReply, self._admin.Uncordon, request).changed

    def forget(self, node_name: str, reason: str = "") -> None:
        """List a silent node without leases no more; it may join again."""
        request = admin.ForgetRequest(node_name=node_name, reason=reason)
        self._call(admin.ForgetReply, self._admin.Forget, request)

    def evict(self, lease_id: str, reason: str = "", grace_ms: int = 0) -> None:
        """Take a lease from its holder, at once or after a grace.

        Raises:
            LeaseUnknown: no such lease is live.
        """
        request = admin.EvictRequest(
            lease_id=lease_id, reason=reason, grace_ms=grace_ms
        )
        self._call(admin.EvictReply, self._admin.Evict, request)

    def explain(self, name: str) -> admin.Explanation:
        """Why a lease is where it is, or why a request waits.

        Raises:
            LeaseUnknown: nothing has that name.
        """
        request = admin.ExplainRequest(name=name)
        return self._call(admin.Explanation, self._admin.Explain, request)

    def what_if(self, request: pb.AcquireGroupRequest) -> admin.Explanation:
        """What a request would get; nothing is granted."""
        return self._call(admin.Explanation, self._admin.WhatIf, request)

    def list_events(self, after: int = 0, limit: int = 0) -> list[admin.EventInfo]:
        """What has happened since that sequence number, oldest first."""
        request = admin.ListEventsRequest(after=after, limit=limit)
        reply = self._call(admin.ListEventsReply, self._admin.ListEvents, request)
        return list(reply.events)

    def create_token(
        self, role: str, name: str = "", *, expires_in_ms: int = 0, comment: str = ""
    ) -> admin.CreateTokenReply:
        """Make a token; it is shown this once. 0: it never expires."""
        request = admin.CreateTokenRequest(
            role=role, name=name, expires_in_ms=expires_in_ms, comment=comment
        )
        return self._call(admin.CreateTokenReply, self._admin.CreateToken, request)

    def list_tokens(self) -> list[admin.TokenInfo]:
        """Those that are not revoked, oldest first, without what they are."""
        request = admin.ListTokensRequest()
        reply = self._call(admin.ListTokensReply, self._admin.ListTokens, request)
        return list(reply.tokens)

    def revoke_token(self, token_id: str) -> None:
        """It is good for nothing from now on."""
        request = admin.RevokeTokenRequest(token_id=token_id)
        self._call(admin.RevokeTokenReply, self._admin.RevokeToken, request)
