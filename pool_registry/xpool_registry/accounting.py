"""Who has used how much: what nodes measured, second by second, summed by the hour.

Pure. A node repeats its seconds until the registry has stored them; a second that a
lease has been charged for is not charged again. So nothing is lost and nothing counts
twice when a registry dies between hearing of a second and storing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple

HOUR_S: Final = 3600
MAX_CLOCK_ERROR_S: Final = HOUR_S
"""A node whose clock is further from the registry's is booked by the registry's."""

MAX_LEASES: Final = 100_000
"""Remembered, so that what comes twice is known; the oldest are forgotten first."""

MAX_SECOND_NS: Final = 1_000_000_000_000
"""Of device time in one second: a thousand devices' worth is a mistake."""


class Second(NamedTuple):
    """What one session used within one second, by its node."""

    at_s: int
    device_ns: int
    waiting_ns: int
    executed_ops: int
    received_nbytes: int
    sent_nbytes: int
    allocated_nbytes: int


class Holder(NamedTuple):
    """Whose seconds they are."""

    lease_id: str
    tenant: str
    node_name: str
    device_index: int
    share_percent: int


class Key(NamedTuple):
    """One row: a lease in an hour."""

    hour_s: int
    lease_id: str
    tenant: str
    node_name: str
    device_index: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What was used; sums of seconds."""

    device_s: float = 0.0
    booked_s: float = 0.0
    """Device time that the share promised while the session lived."""

    waiting_s: float = 0.0
    byte_s: float = 0.0
    """Device memory held, times how long."""

    executed_ops: int = 0
    received_nbytes: int = 0
    sent_nbytes: int = 0
    seconds: int = 0

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(
            *(
                getattr(self, one.name) + getattr(other, one.name)
                for one in fields(Totals)
            )
        )


@dataclass(frozen=True, slots=True)
class Row:
    """What one lease used within one hour."""

    key: Key
    totals: Totals
    last_s: int
    """The last second that is in it."""


class Ledger:
    """Charges seconds to hours. What is kept on disk is added to it beforehand."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[Key, Row] = {}
        self._last_s: dict[str, int] = {}
        self._changed: set[Key] = set()
        for row in rows:
            self._rows[row.key] = row
            lease_id = row.key.lease_id
            self._last_s[lease_id] = max(self._last_s.get(lease_id, 0), row.last_s)

    def charge(self, holder: Holder, seconds: Sequence[Second], now_s: float) -> None:
        """Charge a lease for what is new of these seconds.

        Args:
            holder: whose they are.
            seconds: as its node reports them, oldest first.
            now_s: the registry's wall clock.
        """
        for second in seconds:
            if second.at_s <= self._last_s.get(holder.lease_id, -1):
                continue
            self._last_s.pop(holder.lease_id, None)
            self._last_s[holder.lease_id] = second.at_s
            self._add(holder, second, now_s)
        while len(self._last_s) > MAX_LEASES:
            del self._last_s[next(iter(self._last_s))]

    def rows(self) -> list[Row]:
        """All that are in memory."""
        return list(self._rows.values())

    def take_changed(self) -> list[Row]:
        """Rows that have changed since they were last taken."""
        changed, self._changed = self._changed, set()
        return [self._rows[key] for key in sorted(changed)]

    def give_back(self, rows: Iterable[Row]) -> None:
        """These could not be kept: they are taken again."""
        self._changed |= {row.key for row in rows}

    def forget_before(self, hour_s: int) -> None:
        """Drop rows of earlier hours that have been taken: the disk has them."""
        old = [key for key in self._rows if key.hour_s < hour_s]
        for key in old:
            if key not in self._changed:
                del self._rows[key]

    def _add(self, holder: Holder, second: Second, now_s: float) -> None:
        is_plausible = abs(second.at_s - now_s) <= MAX_CLOCK_ERROR_S
        at_s = second.at_s if is_plausible else int(now_s)
        key = Key(
            hour_s=at_s // HOUR_S * HOUR_S,
            lease_id=holder.lease_id,
            tenant=holder.tenant,
            node_name=holder.node_name,
            device_index=holder.device_index,
        )
        row = self._rows.get(key) or Row(key, Totals(), 0)
        used = Totals(
            device_s=min(second.device_ns, MAX_SECOND_NS) / 1e9,
            booked_s=holder.share_percent / 100,
            waiting_s=min(second.waiting_ns, MAX_SECOND_NS) / 1e9,
            byte_s=float(second.allocated_nbytes),
            executed_ops=second.executed_ops,
            received_nbytes=second.received_nbytes,
            sent_nbytes=second.sent_nbytes,
            seconds=1,
        )
        self._rows[key] = replace(row, totals=row.totals.plus(used), last_s=second.at_s)
        self._changed.add(key)


GROUPS: Final[Mapping[str, Callable[[Key], str]]] = {
    "tenant": lambda key: key.tenant,
    "lease": lambda key: key.lease_id,
    "node": lambda key: key.node_name,
    "device": lambda key: f"{key.node_name}/{key.device_index}",
    "hour": lambda key: str(key.hour_s),
    "day": lambda key: str(key.hour_s // (24 * HOUR_S) * 24 * HOUR_S),
}
"""By what usage can be summed; of times their beginning in seconds since 1970."""


class Sum(NamedTuple):
    """One line of a listing."""

    name: str
    tenant: str
    """Of a lease; empty where several tenants are summed."""

    totals: Totals
    leases: int


def summed(rows: Iterable[Row], by: str) -> list[Sum]:
    """Totals by one of ``GROUPS``: times in order, all else by device time.

    Raises:
        KeyError: no such group.
    """
    name_of = GROUPS[by]
    totals: dict[str, Totals] = {}
    leases: dict[str, set[str]] = {}
    tenants: dict[str, set[str]] = {}
    for row in rows:
        name = name_of(row.key)
        totals[name] = totals.get(name, Totals()).plus(row.totals)
        leases.setdefault(name, set()).add(row.key.lease_id)
        tenants.setdefault(name, set()).add(row.key.tenant)
    sums = [
        Sum(
            name,
            next(iter(tenants[name])) if len(tenants[name]) == 1 else "",
            totals[name],
            len(leases[name]),
        )
        for name in totals
    ]
    if by in ("hour", "day"):
        return sorted(sums, key=lambda one: int(one.name))
    return sorted(sums, key=lambda one: (-one.totals.device_s, one.name))
