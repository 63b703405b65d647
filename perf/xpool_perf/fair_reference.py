"""What fair shares a day of jobs allows: a scheduler that forgets and promises nothing.

A tenant that asks for nothing until the evening cannot have its part of the day, since
a device that stands idle is worth nothing to anybody. So the registry's shares are held
against those of a scheduler with the same jobs on the same devices, which knows as
little of the future: whatever is free goes at once to the tenant that is furthest
behind its weight, by all that it has used since the day began. It shares no code with
the registry.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Mapping, Sequence

from xpool_perf.simulated_day import DAY_S, DEVICES, NODES, Job

_WHOLE = 100


def within_reach(jobs: Sequence[Job], weights: Mapping[str, float]) -> dict[str, float]:
    """Device seconds of each tenant within the day.

    Args:
        jobs: each on one device.
        weights: of all tenants.
    """
    day = _Reference(weights)
    arrivals = deque(sorted(jobs, key=lambda job: job.at_s))
    while day.now_s < DAY_S:
        next_s = min(arrivals[0].at_s if arrivals else DAY_S, day.next_end_s, DAY_S)
        day.advance(next_s)
        while arrivals and arrivals[0].at_s <= day.now_s:
            job = arrivals.popleft()
            day.waiting[job.tenant].append(job)
        day.start_all()
    return day.used


class _Reference:
    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._free = [_WHOLE] * (NODES * DEVICES)
        self._held = dict.fromkeys(weights, 0.0)
        self._running: list[tuple[float, int, Job, int]] = []
        self._numbers = itertools.count()
        self.now_s = 0.0
        self.used = dict.fromkeys(weights, 0.0)
        self.waiting: dict[str, deque[Job]] = {name: deque() for name in weights}

    @property
    def next_end_s(self) -> float:
        return self._running[0][0] if self._running else DAY_S

    def advance(self, to_s: float) -> None:
        """Let time pass, and jobs end that are over by then."""
        for name, held in self._held.items():
            self.used[name] += held * (to_s - self.now_s)
        self.now_s = to_s
        while self._running and self._running[0][0] <= to_s:
            _, _, job, device = heapq.heappop(self._running)
            self._free[device] += job.share_percent
            self._held[job.tenant] -= job.share_percent / _WHOLE

    def start_all(self) -> None:
        """Who is furthest behind is first, until nobody's next job fits."""
        able = {name for name, jobs in self.waiting.items() if jobs}
        while able:
            name = min(
                sorted(able), key=lambda one: self.used[one] / self._weights[one]
            )
            if not self._started(self.waiting[name][0]):
                able.discard(name)
                continue
            self.waiting[name].popleft()
            if not self.waiting[name]:
                able.discard(name)

    def _started(self, job: Job) -> bool:
        fitting = [
            (free, device)
            for device, free in enumerate(self._free)
            if free >= job.share_percent
        ]
        if not fitting:
            return False
        _, device = min(fitting)
        self._free[device] -= job.share_percent
        self._held[job.tenant] += job.share_percent / _WHOLE
        end = (self.now_s + job.length_s, next(self._numbers), job, device)
        heapq.heappush(self._running, end)
        return True
