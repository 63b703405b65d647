"""What answers calls to a registry: plain Python, a request in and a reply out."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control import registry_pb2 as pb


class Call(NamedTuple):
    """What somebody asks, before it is answered."""

    method: str
    request: Any
    token: str
    """As it was shown; empty: none."""

    peer: str
    """gRPC's word for where it comes from."""


class Answering(Protocol):
    """One call's answer on its way out."""

    def settled(self) -> Future[None] | None:
        """What must be over before the answer may go out; None: nothing.

        Called once the call is decided, whether it was refused or not.

        Raises:
            PoolError: what was decided is void; the caller gets this instead.
        """


class _AtOnce:
    def settled(self) -> None:
        return None


AT_ONCE: Answering = _AtOnce()
"""Of a handler that keeps nothing."""


class RegistryHandler(Protocol):
    """What a registry answers; lists from several threads at once, all else from one.

    None of them may wait for anything but a lock.
    """

    def begin(self) -> Answering:
        """A call comes in: called before ``admit``."""

    def admit(self, call: Call) -> Any:
        """The request as its caller may make it, or a ``PoolError``."""

    def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """A node offers its devices."""

    def heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatReply:
        """A node is alive."""

    def acquire(self, request: pb.AcquireRequest) -> pb.Lease:
        """A client asks for a slice."""

    def acquire_group(self, request: pb.AcquireGroupRequest) -> pb.LeaseGroup:
        """A client asks for slices of several devices."""

    def cancel(self, request: pb.CancelRequest) -> pb.CancelReply:
        """A client leaves the queue."""

    def renew(self, request: pb.RenewRequest) -> pb.Lease:
        """A lease's holder is alive."""

    def release(self, request: pb.ReleaseRequest) -> pb.ReleaseReply:
        """A lease's holder is done."""

    def list_nodes(self, request: pb.ListNodesRequest) -> pb.ListNodesReply:
        """All nodes."""

    def list_devices(self, request: pb.ListDevicesRequest) -> pb.ListDevicesReply:
        """All devices."""

    def list_leases(self, request: pb.ListLeasesRequest) -> pb.ListLeasesReply:
        """All live leases."""

    def resize(self, request: pb.ResizeRequest) -> pb.ResizeReply:
        """An admin changes a running job's slice."""

    def unexpected(self, error: Exception) -> None:
        """A call failed for a reason that is a bug: log it, with its traceback."""


class AdminHandler(Protocol):
    """What a registry answers admins. Called from several threads at once."""

    def list_queue(self, request: admin.ListQueueRequest) -> admin.ListQueueReply:
        """All that wait."""

    def list_tenants(self, request: admin.ListTenantsRequest) -> admin.ListTenantsReply:
        """All that hold something, wait or are known."""

    def set_tenant(self, request: admin.Tenant) -> admin.SetTenantReply:
        """Decide on a tenant."""

    def remove_tenant(
        self, request: admin.RemoveTenantRequest
    ) -> admin.RemoveTenantReply:
        """Forget what was decided."""

    def cordon(self, request: admin.CordonRequest) -> admin.CordonReply:
        """No new leases for a node."""

    def uncordon(self, request: admin.UncordonRequest) -> admin.CordonReply:
        """New leases again."""

    def forget(self, request: admin.ForgetRequest) -> admin.ForgetReply:
        """A silent node without leases is listed no more."""

    def evict(self, request: admin.EvictRequest) -> admin.EvictReply:
        """Take a lease from its holder."""

    def explain(self, request: admin.ExplainRequest) -> admin.Explanation:
        """Why a lease is where it is, or why a request waits."""

    def what_if(self, request: pb.AcquireGroupRequest) -> admin.Explanation:
        """What a request would get."""

    def list_events(self, request: admin.ListEventsRequest) -> admin.ListEventsReply:
        """What has happened."""

    def list_usage(self, request: admin.ListUsageRequest) -> admin.ListUsageReply:
        """Who has used how much."""

    def create_token(self, request: admin.CreateTokenRequest) -> admin.CreateTokenReply:
        """Make a token."""

    def list_tokens(self, request: admin.ListTokensRequest) -> admin.ListTokensReply:
        """Those that are not revoked."""

    def revoke_token(self, request: admin.RevokeTokenRequest) -> admin.RevokeTokenReply:
        """Good for nothing from now on."""
