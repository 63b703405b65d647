"""What ``xpool admin`` prints: one listing as a table for people or as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient
from xpool_protocol.quantities import text_from_nbytes

from xpool_registry.ages import age

Row = tuple[str, ...]
Figures = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The same facts twice: rows that fit a terminal, figures for programs."""

    columns: tuple[str, ...]
    """A leading ``>`` sets a column to the right, for figures; a ``=`` marks a name
    that is to be copied. Neither is broken into lines."""

    rows: list[Row]
    figures: list[Figures]
    empty: str
    """What to say instead of a table without rows."""


def text_of(listing: Listing, *, as_json: bool) -> str:
    """The listing, ready to print; long values are folded, never cut."""
    if as_json:
        return json.dumps(listing.figures, indent=2)
    if not listing.rows:
        return listing.empty
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in listing.columns:
        is_right = name.startswith(">")
        table.add_column(
            name.lstrip(">="),
            justify="right" if is_right else "left",
            overflow="fold",
            no_wrap=name.startswith((">", "=")),
        )
    for row in listing.rows:
        # As Text: a tenant called "[red]" is a name, not markup.
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=StringIO(), width=max(80, Console().width))
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def nodes_listing(client: RegistryClient) -> Listing:
    """The servers that joined."""
    nodes = client.list_nodes()
    return Listing(
        columns=("node", "state", "address", ">devices", ">leases", ">heard"),
        rows=[
            (
                node.node_name,
                _state_of(node.alive, node.closed),
                node.address,
                str(node.device_count),
                str(node.lease_count),
                f"{age(node.heard_ms_ago / 1000)} ago",
            )
            for node in nodes
        ],
        figures=[
            {
                "node_name": node.node_name,
                "boot_id": node.boot_id,
                "address": node.address,
                "version": node.version,
                "alive": node.alive,
                "closed": node.closed or None,
                "heard_ms_ago": node.heard_ms_ago,
                "device_count": node.device_count,
                "lease_count": node.lease_count,
            }
            for node in nodes
        ],
        empty='no server has joined yet: start one with "xpool server"',
    )


def devices_listing(client: RegistryClient) -> Listing:
    """The devices and what is free on them."""
    closed = {node.node_name: node.closed for node in client.list_nodes()}
    devices = client.list_devices()
    return Listing(
        columns=(
            "device",
            "kind",
            "state",
            ">free",
            ">free memory",
            ">leases",
            ">busy",
        ),
        rows=[
            (
                f"{info.node_name}/{info.device.index}",
                info.device.kind,
                _state_of(info.alive, closed.get(info.node_name, "")),
                f"{info.free_share_percent}%",
                f"{text_from_nbytes(info.free_memory_nbytes)} of"
                f" {text_from_nbytes(info.device.memory_nbytes)}",
                str(info.lease_count),
                f"{info.load.busy_percent:.0f}%" if info.HasField("load") else "-",
            )
            for info in devices
        ],
        figures=[
            _device_figures(info) | {"closed": closed.get(info.node_name) or None}
            for info in devices
        ],
        empty='no server has joined yet: start one with "xpool server"',
    )


def leases_listing(client: RegistryClient) -> Listing:
    """The live leases and their sessions."""
    leases = client.list_leases()
    now_s = time.time_ns() / 1e9
    group = ("group",) if any(info.lease.group_id for info in leases) else ()
    figures = (">share", ">memory", "session", ">age")
    return Listing(
        columns=("=lease", *group, "tenant", "device", *figures),
        rows=[
            (
                info.lease.lease_id,
                # Enough to find the lease that the group is named after.
                *([info.lease.group_id[:4] or "-"] if group else []),
                info.tenant,
                f"{info.lease.node_name}/{info.lease.device_index}",
                # What may be exceeded when others are idle is the usual case.
                f"{info.lease.share_percent}%"
                + (" capped" if info.lease.mode == "capped" else ""),
                text_from_nbytes(info.lease.memory_nbytes),
                info.session.state if info.HasField("session") else "-",
                age(now_s - info.granted_at_s),
            )
            for info in leases
        ],
        figures=[_lease_figures(info) for info in leases],
        empty="nobody has a lease",
    )


def _device_figures(info: pb.DeviceInfo) -> Figures:
    load = info.load if info.HasField("load") else None
    return {
        "node_name": info.node_name,
        "device_index": info.device.index,
        "kind": info.device.kind,
        "name": info.device.name,
        "alive": info.alive,
        "memory_nbytes": info.device.memory_nbytes,
        "free_memory_nbytes": info.free_memory_nbytes,
        "free_share_percent": info.free_share_percent,
        "lease_count": info.lease_count,
        "used_nbytes": load.used_nbytes if load else None,
        "busy_percent": load.busy_percent if load else None,
        "session_count": load.session_count if load else None,
    }


def _lease_figures(info: pb.LeaseInfo) -> Figures:
    lease = info.lease
    session = info.session if info.HasField("session") else None
    return {
        "lease_id": lease.lease_id,
        "group_id": lease.group_id or None,
        "epoch": lease.epoch,
        "tenant": info.tenant,
        "client": info.client,
        "node_name": lease.node_name,
        "address": lease.address,
        "device_index": lease.device_index,
        "device_kind": lease.device_kind,
        "device_name": lease.device_name,
        "share_percent": lease.share_percent,
        "memory_nbytes": lease.memory_nbytes,
        "mode": lease.mode,
        "priority": lease.priority or "normal",
        "limit_ms": lease.limit_ms or None,
        "notice": lease.notice or None,
        "leaves_in_ms": lease.leaves_in_ms if lease.notice else None,
        "ttl_ms": lease.ttl_ms,
        "expires_in_ms": lease.expires_in_ms,
        "granted_at_s": info.granted_at_s,
        "session_state": session.state if session else None,
        "executed_ops": session.executed_ops if session else None,
        "allocated_nbytes": session.allocated_nbytes if session else None,
        "received_nbytes": session.received_nbytes if session else None,
        "sent_nbytes": session.sent_nbytes if session else None,
        "device_ns": session.device_ns if session else None,
        "waiting_ns": session.waiting_ns if session else None,
        "held_ns": session.held_ns if session else None,
        "got_percent": session.got_percent if session else None,
    }


def _state_of(alive: bool, closed: str = "") -> str:
    if not alive:
        return "silent"
    return closed.partition(":")[0] or "alive"
