"""``xpool admin usage``: who has used how much, for people, programs and sheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from xpool_protocol.control import admin_pb2 as admin
from xpool_protocol.control.admin_rpc import AdminClient
from xpool_protocol.errors import UsageError

from xpool_registry.admin import Listing, Row
from xpool_registry.events import TenantSet
from xpool_registry.fairshare import rights

GIB = 1 << 30
_AGO = re.compile(r"(\d{1,6})\s*(h|d|w)", re.ASCII)
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


def moment_from_text(text: str, now_s: float) -> int:
    """Seconds since 1970 of ``24h``, ``7d`` or ``2w`` ago, or of a date or time.

    Args:
        text: a date without a zone is UTC.
        now_s: wall clock.

    Raises:
        UsageError: neither.

    >>> moment_from_text("2h", 10_000.0), moment_from_text("1970-01-02", 0.0)
    (2800, 86400)
    """
    if match := _AGO.fullmatch(text.strip()):
        return max(0, int(now_s) - int(match[1]) * _HOURS[match[2]] * 3600)
    if text.strip() == "now":
        return int(now_s) + 1
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{text!r} is no moment: write 24h, 7d or 2w for so long ago, or a date"
            " like 2026-01-31"
        ) from None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, int(zoned.timestamp()))


def usage_listing(client: AdminClient, since_s: int, until_s: int, by: str) -> Listing:
    """One row for each tenant, lease, node, device, hour or day."""
    usage = client.list_usage(since_s, until_s, by)
    right_of = _rights(client, usage) if by == "tenant" else {}
    total_s = sum(one.device_s for one in usage)
    figures = [_figures(one, by, total_s, right_of) for one in usage]
    is_time = by in ("hour", "day")
    columns = (by, ">device", ">of use", ">of right", ">booked", ">waited", ">memory")
    rows: list[Row] = [
        (
            _time_text(int(one.name), by) if is_time else one.name,
            duration_text(one.device_s),
            f"{100 * one.device_s / total_s:.1f}%" if total_s else "-",
            f"{right_of[one.name]:.1f}%" if one.name in right_of else "-",
            duration_text(one.booked_s),
            duration_text(one.waiting_s),
            f"{one.byte_s / GIB / 3600:.2f} GiBh",
        )
        for one in usage
    ]
    return Listing(
        columns=columns,
        rows=rows,
        figures=figures,
        empty="nobody has used anything in this time",
    )


def _rights(client: AdminClient, usage: Sequence[admin.Usage]) -> dict[str, float]:
    """What part each of them has a right to, in percent, were all to want it.

    All: who has used anything in the time, and whom the registry lists by now.
    """
    known = {
        info.tenant.name: TenantSet(
            name=info.tenant.name,
            parent=info.tenant.parent,
            weight=info.tenant.weight,
            at_s=0.0,
        )
        for info in client.list_tenants()
    }
    parts = rights(known, {*known, *(one.name for one in usage)})
    return {name: 100 * part for name, part in parts.items()}


def csv_from_listing(listing: Listing) -> str:
    """The figures as a sheet, with a line of names."""
    text = io.StringIO()
    if listing.figures:
        writer = csv.DictWriter(text, list(listing.figures[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listing.figures)
    return text.getvalue().rstrip("\n")


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds, as many as matter.

    >>> [duration_text(s) for s in (0.4, 59.6, 3600, 100_000)]
    ['0.4 s', '59.6 s', '1:00 h', '27:46 h']
    """
    if seconds < 600:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes // 60}:{minutes % 60:02} h"


def _figures(
    one: admin.Usage, by: str, total_s: float, right_of: Mapping[str, float]
) -> dict[str, object]:
    is_time = by in ("hour", "day")
    return {
        by: _time_text(int(one.name), by) if is_time else one.name,
        "tenant": one.tenant,
        "device_s": round(one.device_s, 3),
        "use_percent": round(100 * one.device_s / total_s, 2) if total_s else 0.0,
        "right_percent": round(right_of[one.name], 2) if one.name in right_of else None,
        "booked_s": round(one.booked_s, 3),
        "waiting_s": round(one.waiting_s, 3),
        "gib_hours": round(one.byte_s / GIB / 3600, 6),
        "executed_ops": one.executed_ops,
        "received_nbytes": one.received_nbytes,
        "sent_nbytes": one.sent_nbytes,
        "seconds": one.seconds,
        "leases": one.lease_count,
    }


def _time_text(at_s: int, by: str) -> str:
    pattern = "%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:00"
    return datetime.fromtimestamp(at_s, UTC).strftime(pattern)
