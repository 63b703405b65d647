"""Names that a shell completes: leases, requests, nodes, tenants, tokens of the pool.

A registry that does not answer quickly, or not to this caller, completes nothing: the
user's line must neither wait nor fill with complaints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import typer
from xpool_protocol.errors import PoolError

if TYPE_CHECKING:
    from xpool_protocol.control.admin_rpc import AdminClient

TIMEOUT_S: Final = 0.7
"""Longer, and a person believes that the terminal hangs."""

Completion = Callable[[typer.Context, str], list[tuple[str, str]]]


def _completed_by(
    names: Callable[[AdminClient], Iterator[tuple[str, str]]],
) -> Completion:
    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        from xpool_registry.cli import DEFAULT_REGISTRY, quiet_grpc

        quiet_grpc()
        from xpool_protocol.control.admin_rpc import AdminClient

        address = (
            ctx.params.get("registry_address")
            or os.environ.get("XPOOL_REGISTRY")
            or DEFAULT_REGISTRY
        )
        try:
            with AdminClient(str(address), timeout_s=TIMEOUT_S) as client:
                found = dict(names(client))
        except PoolError:  # nothing to offer; the command itself will say why
            return []
        return sorted(one for one in found.items() if one[0].startswith(incomplete))

    return complete


def _leases(client: AdminClient) -> Iterator[tuple[str, str]]:
    for info in client.list_leases():
        lease = info.lease
        where = f"{lease.node_name}/{lease.device_index}"
        yield lease.lease_id, f"{info.tenant}, {lease.share_percent}% of {where}"


def _requests(client: AdminClient) -> Iterator[tuple[str, str]]:
    yield from _leases(client)
    for one in client.list_queue():
        yield one.request_id, f"{one.tenant}, waits"


def _nodes(client: AdminClient) -> Iterator[tuple[str, str]]:
    for info in client.list_nodes():
        yield info.node_name, f"{info.lease_count} leases"


def _tenants(client: AdminClient) -> Iterator[tuple[str, str]]:
    for info in client.list_tenants():
        yield info.tenant.name, f"{info.lease_count} leases"


def _tokens(client: AdminClient) -> Iterator[tuple[str, str]]:
    for one in client.list_tokens():
        yield one.token_id, f"{one.role} {one.name}".strip()


leases: Final = _completed_by(_leases)
leases_and_requests: Final = _completed_by(_requests)
nodes: Final = _completed_by(_nodes)
tenants: Final = _completed_by(_tenants)
tokens: Final = _completed_by(_tokens)
