"""Finds the best place for a demand, quickly and again and again.

For every form of demand the rank of each node is kept; a placement changes one row,
so the next demand of that form looks at the rows that have changed since, and not
at the whole fleet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from xpool_registry.demand import NO_DEVICE, Demand, Spot
from xpool_registry.fleet import Bools, Fleet, Ints
from xpool_registry.policies import CANNOT, Policy

MAX_FORMS: Final = 256
"""Forms of demand whose ranks are kept: 16 bytes for each node and form."""


@dataclass(slots=True)
class _Form:
    """What is known of every row for one form of demand."""

    allowed: Bools | None
    rank: Ints
    columns: Ints
    seen: int
    policy_epoch: int
    shape_epoch: int


class Placer:
    """A policy at work on one fleet."""

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        self.fleet = fleet
        self.policy = policy
        self._forms: dict[Demand, _Form] = {}

    def place(
        self,
        demand: Demand,
        may: Bools | None = None,
        without: Bools | None = None,
    ) -> list[Spot] | None:
        """The devices to take, in order; None if they are not free.

        Args:
            demand: what is to be placed; on as few nodes as can be.
            may: nodes that may be taken, shape ``(nodes,)``; None: those that are
                open.
            without: devices that are kept for others, shape ``(nodes, columns)``.
        """
        if not self.fleet.count:
            return None
        if demand.same_node and demand.device_count > self.fleet.columns:
            return None  # and no table so wide is made for it
        is_usable = self.fleet.is_open if may is None else self.fleet.is_open & may
        form = self._form(demand)
        spots = self._best(demand, form, is_usable)
        if spots is None or without is None or not any(without[s] for s in spots):
            return spots
        return self._best(demand, self._without(demand, form, without), is_usable)

    def candidate_count(self, demand: Demand, may: Bools) -> int:
        """How many open nodes can hold it all alone."""
        usable = self.fleet.is_open & may
        return int(np.count_nonzero(usable & (self._form(demand).rank >= 0)))

    def _best(self, demand: Demand, form: _Form, is_usable: Bools) -> list[Spot] | None:
        rank = np.where(is_usable, form.rank, CANNOT)
        row = int(rank.argmax())
        if rank[row] >= 0:
            if not demand.device_count:
                return [Spot(row, NO_DEVICE)]
            return [Spot(row, int(column)) for column in form.columns[row]]
        if demand.same_node or demand.device_count < 2:
            return None
        return self._spanning(demand, is_usable, form.allowed)

    def _without(self, demand: Demand, form: _Form, kept: Bools) -> _Form:
        """The demand's ranks where some devices may not be taken; not kept."""
        allowed = ~kept if form.allowed is None else form.allowed & ~kept
        rows = np.arange(self.fleet.count)
        ranking = self.policy.rank(self.fleet, demand, rows, allowed)
        return replace(
            form, allowed=allowed, rank=ranking.rank, columns=ranking.columns
        )

    def _form(self, demand: Demand) -> _Form:
        """The demand's ranks, brought up to date."""
        fleet, policy = self.fleet, self.policy
        form = self._forms.get(demand)
        changed: Ints | None = None
        if (
            form is not None
            and form.policy_epoch == policy.epoch
            and form.shape_epoch == fleet.shape_epoch
        ):
            changed = fleet.changed_since(form.seen)
        if form is None or changed is None:
            return self._new_form(demand)
        if len(changed):
            ranking = policy.rank(fleet, demand, changed, form.allowed)
            form.rank[changed] = ranking.rank
            form.columns[changed] = ranking.columns
            form.seen = fleet.log_end
        return form

    def _new_form(self, demand: Demand) -> _Form:
        fleet = self.fleet
        allowed = demand.mask(fleet)
        ranking = self.policy.rank(fleet, demand, np.arange(fleet.count), allowed)
        if demand not in self._forms and len(self._forms) >= MAX_FORMS:
            del self._forms[next(iter(self._forms))]
        self._forms[demand] = form = _Form(
            allowed=allowed,
            rank=ranking.rank,
            columns=ranking.columns,
            seen=fleet.log_end,
            policy_epoch=self.policy.epoch,
            shape_epoch=fleet.shape_epoch,
        )
        return form

    def _spanning(
        self, demand: Demand, is_usable: Bools, allowed: Bools | None
    ) -> list[Spot] | None:
        """Devices of several nodes: those with the most first, the last the smallest.

        Of nodes that suffice for what is still wanted, the one with the fewest
        fitting devices, then with the least left on those.
        """
        fleet = self.fleet
        fitting = demand.fits(fleet, slice(None), allowed) & is_usable[:, None]
        counts = fitting.sum(axis=1)
        if counts.sum() < demand.device_count:
            return None
        chosen: list[Spot] = []
        while len(chosen) < demand.device_count:
            wanted = demand.device_count - len(chosen)
            enough = np.flatnonzero(counts >= wanted)
            if len(enough):
                rows = [int(row) for row in enough]
                row = min(rows, key=lambda row: self._slack(row, fitting, wanted))
            else:
                row = int(counts.argmax())
            count = int(min(wanted, counts[row]))
            columns = self._columns(row, fitting, count)
            chosen += [Spot(row, int(column)) for column in columns]
            counts[row] = 0
        return chosen

    def _columns(self, row: int, fitting: Bools, count: int) -> Ints:
        free = np.where(fitting[row], self.fleet.free_milli[row], 1 << 40)
        return np.sort(free.argsort(kind="stable")[:count])

    def _slack(self, row: int, fitting: Bools, wanted: int) -> tuple[int, int]:
        columns = self._columns(row, fitting, wanted)
        left = self.fleet.free_milli[row, columns].sum()
        return int(fitting[row].sum()), int(left)
