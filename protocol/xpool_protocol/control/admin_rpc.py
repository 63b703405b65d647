"""Calls that admins make to the registry."""

from __future__ import annotations

from typing import Any

from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control import admin_pb2_grpc
from xpool_protocol.control.rpc import RegistryClient


class AdminClient(RegistryClient):
    """A connection for admins; also does what ``RegistryClient`` does."""

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        super().__init__(address, timeout_s)
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

    def remove_tenant(self, name: str) -> bool:
        """Forget what was decided; true if anything was."""
        request = admin.RemoveTenantRequest(name=name)
        method = self._admin.RemoveTenant
        return self._call(admin.RemoveTenantReply, method, request).was_known
