"""Who has used how much: what nodes measured, second by second, summed by the hour.

Pure. A node repeats its seconds until the registry has stored them; a second that a
lease has been charged for is not charged again. So nothing is lost and nothing counts
twice when a registry dies between hearing of a second and storing it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

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


class Totals(msgspec.Struct, frozen=True, gc=False):
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
                getattr(self, name) + getattr(other, name)
                for name in self.__struct_fields__
            )
        )


class Row(msgspec.Struct, frozen=True, gc=False):
    """What one lease used within one hour."""

    key: Key
    totals: Totals
    last_s: int
    """The last second that is in it."""


class RunningSum(Protocol):
    """What one lease has used within an hour so far."""

    key: Key
    device_s: float
    booked_s: float
    waiting_s: float
    byte_s: float


class _Sum:
    """A row that is still added to, many times a second in a large pool."""

    __slots__ = (
        *("booked_s", "byte_s", "device_s", "executed_ops", "holder", "is_changed"),
        *("key", "last_s"),
        *("received_nbytes", "seconds", "sent_nbytes", "waiting_s"),
    )

    def __init__(self, row: Row) -> None:
        totals = row.totals
        self.key, self.last_s = row.key, row.last_s
        self.holder: Holder | None = None
        self.is_changed = False
        self.device_s, self.booked_s = totals.device_s, totals.booked_s
        self.waiting_s, self.byte_s = totals.waiting_s, totals.byte_s
        self.executed_ops = totals.executed_ops
        self.received_nbytes = totals.received_nbytes
        self.sent_nbytes, self.seconds = totals.sent_nbytes, totals.seconds

    def add(self, second: Second, share_percent: int) -> None:
        at_s, device_ns, waiting_ns, ops, received, sent, allocated = second
        self.device_s += min(device_ns, MAX_SECOND_NS) / 1e9
        self.booked_s += share_percent / 100
        self.waiting_s += min(waiting_ns, MAX_SECOND_NS) / 1e9
        self.byte_s += allocated
        self.executed_ops += ops
        self.received_nbytes += received
        self.sent_nbytes += sent
        self.seconds += 1
        self.last_s = at_s

    def row(self) -> Row:
        totals = Totals(
            device_s=self.device_s,
            booked_s=self.booked_s,
            waiting_s=self.waiting_s,
            byte_s=self.byte_s,
            executed_ops=self.executed_ops,
            received_nbytes=self.received_nbytes,
            sent_nbytes=self.sent_nbytes,
            seconds=self.seconds,
        )
        return Row(self.key, totals, self.last_s)


class Ledger:
    """Charges seconds to hours. What is kept on disk is added to it beforehand."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._sums: dict[Key, _Sum] = {}
        #: Of each lease the row that it was charged to last.
        self._latest: dict[str, _Sum] = {}
        self._last_s: dict[str, int] = {}
        self._changed: dict[Key, _Sum] = {}
        for row in rows:
            self._sums[row.key] = _Sum(row)
            lease_id = row.key.lease_id
            self._last_s[lease_id] = max(self._last_s.get(lease_id, 0), row.last_s)

    def charge(self, holder: Holder, seconds: Sequence[Second], now_s: float) -> None:
        """Charge a lease for what is new of these seconds.

        Args:
            holder: whose they are.
            seconds: as its node reports them, oldest first.
            now_s: the registry's wall clock.
        """
        lease_id = holder.lease_id
        before_s = last_s = self._last_s.get(lease_id, -1)
        for second in seconds:
            if second.at_s > last_s:
                last_s = second.at_s
                self._add(holder, second, now_s)
        if last_s == before_s:
            return
        self._last_s.pop(lease_id, None)
        self._last_s[lease_id] = last_s
        while len(self._last_s) > MAX_LEASES:
            oldest = next(iter(self._last_s))
            del self._last_s[oldest]
            self._latest.pop(oldest, None)

    def last_s(self, lease_id: str) -> int:
        """The last second that a lease was charged for; -1: none is remembered."""
        return self._last_s.get(lease_id, -1)

    def rows(self) -> list[Row]:
        """All that are in memory."""
        return [one.row() for one in self._sums.values()]

    def running(self) -> list[RunningSum]:
        """What is in memory, and still added to."""
        return [*self._sums.values()]

    @property
    def changed_count(self) -> int:
        """How many ``take_changed`` would give."""
        return len(self._changed)

    def take_changed(self, at_most: int | None = None) -> list[Row]:
        """Rows that have changed since they were last taken; the longest ago first."""
        keys = list(itertools.islice(self._changed, at_most))
        taken = {key: self._changed.pop(key) for key in keys}
        for one in taken.values():
            one.is_changed = False
        return [taken[key].row() for key in sorted(taken)]

    def give_back(self, rows: Iterable[Row]) -> None:
        """These could not be kept: they are taken again."""
        for row in rows:
            one = self._sums[row.key]
            one.is_changed = True
            self._changed[row.key] = one

    def forget_before(self, hour_s: int) -> list[RunningSum]:
        """Drop rows of earlier hours that have been taken: the disk has them."""
        dropped: list[RunningSum] = []
        old = [key for key in self._sums if key.hour_s < hour_s]
        for key in old:
            if key not in self._changed:
                one = self._sums.pop(key)
                dropped.append(one)
                if self._latest.get(key.lease_id) is one:
                    del self._latest[key.lease_id]
        return dropped

    def _add(self, holder: Holder, second: Second, now_s: float) -> None:
        is_plausible = abs(second.at_s - now_s) <= MAX_CLOCK_ERROR_S
        at_s = second.at_s if is_plausible else int(now_s)
        hour_s = at_s // HOUR_S * HOUR_S
        one = self._latest.get(holder.lease_id)
        if one is None or one.key.hour_s != hour_s or one.holder is not holder:
            one = self._sum_of(holder, hour_s)
        one.add(second, holder.share_percent)
        if not one.is_changed:  # a key is five fields to hash
            one.is_changed = True
            self._changed[one.key] = one

    def _sum_of(self, holder: Holder, hour_s: int) -> _Sum:
        key = Key(
            hour_s=hour_s,
            lease_id=holder.lease_id,
            tenant=holder.tenant,
            node_name=holder.node_name,
            device_index=holder.device_index,
        )
        one = self._sums.get(key)
        if one is None:
            one = self._sums[key] = _Sum(Row(key, Totals(), 0))
        one.holder = holder
        self._latest[holder.lease_id] = one
        return one


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
