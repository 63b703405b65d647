"""``xpool admin top``: who uses what of the pool's devices, now.

A row is a lease. What it got and how long it waited are taken between two looks; the
first look has the server's own figure, over the last ten seconds.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.rpc import RegistryClient
from xpool_protocol.quantities import text_from_nbytes

from xpool_registry.admin import Figures


@dataclass(frozen=True, slots=True)
class Row:
    """One lease at one look."""

    lease_id: str
    tenant: str
    device: str
    promised_percent: int
    mode: str
    priority: str
    got_percent: float | None
    """Of the device's time; None: its server has said nothing."""

    waiting_percent: float | None
    """Of the time: it had work and waited for its turn."""

    allocated_nbytes: int | None
    memory_nbytes: int
    executed_ops: int | None
    longest_hold_ms: float | None
    state: str

    def figures(self) -> Figures:
        """For programs."""
        return {name: getattr(self, name) for name in self.__slots__}


class Looks:
    """Turns what the registry lists into rows; remembers the look before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, pb.SessionReport]] = {}

    def rows(self, leases: Sequence[pb.LeaseInfo], now_s: float) -> list[Row]:
        """One row for each lease, by device and then by share.

        Args:
            leases: as the registry lists them.
            now_s: a monotonic clock.
        """
        rows = [self._row(info, now_s) for info in leases]
        self._before = {
            info.lease.lease_id: self._mark(info, now_s)
            for info in leases
            if info.HasField("session")
        }
        return sorted(rows, key=lambda row: (row.device, -row.promised_percent))

    def _mark(self, info: pb.LeaseInfo, now_s: float) -> tuple[float, pb.SessionReport]:
        """The look that the next one is compared with: the last with news."""
        known = self._before.get(info.lease.lease_id)
        if known is not None and known[1] == info.session:
            return known
        return now_s, info.session

    def _row(self, info: pb.LeaseInfo, now_s: float) -> Row:
        lease = info.lease
        session = info.session if info.HasField("session") else None
        got, waiting = self._rates(session, now_s)
        return Row(
            lease_id=lease.lease_id,
            tenant=info.tenant,
            device=f"{lease.node_name}/{lease.device_index}",
            promised_percent=lease.share_percent,
            mode=lease.mode,
            priority=lease.priority or "normal",
            got_percent=got,
            waiting_percent=waiting,
            allocated_nbytes=session.allocated_nbytes if session else None,
            memory_nbytes=lease.memory_nbytes,
            executed_ops=session.executed_ops if session else None,
            longest_hold_ms=session.longest_hold_ns / 1e6 if session else None,
            state=session.state if session else "-",
        )

    def _rates(
        self, session: pb.SessionReport | None, now_s: float
    ) -> tuple[float | None, float | None]:
        if session is None:
            return None, None
        before = self._before.get(session.lease_id)
        if before is None or before[1] == session or now_s <= before[0]:
            return session.got_percent, None
        elapsed_ns = 1e9 * (now_s - before[0])
        waited_ns = session.waiting_ns - before[1].waiting_ns
        waiting = min(100.0, max(0.0, 100 * waited_ns / elapsed_ns))
        return session.got_percent, waiting


def table_from_rows(rows: Sequence[Row]) -> Table:
    """The rows for people, in 80 columns; names are folded, ids and figures never."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("lease", no_wrap=True)
    for name in ("tenant", "device"):
        table.add_column(name, overflow="fold")
    for name in ("share", "got", "waits", "memory", "ops", "held"):
        table.add_column(name, justify="right", no_wrap=True)
    # All the others' are open.
    has_states = any(row.state not in ("open", "-") for row in rows)
    if has_states:
        table.add_column("state", no_wrap=True)
    for row in rows:
        mode = "" if row.mode == "elastic" else f" {row.mode}"
        table.add_row(
            Text(row.lease_id),
            Text(row.tenant),
            Text(row.device),
            f"{row.promised_percent}%{mode}",
            _percent(row.got_percent),
            _percent(row.waiting_percent),
            _memory(row.allocated_nbytes, row.memory_nbytes),
            _count(row.executed_ops),
            _hold(row.longest_hold_ms),
            *([Text(row.state)] if has_states else []),
        )
    return table


def _memory(used_nbytes: int | None, quota_nbytes: int) -> str:
    """How much of the quota is used.

    >>> _memory(1 << 29, 1 << 30), _memory(None, 1 << 30)
    ('50% of 1 GiB', '- of 1 GiB')
    """
    quota = text_from_nbytes(quota_nbytes)
    if used_nbytes is None:
        return f"- of {quota}"
    return f"{100 * used_nbytes / max(1, quota_nbytes):.0f}% of {quota}"


def _count(number: int | None) -> str:
    """A number in few digits.

    >>> [_count(n) for n in (None, 0, 9_999, 12_345, 1_234_567, 5_600_000_000)]
    ['-', '0', '9,999', '12k', '1.2M', '5.6G']
    """
    if number is None:
        return "-"
    if number < 10_000:
        return f"{number:,}"
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number / 1000:.0f}k"


def _hold(ms: float | None) -> str:
    """How long an operation of it has kept others waiting, at most."""
    if ms is None:
        return "-"
    return f"{ms:.0f}ms" if ms < 1000 else f"{ms / 1000:.1f}s"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}%"


def watch(
    client: RegistryClient, *, once: bool, as_json: bool, interval_s: float
) -> None:
    """Look again and again, or once."""
    looks = Looks()

    def rows() -> list[Row]:
        return looks.rows(client.list_leases(), time.monotonic())

    if as_json:
        while True:
            sys.stdout.write(json.dumps([row.figures() for row in rows()]) + "\n")
            sys.stdout.flush()
            if once:
                return
            time.sleep(interval_s)
    console = Console()
    if once:
        found = rows()
        console.print(table_from_rows(found) if found else "nobody has a lease")
        return
    with contextlib.suppress(KeyboardInterrupt), Live(console=console) as live:
        while True:
            live.update(table_from_rows(rows()))
            time.sleep(interval_s)
