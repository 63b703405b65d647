"""Whose turn it is: hierarchical dominant-resource fairness over decayed use.

A tenant's *dominant share* is the larger of its parts of the pool's devices and of
the pool's memory, each summed over time: what it held, which counts half as much after
each half-life, and what it holds now for an hour more. The hour keeps a tenant that was
away from taking all at once; were the present to count for more, who came first would
keep its lead. Groups of tenants share first, the tenants of a group share what the
group gets.

Source:
    Ghodsi et al., "Dominant Resource Fairness", NSDI 2011; Bhattacharya et al.,
    "Hierarchical Scheduling for Diverse Datacenter Workloads", SoCC 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from xpool_registry.events import TenantSet

MAX_DEPTH: Final = 8
"""Of groups in groups; a longer chain has a ring in it."""

AHEAD_S: Final = 3600.0
"""What is held counts as if it were held for so long yet: about a job's length."""


class Amount(NamedTuple):
    """Of both resources: thousandths of devices, and bytes of their memory."""

    milli: float = 0.0
    nbytes: float = 0.0

    def plus(self, other: Amount, factor: float = 1.0) -> Amount:
        """This and so much of the other."""
        return Amount(
            self.milli + factor * other.milli, self.nbytes + factor * other.nbytes
        )


@dataclass(slots=True)
class Book:
    """What one tenant holds and has held."""

    held: Amount = field(default_factory=Amount)
    recent: Amount = field(default_factory=Amount)
    """Mean of what was held, the past halving every half-life."""

    at_s: float = 0.0

    def advance(self, at_s: float, half_life_s: float) -> None:
        """Let time pass; a clock that went backwards lets none pass."""
        elapsed_s = at_s - self.at_s
        if self.at_s and elapsed_s > 0:
            kept = 0.5 ** (elapsed_s / half_life_s)
            self.recent = Amount(*(kept * one for one in self.recent)).plus(
                self.held, 1 - kept
            )
        self.at_s = max(at_s, self.at_s)

    @property
    def is_held(self) -> bool:
        """Whether it holds anything now."""
        return self.held.milli > 0 or self.held.nbytes > 0

    def change(self, amount: Amount, factor: float) -> None:
        """Hold so much more, or less with a negative factor."""
        self.held = self.held.plus(amount, factor)


class Past(NamedTuple):
    """How much the past weighs."""

    half_life_s: float = 7 * 24 * 3600.0
    seen_s: float = 0.0
    """How much of it there is: since the pool's first lease."""

    def share(self, now: float, past: float) -> float:
        """What is held and was held, as one part of a pool that is 1."""
        span_s = self.half_life_s / math.log(2)
        kept_s = span_s * (1 - math.exp2(-self.seen_s / self.half_life_s))
        return (AHEAD_S * now + span_s * past) / (AHEAD_S + kept_s)


Key = tuple[tuple[int, float, str], ...]
"""One entry for each level from the top; the smallest key is next."""


class Shares:
    """Who has how much, as of one moment; tentative changes are possible.

    Args:
        tenants: what is known of tenants and groups; others weigh 1.
        books: of the tenants, brought up to now.
        capacity: of the pool.
        past: how much what was held counts.
        refresh: brings the books up to now; called once, when somebody asks for a
            sum. Most requests meet no limit and compete with nobody.
    """

    def __init__(
        self,
        tenants: Mapping[str, TenantSet],
        books: Mapping[str, Book],
        capacity: Amount,
        past: Past = Past(),  # noqa: B008  immutable
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self.version = 0
        self._past = past
        self._tenants = tenants
        self._capacity = capacity
        self._books: Mapping[str, Book] = books
        self._refresh = refresh
        self._sums: tuple[dict[str, Amount], dict[str, Amount]] | None = None
        self._added: list[tuple[str, Amount]] = []

    def _summed(self) -> tuple[dict[str, Amount], dict[str, Amount]]:
        """What every tenant and group holds, and has held."""
        if self._sums is None:
            self._refresh()
            held: dict[str, Amount] = {}
            recent: dict[str, Amount] = {}
            for name, book in self._books.items():
                for one in self.chain(name):
                    held[one] = held.get(one, Amount()).plus(book.held)
                    recent[one] = recent.get(one, Amount()).plus(book.recent)
            for name, amount in self._added:
                for one in self.chain(name):
                    held[one] = held.get(one, Amount()).plus(amount)
            self._sums = held, recent
        return self._sums

    def chain(self, tenant: str) -> list[str]:
        """The tenant, its group, that one's group, and so on."""
        names = [tenant]
        while len(names) < MAX_DEPTH:
            known = self._tenants.get(names[-1])
            if known is None or not known.parent:
                break
            names.append(known.parent)
        return names

    def add(self, tenant: str, amount: Amount) -> None:
        """The tenant gets so much, for the keys to come."""
        self.version += 1
        if self._sums is None:
            self._added.append((tenant, amount))
            return
        held, _ = self._sums
        for name in self.chain(tenant):
            held[name] = held.get(name, Amount()).plus(amount)

    def held(self, name: str) -> Amount:
        """What a tenant or group holds."""
        return self._summed()[0].get(name, Amount())

    def dominant(self, name: str) -> float:
        """The dominant share of a tenant or group, 0 to 1."""
        held, recent = (sums.get(name, Amount()) for sums in self._summed())
        return max(
            self._past.share(now / total, past / total) if total else 0.0
            for now, past, total in zip(held, recent, self._capacity, strict=True)
        )

    def key(self, tenant: str) -> Key:
        """Its place in the order: the tenant with the smallest key is next."""
        return tuple(self._level(name) for name in reversed(self.chain(tenant)))

    def _level(self, name: str) -> tuple[int, float, str]:
        known = self._tenants.get(name)
        weight = known.weight if known else 1.0
        dominant = self.dominant(name)
        quota_milli = known.quota_percent * 10 if known else 0
        if quota_milli and self.held(name).milli < quota_milli and self._capacity.milli:
            # Below what it is guaranteed: before everybody who is not.
            return (0, dominant * self._capacity.milli / quota_milli, name)
        return (1, dominant / weight, name)

    def over_limit(self, tenant: str, amount: Amount) -> str:
        """Which limit that would break, for people; empty if none."""
        for name in self.chain(tenant):
            known = self._tenants.get(name)
            if known is None:
                continue
            after = self.held(name).plus(amount)
            if known.limit_percent and after.milli > known.limit_percent * 10:
                return (
                    f"{name} may hold {known.limit_percent}% of devices at once and"
                    f" holds {self.held(name).milli / 10:g}%"
                )
            if known.limit_nbytes and after.nbytes > known.limit_nbytes:
                return f"{name} may hold no more device memory at once"
        return ""


def rights(tenants: Mapping[str, TenantSet], names: Iterable[str]) -> dict[str, float]:
    """What part of the pool each tenant has a right to while all of them want it.

    Weights alone, level by level; guaranteed quotas come on top of it.
    """
    shares = Shares(tenants, {}, Amount())
    children: dict[str, set[str]] = {}
    for name in names:
        above = ""
        for one in reversed(shares.chain(name)):
            children.setdefault(above, set()).add(one)
            above = one
    result: dict[str, float] = {}

    def share_out(parent: str, part: float) -> None:
        below = children.get(parent, set())
        weights = {one: tenants[one].weight if one in tenants else 1.0 for one in below}
        for one, weight in weights.items():
            result[one] = part * weight / sum(weights.values())
            share_out(one, result[one])

    share_out("", 1.0)
    return result
