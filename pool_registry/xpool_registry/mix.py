"""The mix of requests that a pool has seen lately, for the fragmentation policy."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from xpool_registry.demand import Demand
from xpool_registry.fleet import Bools, Fleet, Ints
from xpool_registry.policies import BestFit, DemandClass, Fragmentation, Ranking

REMEMBERED: Final = 2000
"""Requests; older ones are forgotten, so that the mix follows the users."""

MIN_REQUESTS: Final = 50
"""With fewer the mix is chance, and the best fit is what is left."""

RENEWED_EVERY: Final = 200
"""Requests between two new mixes: a new one costs a look at the whole fleet."""

COVERED: Final = 0.95
"""Rare forms are left out: they would only blur what is usual (ADR 0043)."""


class Mix:
    """Counts forms of requests."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, int]] = deque()
        self._forms: Counter[tuple[int, int]] = Counter()
        self._since = 0

    def add(self, demand: Demand) -> bool:
        """Note one request; whether ``classes`` should be asked for again."""
        form = (demand.device_count, demand.share_milli)
        self._recent.append(form)
        self._forms[form] += 1
        if len(self._recent) > REMEMBERED:
            oldest = self._recent.popleft()
            self._forms[oldest] -= 1
            if not self._forms[oldest]:
                del self._forms[oldest]
        self._since += 1
        is_due = len(self._recent) == MIN_REQUESTS or self._since >= RENEWED_EVERY
        if is_due:
            self._since = 0
        return is_due and len(self._recent) >= MIN_REQUESTS

    @property
    def forms(self) -> tuple[tuple[int, int], ...]:
        """Devices and thousandths of each, of the requests remembered, in order."""
        return tuple(self._recent)

    def classes(self) -> list[DemandClass]:
        """The most frequent forms, until they cover ``COVERED`` of the requests."""
        total, covered = self._forms.total(), 0
        classes = []
        for (count, share), weight in self._forms.most_common():
            if covered >= COVERED * total:
                break
            classes.append(DemandClass(count, share, weight))
            covered += weight
        return classes


class Learning:
    """Best fit until the mix of requests is known, then fragmentation."""

    name = "auto"

    def __init__(self) -> None:
        self._mix = Mix()
        self._best_fit = BestFit()
        self._fragmentation: Fragmentation | None = None

    @property
    def epoch(self) -> int:
        """See ``Policy``."""
        return self._fragmentation.epoch if self._fragmentation else 0

    @property
    def word(self) -> str:
        """The policy that decides now, for people."""
        return self._fragmentation.name if self._fragmentation else self._best_fit.name

    def learn(self, demand: Demand) -> None:
        """Note one request that was granted."""
        if not self._mix.add(demand):
            return
        if self._fragmentation is None:
            self._fragmentation = Fragmentation(self._mix.classes())
        else:
            self._fragmentation.set_mix(self._mix.classes())

    @property
    def forms(self) -> tuple[tuple[int, int], ...]:
        """See ``Mix``."""
        return self._mix.forms

    def relearn(self, demands: Iterable[Demand]) -> None:
        """Forget all, and note these."""
        self._mix, self._fragmentation = Mix(), None
        for demand in demands:
            self.learn(demand)

    def rank(
        self, fleet: Fleet, demand: Demand, rows: Ints, allowed: Bools | None
    ) -> Ranking:
        """See ``Policy``."""
        policy = self._fragmentation or self._best_fit
        return policy.rank(fleet, demand, rows, allowed)
